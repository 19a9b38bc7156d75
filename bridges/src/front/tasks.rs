//! Tasks of the platform's own, for servers that know nothing of them: which calls become tasks, and what clients ask about those.
//!
//! A task belongs to its caller and to the endpoint that it was made on; to everybody else, and everywhere else, it is as unknown as one that is
//! not there. What a task does, its worker does (`actors/src/workers`), or this door while it has the call in hand ([`adopting`]).

mod adopting;
mod hearing;
mod waiting;

use std::collections::BTreeMap;

use bus_schema::{
    Body, Principal, ProtocolVersion, Request, RpcError, ServerCard, TraceContext,
    edit::Members,
    mcp::{meta, method},
    policy::Action,
    rpc::{self, Kind},
    task::{Approval, HOSTED, KEPT_MS, Mode, Order, Priority, Task, TaskId},
};
use runtime::{
    moment,
    tasks::{Kept, MAX_CALL_BYTES, TaskError, Tasks, created, new_id, place_of, told},
};
use serde_json::{json, value::RawValue};

use super::{
    Caller, Endpoint, Front,
    answering::{Final, State},
    route::{Route, without_tasks},
};
use crate::request::Incoming;

pub(super) use adopting::{Adopting, Auto, Made};
pub(super) use hearing::HeardTasks;
pub(super) use waiting::Waiting;

/// The longest that a server may take over the call of a task, whatever its client would wait.
const CALL_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

/// How long somebody may take to say yes to a call.
const APPROVED_WITHIN_MS: u64 = 24 * 60 * 60 * 1000;

/// What becomes of a call.
pub(super) enum Fate {
    /// It is a call and no more.
    Call,
    /// It is a task if it takes longer than this.
    Auto(Box<Auto>),
    /// It is answered otherwise.
    Answered(State),
}

impl Front {
    /// The tasks on the bus.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Answers a request about a task of the platform's own; `None` for any other.
    pub(super) async fn hosted_task(
        &self,
        caller: &Caller,
        incoming: &Incoming,
    ) -> Result<Option<State>, RpcError> {
        let about = incoming.name.as_ref();
        let about = about.filter(|_| method::TASKS.contains(&incoming.method.as_str()));
        let Some(id) = about.and_then(|name| TaskId::parse(&name.value)) else {
            return Ok(None);
        };
        if !incoming.meta.declares_tasks {
            return Err(needs_extension("requests about tasks need"));
        }
        let task = self.task_of(&caller.principal, &caller.endpoint, &id).await?;
        let result = match incoming.method.as_str() {
            method::TASKS_GET => format!(r#"{{"resultType":"complete",{}"#, &told(&task)[1..]),
            method::TASKS_UPDATE => {
                let answers = responses(incoming)?;
                if !task.has_ended() {
                    let answered = self.0.tasks.answer(&task, answers, &caller.principal).await;
                    answered.map_err(unavailable)?;
                }
                COMPLETE.to_owned()
            }
            _ => {
                let place = place_of(&caller.principal, &id);
                self.0.tasks.cancel(&place).await.map_err(unavailable)?;
                COMPLETE.to_owned()
            }
        };
        Ok(Some(answered(incoming, &result)))
    }

    /// A task of somebody's at an endpoint.
    pub(super) async fn task_of(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        id: &TaskId,
    ) -> Result<Task, RpcError> {
        let unknown = || RpcError::invalid_params(format!("there is no task `{id}` here"));
        let kept = self.0.tasks.get(&place_of(principal, id)).await;
        let Some(Kept { task, .. }) = kept.map_err(unavailable)? else {
            return Err(unknown());
        };
        let request = &task.order.request;
        let name = request.name.as_deref();
        let action = Action::of(&request.server, &request.method, name, None);
        if task.order.endpoint != spelled(endpoint) || !self.permits(principal, action).await {
            return Err(unknown());
        }
        Ok(task)
    }

    /// Whether a request may be a task at all; most calls are not.
    pub(super) fn may_be_task(&self, incoming: &Incoming, route: &Route) -> bool {
        let is_call = incoming.method == method::TOOLS_CALL && incoming.kind == Kind::Request;
        is_call
            && (incoming.meta.declares_tasks
                || self
                    .directory()
                    .snapshot()
                    .server(&route.server)
                    .is_some_and(|card| !card.tasks.is_usual()))
    }

    /// What becomes of a call: whether it is a task from its beginning, may become one, or is a call.
    pub(super) async fn fate(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        route: &Route,
        trace: &TraceContext,
    ) -> Result<Fate, RpcError> {
        // What a server has asked belongs to the call that it was asked in.
        let is_first = incoming.request_state.is_none();
        let snapshot = self.directory().snapshot();
        let Some(card) = snapshot.server(&route.server) else {
            return Ok(Fate::Call);
        };
        let tool = route.name.as_deref().unwrap_or_default();
        let approval = self.approval(card, tool).await;
        let mode = match &approval {
            Some(_) => Mode::Always,
            None => hosting(card, tool),
        };
        let declares = incoming.meta.declares_tasks;
        match mode {
            Mode::Always if is_first => {
                if route.body.len() > MAX_CALL_BYTES {
                    return Err(RpcError::invalid_request(format!(
                        "calls of `{tool}` are tasks, and the call of a task has {MAX_CALL_BYTES} bytes at most; this one has {}",
                        route.body.len()
                    )));
                }
                let order = self.order(caller, incoming, route, trace, card);
                let order = Order { approval, ..order };
                let made = Box::pin(self.0.tasks.create(order)).await;
                let task = made.map_err(|error| not_made(&error))?;
                if declares {
                    return Ok(Fate::Answered(answered(incoming, &created(&task))));
                }
                let waiting = Waiting::new(self, caller, incoming, &task).await?;
                Ok(Fate::Answered(State::Waiting(Box::new(waiting))))
            }
            Mode::Auto if is_first && declares && route.body.len() <= MAX_CALL_BYTES => {
                let order = self.order(caller, incoming, route, trace, card);
                Ok(Fate::Auto(Box::new(Auto::new(order, card.tasks.budget_ms))))
            }
            _ => Ok(Fate::Call),
        }
    }

    /// What must be said yes to before a tool is called, if anything.
    async fn approval(&self, card: &ServerCard, tool: &str) -> Option<Approval> {
        let knob = &card.tasks;
        if knob.approve.is_empty() {
            return None;
        }
        let annotations = self.annotations(card.id.as_str(), tool).await;
        knob.needs_approval(tool, annotations.destructive)
            .then(|| Approval {
                second_person: knob.second_person,
                until_ms: moment::now_ms() + APPROVED_WITHIN_MS,
            })
    }

    fn order(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        route: &Route,
        trace: &TraceContext,
        card: &ServerCard,
    ) -> Order {
        Order {
            id: new_id(),
            group: HOSTED.to_owned(),
            endpoint: spelled(&caller.endpoint),
            request: Request {
                caller: String::new(),
                call: 0,
                server: route.server.to_string(),
                method: route.method.clone(),
                name: route.name.clone(),
                principal: caller.principal.clone(),
                protocol_version: ProtocolVersion::MODERN.to_string(),
                door: caller.door.to_owned(),
                timeout_ms: CALL_LIMIT_MS,
                trace: Some(trace.clone()),
                chunked_bytes: 0,
                // The server is not to make a task of its own within this one.
                body: Body(without_tasks(incoming, route.body.clone())),
            },
            priority: Priority::Normal,
            created_ms: moment::now_ms(),
            kept_ms: KEPT_MS,
            start_ms: None,
            approval: None,
            at_most_once: card.at_most_once,
        }
    }
}

/// What the platform does of itself about calls of a tool. A server that knows tasks makes its own.
fn hosting(card: &ServerCard, tool: &str) -> Mode {
    let knows_tasks = super::offering::has_tasks(&card.capabilities);
    if knows_tasks && card.tasks.is_usual() {
        return Mode::Never;
    }
    card.tasks.of(tool)
}

/// Whether the platform hosts tasks of a server's calls.
pub(super) fn hosts_tasks(card: &ServerCard) -> bool {
    let all = std::iter::once(&card.tasks.mode).chain(card.tasks.tools.values());
    let is_on = all.into_iter().any(|mode| *mode != Mode::Never);
    is_on && !(super::offering::has_tasks(&card.capabilities) && card.tasks.is_usual())
}

const COMPLETE: &str = r#"{"resultType":"complete"}"#;

/// An endpoint as tasks remember it.
fn spelled(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::All => "*".to_owned(),
        Endpoint::Search => "*search".to_owned(),
        Endpoint::Server(id) => id.to_string(),
    }
}

