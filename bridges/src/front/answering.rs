//! An answer on its way from the bus to a door, and what a door says when the bus gives none.

use bus_schema::{
    Principal, ProtocolVersion, RpcError, ServerId, TraceContext,
    audit::{Kind, Record},
    mcp::error,
    rpc,
};
use bytes::Bytes;
use runtime::{Answer, Call, CallError, limits::Running, telemetry::Metered};
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::{
    Front,
    bounds::Stop,
    listening::Listening,
    route::Tie,
    task_owners::Owner,
    tasks::{Adopting, Auto, Made, Waiting},
    versions::versioned,
};
use crate::request::Incoming;

/// An answer on its way to a client.
pub struct Answering {
    pub(super) state: State,
    pub(super) id: Option<String>,
    /// The trace of the call.
    pub trace: TraceContext,
    pub(super) stop: Stop,
}

pub(super) enum State {
    Local(Option<Final>),
    Remote(Box<Remote>),
    /// A call that becomes a task.
    Adopting(Adopting),
    /// A call that waits for its task.
    Waiting(Box<Waiting>),
    Listening(Box<Listening>),
}

pub(super) struct Remote {
    pub(super) call: Call,
    /// When it becomes a task, if it does.
    pub(super) auto: Option<Box<Auto>>,
    /// Who asks, where the answer may tell of a task of theirs.
    pub(super) owner: Option<Owner>,
    /// The answer, while it is noted whose its task is: who stops waiting and asks again loses nothing.
    pub(super) noting: Option<Final>,
    /// The places that it takes of limits on how many calls run at once.
    #[expect(dead_code, reason = "they are free again when the call is dropped")]
    pub(super) running: Running,
    /// Whether it has been answered.
    pub(super) is_over: bool,
    /// Whether only one instance can answer it.
    pub(super) tie: Tie,
    /// Whether the message is a request, and no notification.
    pub(super) expects_answer: bool,
    pub(super) front: Front,
    pub(super) server: String,
    pub(super) method: String,
    /// What the server knows it by that is asked for.
    pub(super) name: Option<String>,
    /// The request as it came.
    pub(super) body: Bytes,
    pub(super) protocol: ProtocolVersion,
    pub(super) door: &'static str,
    pub(super) started: Instant,
}

/// One step of an answer.
#[derive(Debug)]
pub enum Step {
    /// A notification that comes before the answer.
    Part(Bytes),
    /// The answer.
    Final(Final),
}

/// The one answer to a request.
#[derive(Clone, Debug)]
pub struct Final {
    /// The code, when it is an error.
    pub code: Option<i64>,
    /// The JSON-RPC response.
    pub body: Bytes,
    /// Why the bus gave no answer, when that is what happened.
    pub fault: Option<Fault>,
}

/// Why the bus gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such server.
    UnknownServer,
    /// The server has no replica at the moment.
    NoReplica,
    /// All replicas are busy.
    Busy,
    /// The replica was lost during the call.
    HostLost,
    /// The deadline passed.
    Deadline,
    /// The message is too large.
    TooLarge,
    /// A limit does not allow it now.
    RateLimited,
    /// Its caller is stopped.
    Blocked,
    /// The bus or the host is at fault.
    Bus,
}

impl Fault {
    /// The word that stands for it in `error.data.reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownServer => "unknown_server",
            Self::NoReplica => "no_replica",
            Self::Busy => "busy",
            Self::HostLost => "host_lost",
            Self::Deadline => "deadline",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Blocked => "blocked",
            Self::Bus => "bus",
        }
    }
}

impl Answering {
    /// Waits for the next notification or the answer.
    ///
    /// # Panics
    /// When it is asked again after the answer.
    pub async fn next(&mut self) -> Step {
        let Self {
            state,
            id,
            stop,
            trace,
        } = self;
        let id = id.as_deref();
        tokio::select! {
            biased;
            () = stop.pulled() => {
                state.put_cut(stop, trace);
                // What is dropped here ends, wherever it runs.
                *state = State::Local(None);
                Step::Final(Final::blocked(id))
            }
            step = state.next(id) => {
                if let (Step::Final(last), State::Remote(remote)) = (&step, &*state) {
                    remote.put_if_gone(id, last, stop.principal(), trace);
                }
                step
            }
        }
    }
}

