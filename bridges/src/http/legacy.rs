//! The legacy era over HTTP: sessions by header, and statuses that never mean what a modern one does.

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use bus_schema::{ProtocolVersion, RpcError, header, mcp::method, rpc, rpc::Kind};
use bytes::Bytes;

use super::{DOOR, Door, answer, principal, text_header, trace_of};
use crate::{
    front::{Answering, Caller, Endpoint, Step, Teardown},
    legacy::{CallGuard, Dialect, Local, Session, SessionError, answer_locally, downgrade, upgrade},
    outbox,
    request::Incoming,
};

pub(super) async fn handle(
    door: &Door,
    endpoint: Endpoint,
    headers: &HeaderMap,
    incoming: Incoming,
) -> Response {
    if incoming.kind == Kind::Request && incoming.method == method::INITIALIZE {
        return initialize(door, endpoint, &incoming);
    }
    let session = match find_session(door, &endpoint, headers) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    if let Some(version) = text_header(headers, header::PROTOCOL_VERSION)
        && version.parse::<ProtocolVersion>().is_err()
    {
        let error = RpcError::invalid_request(format!(
            "protocol version `{version}` in header MCP-Protocol-Version is unknown"
        ));
        return answer::error(StatusCode::BAD_REQUEST, incoming.id.as_deref(), &error);
    }
    match incoming.kind {
        Kind::Request => request(door, &session, headers, incoming).await,
        Kind::Notification => {
            if incoming.method == method::CANCELLED
                && let Some(id) = &incoming.request_id
            {
                session.cancel_call(id);
            }
            StatusCode::ACCEPTED.into_response()
        }
        // Nothing was asked of the client, so there is nothing that this answers.
        Kind::Response => StatusCode::ACCEPTED.into_response(),
    }
}

/// DELETE ends a session; so does nothing else.
pub(super) fn end_session(door: &Door, endpoint: &Endpoint, headers: &HeaderMap) -> Response {
    match find_session(door, endpoint, headers) {
        Ok(_) => {
            door.sessions
                .end(text_header(headers, header::SESSION_ID).unwrap_or_default());
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => *response,
    }
}

fn find_session(
    door: &Door,
    endpoint: &Endpoint,
    headers: &HeaderMap,
) -> Result<Arc<Session>, Box<Response>> {
    let id = text_header(headers, header::SESSION_ID);
    door.sessions.find(id, endpoint, &principal()).map_err(|error| {
        let (status, text) = match error {
            SessionError::Missing => (
                StatusCode::BAD_REQUEST,
                "header Mcp-Session-Id is missing: open a session with `initialize`, or send the metadata of protocol version 2026-07-28",
            ),
            SessionError::Unknown => (StatusCode::NOT_FOUND, "the session is unknown or has ended; open a new one with `initialize`"),
        };
        Box::new(answer::error(status, None, &RpcError::invalid_request(text)))
    })
}

fn initialize(door: &Door, endpoint: Endpoint, incoming: &Incoming) -> Response {
    let unknown_server = matches!(endpoint, Endpoint::Server(_)) && door.front.card(&endpoint).is_none();
    match Session::open(&door.front, endpoint, principal(), incoming) {
        Ok((session, result)) => {
            let id = door.sessions.keep(session);
            let body = rpc::result_response(
                incoming.id.as_deref().unwrap_or("null"),
                result.to_string().as_bytes(),
            );
            let mut response = answer::json(StatusCode::OK, body.into());
            if let Ok(value) = HeaderValue::try_from(id) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(header::SESSION_ID), value);
            }
            response
        }
        Err(error) => {
            let status = if unknown_server {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::OK
            };
            answer::error(status, incoming.id.as_deref(), &error)
        }
    }
}

async fn request(door: &Door, session: &Arc<Session>, headers: &HeaderMap, incoming: Incoming) -> Response {
    if let Local::Answer(body) = answer_locally(session, &incoming) {
        return answer::json(StatusCode::OK, body);
    }
    let caller = Caller {
        principal: session.principal.clone(),
        door: DOOR,
        endpoint: session.endpoint.clone(),
        protocol_version: session.version,
        trace: trace_of(headers),
        ending: door.stop.clone(),
        teardown: Teardown::Result,
    };
    let id = incoming.id.clone().unwrap_or_default();
    let called = incoming.method.clone();
    let call = session.begin_call(&id);
    let answering = door.front.ask(&caller, &upgrade(session, incoming)).await;
    let (out, mut steps) = outbox::open();
    tokio::spawn(run(answering, call, session.dialect(), called, out));
    match steps.next().await {
        Some(outbox::Step::Answer(body)) => answer::json(StatusCode::OK, body),
        Some(outbox::Step::Part(first)) => answer::stream_response(first, steps),
        // The client cancelled the call, and is answered nothing.
        None => StatusCode::ACCEPTED.into_response(),
    }
}

/// Runs a call to its end, whether or not its client stays: a lost connection is no cancellation in this era.
async fn run(
    mut answering: Answering,
    call: CallGuard,
    dialect: Dialect,
    called: String,
    out: outbox::Sender<Bytes>,
) {
    loop {
        let step = tokio::select! {
            step = answering.next() => step,
            () = call.cancelled.cancelled() => return,
        };
        match step {
            Step::Part(part) => out.offer(part).await,
            Step::Final(last) => return out.answer(downgrade(dialect, &called, &last)),
        }
    }
}
