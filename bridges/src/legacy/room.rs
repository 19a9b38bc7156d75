//! What the legacy doors of one process share, and how they reach those of other processes.
//!
//! A session is served by every bridge, but a running call, an open stream and a question to a client live in one process. What a client
//! says about those is handed to that process over the bus: to an internal server that every process with doors hosts, which is
//! found by its instance only.

use std::{sync::Arc, time::Duration};

use bus_schema::{Body, Principal, ProtocolVersion, Request, ServerId, mcp::error, rpc};
use bytes::Bytes;
use runtime::{Call, CallError, Host, HostOptions, Visibility, doors::DoorWords, host::HostError};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    SessionError,
    calls::Calls,
    channels::{Channels, Handed, Posted},
    desk::{self, Desk},
    ledger::Ledger,
    listeners::Listeners,
    questions::{self, Questions, Taken},
    session::{Session, Subscription},
    store::Sessions,
    streams::Streams,
};
use crate::front::Front;

/// How long another door may take to take a word.
pub(super) const WORD_LIMIT: Duration = Duration::from_secs(10);
/// How long all doors may take to be told of a cancellation.
const TELL_LIMIT: Duration = Duration::from_secs(5);
/// How many words of other doors, and resumed streams, one door works on.
const MAX_WORDS: u32 = 65_536;

/// What the doors of a process that serve a tenant's legacy clients need; made once for each tenant and process.
pub struct Doors {
    room: Room,
    host: Host,
}

/// What the legacy doors of one process share, for one tenant.
#[derive(Clone)]
pub(crate) struct Room(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) front: Front,
    pub(crate) sessions: Sessions,
    pub(crate) questions: Arc<Questions>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) streams: Streams,
    pub(crate) listeners: Listeners,
    pub(crate) channels: Channels,
    /// Calls, and what is kept of them, whether or not their clients stay.
    pub(crate) running: TaskTracker,
    /// Cancelled when the process is done with its doors.
    pub(crate) stop: CancellationToken,
}

/// A cancellation, as all doors are told of it.
#[derive(Deserialize, Serialize)]
struct Cancelled {
    /// The key of the session.
    session: String,
    /// The id of the request as spelled; the whole session when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
}

impl std::ops::Deref for Room {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Doors {
    /// Begins to hear the other doors. `most_sessions` is how many legacy sessions one principal may have over HTTP.
    ///
    /// # Errors
    /// [`HostError`] when the bus refuses a subscription.
    pub async fn start(front: Front, most_sessions: u64) -> Result<Self, HostError> {
        let bus = front.bus().clone();
        let tenant = front.directory().tenant().to_owned();
        let room = Room(Arc::new(Shared {
            sessions: Sessions::new(bus.clone(), most_sessions),
            questions: Questions::new(bus.instance()),
            ledger: Arc::new(Ledger::new(bus.clone())),
            calls: Arc::default(),
            streams: Streams::default(),
            listeners: Listeners::default(),
            channels: Channels::default(),
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
            front,
        }));
        let cancels = bus.cancels_at_doors(&tenant).await?;
        room.running.spawn(room.clone().hear(cancels));
        let options = HostOptions {
            tenant,
            visibility: Visibility::Hidden,
            max_in_flight: MAX_WORDS,
            ..HostOptions::new(ServerId::door())
        };
        let host = Host::start(bus, Arc::new(Desk::new(room.clone())), options).await?;
        Ok(Self { room, host })
    }

    pub(crate) fn room(&self) -> Room {
        self.room.clone()
    }

    /// Ends what still runs for clients that have gone, once the doors themselves are closed.
    pub async fn stop(self) {
        self.room.stop.cancel();
        self.room.running.close();
        self.room.running.wait().await;
        self.host.stop().await;
    }
}

impl Room {
    /// The instance of this process.
    pub(crate) fn door(&self) -> &str {
        self.front.bus().instance()
    }

    /// The tenant whose clients and servers meet here.
    fn tenant(&self) -> &str {
        self.front.directory().tenant()
    }

    /// Takes a client's response to a question of whichever door.
    pub(crate) async fn answer(&self, session: &Session, id: &str, response: Bytes) -> Taken {
        let Some((door, _)) = questions::split(id) else {
            return Taken::No;
        };
        if door == self.door() {
            return self.questions.answer(&session.key, id, response);
        }
        let word = desk::Answer::write(&session.key, id, &response);
        match self.tell(door, &session.principal, desk::ANSWER, &word).await {
            Ok(()) => Taken::Yes,
            Err(error) => {
                debug!(%error, "a client's response is not waited for");
                Taken::No
            }
        }
    }

