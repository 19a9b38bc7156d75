//! One task of a server, held for the caller that it was handed to.
//!
//! It keeps the connection on which the server knows the task. What the server asks for the task waits in the call that it was made
//! of, and `tasks/result` is held open once the server waits for input, as that is where some servers ask. Once the task is known to
//! have ended, nothing of the server is needed any more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{
    RpcError,
    mcp::{error, method, task as names},
    rpc::{self, Message},
};
use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use crate::{
    legacy::task::{
        Status,
        server::{self, Detail},
    },
    upstream::{
        answer,
        asks::Asks,
        call::Call,
        edit::{Edits, Members},
        lanes::{Owner, Turn},
        link::Link,
        pending::{BusCall, Entry, Origin},
    },
};

use super::{ACKNOWLEDGED, MAX_TTL, unknown};

/// How long the question of a server is waited for that says that it waits for input.
const QUESTION_LIMIT: Duration = Duration::from_millis(250);

/// A task.
pub(super) struct Held {
    id: String,
    owner: Owner,
    since: Instant,
    link: Arc<Link>,
    /// The call that the task was made of.
    entry: Arc<Entry>,
    /// What the server calls it.
    params: Named,
    /// Held only to look or change.
    state: Mutex<State>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    task_id: String,
}

struct State {
    expires: Instant,
    course: Course,
}

enum Course {
    Open {
        /// It keeps the connection, and what the server asks.
        _call: Box<Call>,
        /// What the server has told last.
        told: Box<RawValue>,
        /// The request for its result.
        awaited: Option<Awaited>,
    },
    Ended {
        /// What its end is told as.
        end: String,
        was_told: bool,
    },
    /// The server does not know it any more.
    Lost,
}

/// A request of which each clone gets the answer; the line as it came.
type Awaited = Shared<BoxFuture<'static, Result<Bytes, RpcError>>>;

impl Held {
    /// A task that the server calls `upstream`, and the result that hands it over. `nested` and `flat` are the server's result and the
    /// same in modern words.
    pub(super) fn new(
        id: String,
        owner: Owner,
        mut call: Call,
        upstream: String,
        nested: &RawValue,
        flat: &str,
    ) -> (Self, String) {
        let since = Instant::now();
        let (result, ttl) = ours(flat, &id);
        call.ticket = None;
        call.wish = None;
        call.turn.as_mut().map(Turn::share);
        let task = Members::of(nested).and_then(|nested| nested.get("task"));
        let held = Self {
            owner,
            since,
            link: Arc::clone(call.link()),
            entry: Arc::clone(call.entry()),
            params: Named { task_id: upstream },
            state: Mutex::new(State {
                expires: since + ttl,
                course: Course::Open {
                    _call: Box::new(call),
                    told: task.unwrap_or(nested).to_owned(),
                    awaited: None,
                },
            }),
            id,
        };
        (held, result)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn expires(&self) -> Instant {
        self.state().expires
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state().course, Course::Ended { .. })
    }

    /// Whether it has ended, and its caller knows.
    pub(super) fn was_told(&self) -> bool {
        matches!(self.state().course, Course::Ended { was_told: true, .. })
    }