impl State {
    async fn next(&mut self, id: Option<&str>) -> Step {
        loop {
            match self {
                Self::Local(answer) => return Step::Final(answer.take().expect("an answer is taken once")),
                Self::Listening(listening) => return listening.next().await,
                Self::Waiting(waiting) => return Step::Final(waiting.next().await),
                Self::Adopting(adopting) => match adopting.made().await {
                    Some(Made::Task(answer)) => return Step::Final(answer),
                    Some(Made::Call(remote)) => *self = Self::Remote(remote),
                    None => {
                        let error = RpcError::internal("the call was to become a task, which has failed");
                        return Step::Final(Final {
                            code: Some(error.code),
                            body: rpc::error_response(id, &error).into(),
                            fault: None,
                        });
                    }
                },
                Self::Remote(remote) => match remote.auto.as_ref().map(|auto| auto.due()) {
                    None => return Self::answer(remote, id).await,
                    Some(due) => {
                        if let Ok(step) = timeout_at(due, Self::answer(remote, id)).await {
                            return step;
                        }
                        self.adopt(id);
                    }
                },
            }
        }
    }

    /// Has the call become a task, as its time has come.
    fn adopt(&mut self, id: Option<&str>) {
        let Self::Remote(mut remote) = std::mem::replace(self, Self::Local(None)) else {
            return;
        };
        if let Some(auto) = remote.auto.take() {
            *self = Self::Adopting(auto.adopt(remote, id.map(str::to_owned)));
        }
    }

    async fn answer(remote: &mut Remote, id: Option<&str>) -> Step {
        if let Some(answer) = remote.noting.clone() {
            return Step::Final(remote.noted(id, answer).await);
        }
        let answer = match remote.call.next().await {
            Ok(Answer::Part(part)) => return Step::Part(part),
            Ok(Answer::Final { code, body }) => remote.answered(id, code, body),
            Err(error) => remote.unanswered(id, &error),
        };
        remote.is_over = true;
        remote.count(&answer);
        if remote.owner.is_some() && answer.code.is_none() {
            remote.noting = Some(answer.clone());
            return Step::Final(remote.noted(id, answer).await);
        }
        Step::Final(answer)
    }
}

impl Remote {
    /// What the server has answered, for its client.
    fn answered(&self, id: Option<&str>, code: Option<i64>, body: Bytes) -> Final {
        if body.is_empty() && self.expects_answer {
            let error = CallError::BadFrame {
                server: self.server.clone(),
                source: None,
            };
            return self.front.fault(id, &error);
        }
        let version = self.front.version_answered(&self.server, &self.call);
        let stated = versioned(&body, version.as_deref());
        Final {
            code,
            body: stated.unwrap_or(body),
            fault: None,
        }
    }

    /// Puts on record that somebody has asked for what no process holds any more, or never held.
    fn put_if_gone(&self, id: Option<&str>, last: &Final, principal: &Principal, trace: &TraceContext) {
        let rule = match &self.tie {
            Tie::Free => return,
            Tie::Parked(_) => "request_state",
            Tie::Task(_) => "task",
        };
        if last.code == Some(error::INVALID_PARAMS) && last.body == Final::gone(id, &self.tie).body {
            let refused = Record::refused(Kind::Owner, rule)
                .by(principal)
                .through(self.door)
                .at(&self.server)
                .asking(&self.method, None);
            self.front.bus().audit().put(Record {
                trace: Some(trace.trace_id().to_owned()),
                ..refused
            });
        }
    }

    /// What a client hears when the bus gives no answer.
    fn unanswered(&self, id: Option<&str>, error: &CallError) -> Final {
        let has_gone = match error {
            CallError::NoResponders { .. } => true,
            // Lost while it was asked about a task, the instance has taken the task with it.
            CallError::HostLost { .. } => matches!(self.tie, Tie::Task(_)),
            _ => false,
        };
        if has_gone && self.front.is_gone(&self.tie, &self.server) {
            return Final::gone(id, &self.tie);
        }
        self.front.fault(id, error)
    }

