//! The ladder that every modern request climbs before it goes anywhere.
//!
//! Source: MCP 2026-07-28, Streamable HTTP and versioning. The order of the rungs is that of the official conformance suite.

use axum::{
    http::{HeaderMap, StatusCode, header as http_header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    ProtocolVersion, RpcError,
    audit::{Kind as Audited, Record},
    header,
    mcp::{error, method},
    rpc::Kind,
};

use super::{DOOR, Door, admission, answer, limited, recording, text_header, trace_of};
use crate::{
    auth::Admitted,
    front::{Barred, Caller, Endpoint, Met, says_nothing},
    param_headers,
    request::Incoming,
};

pub(super) async fn handle(
    door: &Door,
    endpoint: Endpoint,
    who: &Admitted,
    headers: &HeaderMap,
    incoming: Incoming,
) -> Response {
    match incoming.kind {
        Kind::Request => {}
        Kind::Notification => return notify(door, endpoint, who, headers, &incoming).await,
        Kind::Response => {
            let error = RpcError::invalid_request("a client of this protocol version sends no responses");
            return answer::error(StatusCode::BAD_REQUEST, None, &error);
        }
    }
    let Some(accepts) = Accepts::of(headers) else {
        let error = RpcError::invalid_request("accept both application/json and text/event-stream");
        return answer::error(StatusCode::NOT_ACCEPTABLE, incoming.id.as_deref(), &error);
    };
    if incoming.method == method::LISTEN && accepts != Accepts::Both {
        let error = RpcError::invalid_request("to listen, accept text/event-stream");
        return answer::error(StatusCode::NOT_ACCEPTABLE, incoming.id.as_deref(), &error);
    }
    let refused = |error: RpcError| {
        let response = answer::error(answer::refusal_status(error.code), incoming.id.as_deref(), &error);
        if error.code != error::HEADER_MISMATCH {
            return response;
        }
        let record = Record::refused(Audited::Request, "header_mismatch").about(&incoming.body);
        let name = incoming.name.as_ref().map(|name| name.value.as_str());
        recording::mark(response, record.asking(&incoming.method, name))
    };
    if let Err(error) = climb(door, &endpoint, headers, &incoming) {
        return refused(error);
    }
    let caller = caller(door, endpoint, who, headers);
    let endpoint = &caller.endpoint;
    let weighed = door.front.weigh(&caller, &incoming).await;
    match weighed.barred() {
        None if incoming.method == method::TOOLS_CALL => {
            if let Err(error) = param_headers::check(&door.front, endpoint, headers, &incoming).await {
                return refused(error);
            }
        }
        // Whoever may not see a tool must not learn which headers it asks for either: it is refused like one that is not there.
        None | Some(Barred::Error(_)) => {}
        Some(Barred::Scopes(scopes)) => {
            let asked = Some(&incoming);
            return admission::step_up(door, (endpoint, admission::MCP), asked, scopes.clone());
        }
    }
    let answering = door.front.ask_weighed(weighed).await;
    let response = answer::modern(answering, accepts, answer::End::new(who, caller.ending)).await;
    limited::told(response, &caller.met)
}

fn caller(door: &Door, endpoint: Endpoint, who: &Admitted, headers: &HeaderMap) -> Caller {
    Caller {
        principal: who.principal.clone(),
        door: DOOR,
        endpoint,
        protocol_version: ProtocolVersion::MODERN,
        trace: trace_of(headers),
        staying: None,
        met: Met::default(),
        ending: door.stop.child_token(),
    }
}

/// Passes on what a server may know. The protocol's own notifications say nothing here: closing the response stream is what cancels.
async fn notify(
    door: &Door,
    endpoint: Endpoint,
    who: &Admitted,
    headers: &HeaderMap,
    incoming: &Incoming,
) -> Response {
    if says_nothing(&endpoint, &incoming.method) {
        return StatusCode::ACCEPTED.into_response();
    }
    let caller = caller(door, endpoint, who, headers);
    let response = match door.front.notify(&caller, incoming).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refused) => answer::refused_notification(*refused),
    };
    limited::told(response, &caller.met)
}