fn answered(incoming: &Incoming, result: &str) -> State {
    let id = incoming.id.as_deref().unwrap_or("null");
    State::Local(Some(Final {
        code: None,
        body: rpc::result_response(id, result.as_bytes()).into(),
        fault: None,
    }))
}

/// The answers in `tasks/update`.
fn responses(incoming: &Incoming) -> Result<BTreeMap<String, Body>, RpcError> {
    let missing = || {
        RpcError::invalid_params(
            "`tasks/update` needs `params.inputResponses`, an object with an answer for each key of `inputRequests`",
        )
    };
    let params = incoming.params.clone().map(|place| &incoming.body[place]);
    let params: &RawValue = params
        .and_then(|params| serde_json::from_slice(params).ok())
        .ok_or_else(missing)?;
    let responses = Members::of(params).and_then(|params| params.get("inputResponses"));
    let responses = responses.and_then(Members::of).ok_or_else(missing)?;
    let each = responses.iter().filter_map(|(key, answer)| {
        let key = meta::as_text(key)?;
        Some((key.into_owned(), answer.get().as_bytes().to_vec().into()))
    });
    Ok(each.collect())
}

/// The extension for tasks is not among what the client declares.
pub(super) fn needs_extension(what: &str) -> RpcError {
    RpcError::missing_capability(
        format!("{what} the tasks extension among the client's capabilities"),
        json!({ "extensions": { meta::TASKS_EXTENSION: {} } }),
    )
}

fn not_made(error: &TaskError) -> RpcError {
    RpcError::internal(format!(
        "this call is to be a task, which cannot be kept: {error}; try again"
    ))
}

fn unavailable(error: TaskError) -> RpcError {
    match error {
        TaskError::SecondPerson => RpcError::invalid_request(error.to_string()),
        error => RpcError::internal(format!("tasks cannot be looked up: {error}; try again")),
    }
}
