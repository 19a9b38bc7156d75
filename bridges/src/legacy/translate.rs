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
    Dialect, Session, Subscription,
    asking::InputRequired,
    error,
    result::{self, Downgraded},
    task::client,
};
use crate::{
    front::{Endpoint, Final, Front},
    request::Incoming,
};

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

/// What becomes of a legacy request.
pub(crate) enum Local {
    /// It is answered here.
    Answer(Bytes),
    /// It is for a server.
    Forward,
    /// From which level on the client wants log lines.
    SetLevel(String),
    /// The client wants to hear of a resource, or no more.
    Subscribe(String, Subscription),
}

/// Answers what needs nobody else, and tells what is to be done with the rest.
pub(crate) fn answer_locally(front: &Front, session: &Session, incoming: &Incoming) -> Local {
    let decided = match incoming.method.as_str() {
        method::PING => return Local::Answer(done(incoming)),
        method::SET_LEVEL => level(incoming).map(Local::SetLevel),
        method::SUBSCRIBE => {
            uri(front, session, incoming).map(|uri| Local::Subscribe(uri, Subscription::Begin))
        }
        method::UNSUBSCRIBE => {
            uri(front, session, incoming).map(|uri| Local::Subscribe(uri, Subscription::End))
        }
        method::INITIALIZE => Err(RpcError::invalid_request(
            "the session is open already; `initialize` opens a new one without a session id",
        )),
        called => {
            let is_modern = [method::DISCOVER, method::LISTEN].contains(&called);
            if !is_modern && (method::SERVED.contains(&called) || method::is_custom(called)) {
                Ok(Local::Forward)
            } else {
                Err(RpcError::method_not_found(called))
            }
        }
    };
    decided.unwrap_or_else(|error| Local::Answer(incoming.error(&error)))
}

/// The answer to a request that has been done.
pub(crate) fn done(incoming: &Incoming) -> Bytes {
    rpc::result_response(incoming.id.as_deref().unwrap_or("null"), b"{}").into()
}

fn level(incoming: &Incoming) -> Result<String, RpcError> {
    parameter(incoming, "level")
        .filter(|level| LOG_LEVELS.contains(&level.as_str()))
        .ok_or_else(|| {
            RpcError::invalid_params(format!("`params.level` must be one of {}", LOG_LEVELS.join(", ")))
        })
}

fn uri(front: &Front, session: &Session, incoming: &Incoming) -> Result<String, RpcError> {
    let capabilities = front.capabilities(&session.endpoint);
    // A server that is away says nothing of what it offers.
    let is_away = session.endpoint != Endpoint::All && front.card(&session.endpoint).is_none();
    let resources = capabilities.get("resources");
    if !is_away && resources.is_none_or(|resources| resources["subscribe"] != true) {
        return Err(RpcError::method_not_found(&incoming.method));
    }
    parameter(incoming, "uri").ok_or_else(|| {
        RpcError::invalid_params(format!("`{}` needs `params.uri`, a string", incoming.method))
    })
}

fn parameter(incoming: &Incoming, key: &str) -> Option<String> {
    let params: Value = serde_json::from_slice(&incoming.body[incoming.params.clone()?]).ok()?;
    params.get(key)?.as_str().map(str::to_owned)
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
    if let Some(level) = &session.log_level {
        keys.push_str(&format!(r#","{}":{}"#, meta::LOG_LEVEL, rpc::quote(level)));
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

/// What a modern answer means for a legacy client.
#[derive(Debug, PartialEq)]
pub(crate) enum Answered {
    /// This is the client's answer.
    Finally(Bytes),
    /// The server wants to know something first.
    InputRequired(InputRequired),
}

/// Makes of a modern answer the one that a legacy client gets.
pub(crate) fn downgrade(dialect: Dialect, called: &str, last: &Final) -> Answered {
    if let Some(code) = last.code {
        if error::is_own_fault(code) {
            error!(
                code,
                method = called,
                "a server refused the metadata that was added for a legacy client"
            );
        }
        return Answered::Finally(error::downgrade(called, code, &last.body));
    }
    let error = match result::downgrade(dialect, called, &last.body) {
        Downgraded::Complete(body) => return Answered::Finally(body),
        Downgraded::Unreadable(error) => error,
        Downgraded::InputRequired(required) if method::ASKING.contains(&called) => {
            return Answered::InputRequired(required);
        }
        Downgraded::InputRequired(_) => RpcError::internal(format!(
            "the server asks for input, which it cannot for `{called}`"
        )),
        Downgraded::Task(_) => RpcError::internal(
            "the server made a task of the call, which was not offered to it for this client",
        ),
    };
    Answered::Finally(result::refused(&last.body, &error))
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
                    r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t"}}"#,
                ),
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"the server made a task of the call, which was not offered to it for this client"}}"#,
            ),
        ] {
            let dialect = Dialect::plain(ProtocolVersion::V2025_11_25);
            assert_eq!(
                downgrade(dialect, method::TOOLS_CALL, &last),
                Answered::Finally(expected.into())
            );
        }
    }

    #[test]
    fn only_the_three_methods_that_may_ask_do_ask() {
        let asks = Final {
            code: None,
            body: r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"s"}}"#
                .into(),
            fault: None,
        };
        let dialect = Dialect::plain(ProtocolVersion::V2025_11_25);
        for called in method::ASKING {
            let answered = downgrade(dialect, called, &asks);
            assert!(matches!(answered, Answered::InputRequired(_)), "{called}");
        }
        let listed = downgrade(dialect, method::TOOLS_LIST, &asks);
        assert!(matches!(listed, Answered::Finally(error) if error.windows(6).any(|code| code == b"-32603")));
    }
}
