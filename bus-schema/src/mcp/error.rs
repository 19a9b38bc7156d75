//! JSON-RPC errors as MCP uses them, each safe to show to a client.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ProtocolVersion;

/// Not JSON.
pub const PARSE: i64 = -32700;
/// JSON, but no request.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are wrong.
pub const INVALID_PARAMS: i64 = -32602;
/// The fault is ours.
pub const INTERNAL: i64 = -32603;
/// A header does not say what the body says (modern).
pub const HEADER_MISMATCH: i64 = -32020;
/// The client lacks a capability that the request needs (modern).
pub const MISSING_CAPABILITY: i64 = -32021;
/// The protocol version is not spoken here (modern).
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// A resource does not exist (legacy).
pub const LEGACY_RESOURCE_NOT_FOUND: i64 = -32002;
/// Before 2026-07-28: something that only the server itself knows.
pub const LEGACY_SERVER: i64 = -32000;
/// The user has to open a page before the request can be served (legacy).
pub const LEGACY_URL_ELICITATION: i64 = -32042;
/// The user lets the client's model say nothing (client to server, legacy).
pub const USER_REJECTED: i64 = -1;

/// A JSON-RPC error object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// What kind of error it is.
    pub code: i64,
    /// One sentence for a person.
    pub message: String,
    /// What a program can use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl RpcError {
    /// An error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// Adds what a program can use.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// The request is no request.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// The parameters are wrong.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// The fault is ours, or a server's.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL, message)
    }

    /// A header does not say what the body says.
    #[must_use]
    pub fn header_mismatch(message: impl Into<String>) -> Self {
        Self::new(HEADER_MISMATCH, message)
    }

    /// The client lacks a capability that the request needs. `required` is a `ClientCapabilities` object.
    #[must_use]
    pub fn missing_capability(message: impl Into<String>, required: Value) -> Self {
        let data = Value::from_iter([("requiredCapabilities", required)]);
        Self::new(MISSING_CAPABILITY, message).with_data(data)
    }

    /// The caller was not allowed to do this; it may come again with all these scopes.
    #[must_use]
    pub fn insufficient_scope(scopes: &[String]) -> Self {
        Self::invalid_request(format!("this needs the scope `{}`", scopes.join(" ")))
            .with_data(json!({ "reason": "insufficient_scope", "scopes": scopes }))
    }

    /// There is no such method.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("method `{method}` is not served here"))
    }

    /// The protocol version is not spoken per request. Only modern versions are named as supported, as a legacy
    /// one cannot be used without a handshake.
    #[must_use]
    pub fn unsupported_version(requested: &str) -> Self {
        Self::new(
            UNSUPPORTED_VERSION,
            format!("protocol version `{requested}` is not served without a handshake; older clients begin with `initialize`"),
        )
        .with_data(json!({ "supported": [ProtocolVersion::MODERN.as_str()], "requested": requested }))
    }
}
