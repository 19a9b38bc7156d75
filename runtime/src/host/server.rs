//! What a host needs of a server, and what it gives to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bus_schema::{Request, RpcError, ServerId, rpc, task::TaskKnob, upstream::RetryKnob};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::{broadcast, mpsc, watch};

use super::breaker::Breaker;
use crate::{directory::Directory, telemetry::Metered};

/// An MCP server that a host can serve. It speaks the modern era and keeps no state between calls that a replica would miss.
pub trait McpServer: Send + Sync + 'static {
    /// Handles one request. The body of the request is a JSON-RPC request; the outcome's is the response with its id. It may also
    /// be a notification, whose outcome is [`Outcome::taken`].
    ///
    /// The future is dropped when the caller cancels, is gone, or its deadline passes.
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome>;

    /// Says whether it is there, when its calls have failed. Where nothing but calls can tell, it says yes.
    fn probe(self: Arc<Self>) -> BoxFuture<'static, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }

    /// Counts up whenever a list of tools, prompts or resources has changed.
    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// How often its lists of tools, of prompts and of resources have changed for some callers only, so that nothing shows in what the
    /// platform itself is told. Their digests change with it.
    fn private_changes(&self) -> [u64; 3] {
        [0; 3]
    }

    /// Tells of each resource that has changed, by its URI.
    fn updates(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        None
    }

    /// Is told which resources anybody wants to hear of, all of them each time, and says of which of them it can tell. It is not
    /// called again before it has answered.
    fn watch(self: Arc<Self>, _uris: BTreeSet<String>) -> BoxFuture<'static, BTreeSet<String>> {
        std::future::ready(BTreeSet::new()).boxed()
    }

    /// Why it tells of none of these, of those that it was last asked to watch: the errors by URI, where it has said one.
    fn refusals(&self) -> BTreeMap<String, RpcError> {
        BTreeMap::new()
    }

    /// The protocol version that is spoken behind the host; the bus's own by default.
    fn protocol_version(&self) -> String {
        bus_schema::ProtocolVersion::MODERN.to_string()
    }
}

/// How a server is served.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Its id on the bus.
    pub id: ServerId,
    /// Whose it is.
    pub tenant: String,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// How many calls run at once; beyond, callers hear "busy".
    pub max_in_flight: u32,
    /// The longest that any call may take, whatever its caller would wait.
    pub max_call_time: Duration,
    /// The longest that calls of single tools may take, by their names; a tool may also say so itself, by `_meta` key
    /// `io.trunkline/timeoutMs`.
    pub tool_timeouts: HashMap<String, Duration>,
    /// The longest that a call of this server may take, if that is less. Who listens for changes is no caller in this sense.
    pub call_timeout: Option<Duration>,
    /// What stops calls to it when they keep failing.
    pub breaker: Option<Breaker>,
    /// How often calls are made that were lost, where somebody has said so.
    pub retry: Option<RetryKnob>,
    /// Which of its calls become tasks of the platform.
    pub tasks: TaskKnob,
    /// Where its other replicas are found, to hand them the calls that cannot go to this one.
    pub peers: Option<Directory>,
    /// How long running calls may go on when the host stops.
    pub drain_time: Duration,
    /// Who finds it.
    pub visibility: Visibility,
}

/// Who finds a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody: it describes its server, and announces it.
    Announced,
    /// Whoever knows its instance.
    Hidden,
}

impl HostOptions {
    /// The usual limits.
    #[must_use]
    pub fn new(id: ServerId) -> Self {
        Self {
            id,
            tenant: bus_schema::principal::DEFAULT_TENANT.to_owned(),
            tags: Vec::new(),
            max_in_flight: 256,
            max_call_time: Duration::from_secs(24 * 60 * 60),
            tool_timeouts: HashMap::new(),
            call_timeout: None,
            breaker: None,
            retry: None,
            tasks: TaskKnob::default(),
            peers: None,
            drain_time: Duration::from_secs(30),
            visibility: Visibility::Announced,
        }
    }

    /// The server as meters name it.
    pub(crate) fn metered(&self) -> Metered<'_> {
        Metered {
            tenant: &self.tenant,
            server: self.id.as_str(),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The code, when it is an error.
    pub code: Option<i64>,
    /// The JSON-RPC response.
    pub body: Bytes,
    /// What it says of the server.
    pub verdict: Verdict,
}

/// What an answer says of the server that it should be from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It has answered, if only with an error.
    #[default]
    Answered,
    /// It was asked nothing.
    Unasked,
    /// It could not be asked, was lost, or answered nothing that can be used.
    Failed,
    /// It did not answer in its time.
    Late,
}

impl Outcome {
    /// A result that is JSON already.
    #[must_use]
    pub fn result(id: &str, result: &[u8]) -> Self {
        Self {
            code: None,
            body: rpc::result_response(id, result).into(),
            verdict: Verdict::Answered,
        }
    }

    /// What a notification comes to: it was taken, and nothing answers it.
    #[must_use]
    pub const fn taken() -> Self {
        Self {
            code: None,
            body: Bytes::new(),
            verdict: Verdict::Unasked,
        }
    }

    /// An error.
    #[must_use]
    pub fn error(id: Option<&str>, error: &RpcError) -> Self {
        Self {
            code: Some(error.code),
            body: rpc::error_response(id, error).into(),
            verdict: Verdict::Answered,
        }
    }

    /// The same, which says something else of the server.
    #[must_use]
    pub fn saying(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// An error for the request that this body holds.
    #[must_use]
    pub fn error_for(body: &[u8], error: &RpcError) -> Self {
        let message = rpc::Message::parse(body).ok();
        Self::error(
            message.and_then(|m| m.id).map(serde_json::value::RawValue::get),
            error,
        )
    }
}

/// Where a running call sends its notifications.
#[derive(Clone, Debug)]
pub struct Parts(mpsc::Sender<Bytes>);

impl Parts {
    /// Sends to whoever holds the other end.
    #[must_use]
    pub fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self(sender)
    }

    /// Sends one JSON-RPC notification ahead of the answer; waits while the caller reads more slowly than the server sends.
    /// After the call's end notifications are dropped, as the protocol has no place for them.
    pub async fn send(&self, notification: impl Into<Bytes>) {
        let _ = self.0.send(notification.into()).await;
    }
}