    fn count(&self, answer: &Final) {
        // Anybody can invent names of servers; only those that exist get meters of their own.
        let server = if answer.fault == Some(Fault::UnknownServer) {
            "_unknown"
        } else {
            &self.server
        };
        let took = self.started.elapsed();
        let metrics = self.front.0.bus.metrics();
        let tenant = self.front.directory().tenant();
        metrics.asked(
            Metered { tenant, server },
            &self.method,
            self.door,
            took,
            answer.code,
        );
    }

    /// The answer, once it is noted whose the task is that it tells of.
    async fn noted(&self, id: Option<&str>, answer: Final) -> Final {
        let Some(owner) = &self.owner else { return answer };
        let version = self.front.version_answered(&self.server, &self.call);
        let noting = self.front.0.task_owners.note(owner, version, &answer.body);
        match noting.await {
            Ok(()) => answer,
            Err(error) => Final {
                code: Some(error.code),
                body: rpc::error_response(id, &error).into(),
                fault: None,
            },
        }
    }
}

impl Answering {
    /// What is to be said after the answer on a channel that other requests share.
    #[must_use]
    pub(crate) fn parting(&self) -> Option<Bytes> {
        match &self.state {
            State::Listening(listening) => Some(listening.parting()),
            State::Local(_) | State::Remote(_) | State::Adopting(_) | State::Waiting(_) => None,
        }
    }
}

impl Final {
    /// An error that a request is answered with.
    pub(super) fn error(incoming: &Incoming, error: &RpcError) -> Self {
        Self {
            code: Some(error.code),
            body: incoming.error(error),
            fault: None,
        }
    }

    /// The instance is gone that had parked the call or held the task, and that with it.
    fn gone(id: Option<&str>, tie: &Tie) -> Self {
        let error = RpcError::invalid_params(match tie {
            Tie::Task(_) => "there is no such task any more: the process that held it has ended",
            Tie::Parked(_) | Tie::Free => {
                "`params.requestState` is expired or not yours; make the call again without it"
            }
        });
        Self {
            code: Some(error.code),
            body: rpc::error_response(id, &error).into(),
            fault: None,
        }
    }
}

impl Front {
    pub(super) fn absent(&self, incoming: &Incoming, server: &ServerId) -> Final {
        let error = CallError::NoResponders {
            server: server.to_string(),
        };
        self.fault(incoming.id.as_deref(), &error)
    }

    fn fault(&self, id: Option<&str>, error: &CallError) -> Final {
        let (fault, server) = match error {
            CallError::NoResponders { server } => {
                let known = server
                    .parse()
                    .is_ok_and(|id| self.directory().snapshot().server(&id).is_some());
                (
                    if known {
                        Fault::NoReplica
                    } else {
                        Fault::UnknownServer
                    },
                    server.as_str(),
                )
            }
            CallError::Busy { server } => (Fault::Busy, server.as_str()),
            CallError::HostLost { server, .. } => (Fault::HostLost, server.as_str()),
            CallError::Deadline { server, .. } => (Fault::Deadline, server.as_str()),
            CallError::TooLarge { .. } => (Fault::TooLarge, ""),
            _ => (Fault::Bus, ""),
        };
        let mut data = json!({ "reason": fault.as_str() });
        if !server.is_empty() {
            data["server"] = server.into();
        }
        if let CallError::HostLost { instance, .. } = error {
            data["replica"] = instance.as_str().into();
        }
        match fault {
            Fault::Bus => warn!(error = %error, "a call failed on the bus"),
            _ => debug!(error = %error, "a call got no answer"),
        }
        let code = if fault == Fault::TooLarge {
            error::INVALID_REQUEST
        } else {
            error::INTERNAL
        };
        let rpc_error = RpcError::new(code, error.to_string()).with_data(data);
        Final {
            code: Some(code),
            body: rpc::error_response(id, &rpc_error).into(),
            fault: Some(fault),
        }
    }
}
