//! Single messages between the eras: a legacy request becomes a modern one, a modern answer a legacy one.

use bus_schema::{
    RpcError,
    mcp::{error, meta, method},
    rpc::{self, Message},
};
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::Session;
use crate::{front::Final, request::Incoming};

const LOG_LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// What a legacy request that never leaves the door is answered with.
pub(crate) enum Local {
    /// Answered here.
    Answer(Bytes),
    /// It is for a server.
    Forward,
}

/// Answers what belongs to the session itself, or to a feature that has no legacy form here.
pub(crate) fn answer_locally(session: &Session, incoming: &Incoming) -> Local {
    let id = incoming.id.as_deref().unwrap_or("null");
    match incoming.method.as_str() {
        method::PING => Local::Answer(rpc::result_response(id, b"{}").into()),
        method::SET_LEVEL => Local::Answer(set_level(session, incoming)),
        method::INITIALIZE => {
            let error = RpcError::invalid_request(
                "the session is open already; `initialize` opens a new one without a session id",
            );
            Local::Answer(incoming.error(&error))
        }
        called
            if ![method::DISCOVER, method::LISTEN].contains(&called) && method::SERVED.contains(&called) =>
        {
            Local::Forward
        }
        called => Local::Answer(incoming.error(&RpcError::method_not_found(called))),
    }
}

fn set_level(session: &Session, incoming: &Incoming) -> Bytes {
    let params = incoming
        .params
        .clone()
        .and_then(|place| serde_json::from_slice::<Value>(&incoming.body[place]).ok());
    let level = params
        .as_ref()
        .and_then(|params| params.get("level"))
        .and_then(Value::as_str);
    match level.filter(|level| LOG_LEVELS.contains(level)) {
        Some(level) => {
            session.set_log_level(rpc::quote(level));
            rpc::result_response(incoming.id.as_deref().unwrap_or("null"), b"{}").into()
        }
        None => incoming.error(&RpcError::invalid_params(format!(
            "`params.level` must be one of {}",
            LOG_LEVELS.join(", ")
        ))),
    }
}

/// Adds the metadata that a modern request carries itself, taken from the session. Every other byte stays.
pub(crate) fn upgrade(session: &Session, incoming: Incoming) -> Incoming {
    let mut keys = format!(
        r#""{}":"{}","{}":{}"#,
        meta::PROTOCOL_VERSION,
        bus_schema::ProtocolVersion::MODERN,
        meta::CLIENT_CAPABILITIES,
        session.capabilities
    );
    if let Some(info) = &session.client_info {
        keys.push_str(&format!(r#","{}":{info}"#, meta::CLIENT_INFO));
    }
    if let Some(level) = session.log_level() {
        keys.push_str(&format!(r#","{}":{level}"#, meta::LOG_LEVEL));
    }
    let body = incoming.with_metadata(&keys);
    match Incoming::read(body) {
        Ok(upgraded) => upgraded,
        // What was read once and got a few keys more reads again; should it not, the server says why.
        Err(_) => incoming,
    }
}

/// Turns the answer's errors that only the modern era knows into their legacy form.
pub(crate) fn downgrade(called: &str, last: Final) -> Bytes {
    let Some(code) = last.code else { return last.body };
    let not_found = called == method::RESOURCES_READ && code == error::INVALID_PARAMS;
    if !not_found && code != error::MISSING_CAPABILITY {
        return last.body;
    }
    let Ok(message) = Message::parse(&last.body) else {
        return last.body;
    };
    let Some(Ok(mut error)) = message
        .error
        .map(|raw| serde_json::from_str::<RpcError>(raw.get()))
    else {
        return last.body;
    };
    if code == error::MISSING_CAPABILITY {
        error.data = Some(json!({ "code": error.code, "data": error.data }));
        error.code = error::INTERNAL;
    } else if error.data.as_ref().is_some_and(|data| data.get("uri").is_some()) {
        error.code = error::LEGACY_RESOURCE_NOT_FOUND;
    } else {
        return last.body.clone();
    }
    rpc::error_response(message.id.map(RawValue::get), &error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_get_their_legacy_code() {
        let not_found = RpcError::invalid_params("no").with_data(json!({ "uri": "a:b" }));
        let missing =
            RpcError::new(error::MISSING_CAPABILITY, "no").with_data(json!({ "requiredCapabilities": {} }));
        for (called, error, code) in [
            (
                method::RESOURCES_READ,
                &not_found,
                error::LEGACY_RESOURCE_NOT_FOUND,
            ),
            (method::TOOLS_CALL, &not_found, error::INVALID_PARAMS),
            (
                method::RESOURCES_READ,
                &RpcError::invalid_params("bad"),
                error::INVALID_PARAMS,
            ),
            (method::TOOLS_CALL, &missing, error::INTERNAL),
        ] {
            let last = Final {
                code: Some(error.code),
                body: rpc::error_response(Some("1"), error).into(),
                fault: None,
            };
            let body = downgrade(called, last);
            let message = Message::parse(&body).expect("message");
            let read: RpcError = serde_json::from_str(message.error.expect("error").get()).expect("error");
            assert_eq!(
                (read.code, message.id.map(RawValue::get)),
                (code, Some("1")),
                "{called}"
            );
        }
    }
}