    /// Hands a client's message to the door that holds its channel.
    pub(crate) async fn hand(&self, door: &str, key: &str, principal: &Principal, message: Bytes) -> Handed {
        if door == self.door() {
            let principal = principal.clone();
            return self.channels.hand(key, Posted { principal, message }).await;
        }
        let word = desk::Answer::write(key, "", &message);
        match self.tell(door, principal, desk::MESSAGE, &word).await {
            Ok(()) => Handed::Yes,
            Err(NotTaken::Refused(error::INTERNAL)) => Handed::Full,
            Err(NotTaken::Refused(_) | NotTaken::Unheard(CallError::NoResponders { .. })) => Handed::Unknown,
            Err(error) => {
                debug!(%error, "the door that holds a client's channel did not take a message");
                Handed::Silent
            }
        }
    }

    /// Cancels a call of a session, or all of them with its streams, wherever they run.
    pub(crate) async fn cancel(&self, session: &Session, request: Option<&str>) {
        self.cancel_here(&session.key, request);
        let word = Cancelled {
            session: session.key.clone(),
            request: request.map(str::to_owned),
        };
        let word = serde_json::to_vec(&word).expect("a word is always JSON");
        let told = timeout(TELL_LIMIT, self.front.bus().cancel_at_doors(self.tenant(), word)).await;
        if !matches!(told, Ok(Ok(()))) {
            debug!("the other doors were not told of a cancellation");
        }
    }

    fn cancel_here(&self, session: &str, request: Option<&str>) {
        self.calls.cancel(session, request);
        if request.is_none() {
            self.listeners.end(session);
        }
    }

    /// Subscribes a session to a resource, or takes that back, and waits until the client's stream of notices follows.
    pub(crate) async fn subscribe(
        &self,
        session: &Session,
        uri: &str,
        subscription: Subscription,
    ) -> Result<(), SessionError> {
        // Held until the client's stream follows, so that the server is asked once.
        let _watching = match subscription {
            Subscription::Begin => {
                let asked = self
                    .front
                    .watch_resource(&session.principal, &session.endpoint, uri)
                    .await;
                Some(asked.map_err(SessionError::Refused)?)
            }
            Subscription::End => None,
        };
        let changed = self
            .sessions
            .change(session, |session| session.subscribe(uri, subscription))
            .await?;
        let Some(door) = changed.listener.as_deref() else {
            // Without a stream it is remembered until there is one.
            return Ok(());
        };
        if door == self.door() {
            self.listeners.follow(self, &changed).await;
        } else if let Err(error) = self
            .tell(
                door,
                &changed.principal,
                desk::FOLLOW,
                &desk::About::write(&changed.key),
            )
            .await
        {
            debug!(%error, "the door that held a client's stream holds it no more");
        }
        Ok(())
    }

    /// Tells another door that it holds a session's stream of notices no more.
    pub(crate) async fn take_over(&self, session: &Session, door: &str) {
        let word = desk::About::write(&session.key);
        if let Err(error) = self.tell(door, &session.principal, desk::YIELD, &word).await {
            debug!(%error, "the door that held a client's stream is gone");
        }
    }

    /// Says a word to another door, and waits until it was taken.
    pub(crate) async fn tell(
        &self,
        door: &str,
        principal: &Principal,
        method: &str,
        params: &str,
    ) -> Result<(), NotTaken> {
        let mut call = self.ask(door, principal, method, params, WORD_LIMIT);
        match call.last().await? {
            (None, _) => Ok(()),
            (Some(code), _) => Err(NotTaken::Refused(code)),
        }
    }

    /// Asks another door.
    pub(crate) fn ask(
        &self,
        door: &str,
        principal: &Principal,
        method: &str,
        params: &str,
        limit: Duration,
    ) -> Call {
        let method_text = rpc::quote(method);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method_text},"params":{params}}}"#);
        let request = Request {
            caller: String::new(),
            call: 0,
            server: ServerId::door().to_string(),
            method: method.to_owned(),
            name: None,
            principal: principal.clone(),
            protocol_version: ProtocolVersion::MODERN.to_string(),
            door: "door".to_owned(),
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            trace: None,
            chunked_bytes: 0,
            body: Body(body.into()),
        };
        self.front.bus().call_instance(request, door)
    }

    async fn hear(self, mut cancels: DoorWords) {
        loop {
            let word = tokio::select! {
                word = cancels.next() => word,
                () = self.stop.cancelled() => return,
            };
            let Some(word) = word else { return };
            match serde_json::from_slice::<Cancelled>(&word) {
                Ok(word) => self.cancel_here(&word.session, word.request.as_deref()),
                Err(error) => debug!(%error, "ignored a cancellation that cannot be read"),
            }
        }
    }
}

/// Why another door did not take a word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// It is not there, or too slow.
    #[error(transparent)]
    Unheard(#[from] CallError),
    /// What the word is about is not there.
    #[error("the door knows nothing of it (code {0})")]
    Refused(i64),
}
