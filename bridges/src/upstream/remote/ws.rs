//! WebSocket: one message a text frame, both eras, with the rules of a pipe.
//!
//! The protocol leaves this transport to agreement. Ours: the sub-protocol `mcp`, as the SDKs have it, pings against silence, and
//! the close frame as the end. Messages that are too long to skip end the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderValue, StatusCode, Uri, header as http};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, stream::SplitSink};
use runtime::Verdict;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        error::{ProtocolError, SubProtocolError},
        protocol::WebSocketConfig,
    },
};
use tracing::debug;

use crate::{
    lines::MAX_LINE_BYTES,
    upstream::{
        answer,
        link::{Link, Outgoing},
    },
};

use super::{
    client::Client,
    credentials::Shown,
    dial::Stream,
    error::{RemoteError, chain},
    health::Health,
    options::shown,
};

/// What is spoken over the socket.
const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("mcp");
/// How long the upgrade may take.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// How often a silent server is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How many pings in a row it may leave unanswered.
const MAX_UNANSWERED: u32 = 3;
/// How long it may take to take a frame.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// How long its end of the close may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// What is read to tell which call a message was too long for; beyond, the connection ends.
const MAX_MESSAGE_BYTES: usize = 2 * MAX_LINE_BYTES;

/// An open socket.
pub(super) struct Socket(WebSocketStream<Stream>);

impl Socket {
    /// Connects, and offers the sub-protocol unless the server knows none.
    ///
    /// # Errors
    /// [`RemoteError`] when the server cannot be reached or upgrades to nothing.
    pub(super) async fn open(client: &Client, uri: &Uri) -> Result<Self, RemoteError> {
        let mut offered = Some(SUBPROTOCOL);
        let mut renewed = false;
        loop {
            let upgrade = upgrade(client, uri, offered.as_ref());
            let failed = match timeout(UPGRADE_LIMIT, upgrade).await {
                Ok(Ok(socket)) => return Ok(Self(socket)),
                Ok(Err(failed)) => failed,
                Err(_) => return Err(RemoteError::Late(UPGRADE_LIMIT)),
            };
            match failed {
                NotUpgraded::NoSubprotocol if offered.is_some() => offered = None,
                NotUpgraded::Denied(status, shown) => {
                    let may_be_other = status == StatusCode::UNAUTHORIZED && !renewed;
                    if !may_be_other || client.credentials().renewed(&shown).await?.is_none() {
                        return Err(RemoteError::Denied(status));
                    }
                    renewed = true;
                }
                NotUpgraded::NoSubprotocol => {
                    return Err(RemoteError::Unusable("it insists on a sub-protocol".to_owned()));
                }
                NotUpgraded::Remote(error) => return Err(error),
            }
        }
    }

    /// Carries messages in both directions until either side closes.
    pub(super) async fn talk(
        self,
        link: Arc<Link>,
        health: Arc<Health>,
        mut queue: mpsc::Receiver<Outgoing>,
    ) {
        let _broken = link.break_guard();
        let (mut sink, mut frames) = self.0.split();
        let unanswered = AtomicU32::new(0);
        let reading = async {
            loop {
                let frame = frames.next().await;
                unanswered.store(0, Ordering::Relaxed);
                if let Err(why) = take(&link, frame) {
                    return why;
                }
                link.pace.rest().await;
            }
        };
        let ended = tokio::select! {
            why = reading => Some(why),
            ended = write(&link, &mut sink, &unanswered, &mut queue) => ended.err(),
        };
        match ended {
            Some(why) => health.give_up(why),
            None => {
                let closing = async {
                    let _ = sink.close().await;
                    while let Some(Ok(_)) = frames.next().await {}
                };
                let _ = timeout(CLOSE_LIMIT, closing).await;
            }
        }
    }
}

