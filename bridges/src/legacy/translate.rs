//! Single messages between the eras: a legacy request becomes a modern one, a modern answer a legacy one.

use bus_schema::{
    RpcError,
    mcp::{meta, method},
    rpc,
};
use bytes::Bytes;
use serde_json::Value;
use tracing::error;

use super::{
    Dialect, Session, error,
    result::{self, Downgraded},
    task::client,
};
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
    let mut body = incoming.with_metadata(&keys);
    if incoming.method == method::TOOLS_CALL {
        body = client::plain(&body);
    }
    match Incoming::read(body) {
        Ok(upgraded) => upgraded,
        // What was read once and got a few keys more reads again; should it not, the server says why.
        Err(_) => incoming,
    }
}

/// Makes of a modern answer the one that a legacy client gets.
pub(crate) fn downgrade(dialect: Dialect, called: &str, last: &Final) -> Bytes {
    if let Some(code) = last.code {
        if error::is_own_fault(code) {
            error!(
                code,
                method = called,
                "a server refused the metadata that was added for a legacy client"
            );
        }
        return error::downgrade(called, code, &last.body);
    }
    let error = match result::downgrade(dialect, called, &last.body) {
        Downgraded::Complete(body) => return body,
        Downgraded::Unreadable(error) => error,
        // Neither was offered to the server.
        Downgraded::InputRequired(_) => {
            RpcError::internal("the server asks for input, which was not offered to it for this client")
        }
        Downgraded::Task(_) => RpcError::internal(
            "the server made a task of the call, which was not offered to it for this client",
        ),
    };
    result::refused(&last.body, &error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_schema::ProtocolVersion;

    #[test]
    fn an_answer_that_the_client_cannot_use_becomes_an_error() {
        let answer = |code, body: &str| Final {
            code,
            body: Bytes::copy_from_slice(body.as_bytes()),
            fault: None,
        };
        for (last, expected) in [
            (
                answer(
                    None,
                    r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","a":1.0}}"#,
                ),
                r#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}"#,
            ),
            (
                answer(
                    Some(-32021),
                    r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32021,"message":"m"}}"#,
                ),
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"m","data":{"original":{"code":-32021,"message":"m"}}}}"#,
            ),
            (
                answer(
                    None,
                    r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"s"}}"#,
                ),
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"the server asks for input, which was not offered to it for this client"}}"#,
            ),
        ] {
            let dialect = Dialect::plain(ProtocolVersion::V2025_11_25);
            assert_eq!(downgrade(dialect, method::TOOLS_CALL, &last), expected);
        }
    }
}
