//! One client on one channel of messages, such as a WebSocket or a pair of pipes: both eras, cancellation by message, answers as
//! they come.

mod legacy;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Principal, ProtocolVersion, RpcError,
    mcp::{Era, method},
    rpc::{self, Kind},
};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    front::{Caller, Endpoint, Front, Met, Staying, Step, says_nothing},
    legacy::{Ledger, Session, batch, calls, notices::Changing, questions::Questions},
    outbox,
    request::Incoming,
};

/// How many messages may be on their way to a client. Beyond, each call keeps what it has to say in its outbox.
const MESSAGES_AHEAD: usize = 64;

/// Running calls by their id as spelled. Held only to look up, insert or remove.
type Calls = Arc<Mutex<HashMap<String, CancellationToken>>>;

/// One client's conversation.
pub(crate) struct Conversation {
    front: Front,
    endpoint: Endpoint,
    principal: Principal,
    door: &'static str,
    out: mpsc::Sender<Bytes>,
    /// The legacy session, once its handshake was made.
    session: Option<Arc<Session>>,
    /// What keeps a legacy session with the versions of servers that it has begun on.
    staying: Option<Staying>,
    /// What the client was asked, and has yet to answer.
    questions: Arc<Questions>,
    ledger: Arc<Ledger>,
    /// The way to tell what the client wants to hear of, once it is told anything.
    notices: Option<Changing>,
    slots: Arc<Semaphore>,
    calls: Calls,
    running: TaskTracker,
    /// Cancelled when no more messages come: what has no end of its own is ended.
    ending: CancellationToken,
    ended: CancellationToken,
}

impl Conversation {
    /// Begins a conversation; what is to be sent to the client comes out of the receiver.
    pub(crate) fn begin(
        front: Front,
        endpoint: Endpoint,
        principal: Principal,
        door: &'static str,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (out, messages) = mpsc::channel(MESSAGES_AHEAD);
        let questions = Questions::new(front.bus().instance());
        let ledger = Arc::new(Ledger::new(front.bus().clone()));
        let conversation = Self {
            front,
            endpoint,
            principal,
            door,
            out,
            session: None,
            staying: None,
            questions,
            ledger,
            notices: None,
            slots: Arc::new(Semaphore::new(calls::MAX_CALLS)),
            calls: Arc::default(),
            running: TaskTracker::new(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        (conversation, messages)
    }

    /// Takes one message of the client. Answers go out as they come; this waits only when the client reads too slowly.
    pub(crate) async fn take(&mut self, text: Bytes) {
        if batch::is_batch(&text)
            && let Some(session) = self.session.clone()
        {
            return self.batch(&session, &text).await;
        }
        let incoming = match Incoming::read(text) {
            Ok(incoming) => incoming,
            Err(refused) => {
                return self
                    .send(rpc::error_response(refused.id.as_deref(), &refused.error).into())
                    .await;
            }
        };
        match incoming.kind {
            Kind::Request => self.request(incoming).await,
            Kind::Notification => self.notification(incoming).await,
            Kind::Response => self.take_response(incoming.body),
        }
    }

    async fn notification(&mut self, incoming: Incoming) {
        match incoming.method.as_str() {
            method::CANCELLED => self.cancel(&incoming),
            method::INITIALIZED => self.listen(),
            // The protocol's others ask nothing of us.
            called if says_nothing(&self.endpoint, called) => {}
            _ => self.notify(incoming).await,
        }
    }

    /// Takes what follows as from this principal: the same caller as before, with what another token lets it do.
    pub(crate) fn speaks_as(&mut self, principal: Principal) {
        self.principal = principal;
    }

    /// Answers what was no message at all.
    pub(crate) async fn refuse(&self, error: Bytes) {
        self.send(error).await;
    }

    /// Waits until all running calls have been answered.
    pub(crate) async fn finish(&self) {
        self.ending.cancel();
        self.running.close();
        self.running.wait().await;
    }

    /// Waits until nobody takes the messages any more.
    pub(crate) async fn closed(&self) {
        self.out.closed().await;
    }

    async fn send(&self, message: Bytes) {
        // A client that has gone hears nothing.
        let _ = self.out.send(message).await;
    }

    async fn request(&mut self, incoming: Incoming) {
        if incoming.meta.is_modern {
            return self.modern(incoming).await;
        }
        if incoming.method == method::INITIALIZE && self.session.is_none() {
            return self.initialize(&incoming).await;
        }
        match self.session.clone() {
            Some(session) => self.legacy(&session, incoming, None).await,
            None => {
                let error = RpcError::invalid_request(
                    "begin with `initialize`, or send the metadata of protocol version 2026-07-28 with every request",
                );
                self.send(incoming.error(&error)).await;
            }
        }
    }

    /// Passes on what a server may know; nothing answers it.
    async fn notify(&self, incoming: Incoming) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return;
        };
        let version = self
            .session
            .as_ref()
            .map_or(ProtocolVersion::MODERN, |session| session.version);
        let (caller, front) = (self.caller(version), self.front.clone());
        self.running.spawn(async move {
            let _slot = slot;
            if let Err(refused) = front.notify(&caller, &incoming).await {
                debug!(code = refused.code, "a client's notification was not taken");
            }
        });
    }