    /// Whether its server does not know it any more.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state().course, Course::Lost)
    }

    /// How it is doing, for its caller.
    ///
    /// # Errors
    /// The error for a caller whose server does not say.
    pub(super) async fn get(&self) -> Result<String, RpcError> {
        let told = self.look().await?;
        if let Course::Ended { was_told, .. } = &mut self.state().course {
            *was_told = true;
        }
        Ok(told)
    }

    /// How it is doing. When it has ended, the connection is needed no more.
    ///
    /// # Errors
    /// The error of a server that does not say.
    pub(super) async fn look(&self) -> Result<String, RpcError> {
        if let Course::Ended { end, .. } = &self.state().course {
            return Ok(end.clone());
        }
        let line = match self.ask(method::TASKS_GET).await {
            Ok(line) => line,
            Err(fault) => return self.broke_off(fault),
        };
        let told = self.told(&line)?;
        match Status::of(told) {
            Some(Status::Completed | Status::Failed) => self.tell_end(told).await,
            Some(Status::Cancelled) => self.end(&server::task(told, Detail::Nothing)?),
            status => {
                self.remember(told);
                if status == Some(Status::InputRequired) {
                    self.await_questions().await;
                }
                let requests = self.asks().filter(|asks| !asks.is_empty()).map(Asks::requests);
                let detail = requests.as_deref().map_or(Detail::Nothing, Detail::Inputs);
                Ok(self.in_our_words(&server::task(told, detail)?))
            }
        }
    }

    /// Gives the server answers to what it has asked. Those to nothing that is open are left out.
    ///
    /// # Errors
    /// The error for a caller whose answers cannot be used, or whose server is gone.
    pub(super) async fn update(&self, answers: &Members<'_>) -> Result<String, RpcError> {
        if let Some(asks) = self.asks() {
            asks.check(answers)?;
            self.link.answer_asks(asks.take_answered(answers)).await?;
        }
        Ok(ACKNOWLEDGED.to_owned())
    }

    /// Cancels it, as far as the server does so.
    ///
    /// # Errors
    /// The error for a caller whose server does not answer.
    pub(super) async fn cancel(&self) -> Result<String, RpcError> {
        if self.has_ended() {
            return Ok(ACKNOWLEDGED.to_owned());
        }
        let line = match self.ask(method::TASKS_CANCEL).await {
            Ok(line) => line,
            Err(fault) => return self.broke_off(fault).map(|_| ACKNOWLEDGED.to_owned()),
        };
        let message = Message::parse(&line)?;
        let Some(refusal) = message.error.map(answer::error_of) else {
            return Ok(ACKNOWLEDGED.to_owned());
        };
        match refusal.code {
            // It cancels nothing, and a caller may wish for it all the same.
            error::METHOD_NOT_FOUND => Ok(ACKNOWLEDGED.to_owned()),
            error::INVALID_PARAMS => {
                let line = self.ask(method::TASKS_GET).await?;
                server::cancelled(Err(&refusal), Some(self.told(&line)?)).map(str::to_owned)
            }
            _ => Err(refusal),
        }
    }

    async fn ask(&self, called: &str) -> Result<Bytes, RpcError> {
        self.link.ask_for_line(Origin::Room, called, &self.params).await
    }

    /// What the server tells of it.
    fn told<'a>(&self, line: &'a [u8]) -> Result<&'a RawValue, RpcError> {
        let message = Message::parse(line)?;
        if let Some(told) = message.result {
            return Ok(told);
        }
        let refusal = message.error.map_or_else(
            || RpcError::internal("the server's answer has no result"),
            answer::error_of,
        );
        if refusal.code != error::INVALID_PARAMS {
            return Err(refusal);
        }
        self.leave(Course::Lost);
        Err(unknown())
    }

    fn remember(&self, now: &RawValue) {
        if let Course::Open { told, .. } = &mut self.state().course {
            *told = now.to_owned();
        }
    }

    /// The connection may have ended, and the task with it.
    fn broke_off(&self, fault: RpcError) -> Result<String, RpcError> {
        if !self.link.pending.is_closed() {
            return Err(fault);
        }
        let last = match &self.state().course {
            Course::Open { told, .. } => told.clone(),
            Course::Ended { end, .. } => return Ok(end.clone()),
            Course::Lost => return Err(unknown()),
        };
        let error = serde_json::value::to_raw_value(&fault).map_err(|_| fault.clone())?;
        let failed = failed(&last).ok_or(fault)?;
        self.end(&server::task(&failed, Detail::Error(&error))?)
    }

    /// Tells what it has come to.
    async fn tell_end(&self, told: &RawValue) -> Result<String, RpcError> {
        // What was asked before the end may have been refused, as there was no result yet.
        let early = match self.running() {
            Some(early) => early.await.ok().filter(|line| has_result(line)),
            None => None,
        };
        let line = match early {
            Some(line) => line,
            None => match self.waiting_for_result().await {
                Ok(line) => line,
                Err(fault) => return self.broke_off(fault),
            },
        };
        let message = Message::parse(&line)?;
        let detail = match (message.result, message.error) {
            (Some(result), _) => Detail::Result(result),
            // A task that was completed has come to no error: the server cannot give its result now.
            (None, Some(error)) if Status::of(told) == Some(Status::Completed) => {
                return Err(answer::error_of(error));
            }
            (None, Some(error)) => Detail::Error(error),
            (None, None) => Detail::Nothing,
        };
        self.end(&server::task(told, detail)?)
    }

    /// Waits a moment for what the server wants to know.
    async fn await_questions(&self) {
        let Some(asks) = self.asks() else { return };
        let Some(awaited) = self.awaited() else { return };
        tokio::select! {
            biased;
            () = asks.any() => {}
            _ = awaited => {}
            () = sleep(QUESTION_LIMIT) => {}
        }
    }

    /// The request for its result; made when there is none, or when it was answered too early.
    fn awaited(&self) -> Option<Awaited> {
        let mut state = self.state();
        let Course::Open { awaited, .. } = &mut state.course else {
            return None;
        };
        let open = awaited.take().filter(|open| open.peek().is_none());
        let open = open.unwrap_or_else(|| self.waiting_for_result().shared());
        *awaited = Some(open.clone());
        Some(open)
    }

    fn running(&self) -> Option<Awaited> {
        match &self.state().course {
            Course::Open { awaited, .. } => awaited.clone(),
            Course::Ended { .. } | Course::Lost => None,
        }
    }

    fn waiting_for_result(&self) -> BoxFuture<'static, Result<Bytes, RpcError>> {
        let (link, entry, params) = (
            Arc::clone(&self.link),
            Arc::clone(&self.entry),
            self.params.clone(),
        );
        async move {
            link.ask_for_line(Origin::Task(entry), names::RESULT, &params)
                .await
        }
        .boxed()
    }

    /// It has ended, and from now on its end is told as that. The first end stays.
    fn end(&self, told: &str) -> Result<String, RpcError> {
        let end = self.in_our_words(told);
        let ended = Course::Ended {
            end: end.clone(),
            was_told: false,
        };
        match self.leave(ended) {
            Some(end) => Ok(end),
            None if self.is_lost() => Err(unknown()),
            None => Ok(end),
        }
    }

    /// Nothing of the server is needed any more. Gives the end that there was before.
    fn leave(&self, next: Course) -> Option<String> {
        self.entry.bus().map(BusCall::task_is_over);
        let open = {
            let mut state = self.state();
            match &state.course {
                Course::Open { .. } => std::mem::replace(&mut state.course, next),
                Course::Ended { end, .. } => return Some(end.clone()),
                Course::Lost => return None,
            }
        };
        // Outside of the lock, as it has much to tell.
        drop(open);
        None
    }

    /// A task as its caller knows it.
    fn in_our_words(&self, told: &str) -> String {
        let (told, ttl) = ours(told, &self.id);
        self.state().expires = self.since + ttl;
        told
    }

    fn asks(&self) -> Option<&Asks> {
        self.entry.bus().map(|call| &call.asks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_result(line: &[u8]) -> bool {
    Message::parse(line).is_ok_and(|message| message.result.is_some())
}

/// The same task, failed.
fn failed(told: &RawValue) -> Option<Box<RawValue>> {
    let members = Members::of(told)?;
    let mut edits = Edits::new(told.get().as_bytes());
    edits.replace(members.get("status")?.get(), "\"failed\"");
    RawValue::from_string(String::from_utf8(edits.apply()).ok()?).ok()
}

/// A modern task under the id that its caller knows, and for how long it is held. No task is held for good.
fn ours(task: &str, id: &str) -> (String, Duration) {
    let Some(members) = Members::read(task) else {
        return (task.to_owned(), MAX_TTL);
    };
    let mut edits = Edits::new(task.as_bytes());
    match members.get("taskId") {
        Some(theirs) => edits.replace(theirs.get(), rpc::quote(id)),
        None => edits.insert_first(task, &format!("\"taskId\":{}", rpc::quote(id))),
    }
    let spelled = members.get("ttlMs").map(RawValue::get);
    let said = spelled
        .and_then(|spelled| spelled.parse::<f64>().ok())
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok())
        .filter(|ttl| *ttl <= MAX_TTL);
    if let (Some(spelled), None) = (spelled, said) {
        edits.replace(spelled, MAX_TTL.as_millis().to_string());
    }
    let told = String::from_utf8_lossy(&edits.apply()).into_owned();
    (told, said.unwrap_or(MAX_TTL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_our_id_and_no_longer_life_than_it_is_held_for() {
        for (task, expected, seconds) in [
            (
                r#"{"resultType":"task","taskId":"t","ttlMs":60000,"x":1e400}"#,
                r#"{"resultType":"task","taskId":"ours","ttlMs":60000,"x":1e400}"#,
                60,
            ),
            (
                r#"{"taskId":"t","ttlMs":null}"#,
                r#"{"taskId":"ours","ttlMs":86400000}"#,
                86_400,
            ),
            (
                r#"{"taskId":"t","ttlMs":1e400}"#,
                r#"{"taskId":"ours","ttlMs":86400000}"#,
                86_400,
            ),
            (r#"{"ttlMs":-1}"#, r#"{"taskId":"ours","ttlMs":86400000}"#, 86_400),
        ] {
            let (told, ttl) = ours(task, "ours");
            assert_eq!((told.as_str(), ttl.as_secs()), (expected, seconds), "{task}");
        }
    }
}
