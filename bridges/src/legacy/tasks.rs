//! A legacy client's requests about tasks, taken to their answers: what it asks of the experimental tasks of 2025-11-25 is asked of a
//! server that has the tasks extension of the modern era.
//!
//! What the words of both eras have to do with each other is in `task`; what the doors keep themselves is in `ledger`.

use std::time::Duration;

use bus_schema::{
    RpcError,
    edit::Members,
    mcp::{meta, method, task as names},
    rpc::{self, Message},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Session,
    asking::{Askable, InputRequest},
    driving::{Parties, Round, Said},
    error,
    ledger::{Kept, Ledger, Owner},
    task::{
        client::{self, Augmentation, Standing},
        outcome::{Outcome, TaskDoor, outcome},
        with_related,
    },
    translate::{Declares, upgrade},
};
use crate::{
    front::{Final, Step},
    request::Incoming,
};

/// What a client may ask about tasks where it is offered them. There is no list: the modern era has none.
const METHODS: [&str; 3] = [method::TASKS_GET, method::TASKS_CANCEL, names::RESULT];
/// How long a client may wait in one request for what a task comes to; it may ask again.
const RESULT_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How many questions wait to be sent.
const MAX_UNSENT: usize = 64;

/// Whether a request is about a task, in a session that is offered tasks.
pub(super) fn is_about(session: &Session, called: &str) -> bool {
    session.dialect().has_tasks() && METHODS.contains(&called)
}

/// How the client wants a call to be a task; `None` for a plain call, and in a session that is not offered tasks.
pub(super) fn wanted(session: &Session, incoming: &Incoming) -> Option<Augmentation> {
    if !session.dialect().has_tasks() || incoming.method != method::TOOLS_CALL {
        return None;
    }
    let params = serde_json::from_slice(&incoming.body[incoming.params.clone()?]).ok()?;
    client::augmentation(params)
}

/// Makes a task of the answer that a server gave at once to a call which the client wants as one. An error stays one: no task was made.
pub(super) async fn keep(ledger: &Ledger, session: &Session, wanted: &Augmentation, answer: Bytes) -> Bytes {
    let Ok(Message {
        id: Some(id),
        result: Some(result),
        ..
    }) = Message::parse(&answer)
    else {
        return answer;
    };
    let kept = ledger.keep(owner(session), wanted, result.get()).await;
    let created = kept.and_then(|task| {
        let created = serde_json::from_str(&task).ok().and_then(client::created);
        created.ok_or_else(|| RpcError::internal("the task cannot be read"))
    });
    match created {
        Ok(created) => rpc::result_response(id.get(), created.as_bytes()).into(),
        Err(error) => rpc::error_response(Some(id.get()), &error).into(),
    }
}

fn owner(session: &Session) -> Owner<'_> {
    Owner {
        principal: &session.principal,
        endpoint: &session.endpoint,
    }
}

/// A request about a task on its way to its answer.
pub(super) struct Asking {
    /// What the task asks the client.
    questions: mpsc::Receiver<Bytes>,
    answer: BoxFuture<'static, Bytes>,
}

impl Asking {
    pub(super) fn begin(parties: Parties, incoming: Incoming) -> Self {
        let (sender, questions) = mpsc::channel(MAX_UNSENT);
        let answer = Box::pin(async move {
            let id = incoming.id.as_deref().unwrap_or("null");
            match answer(parties, sender, &incoming, id).await {
                Ok(body) => body,
                Err(error) => incoming.error(&error),
            }
        });
        Self { questions, answer }
    }

    /// Waits for what comes next; nothing comes after the answer.
    pub(super) async fn next(&mut self) -> Said {
        tokio::select! {
            biased;
            Some(question) = self.questions.recv() => Said::Question(question),
            answer = &mut self.answer => Said::Answer(answer),
        }
    }
}

async fn answer(
    parties: Parties,
    asks: mpsc::Sender<Bytes>,
    incoming: &Incoming,
    id: &str,
) -> Result<Bytes, RpcError> {
    let dialect = parties.session.dialect();
    let task = Task::of(parties, asks, incoming)?;
    let result = match incoming.method.as_str() {
        method::TASKS_GET => {
            let (told, standing) = task.look().await?;
            client::task(&told, standing).ok_or_else(unreadable)?
        }
        method::TASKS_CANCEL => task.cancel().await?,
        _ => {
            return Ok(match task.outcome().await? {
                Outcome::Result(result) => client::result(dialect, id, &result, &task.spelled),
                Outcome::Error(raw) => failed(id, &raw),
            });
        }
    };
    Ok(rpc::result_response(id, result.as_bytes()).into())
}

/// The response to `tasks/result` for a task that came to this error, which is JSON.
fn failed(id: &str, raw: &str) -> Bytes {
    let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{raw}}}"#));
    let code = serde_json::from_str::<RpcError>(raw).map_or(0, |error| error.code);
    error::downgrade(method::TOOLS_CALL, code, &body)
}

