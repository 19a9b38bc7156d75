//! The legacy era over HTTP: sessions by header, and statuses that never mean what a modern one does.
//!
//! What a POST brings is told apart here; the calls it makes are in `calls`, GET is in `listening` and `resuming`.

mod calls;
mod listening;
mod resuming;

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header as http_header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    ProtocolVersion, RpcError,
    audit::{Kind as Audited, Record},
    header,
    mcp::{Era, error::LEGACY_SERVER, meta, method},
    rpc::{self, Kind, Message},
};
use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use self::calls::Manner;
use super::{
    DOOR, Door, admission, answer, body, limited, method_not_allowed, modern::Accepts, recording,
    says_modern, text_header, trace_of,
};
use crate::{
    auth::Admitted,
    front::{Barred, Caller, Endpoint, Met, says_nothing},
    legacy::{Session, SessionError, questions::Taken, staying, streams::Place},
    request::Incoming,
};

/// After how long a client that is shut out by the bus, or by its own calls, may come again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

pub(super) async fn handle(
    door: &Door,
    endpoint: Endpoint,
    who: &Admitted,
    headers: &HeaderMap,
    incoming: Incoming,
    room: Option<OwnedSemaphorePermit>,
) -> Response {
    if incoming.kind == Kind::Request && incoming.method == method::INITIALIZE {
        return initialize(door, endpoint, who, &incoming).await;
    }
    let session = match find_session(door, &endpoint, who, headers, incoming.id.as_deref()).await {
        Ok(session) => session,
        Err(response) => return *response,
    };
    if let Err(Barred::Scopes(scopes)) = door.front.authorize(&who.principal, &endpoint, &incoming).await {
        return admission::step_up(door, (&endpoint, admission::MCP), Some(&incoming), scopes);
    }
    let manner = manner(door, &session, headers, room);
    match incoming.kind {
        Kind::Request => {
            let response = calls::single(door, session, &manner, incoming).await;
            limited::told(response, &manner.caller.met)
        }
        Kind::Notification => {
            let response = notify(door, &session, &manner.caller, &incoming).await;
            limited::told(response, &manner.caller.met)
        }
        Kind::Response => take_response(door, &session, incoming.body).await,
    }
}

/// Takes an array of messages, which one version of the protocol has.
pub(super) async fn batch(
    door: &Door,
    endpoint: Endpoint,
    who: &Admitted,
    headers: &HeaderMap,
    body::Whole { bytes, room }: body::Whole,
) -> Response {
    let session = match find_session(door, &endpoint, who, headers, None).await {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let manner = manner(door, &session, headers, room);
    calls::batch(door, session, &manner, &bytes).await
}

/// GET listens for notices, or goes on with a stream that was lost.
pub(super) async fn get(door: &Door, endpoint: Endpoint, who: &Admitted, headers: &HeaderMap) -> Response {
    if says_modern(headers) || !headers.contains_key(header::SESSION_ID) {
        return method_not_allowed();
    }
    let session = match find_session(door, &endpoint, who, headers, None).await {
        Ok(session) => session,
        Err(response) => return *response,
    };
    let accept = text_header(headers, http_header::ACCEPT.as_str()).unwrap_or("*/*");
    if !["text/event-stream", "text/*", "*/*"]
        .iter()
        .any(|essence| accept.to_ascii_lowercase().contains(essence))
    {
        let error = RpcError::invalid_request("GET streams events; accept text/event-stream");
        return answer::error(StatusCode::NOT_ACCEPTABLE, None, &error);
    }
    let last = text_header(headers, header::LAST_EVENT_ID).filter(|id| !id.is_empty());
    match (last, last.and_then(Place::parse)) {
        (_, Some((place, at))) => resuming::resume(door, &session, place, at).await,
        (None, _) => listening::listen(door, session, who, None).await,
        (Some(id), None) => match listening::digests(id) {
            Some(digests) => listening::listen(door, session, who, Some(digests)).await,
            None => {
                let error = RpcError::invalid_request(format!(
                    "header Last-Event-ID: `{id}` is no event of this platform"
                ));
                let response = answer::error(StatusCode::BAD_REQUEST, None, &error);
                recording::mark(response, Record::refused(Audited::Owner, "event_id"))
            }
        },
    }
}

/// DELETE ends a session; so does nothing else but time.
pub(super) async fn end_session(
    door: &Door,
    endpoint: &Endpoint,
    who: &Admitted,
    headers: &HeaderMap,
) -> Response {
    let session = match find_session(door, endpoint, who, headers, None).await {
        Ok(session) => session,
        Err(response) => return *response,
    };
    if let Err(error) = door.room.sessions.end(&session).await {
        return refused(&error, None);
    }
    door.room.cancel(&session, None).await;
    StatusCode::NO_CONTENT.into_response()
}

async fn find_session(
    door: &Door,
    endpoint: &Endpoint,
    who: &Admitted,
    headers: &HeaderMap,
    id: Option<&str>,
) -> Result<Arc<Session>, Box<Response>> {
    let name = text_header(headers, header::SESSION_ID);
    if headers.get_all(header::SESSION_ID).iter().nth(1).is_some() {
        let error = RpcError::invalid_request("header Mcp-Session-Id is there twice");
        let response = answer::error(StatusCode::BAD_REQUEST, id, &error);
        let record = Record::refused(Audited::Request, "header_mismatch");
        return Err(Box::new(recording::mark(response, record)));
    }
    let found = door.room.sessions.find(name, endpoint, &who.principal).await;
    let session = found.map_err(|error| Box::new(refused(&error, id)))?;
    match text_header(headers, header::PROTOCOL_VERSION) {
        Some(version) if version.parse::<ProtocolVersion>().map(ProtocolVersion::era) != Ok(Era::Legacy) => {
            let error = RpcError::invalid_request(format!(
                "protocol version `{version}` in header MCP-Protocol-Version is none of a session's"
            ));
            Err(Box::new(answer::error(StatusCode::BAD_REQUEST, id, &error)))
        }
        _ => Ok(Arc::new(session)),
    }
}

/// What a client hears whose session cannot be used. Only one that has no session any more hears 404, as it opens a new one then.
fn refused(error: &SessionError, id: Option<&str>) -> Response {
    let status = match error {
        SessionError::Missing | SessionError::TooLarge(_) | SessionError::Refused(_) => {
            StatusCode::BAD_REQUEST
        }
        SessionError::Unknown => StatusCode::NOT_FOUND,
        SessionError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let rpc_error = match (error, status) {
        (SessionError::TooLarge(error) | SessionError::Refused(error), _) => error.clone(),
        (SessionError::TooMany(_), _) => RpcError::new(LEGACY_SERVER, error.to_string()),
        (_, StatusCode::SERVICE_UNAVAILABLE) => RpcError::internal(error.to_string()),
        _ => RpcError::invalid_request(error.to_string()),
    };
    let response = match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => later(status, id, &rpc_error),
        _ => answer::error(status, id, &rpc_error),
    };
    match error {
        SessionError::Unknown => recording::mark(response, Record::refused(Audited::Owner, "session")),
        SessionError::TooMany(_) => recording::mark(response, Record::refused(Audited::Limit, "sessions")),
        _ => response,
    }
}

/// Answers a client that may come again with the same request.
fn later(status: StatusCode, id: Option<&str>, error: &RpcError) -> Response {
    let mut response = answer::error(status, id, error);
    response
        .headers_mut()
        .insert(http_header::RETRY_AFTER, RETRY_AFTER);
    response
}

async fn initialize(door: &Door, endpoint: Endpoint, who: &Admitted, incoming: &Incoming) -> Response {
    let id = incoming.id.as_deref();
    let unknown_server = matches!(endpoint, Endpoint::Server(_)) && door.front.card(&endpoint).is_none();
    let (session, result) = match Session::open(&door.front, endpoint, who.principal.clone(), incoming) {
        Ok(opened) => opened,
        Err(error) => {
            let status = if unknown_server {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            return answer::error(status, id, &error);
        }
    };
    let name = match door.room.sessions.keep(session).await {
        Ok(name) => name,
        Err(error) => return refused(&error, id),
    };
    let body = rpc::result_response(id.unwrap_or("null"), result.to_string().as_bytes());
    let mut response = answer::json(StatusCode::OK, body.into());
    if let Ok(value) = HeaderValue::try_from(name) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(header::SESSION_ID), value);
    }
    response
}

