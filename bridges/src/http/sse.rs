//! HTTP+SSE, the transport of 2024-11-05: GET opens a stream on which everything comes, and tells where to POST.
//!
//! The stream is a conversation like any other channel's, held by the process that took the GET. What the client POSTs, to whichever
//! bridge, is handed to that process; the address to POST to names it, and is as good as nothing to anybody but the client's principal.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header as http_header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bus_schema::{Principal, RpcError, ServerId, mcp::error};
use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use super::{
    Door, Listener, admission, answer, body,
    events::{self, Source},
};
use crate::{
    auth::Admitted,
    conversation::Conversation,
    front::{Barred, Endpoint},
    legacy::{
        channels::{Channel, Handed},
        key,
    },
    request::Incoming,
};

/// The name of this door in envelopes and meters.
const DOOR: &str = "sse";

/// The routes of this transport.
pub(super) fn routes() -> Router<Listener> {
    Router::new()
        .route("/sse", get(open_all))
        .route("/messages/{channel}", post(take_all))
        .route("/servers/{id}/sse", get(open_one))
        .route("/servers/{id}/messages/{channel}", post(take_one))
}

async fn open_all(Extension(door): Extension<Arc<Door>>, Extension(who): Extension<Admitted>) -> Response {
    open(&door, door.shared.clone(), who)
}

async fn open_one(
    Extension(door): Extension<Arc<Door>>,
    Path(id): Path<String>,
    Extension(who): Extension<Admitted>,
) -> Response {
    match id.parse::<ServerId>() {
        Ok(id) => open(&door, Endpoint::Server(id), who),
        Err(error) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    }
}

async fn take_all(
    Extension(door): Extension<Arc<Door>>,
    Path(channel): Path<String>,
    Extension(who): Extension<Admitted>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&door, &door.shared, &channel, &who, &headers, body).await
}

async fn take_one(
    Extension(door): Extension<Arc<Door>>,
    Path((id, channel)): Path<(String, String)>,
    Extension(who): Extension<Admitted>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match id.parse::<ServerId>() {
        Ok(id) => take(&door, &Endpoint::Server(id), &channel, &who, &headers, body).await,
        Err(error) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    }
}

fn open(door: &Door, endpoint: Endpoint, who: Admitted) -> Response {
    let room = &door.room;
    let (channel, at) = (new_channel(room.door()), path(&endpoint));
    let principal = who.principal.clone();
    let first = format!("event: endpoint\ndata: {at}/messages/{channel}\n\n");
    let channel = room.channels.open(&channel_key(&principal, &endpoint, &channel));
    let (conversation, messages) = Conversation::begin(room.front.clone(), endpoint, principal, DOOR);
    door.conversations
        .spawn(talk(conversation, channel, who, door.stop.clone()));
    // It ends when the conversation does, which at the end of the process still answers what has begun.
    events::respond(first.into(), Messages(messages), CancellationToken::new())
}

/// Takes what the client sends until it goes, its token ends, or the process stops.
async fn talk(mut conversation: Conversation, mut channel: Channel, who: Admitted, stop: CancellationToken) {
    let ended = who.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            Some(posted) = channel.messages.recv() => {
                conversation.speaks_as(posted.principal);
                conversation.take(posted.message).await;
            }
            () = conversation.closed() => return,
            () = stop.cancelled() => break,
            end = &mut ended => {
                debug!(?end, "a client may not go on, and its stream ends");
                break;
            }
        }
    }
    // Nothing more is taken, and what has begun is answered.
    drop(channel);
    tokio::select! {
        () = conversation.finish() => {}
        () = conversation.closed() => {}
    }
}

async fn take(
    door: &Door,
    endpoint: &Endpoint,
    channel: &str,
    who: &Admitted,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let body::Whole { bytes, room: _room } = match body::read(headers, body, &door.large_bodies).await {
        Ok(whole) => whole,
        Err(response) => return response,
    };
    if let Err(cause) = serde_json::from_slice::<IgnoredAny>(&bytes) {
        let error = RpcError::new(error::PARSE, format!("the body is not JSON: {cause}"));
        return answer::error(StatusCode::BAD_REQUEST, None, &error);
    }
    let principal = &who.principal;
    if let Ok(incoming) = Incoming::read(bytes.clone())
        && let Err(Barred::Scopes(scopes)) = door.front.authorize(principal, endpoint, &incoming).await
    {
        return admission::step_up(door, (endpoint, admission::SSE), incoming.id.as_deref(), scopes);
    }
    let key = channel_key(principal, endpoint, channel);
    match door.room.hand(holder(channel), &key, principal, bytes).await {
        Handed::Yes => StatusCode::ACCEPTED.into_response(),
        Handed::Unknown => {
            let error =
                RpcError::invalid_request("no stream is open for this address; open one with GET on /sse");
            answer::error(StatusCode::NOT_FOUND, None, &error)
        }
        Handed::Full | Handed::Silent => {
            let error = RpcError::internal(
                "the stream takes nothing at the moment; read its answers, and try again shortly",
            );
            let mut response = answer::error(StatusCode::SERVICE_UNAVAILABLE, None, &error);
            response
                .headers_mut()
                .insert(http_header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

/// The messages of a conversation as events.
struct Messages(mpsc::Receiver<Bytes>);

impl Source for Messages {
    async fn next(&mut self) -> Option<Bytes> {
        let message = self.0.recv().await?;
        let mut out = BytesMut::new();
        answer::write_event(&mut out, &message);
        Some(out.freeze())
    }
}

/// A name that says which process holds the channel, and that nobody can guess.
fn new_channel(door: &str) -> String {
    // Version 7 carries 74 random bits; two of them leave nothing to guess.
    format!("{door}.{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple())
}

fn holder(channel: &str) -> &str {
    channel.split_once('.').map_or("", |(door, _)| door)
}

fn channel_key(principal: &Principal, endpoint: &Endpoint, channel: &str) -> String {
    key(principal, &format!("{}/messages/{channel}", path(endpoint)))
}

fn path(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::All | Endpoint::Search => String::new(),
        Endpoint::Server(id) => format!("/servers/{id}"),
    }
}
