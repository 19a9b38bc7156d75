//! Streamable HTTP of the legacy era: a session that begins with `initialize`, its own stream, and streams that are resumed.
//!
//! A server that has forgotten its session gets a new one at once, and what only reads is asked again; callers see nothing of it.
//! Source: MCP 2025-11-25, Streamable HTTP.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bus_schema::{
    header,
    mcp::{Era, ProtocolVersion, method},
    rpc::Message,
};
use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info};

use crate::upstream::{capabilities::Declared, connection::Session, error::UpstreamError, handshake};

use super::{
    error::RemoteError,
    exchange::{Asking, Exchange},
    health::Watched,
    pump::{Carrier, Drops},
    reply::{Body, Events, Reply, answer_in, refused},
};

/// How long a question of this room's own may take.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How long the end of the session may take when the platform stops.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// A longer session id is no id.
const MAX_SESSION_ID_BYTES: usize = 4096;
/// How long a broken stream waits for its resumption when the server does not say.
const RETRY: Duration = Duration::from_secs(1);
/// What a server may say at least and at most.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// A stream that lasted so long was not closed at once.
const STEADY: Duration = Duration::from_secs(10);
/// How often in a row the resumption of a stream may fail.
const MAX_RESUMPTIONS: u32 = 5;

/// A legacy server.
pub(super) struct Legacy {
    pub(super) exchange: Exchange,
    /// What is declared to the server that the client can be asked.
    declared: Declared,
    /// The session that is open now.
    open: watch::Sender<Arc<Opened>>,
}

/// One session.
pub(super) struct Opened {
    id: Option<HeaderValue>,
    pub(super) session: Session,
    /// It stands in place of one that has ended.
    is_renewed: bool,
    /// The session after it; made once, by whoever first finds this one ended.
    next: OnceCell<Arc<Opened>>,
}

impl Opened {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(id) = &self.id {
            headers.insert(HeaderName::from_static(header::SESSION_ID), id.clone());
        }
        if self.session.version >= ProtocolVersion::V2025_06_18 {
            headers.insert(
                HeaderName::from_static(header::PROTOCOL_VERSION),
                HeaderValue::from_static(self.session.version.as_str()),
            );
        }
        headers
    }
}

impl Legacy {
    /// A server whose first session is open.
    pub(super) fn new(exchange: Exchange, declared: Declared, opened: Opened) -> Self {
        Self {
            exchange,
            declared,
            open: watch::Sender::new(Arc::new(opened)),
        }
    }

    fn current(&self) -> Arc<Opened> {
        Arc::clone(&self.open.borrow())
    }

    async fn try_call(&self, call: &Asking, line: Bytes) -> Result<(), RemoteError> {
        let mut opened = self.current();
        let mut reply = self.exchange.post_call(call, &opened.headers(), &line).await?;
        if has_ended(&opened, &reply, Some(call.number)) {
            opened = self.renew(&opened).await?;
            if !self.exchange.may_repeat(call) {
                return Err(RemoteError::SessionEnded);
            }
            reply = self.exchange.post(&opened.headers(), line).await?;
        }
        let answered = match reply.body {
            Body::Message(line) => self.exchange.deliver(call, line),
            Body::Events(events) => return self.follow(call, &opened, events).await,
            Body::Refusal(body) => {
                let answer = answer_in(&body, call.number).ok_or_else(|| refused(reply.status, &body))?;
                self.exchange.deliver(call, answer)
            }
            Body::Nothing => return Err(RemoteError::Unanswered),
        };
        if answered {
            Ok(())
        } else {
            Err(RemoteError::Unanswered)
        }
    }

    /// Reads the stream of a call. When it ends before the answer, it is resumed where it ended, if it says where that is.
    async fn follow(
        &self,
        call: &Asking,
        opened: &Opened,
        mut events: Box<Events>,
    ) -> Result<(), RemoteError> {
        let mut last_id = None;
        let mut retry = RETRY;
        loop {
            let broken = match self.exchange.relay(call, &mut events).await {
                Ok(true) => {
                    events.end().await;
                    return Ok(());
                }
                Ok(false) => RemoteError::Unanswered,
                Err(error @ RemoteError::Lost(_)) => error,
                Err(error) => return Err(error),
            };
            if let Some(id) = events.last_id() {
                last_id = Some(id.to_owned());
            }
            retry = events
                .retry()
                .unwrap_or(retry)
                .clamp(SHORTEST_RETRY, LONGEST_RETRY);
            let Some(last_id) = &last_id else {
                return Err(broken);
            };
            debug!(server.id = %self.exchange.link.server, call = call.number, "the stream of a call ended early and is resumed");
            events = self.resume(opened, last_id, retry).await?;
        }
    }