fn manner(door: &Door, session: &Session, headers: &HeaderMap, room: Option<OwnedSemaphorePermit>) -> Manner {
    Manner {
        caller: Caller {
            principal: session.principal.clone(),
            door: DOOR,
            endpoint: session.endpoint.clone(),
            protocol_version: session.version,
            trace: trace_of(headers),
            staying: Some(staying(&door.room, session)),
            met: Met::default(),
            ending: door.stop.clone(),
        },
        accepts: Accepts::of(headers).unwrap_or(Accepts::Both),
        room: room.map(Arc::new),
    }
}

/// Takes a notification: a cancellation goes to whichever door runs the call, and what only a server may know goes there.
async fn notify(door: &Door, session: &Session, caller: &Caller, incoming: &Incoming) -> Response {
    if incoming.method == method::CANCELLED
        && let Some(id) = &incoming.request_id
    {
        door.room.cancel(session, Some(id)).await;
    }
    if !says_nothing(&caller.endpoint, &incoming.method)
        && let Err(refused) = door.front.notify(caller, incoming).await
    {
        debug!(code = refused.code, "a client's notification was not taken");
        return answer::json(StatusCode::BAD_REQUEST, refused.body);
    }
    StatusCode::ACCEPTED.into_response()
}

/// Takes a client's response to what a server has asked in the middle of a call, at whichever door that runs.
async fn take_response(door: &Door, session: &Session, body: Bytes) -> Response {
    match hand_over(door, session, body).await {
        Taken::Yes => StatusCode::ACCEPTED.into_response(),
        Taken::No => {
            let error = RpcError::invalid_request(
                "nothing waits for this response: its `id` is none that was asked in this session, or the call has ended",
            );
            let response = answer::error(StatusCode::BAD_REQUEST, None, &error);
            recording::mark(response, Record::refused(Audited::Owner, "answer"))
        }
    }
}

async fn hand_over(door: &Door, session: &Session, body: Bytes) -> Taken {
    let id = Message::parse(&body)
        .ok()
        .and_then(|message| message.id)
        .and_then(|id: &RawValue| meta::as_text(id).map(std::borrow::Cow::into_owned));
    match id {
        Some(id) => door.room.answer(session, &id, body).await,
        None => Taken::No,
    }
}
