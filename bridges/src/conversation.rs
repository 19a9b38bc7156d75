//! One client on one channel of messages, such as a WebSocket or a pair of pipes: both eras, cancellation by message, answers as
//! they come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Principal, ProtocolVersion, RpcError,
    mcp::method,
    rpc::{self, Kind},
};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    front::{Answering, Caller, Endpoint, Front, Step, Teardown},
    legacy::{Local, Session, answer_locally, downgrade, upgrade},
    outbox,
    request::Incoming,
};

/// How many messages may be on their way to a client. Beyond, each call keeps what it has to say in its outbox.
const MESSAGES_AHEAD: usize = 64;
/// How many calls one client may have running.
const MAX_CALLS: usize = 256;

/// One client's conversation.
pub(crate) struct Conversation {
    front: Front,
    endpoint: Endpoint,
    principal: Principal,
    door: &'static str,
    out: mpsc::Sender<Bytes>,
    /// The legacy session, once its handshake was made.
    session: Option<Arc<Session>>,
    slots: Arc<Semaphore>,
    /// Running modern calls by their id as spelled. Held only to look up, insert or remove.
    calls: Arc<Mutex<HashMap<String, CancellationToken>>>,
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
        let conversation = Self {
            front,
            endpoint,
            principal,
            door,
            out,
            session: None,
            slots: Arc::new(Semaphore::new(MAX_CALLS)),
            calls: Arc::default(),
            running: TaskTracker::new(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        (conversation, messages)
    }

    /// Takes one message of the client. Answers go out as they come; this waits only when the client reads too slowly.
    pub(crate) async fn take(&mut self, text: Bytes) {
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
            Kind::Notification if incoming.method == method::CANCELLED => self.cancel(&incoming),
            Kind::Notification if !incoming.method.starts_with(method::NOTIFICATION_PREFIX) => {
                self.notify(incoming).await;
            }
            // Nothing is asked of clients, and the other notifications ask nothing of us.
            Kind::Notification | Kind::Response => {}
        }
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
            Some(session) => self.legacy(&session, incoming).await,
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

    async fn initialize(&mut self, incoming: &Incoming) {
        match Session::open(
            &self.front,
            self.endpoint.clone(),
            self.principal.clone(),
            incoming,
        ) {
            Ok((session, result)) => {
                self.session = Some(Arc::new(session));
                let id = incoming.id.as_deref().unwrap_or("null");
                self.send(rpc::result_response(id, result.to_string().as_bytes()).into())
                    .await;
            }
            Err(error) => self.send(incoming.error(&error)).await,
        }
    }

    async fn modern(&mut self, incoming: Incoming) {
        if let Err(error) = self.check_modern(&incoming) {
            return self.send(incoming.error(&error)).await;
        }
        let Some(slot) = self.take_slot(&incoming).await else {
            return;
        };
        let caller = self.caller(ProtocolVersion::MODERN);
        let (front, out, calls) = (self.front.clone(), self.out.clone(), Arc::clone(&self.calls));
        let id = incoming.id.clone().unwrap_or_default();
        let cancelled = self.ended.child_token();
        lock(&calls).insert(id.clone(), cancelled.clone());
        self.running.spawn(async move {
            let _slot = slot;
            let work = async {
                let answering = front.ask(&caller, &incoming).await;
                forward(answering, &out, |last| last.body).await;
            };
            tokio::select! { () = cancelled.cancelled() => {} () = work => {} }
            lock(&calls).remove(&id);
        });
    }

    async fn legacy(&mut self, session: &Arc<Session>, incoming: Incoming) {
        if let Local::Answer(body) = answer_locally(session, &incoming) {
            return self.send(body).await;
        }
        let Some(slot) = self.take_slot(&incoming).await else {
            return;
        };
        let caller = self.caller(session.version);
        let (front, out, session) = (self.front.clone(), self.out.clone(), Arc::clone(session));
        let ended = self.ended.clone();
        let call = session.begin_call(incoming.id.as_deref().unwrap_or_default());
        self.running.spawn(async move {
            let _slot = slot;
            let called = incoming.method.clone();
            let work = async {
                let answering = front.ask(&caller, &upgrade(&session, incoming)).await;
                forward(answering, &out, |last| downgrade(session.dialect(), &called, &last)).await;
            };
            tokio::select! { () = call.cancelled.cancelled() => {} () = ended.cancelled() => {} () = work => {} }
        });
    }

    fn caller(&self, protocol_version: ProtocolVersion) -> Caller {
        Caller {
            principal: self.principal.clone(),
            door: self.door,
            endpoint: self.endpoint.clone(),
            protocol_version,
            trace: None,
            ending: self.ending.clone(),
            teardown: Teardown::CancelThenResult,
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

    async fn take_slot(&self, incoming: &Incoming) -> Option<tokio::sync::OwnedSemaphorePermit> {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => Some(slot),
            Err(_) => {
                let error = RpcError::internal(format!(
                    "{MAX_CALLS} calls of this client are running; wait for one to end"
                ));
                self.send(incoming.error(&error)).await;
                None
            }
        }
    }

    fn cancel(&self, incoming: &Incoming) {
        let Some(id) = &incoming.request_id else { return };
        if let Some(call) = lock(&self.calls).get(id) {
            call.cancel();
        }
        if let Some(session) = &self.session {
            session.cancel_call(id);
        }
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
async fn forward(
    mut answering: Answering,
    out: &mpsc::Sender<Bytes>,
    last: impl FnOnce(crate::front::Final) -> Bytes,
) {
    let (sender, mut steps) = outbox::open();
    let fill = async {
        loop {
            match answering.next().await {
                Step::Part(part) => sender.offer(part).await,
                Step::Final(answer) => return sender.answer(last(answer)),
            }
        }
    };
    let pour = async {
        while let Some(outbox::Step::Part(message) | outbox::Step::Answer(message)) = steps.next().await {
            if out.send(message).await.is_err() {
                return;
            }
        }
    };
    // A client that has gone ends the call.
    tokio::pin!(fill, pour);
    tokio::select! {
        () = &mut pour => {}
        () = &mut fill => pour.await,
    }
}
