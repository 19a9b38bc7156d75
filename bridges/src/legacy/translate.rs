//! Single messages between the eras: a legacy request becomes a modern one, a modern answer a legacy one.

use std::borrow::Cow;

use bus_schema::{
    RpcError,
    mcp::{meta, method},
    rpc::{self, Message},
};
use bytes::Bytes;
use serde_json::Value;
use tracing::error;

use super::{
    Dialect, Session, Subscription,
    asking::InputRequired,
    capabilities::with_tasks,
    error,
    result::{self, Downgraded},
    task::client,
    tasks,
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
        called if tasks::is_about(session, called) => Ok(Local::Forward),
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
    let is_away = matches!(session.endpoint, Endpoint::Server(_)) && front.card(&session.endpoint).is_none();
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

/// What a request declares beyond what its client did in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declares {
    /// Nothing.
    Plain,
    /// The tasks extension: a task is wanted, or spoken of.
    Tasks,
}

/// Adds the metadata that a modern request carries itself, taken from the session. Every other byte stays.
pub(super) fn upgrade(session: &Session, incoming: Incoming, declares: Declares) -> Incoming {
    let capabilities = match declares {
        Declares::Plain => Cow::Borrowed(&session.capabilities),
        Declares::Tasks => Cow::Owned(with_tasks(&session.capabilities)),
    };
    let mut keys = format!(
        r#""{}":"{}","{}":{}"#,
        meta::PROTOCOL_VERSION,
        bus_schema::ProtocolVersion::MODERN,
        meta::CLIENT_CAPABILITIES,
        capabilities
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
pub(super) enum Answered {
    /// This is the client's answer.
    Finally(Bytes),
    /// The server wants to know something first.
    InputRequired(InputRequired),
    /// The server made a task of the call; this is the answer for a client that wanted one.
    Task(Bytes),
}

/// Makes of a modern answer the one that a legacy client gets.
pub(super) fn downgrade(dialect: Dialect, called: &str, last: &Final) -> Answered {
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
        Downgraded::Task(body) if dialect.has_tasks() && called == method::TOOLS_CALL => {
            return match created(&body) {
                Some(created) => Answered::Task(created),
                None => Answered::Finally(result::refused(&body, &unwanted_task())),
            };
        }
        Downgraded::Task(_) => unwanted_task(),
    };
    Answered::Finally(result::refused(&last.body, &error))
}

fn created(body: &[u8]) -> Option<Bytes> {
    let message = Message::parse(body).ok()?;
    let task = client::created(message.result?)?;
    Some(rpc::result_response(message.id?.get(), task.as_bytes()).into())
}

/// The error for a task that nobody asked for.
pub(super) fn unwanted_task() -> RpcError {
    RpcError::internal("the server made a task of the call, which was not offered to it for this client")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::Tasks;
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
    fn a_task_is_told_of_only_where_tasks_are_offered() {
        let flat = r#"{"resultType":"task","taskId":"t","status":"working","ttlMs":1.0}"#;
        let last = Final {
            code: None,
            body: format!(r#"{{"jsonrpc":"2.0","id":"a","result":{flat}}}"#).into(),
            fault: None,
        };
        let dialect = |tasks| Dialect {
            version: ProtocolVersion::V2025_11_25,
            tasks,
        };
        let nested =
            r#"{"jsonrpc":"2.0","id":"a","result":{"task":{"taskId":"t","status":"working","ttl":1.0}}}"#;
        assert_eq!(
            downgrade(dialect(Tasks::Offered), method::TOOLS_CALL, &last),
            Answered::Task(nested.into())
        );
        for (tasks, called) in [
            (Tasks::Hidden, method::TOOLS_CALL),
            (Tasks::Offered, method::PROMPTS_GET),
        ] {
            let refused = rpc::error_response(Some("\"a\""), &unwanted_task());
            assert_eq!(
                downgrade(dialect(tasks), called, &last),
                Answered::Finally(refused.into()),
                "{tasks:?} {called}"
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
