//! The `_meta` keys of the modern era, and a borrowed look at the ones that a door needs.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The version that a request is written in.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// What the client can do.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Which program the client is.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// From which level on the request wants log lines.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Which program the server is, on results.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Which listen request a message answers.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// Why a server does not tell of resources: their errors by URI. Only between hosts and doors.
pub const REFUSED: &str = "io.trunkline/refused";
/// The extension for durable tasks, among capabilities.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// The platform's own extension, which a client declares to be asked what the protocol does not know: an entry of `inputRequests` may have any
/// custom method then, and its answer is `{"result": …}` or `{"error": …}`.
pub const REQUESTS_EXTENSION: &str = "io.trunkline/requests";
/// What all keys of a request that the protocol itself defines begin with.
pub const RESERVED_PREFIX: &str = "io.modelcontextprotocol/";
/// The token by which progress is reported.
pub const PROGRESS_TOKEN: &str = "progressToken";

/// What a door reads of a request's `_meta`; everything else passes unseen.
#[derive(Debug, Default, Deserialize)]
pub struct RequestMeta<'a> {
    /// The raw value of the protocol version, if the key is there.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    pub protocol_version: Option<&'a RawValue>,
    /// The raw value of the client's capabilities, if the key is there.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub client_capabilities: Option<&'a RawValue>,
    /// The raw value of the client's name and version, if the key is there.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientInfo")]
    pub client_info: Option<&'a RawValue>,
    /// The raw progress token, a string or an integer.
    #[serde(borrow, default, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
    /// The trace that the client is in.
    #[serde(borrow, default, rename = "traceparent")]
    pub trace_parent: Option<&'a RawValue>,
    /// The vendors' part of that trace.
    #[serde(borrow, default, rename = "tracestate")]
    pub trace_state: Option<&'a RawValue>,
}

/// Reads a raw JSON value as a string; `None` when it is anything else.
#[must_use]
pub fn as_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// Whether a raw JSON value is an object.
#[must_use]
pub fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}