    async fn modern(&mut self, incoming: Incoming) {
        if let Err(error) = self.check_modern(&incoming) {
            return self.send(incoming.error(&error)).await;
        }
        let mut running = match self.enter(&incoming) {
            Ok(running) => running,
            Err(error) => return self.send(incoming.error(&error)).await,
        };
        let caller = self.caller(ProtocolVersion::MODERN);
        let (front, out) = (self.front.clone(), self.out.clone());
        let cancelled = running.cancelled.clone();
        self.running.spawn(async move {
            let work = async {
                let mut answering = front.ask(&caller, &incoming).await;
                let answer = async |sender: outbox::Sender<Bytes>| loop {
                    match answering.next().await {
                        Step::Part(part) => sender.offer(part).await,
                        Step::Final(last) => {
                            // Who has the answer may use the id again.
                            running.id.take();
                            return sender.answer(last.body);
                        }
                    }
                };
                forward(&out, answer).await;
                if let Some(parting) = answering.parting() {
                    // A client that has gone hears nothing.
                    let _ = out.send(parting).await;
                }
            };
            tokio::select! { () = cancelled.cancelled() => {} () = work => {} }
        });
    }

    fn caller(&self, protocol_version: ProtocolVersion) -> Caller {
        Caller {
            principal: self.principal.clone(),
            door: self.door,
            endpoint: self.endpoint.clone(),
            protocol_version,
            trace: None,
            staying: self
                .staying
                .clone()
                .filter(|_| protocol_version.era() == Era::Legacy),
            met: Met::default(),
            ending: self.ending.clone(),
        }
    }

    /// The rungs of the modern ladder that do not need headers.
    fn check_modern(&self, incoming: &Incoming) -> Result<(), RpcError> {
        let missing = |key: &str| {
            RpcError::invalid_params(format!("`params._meta` needs `io.modelcontextprotocol/{key}`"))
        };
        let version = incoming
            .meta
            .protocol_version
            .as_deref()
            .ok_or_else(|| missing("protocolVersion"))?;
        if !incoming.meta.has_capabilities {
            return Err(missing("clientCapabilities"));
        }
        if version != ProtocolVersion::MODERN.as_str() {
            return Err(RpcError::unsupported_version(version));
        }
        self.front.check_method(&self.endpoint, &incoming.method)
    }

    /// Takes room for one more call.
    ///
    /// # Errors
    /// The error for a client that has as many running as it may, or one of the same id.
    fn enter(&self, incoming: &Incoming) -> Result<Running, RpcError> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| calls::too_many())?;
        let id = incoming.id.clone().unwrap_or_default();
        match lock(&self.calls).entry(id.clone()) {
            Entry::Occupied(_) => Err(RpcError::invalid_request(
                "a request of this id is under way; give each its own",
            )),
            Entry::Vacant(entry) => Ok(Running {
                cancelled: entry.insert(self.ended.child_token()).clone(),
                id: Some(HeldId {
                    calls: Arc::clone(&self.calls),
                    id,
                }),
                _slot: slot,
            }),
        }
    }

    fn cancel(&self, incoming: &Incoming) {
        let Some(id) = &incoming.request_id else { return };
        if let Some(call) = lock(&self.calls).get(id) {
            call.cancel();
        }
    }
}

/// A running call.
struct Running {
    cancelled: CancellationToken,
    /// Given up when the answer is there.
    id: Option<HeldId>,
    /// Kept until the answer has left.
    _slot: OwnedSemaphorePermit,
}

/// The id of a running call. It is free again when this is dropped.
struct HeldId {
    calls: Calls,
    id: String,
}

impl Drop for HeldId {
    fn drop(&mut self) {
        lock(&self.calls).remove(&self.id);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

fn lock(
    calls: &Mutex<HashMap<String, CancellationToken>>,
) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends what a call says. A client that does not read holds up neither the call nor its host.
async fn forward(out: &mpsc::Sender<Bytes>, fill: impl AsyncFnOnce(outbox::Sender<Bytes>)) {
    let (sender, mut steps) = outbox::open();
    let pour = async {
        while let Some(outbox::Step::Part(message) | outbox::Step::Answer(message)) = steps.next().await {
            if out.send(message).await.is_err() {
                return;
            }
        }
    };
    let fill = fill(sender);
    // A client that has gone ends the call.
    tokio::pin!(fill, pour);
    tokio::select! {
        () = &mut pour => {}
        () = &mut fill => pour.await,
    }
}
