//! The workers for tasks of servers that know nothing of tasks: they make the call, in the name of whoever has made the task, and keep what
//! came of it.
//!
//! A worker has no state of its own, so any number of them share the work. One that dies is replaced, and the call is made again with the same
//! idempotency key, unless its server's calls are made once only.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bus_schema::{
    Body, ProtocolVersion, Request, RoutedState, RpcError, ServerId, mcp::method, rpc::Message,
    task::APPROVAL,
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Answer, Bus, CallError, Catalogue,
    blocks::Blocks,
    tasks::{
        Ended, Later, TaskContext, Work,
        hosted::{Came, STATE, came, outgoing, progress},
    },
    traffic::{Begun, Plan},
};

/// What the calls of workers say in place of a door.
const DOOR: &str = "worker";
/// The longest pause before a call is made again that never began.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How old a task may be whose call has never begun.
const GIVES_UP_MS: u64 = 24 * 60 * 60 * 1000;
/// The step by which it is known that a call was sent, where that matters.
const SENT: &str = "sent";

/// What makes calls for tasks.
pub struct Hosted {
    bus: Bus,
    /// Whose work stops.
    blocks: Blocks,
    /// What there is, of each tenant.
    catalogues: HashMap<String, Catalogue>,
}

impl Hosted {
    /// Works for these tenants.
    #[must_use]
    pub fn new(bus: Bus, blocks: Blocks, catalogues: HashMap<String, Catalogue>) -> Self {
        Self {
            bus,
            blocks,
            catalogues,
        }
    }

    /// Works on a task unless its caller is stopped, and no longer than until then.
    async fn work_unless_stopped(&self, task: &TaskContext) -> Result<Ended, RpcError> {
        tokio::select! {
            biased;
            () = self.blocks.stopped(task.principal()) => {
                Err(RpcError::invalid_request("the caller of the task is blocked"))
            }
            ended = self.work(task) => ended,
        }
    }

    async fn work(&self, task: &TaskContext) -> Result<Ended, RpcError> {
        let order = task.request();
        let Some(catalogue) = self.catalogues.get(&order.principal.tenant) else {
            return Ok(wait(
                task,
                "this process does not serve the task's tenant".to_owned(),
            ));
        };
        if let Some(answer) = task.answer(APPROVAL)
            && !is_yes(&answer.0)
        {
            return Err(RpcError::invalid_request("the call was not approved"));
        }
        let round = u32::try_from(task.asked().len()).unwrap_or(u32::MAX);
        let step = format!("call {round}");
        let sent = format!("{SENT} {round}");
        if task.at_most_once() {
            if task.resume(&sent)? == Some(true) {
                return Err(RpcError::internal(
                    "the process that made the call has ended; it may or may not have taken effect, and this server's calls are made once only",
                ));
            }
            task.checkpoint(&sent, &true).await?;
        }
        let state: Option<Box<serde_json::value::RawValue>> = task.resume(STATE)?;
        let key = task.idempotency_key(&step);
        let state = state.as_ref().map(|state| state.get());
        let body = outgoing(&order.body.0, &key, task.asked(), state)
            .ok_or_else(|| RpcError::invalid_request("the task's call is no request"))?;
        let request = Request {
            body: Body(body),
            protocol_version: ProtocolVersion::MODERN.to_string(),
            // Who asks is the task's caller, and by whom is told with it.
            door: DOOR.to_owned(),
            ..order.clone()
        };
        match self.call(task, catalogue, request).await {
            Ok(response) => self.came(task, &response, round).await,
            Err(error) if never_began(&error) => {
                if task.at_most_once() {
                    task.checkpoint(&sent, &false).await?;
                }
                if task.age_ms() > GIVES_UP_MS {
                    return Err(RpcError::internal(error.to_string()));
                }
                Ok(wait(task, error.to_string()))
            }
            Err(CallError::HostLost { .. } | CallError::Bus(_)) if !task.at_most_once() => {
                Ok(Ended::Later(Later {
                    after: pause(task),
                    why: "the server was lost while it worked on the call".to_owned(),
                    begun: true,
                }))
            }
            Err(error) => Err(RpcError::internal(error.to_string())),
        }
    }

    /// Makes the call, and tells how far it is.
    async fn call(
        &self,
        task: &TaskContext,
        catalogue: &Catalogue,
        request: Request,
    ) -> Result<Bytes, CallError> {
        let server: ServerId = request.server.parse().map_err(|_| CallError::NoResponders {
            server: request.server.clone(),
        })?;
        let snapshot = catalogue.directory().snapshot();
        let mut call = match parked_at(task) {
            Some(instance) => self.bus.call_instance(request, &instance),
            None => {
                let (called, principal) = (&request.method, &request.principal);
                let plan = Plan::new(&self.bus, &snapshot, &server, called, principal, Begun::Nowhere);
                let may = catalogue.may_be_done_again(&server, &plan, &request).await;
                plan.call(&self.bus, request, may.retry, None)
            }
        };
        loop {
            match call.next().await? {
                Answer::Part(part) => tell(task, &part),
                Answer::Final { body, .. } => return Ok(body),
            }
        }
    }

    async fn came(&self, task: &TaskContext, response: &[u8], round: u32) -> Result<Ended, RpcError> {
        match came(response, round + 1) {
            Came::Result(result) => Ok(Ended::Completed(result)),
            Came::Error(error) => Ok(Ended::Failed(error)),
            Came::Unreadable => Err(RpcError::internal("the server's answer is no JSON-RPC response")),
            Came::Asks { requests, state } => {
                let state: Box<serde_json::value::RawValue> = serde_json::value::RawValue::from_string(state)
                    .map_err(|_| RpcError::internal("the server's state is no JSON"))?;
                task.checkpoint(STATE, &state).await?;
                task.ask(requests, None).await
            }
        }
    }
}

impl Work for Hosted {
    fn run(self: Arc<Self>, task: TaskContext) -> BoxFuture<'static, Ended> {
        async move {
            match self.work_unless_stopped(&task).await {
                Ok(ended) => ended,
                Err(error) => Ended::error(&error),
            }
        }
        .boxed()
    }
}

/// What is told of progress becomes the task's own.
fn tell(task: &TaskContext, part: &[u8]) {
    let Ok(message) = Message::parse(part) else { return };
    if message.method.as_deref() != Some(method::PROGRESS) {
        return;
    }
    if let Some((note, fraction)) = progress(&message) {
        task.progress(note.unwrap_or_default(), fraction);
    }
}

/// Whether somebody has said yes, as a client answers a form.
fn is_yes(answer: &[u8]) -> bool {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    answer["action"] == "accept" && answer["content"]["approve"] == true
}

/// Whether a call did not reach its server.
fn never_began(error: &CallError) -> bool {
    matches!(error, CallError::NoResponders { .. } | CallError::Busy { .. })
}

/// The task is tried again when its server may be back.
fn wait(task: &TaskContext, why: String) -> Ended {
    Ended::Later(Later {
        after: pause(task),
        why,
        begun: false,
    })
}

fn pause(task: &TaskContext) -> Duration {
    let doubled = Duration::from_secs(1) * 2_u32.saturating_pow(task.attempt().saturating_sub(1).min(6));
    doubled.min(LONGEST_PAUSE)
}

/// The instance that holds the call whose question was answered.
fn parked_at(task: &TaskContext) -> Option<String> {
    let state: String = task.resume(STATE).ok().flatten()?;
    RoutedState::parse(&state).map(|state| state.instance.to_owned())
}