/// One task, and who has to do with it.
struct Task {
    parties: Parties,
    asks: mpsc::Sender<Bytes>,
    /// Its id.
    id: String,
    /// Its id as JSON.
    spelled: String,
}

impl Task {
    fn of(parties: Parties, asks: mpsc::Sender<Bytes>, incoming: &Incoming) -> Result<Self, RpcError> {
        let params = incoming.params.clone().map(|place| &incoming.body[place]);
        let params: Option<&RawValue> = params.and_then(|params| serde_json::from_slice(params).ok());
        let spelled = params
            .and_then(Members::of)
            .and_then(|params| params.get("taskId"));
        let id = spelled.and_then(meta::as_text);
        let (Some(spelled), Some(id)) = (spelled, id) else {
            return Err(RpcError::invalid_params(format!(
                "`{}` needs `params.taskId`, a string",
                incoming.method
            )));
        };
        Ok(Self {
            parties,
            asks,
            id: id.into_owned(),
            spelled: spelled.get().to_owned(),
        })
    }

    /// How it is doing, as a modern server tells.
    async fn look(&self) -> Result<(Box<RawValue>, Standing), RpcError> {
        let session = &self.parties.session;
        let (told, standing) = match self.parties.ledger.find(owner(session), &self.id).await? {
            Kept::Whole(told) => (told, Standing::AsTold),
            Kept::Cancelled => (self.ask_server(method::TASKS_GET).await?, Standing::Cancelled),
            Kept::Nothing => (self.ask_server(method::TASKS_GET).await?, Standing::AsTold),
        };
        let told = RawValue::from_string(told).map_err(|_| unreadable())?;
        Ok((told, standing))
    }

    /// Cancels it for good, whatever its server makes of that.
    async fn cancel(&self) -> Result<String, RpcError> {
        let (told, standing) = self.look().await?;
        let cancelled = client::cancelled(&told, standing)?;
        self.ask_server(method::TASKS_CANCEL).await?;
        let owner = owner(&self.parties.session);
        self.parties.ledger.cancel(owner, &self.id).await?;
        Ok(cancelled)
    }

    /// Waits for what it comes to, for as long as this door is there for its client.
    async fn outcome(&self) -> Result<Outcome, RpcError> {
        let goes_on = |why: &str| {
            Err(RpcError::internal(format!(
                "the task goes on, but {why}; ask again"
            )))
        };
        tokio::select! {
            outcome = timeout(RESULT_LIMIT, outcome(self, &self.spelled)) => {
                outcome.unwrap_or_else(|_| goes_on("one request does not wait for longer"))
            }
            () = self.parties.caller.ending.cancelled() => goes_on("this process ends"),
        }
    }

    async fn ask_server(&self, called: &str) -> Result<String, RpcError> {
        self.send(called, &client::params(&self.spelled)).await
    }

    /// Asks the server, and gives its result.
    async fn send(&self, called: &str, params: &str) -> Result<String, RpcError> {
        let quoted = rpc::quote(called);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":{quoted},"params":{params}}}"#);
        let plain = Incoming::read(body.into()).map_err(|refused| refused.error)?;
        let request = upgrade(&self.parties.session, plain, Declares::Tasks);
        let mut answering = self.parties.front.ask(&self.parties.caller, &request).await;
        loop {
            if let Step::Final(last) = answering.next().await {
                return result_of(called, &last);
            }
        }
    }
}

impl TaskDoor for Task {
    async fn ask(&self, called: &str, params: String) -> Result<String, RpcError> {
        if called != method::TASKS_GET {
            return self.send(called, &params).await;
        }
        match self.look().await? {
            (told, Standing::AsTold) => Ok(told.get().to_owned()),
            (told, Standing::Cancelled) => client::task(&told, Standing::Cancelled).ok_or_else(unreadable),
        }
    }

    async fn input(&self, requests: Vec<InputRequest>) -> Result<String, RpcError> {
        let session = &self.parties.session;
        let askable = Askable::of(&session.capabilities);
        let mut round = Round::default();
        for mut request in requests {
            request.params = with_related(&request.params, &self.spelled);
            round.put(&self.parties.questions, session, askable, request)?;
        }
        while let Some(question) = round.next_unsent() {
            let sent = self.asks.send(question).await;
            sent.map_err(|_| RpcError::internal("the client has gone"))?;
        }
        round.gather().await?;
        Ok(round.responses())
    }
}

/// The result in a server's answer, as JSON.
fn result_of(called: &str, last: &Final) -> Result<String, RpcError> {
    let body = match last.code {
        Some(code) => error::downgrade(called, code, &last.body),
        None => last.body.clone(),
    };
    let message = Message::parse(&body)?;
    match (message.result, message.error) {
        (Some(result), None) => Ok(result.get().to_owned()),
        (_, error) => {
            let read = error.and_then(|raw| serde_json::from_str(raw.get()).ok());
            Err(read.unwrap_or_else(unreadable))
        }
    }
}

fn unreadable() -> RpcError {
    RpcError::internal("what the server tells of the task cannot be read")
}