/// What a client takes as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    /// JSON, or events where there are notifications.
    Both,
    /// JSON only: notifications are left out.
    JsonOnly,
}

impl Accepts {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let Some(accept) = text_header(headers, http_header::ACCEPT.as_str()) else {
            return Some(Self::Both);
        };
        let accept = accept.to_ascii_lowercase();
        let takes = |essence: &str, family: &str| {
            accept
                .split(',')
                .map(|range| range.split(';').next().unwrap_or_default().trim())
                .any(|range| range == essence || range == family || range == "*/*")
        };
        match (
            takes("application/json", "application/*"),
            takes("text/event-stream", "text/*"),
        ) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::JsonOnly),
            (false, _) => None,
        }
    }
}

fn climb(door: &Door, endpoint: &Endpoint, headers: &HeaderMap, incoming: &Incoming) -> Result<(), RpcError> {
    // Whoever stands before the door may have read the other one.
    for name in [header::PROTOCOL_VERSION, header::METHOD, header::NAME] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(RpcError::header_mismatch(format!(
                "header `{name}` is there twice"
            )));
        }
    }
    let missing = |name: &str| RpcError::header_mismatch(format!("header `{name}` is missing"));
    let version =
        text_header(headers, header::PROTOCOL_VERSION).ok_or_else(|| missing(header::PROTOCOL_VERSION))?;
    let called = text_header(headers, header::METHOD).ok_or_else(|| missing(header::METHOD))?;
    let name = match &incoming.name {
        // Clients of the tasks extension are seen to leave the header out, and the id says the same.
        Some(_)
            if !headers.contains_key(header::NAME) && method::TASKS.contains(&incoming.method.as_str()) =>
        {
            None
        }
        Some(piece) => {
            let value = text_header(headers, header::NAME).ok_or_else(|| missing(header::NAME))?;
            let value = header::decode_value(value)
                .map_err(|bad| RpcError::header_mismatch(format!("header `{}`: {bad}", header::NAME)))?;
            Some((value, piece))
        }
        None => None,
    };
    let meta_key =
        |key: &str| RpcError::invalid_params(format!("`params._meta` needs `io.modelcontextprotocol/{key}`"));
    let own_version = incoming
        .meta
        .protocol_version
        .as_deref()
        .ok_or_else(|| meta_key("protocolVersion"))?;
    if !incoming.meta.has_capabilities {
        return Err(meta_key("clientCapabilities"));
    }
    mirrors(header::PROTOCOL_VERSION, version, own_version)?;
    mirrors(header::METHOD, called, &incoming.method)?;
    if let Some((value, piece)) = &name {
        mirrors(header::NAME, value, &piece.value)?;
    }
    if own_version != ProtocolVersion::MODERN.as_str() {
        return Err(RpcError::unsupported_version(own_version));
    }
    door.front.check_method(endpoint, &incoming.method)
}

fn mirrors(name: &str, value: &str, body: &str) -> Result<(), RpcError> {
    if value == body {
        return Ok(());
    }
    Err(RpcError::new(
        error::HEADER_MISMATCH,
        format!("header `{name}` says `{value}`, but the body says `{body}`"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_accepts_is_read_leniently() {
        for (accept, expected) in [
            (None, Some(Accepts::Both)),
            (Some("application/json, text/event-stream"), Some(Accepts::Both)),
            (Some("*/*"), Some(Accepts::Both)),
            (Some("Application/JSON;q=0.9,text/*"), Some(Accepts::Both)),
            (Some("application/json"), Some(Accepts::JsonOnly)),
            (Some("text/event-stream"), None),
            (Some("text/html"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(http_header::ACCEPT, accept.parse().expect("header"));
            }
            assert_eq!(Accepts::of(&headers), expected, "{accept:?}");
        }
    }
}
