//! The WebSocket door: one JSON-RPC message a text frame, both eras on one connection.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{
        Path,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bus_schema::{ServerId, envelope::MAX_BODY_BYTES};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    auth::{Admitted, Ended},
    conversation::Conversation,
    front::Endpoint,
    http::Door,
};

/// The name of this door in envelopes and meters.
const DOOR: &str = "ws";
/// The close codes for clients that may not go on, as IANA has registered them.
const UNAUTHORIZED: u16 = 3000;
const FORBIDDEN: u16 = 3003;
/// How often a silent client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long it may say nothing at all.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long the end of a closed connection is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long a client may take to take a frame.
const SEND_LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn all_servers(
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let endpoint = door.shared.clone();
    open(door, endpoint, who, upgrade)
}

pub(crate) async fn all_tools(
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    upgrade: WebSocketUpgrade,
) -> Response {
    open(door, Endpoint::All, who, upgrade)
}

pub(crate) async fn search(
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    upgrade: WebSocketUpgrade,
) -> Response {
    open(door, Endpoint::Search, who, upgrade)
}

pub(crate) async fn one_server(
    Extension(door): Extension<Arc<Door>>,
    Path(id): Path<String>,
    Extension(who): Extension<Admitted>,
    upgrade: WebSocketUpgrade,
) -> Response {
    match id.parse::<ServerId>() {
        Ok(id) => open(door, Endpoint::Server(id), who, upgrade),
        Err(error) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    }
}

fn open(door: Arc<Door>, endpoint: Endpoint, who: Admitted, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols(["mcp"])
        .max_message_size(MAX_BODY_BYTES)
        .max_frame_size(MAX_BODY_BYTES)
        .on_upgrade(move |socket| {
            door.conversations.clone().track_future(async move {
                let stop = door.stop.clone();
                let principal = who.principal.clone();
                let (conversation, messages) =
                    Conversation::begin(door.front.clone(), endpoint, principal, DOOR);
                talk(socket, conversation, messages, who, stop).await;
            })
        })
}

async fn talk(
    mut socket: WebSocket,
    mut conversation: Conversation,
    mut messages: mpsc::Receiver<Bytes>,
    who: Admitted,
    stop: CancellationToken,
) {
    let ended = who.ended();
    tokio::pin!(ended);
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut heard = Instant::now();
    loop {
        let flow = tokio::select! {
            Some(message) = messages.recv() => send_text(&mut socket, message).await,
            frame = socket.recv() => {
                heard = Instant::now();
                take(frame, &mut socket, &mut conversation, &mut messages).await
            }
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_LIMIT {
                    debug!("a websocket client was silent for too long");
                    return;
                }
                send(&mut socket, Message::Ping(Bytes::new())).await
            }
            end = &mut ended => {
                debug!(?end, "a websocket client may not go on");
                let (code, why) = match end {
                    Ended::Expired => (UNAUTHORIZED, "the token has expired; connect again with another"),
                    Ended::Blocked => (FORBIDDEN, "the caller is blocked"),
                    Ended::Distrusted => (
                        UNAUTHORIZED,
                        "the client certificate counts no more; connect again with another",
                    ),
                };
                close(&mut socket, code, why).await;
                return;
            }
            () = stop.cancelled() => {
                finish(&mut socket, &conversation, &mut messages).await;
                close(&mut socket, close_code::AWAY, "the platform is stopping").await;
                return;
            }
        };
        if flow.is_break() {
            return;
        }
    }
}

async fn take(
    frame: Option<Result<Message, axum::Error>>,
    socket: &mut WebSocket,
    conversation: &mut Conversation,
    messages: &mut mpsc::Receiver<Bytes>,
) -> ControlFlow<()> {
    match frame {
        Some(Ok(Message::Text(text))) => {
            let taking = conversation.take(Bytes::from(text));
            tokio::pin!(taking);
            // Taking waits when the client reads slowly: it must go on being served meanwhile.
            loop {
                tokio::select! {
                    () = &mut taking => return ControlFlow::Continue(()),
                    Some(message) = messages.recv() => send_text(socket, message).await?,
                }
            }
        }
        Some(Ok(Message::Binary(_))) => {
            close(
                socket,
                close_code::UNSUPPORTED,
                "send JSON-RPC messages as text frames",
            )
            .await;
            ControlFlow::Break(())
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => ControlFlow::Continue(()),
        Some(Ok(Message::Close(_))) => {
            // The library answers a close as it goes on reading.
            let _ = timeout(CLOSE_LIMIT, socket.recv()).await;
            ControlFlow::Break(())
        }
        None => ControlFlow::Break(()),
        Some(Err(error)) => {
            debug!(%error, "a websocket connection has failed");
            ControlFlow::Break(())
        }
    }
}

/// Sends what the running calls still answer.
async fn finish(socket: &mut WebSocket, conversation: &Conversation, messages: &mut mpsc::Receiver<Bytes>) {
    let finished = conversation.finish();
    tokio::pin!(finished);
    loop {
        tokio::select! {
            biased;
            Some(message) = messages.recv() => if send_text(socket, message).await.is_break() {
                return;
            },
            () = &mut finished => break,
        }
    }
    while let Ok(message) = messages.try_recv() {
        if send_text(socket, message).await.is_break() {
            return;
        }
    }
}

async fn send_text(socket: &mut WebSocket, message: Bytes) -> ControlFlow<()> {
    match message.try_into() {
        Ok(text) => send(socket, Message::Text(text)).await,
        Err(_) => {
            debug!("left out a message that is not UTF-8");
            ControlFlow::Continue(())
        }
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> ControlFlow<()> {
    match timeout(SEND_LIMIT, socket.send(message)).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let _ = send(
        socket,
        Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })),
    )
    .await;
}