    async fn resume(
        &self,
        opened: &Opened,
        last_id: &str,
        retry: Duration,
    ) -> Result<Box<Events>, RemoteError> {
        let mut headers = opened.headers();
        let id = HeaderValue::from_str(last_id).map_err(|_| RemoteError::Unanswered)?;
        headers.insert(HeaderName::from_static(header::LAST_EVENT_ID), id);
        let mut pause = retry;
        for failed in 1.. {
            sleep(pause).await;
            let error = match self.exchange.get(&headers).await {
                Ok(Reply {
                    body: Body::Events(events),
                    ..
                }) => return Ok(events),
                Ok(Reply {
                    status,
                    body: Body::Refusal(body),
                    ..
                }) => refused(status, &body),
                Ok(_) => RemoteError::Unanswered,
                Err(error) => error,
            };
            if !error.is_passing() || failed == MAX_RESUMPTIONS {
                return Err(error);
            }
            pause = (pause * 2).min(LONGEST_RETRY);
        }
        Err(RemoteError::Unanswered)
    }

    /// Opens a new session in place of one that has ended.
    async fn renew(&self, ended: &Opened) -> Result<Arc<Opened>, RemoteError> {
        let renewed = ended
            .next
            .get_or_try_init(|| async {
                info!(server.id = %self.exchange.link.server, "a remote server has ended the session; opening another");
                let next = initialize(&self.exchange, &self.declared)
                    .await
                    .map_err(|error| match error {
                        NotOpened::Remote(error) => error,
                        NotOpened::Other { error, .. } => RemoteError::Unusable(super::error::chain(&error)),
                    })?;
                if next.session.version != ended.session.version
                    || next.session.discovered != ended.session.discovered
                {
                    return Err(RemoteError::Changed("it describes itself otherwise"));
                }
                let next = Arc::new(Opened {
                    is_renewed: true,
                    ..next
                });
                self.open.send_replace(Arc::clone(&next));
                self.exchange.link.was_forgotten();
                Ok(next)
            })
            .await;
        match &renewed {
            Ok(_) => {}
            Err(error @ RemoteError::Changed(_)) => {
                self.exchange.health.give_up(error.to_string());
                self.exchange.link.break_off();
            }
            Err(_) => self.exchange.health.alarm(),
        }
        renewed.cloned()
    }