/// Writes what is queued, and pings between; `Err` says why that is no use any more.
async fn write(
    link: &Link,
    sink: &mut SplitSink<WebSocketStream<Stream>, Message>,
    unanswered: &AtomicU32,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> Result<(), String> {
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (frame, _room) = tokio::select! {
            biased;
            outgoing = queue.recv() => match outgoing.map(Outgoing::into_message) {
                Some((line, room)) => match Utf8Bytes::try_from(line) {
                    Ok(text) => (Message::Text(text), room),
                    Err(_) => continue,
                },
                None => return Ok(()),
            },
            _ = pings.tick() => {
                if unanswered.fetch_add(1, Ordering::Relaxed) >= MAX_UNANSWERED {
                    return Err("it says nothing any more".to_owned());
                }
                (Message::Ping(Bytes::new()), None)
            }
            () = link.closed() => return Ok(()),
        };
        match timeout(SEND_LIMIT, sink.send(frame)).await {
            Ok(sent) => sent.map_err(|error| chain(&error))?,
            Err(_) => return Err("it does not read".to_owned()),
        }
    }
}

/// Takes a frame; `Err` says why there are no more.
fn take(link: &Link, frame: Option<Result<Message, tungstenite::Error>>) -> Result<(), String> {
    match frame {
        Some(Ok(Message::Text(text))) => {
            take_text(link, text.as_bytes());
            Ok(())
        }
        Some(Ok(Message::Binary(_))) => Err("it sent a binary frame, where text is expected".to_owned()),
        Some(Ok(Message::Close(_))) | None => Err("it closed the connection".to_owned()),
        // Pings are answered below this.
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(chain(&error)),
    }
}

fn take_text(link: &Link, text: &[u8]) {
    if text.len() <= MAX_LINE_BYTES {
        // What is no message has been logged.
        let _ = link.take(text, None);
        return;
    }
    let skipped = crate::lines::Skipped::of(text);
    let entry = skipped.answered_call().and_then(|call| link.pending.remove(call));
    debug!(server.id = %link.server, bytes = skipped.bytes, "skipped a message that is longer than one may be");
    if let Some(entry) = entry {
        entry.refuse(&answer::too_long(skipped.bytes), Verdict::Answered);
    }
}

enum NotUpgraded {
    /// It knows no sub-protocol.
    NoSubprotocol,
    /// With what was shown.
    Denied(StatusCode, Arc<Shown>),
    Remote(RemoteError),
}

async fn upgrade(
    client: &Client,
    uri: &Uri,
    offered: Option<&HeaderValue>,
) -> Result<WebSocketStream<Stream>, NotUpgraded> {
    let shown = client.credentials().get().await.map_err(NotUpgraded::Remote)?;
    let mut request = uri
        .clone()
        .into_client_request()
        .map_err(|error| NotUpgraded::Remote(explain(error)))?;
    request.headers_mut().extend(client.standing().clone());
    request.headers_mut().extend(shown.headers.clone());
    if let Some(offered) = offered {
        request
            .headers_mut()
            .insert(http::SEC_WEBSOCKET_PROTOCOL, offered.clone());
    }
    let stream = client.dialer().connect(uri).await.map_err(NotUpgraded::Remote)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol,
        ))) => Err(NotUpgraded::NoSubprotocol),
        Err(tungstenite::Error::Http(answer)) if matches!(answer.status().as_u16(), 401 | 403) => {
            Err(NotUpgraded::Denied(answer.status(), shown))
        }
        Err(error) => Err(NotUpgraded::Remote(explain(error))),
    }
}

fn explain(error: tungstenite::Error) -> RemoteError {
    match error {
        tungstenite::Error::Http(answer) if answer.status().is_redirection() => {
            let target = answer.headers().get(http::LOCATION);
            let target = target.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            RemoteError::Redirected(shown(&target.unwrap_or_default()))
        }
        tungstenite::Error::Http(answer) => {
            super::reply::refused(answer.status(), answer.body().as_deref().unwrap_or_default())
        }
        error => RemoteError::Lost(chain(&error)),
    }
}