    /// Reads the session's own stream for as long as the server offers one.
    pub(super) async fn listen(&self) {
        let mut session = self.open.subscribe();
        loop {
            let opened = Arc::clone(&session.borrow_and_update());
            tokio::select! {
                () = self.listen_in(&opened) => {
                    // Without a stream there is nothing to do until there is another session.
                    if session.changed().await.is_err() {
                        return;
                    }
                }
                changed = session.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn listen_in(&self, opened: &Opened) {
        let mut last_id: Option<String> = None;
        // Between the handshake and the first stream something may have been said as well.
        let mut unheard = opened.is_renewed;
        let mut pause = RETRY;
        loop {
            let mut headers = opened.headers();
            if let Some(id) = last_id.as_ref().and_then(|id| HeaderValue::from_str(id).ok()) {
                headers.insert(HeaderName::from_static(header::LAST_EVENT_ID), id);
            }
            match self.exchange.get(&headers).await {
                Ok(Reply {
                    body: Body::Events(mut events),
                    ..
                }) => {
                    let opened_at = Instant::now();
                    if std::mem::take(&mut unheard) {
                        self.exchange.link.missed_something();
                    }
                    while let Ok(Some(event)) = events.next().await {
                        self.exchange.take_event(event).await;
                    }
                    if let Some(id) = events.last_id() {
                        last_id = Some(id.to_owned());
                    }
                    // What is said from now on is not said again, unless the server knows where this ended.
                    unheard = last_id.is_none();
                    pause = match events.retry() {
                        Some(retry) => retry.clamp(SHORTEST_RETRY, LONGEST_RETRY),
                        None if opened_at.elapsed() >= STEADY => RETRY,
                        None => (pause * 2).min(LONGEST_RETRY),
                    };
                }
                Ok(reply) if has_ended(opened, &reply, None) => {
                    // Some say the same of a stream that they do not offer; asking tells, and opens another session if need be.
                    if let Err(error) = self.check().await {
                        debug!(server.id = %self.exchange.link.server, %error, "no session");
                        self.exchange.health.alarm();
                    }
                    return;
                }
                Ok(reply) if !reply.status.is_server_error() => {
                    debug!(server.id = %self.exchange.link.server, status = %reply.status, "the server offers no stream of its own");
                    return;
                }
                Ok(_) => pause = (pause * 2).min(LONGEST_RETRY),
                Err(error) => {
                    debug!(server.id = %self.exchange.link.server, %error, "the server's own stream cannot be opened");
                    if error.is_alarming() {
                        self.exchange.health.alarm();
                    }
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
            sleep(pause).await;
        }
    }

    /// Ends the session, as nobody needs it any more.
    pub(super) async fn end(&self) {
        let opened = self.current();
        if opened.id.is_none() {
            return;
        }
        let headers = opened.headers();
        let ending = self
            .exchange
            .send(Method::DELETE, &self.exchange.uri, &headers, Bytes::new());
        match timeout(FAREWELL_LIMIT, ending).await {
            Ok(Ok(reply)) => {
                debug!(server.id = %self.exchange.link.server, status = %reply.status, "ended the session")
            }
            _ => {
                debug!(server.id = %self.exchange.link.server, "the server did not take the end of the session")
            }
        }
    }
}

impl Watched for Legacy {
    /// A session that the server has forgotten is opened anew.
    async fn check(&self) -> Result<(), RemoteError> {
        let opened = self.current();
        let asked = self
            .exchange
            .ask(&opened.headers(), method::PING, &json!({}), ASK_LIMIT)
            .await;
        match asked {
            Err(RemoteError::Status { status, body })
                if opened.id.is_some() && is_session_lost(status, body.as_bytes()) =>
            {
                self.renew(&opened).await.map(|_| ())
            }
            asked => asked.map(|_| ()),
        }
    }
}

impl Carrier for Legacy {
    async fn call(&self, call: &Asking, line: Bytes) {
        if let Err(error) = self.try_call(call, line).await {
            self.exchange.fail(call.number, &error);
        }
    }

    async fn tell(&self, line: Bytes) {
        if let Err(error) = self.exchange.tell(&self.current().headers(), line).await {
            debug!(server.id = %self.exchange.link.server, %error, "a remote server does not take a message");
            if error.is_alarming() {
                self.exchange.health.alarm();
            }
        }
    }

    fn drops(&self) -> Drops {
        Drops::Told
    }
}

/// Whether a reply says that the session is no more. The protocol has 404 for that, which some servers also use for an unknown
/// method, and some write 400 with a text.
fn has_ended(opened: &Opened, reply: &Reply, call: Option<u64>) -> bool {
    let Body::Refusal(body) = &reply.body else {
        return false;
    };
    let id = Message::parse(body).ok().and_then(|message| message.id);
    let answers_call = call.is_some_and(|call| id.is_some_and(|id| id.get() == call.to_string()));
    opened.id.is_some() && !answers_call && is_session_lost(reply.status, body)
}

fn is_session_lost(status: StatusCode, body: &[u8]) -> bool {
    let names_session = || {
        String::from_utf8_lossy(body)
            .to_ascii_lowercase()
            .contains("session")
    };
    status == StatusCode::NOT_FOUND || status == StatusCode::BAD_REQUEST && names_session()
}

/// Why a session was not opened.
pub(super) enum NotOpened {
    /// There was no answer.
    Remote(RemoteError),
    /// There was one.
    Other {
        status: StatusCode,
        error: UpstreamError,
    },
}

/// Opens a session: `initialize`, and the word that it is done.
///
/// # Errors
/// [`NotOpened`] tells an answer that is none from a refusal.
pub(super) async fn initialize(exchange: &Exchange, declared: &Declared) -> Result<Opened, NotOpened> {
    let ask = async |version| {
        let params = handshake::InitializeParams::new(version, declared);
        exchange
            .ask(&HeaderMap::new(), method::INITIALIZE, &params, ASK_LIMIT)
            .await
            .map_err(NotOpened::Remote)
    };
    let mut told = ask(ProtocolVersion::NEWEST_LEGACY).await?;
    if let Err(refusal) = &told.result
        && let Some(version) = handshake::named_in(refusal, Era::Legacy)
    {
        told = ask(version).await?;
    }
    let status = told.status;
    let other = |error| NotOpened::Other { status, error };
    let result = told.result.map_err(|source| {
        other(UpstreamError::Refused {
            method: method::INITIALIZE,
            source,
        })
    })?;
    let session = handshake::read_initialized(&result).map_err(other)?;
    let id = told.session_id.filter(|id| !id.is_empty());
    let is_id =
        |id: &HeaderValue| id.len() <= MAX_SESSION_ID_BYTES && id.as_bytes().iter().all(u8::is_ascii_graphic);
    if id.as_ref().is_some_and(|id| !is_id(id)) {
        return Err(NotOpened::Remote(RemoteError::Unusable(
            "its session id is not visible ASCII".to_owned(),
        )));
    }
    let opened = Opened {
        id,
        session,
        is_renewed: false,
        next: OnceCell::new(),
    };
    let initialized = json!({ "jsonrpc": "2.0", "method": method::INITIALIZED }).to_string();
    exchange
        .tell(&opened.headers(), initialized.into())
        .await
        .map_err(NotOpened::Remote)?;
    Ok(opened)
}
