//! The messages that are measured: one call of 300 bytes, a list, and a call that reports progress.

use bus_schema::{
    ProtocolVersion, header,
    mcp::{meta, method},
};
use serde_json::{Value, json};

/// How long the body of a call is.
pub(crate) const CALL_BYTES: usize = 300;
/// How many notifications a call brings that reports progress.
pub(crate) const NOTIFICATIONS: u32 = 100;
/// The tool that gives a text back, as the fixture server names it.
pub(crate) const ECHO: &str = "echo";
/// The tool that reports progress.
pub(crate) const PROGRESS: &str = "progress";
/// The tool that says much.
pub(crate) const CHATTER: &str = "chatter";
/// The id of the server with the tools that are called.
pub(crate) const CALLED: &str = "fixture";

/// A message, and the name that its headers repeat.
pub(crate) struct Message {
    pub(crate) method: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) body: String,
}

impl Message {
    /// A call of `echo` under the given name, padded to [`CALL_BYTES`].
    pub(crate) fn call(name: &str) -> Self {
        let of = |text: &str| Self::tool(name, &json!({ "text": text }), &json!({}));
        let missing = CALL_BYTES.saturating_sub(of("").body.len());
        of(&"x".repeat(missing))
    }

    /// A call that reports progress before its answer.
    pub(crate) fn progress(name: &str) -> Self {
        let token = json!({ meta::PROGRESS_TOKEN: "p" });
        Self::tool(name, &json!({ "n": NOTIFICATIONS }), &token)
    }

    /// A call that says more than anybody reads.
    pub(crate) fn chatter(name: &str, messages: u32, bytes: u32) -> Self {
        let token = json!({ meta::PROGRESS_TOKEN: "p" });
        Self::tool(name, &json!({ "n": messages, "bytes": bytes }), &token)
    }

    /// A list of tools.
    pub(crate) fn list() -> Self {
        Self {
            method: method::TOOLS_LIST,
            name: None,
            body: body(method::TOOLS_LIST, json!({}), &json!({})),
        }
    }

    fn tool(name: &str, arguments: &Value, extra_meta: &Value) -> Self {
        let params = json!({ "name": name, "arguments": arguments });
        Self {
            method: method::TOOLS_CALL,
            name: Some(name.to_owned()),
            body: body(method::TOOLS_CALL, params, extra_meta),
        }
    }

    /// The whole HTTP request as a modern client sends it.
    pub(crate) fn http(&self, host: &str, path: &str) -> String {
        self.http_with(host, path, "")
    }

    /// The same with further headers, each with its line's end.
    pub(crate) fn http_with(&self, host: &str, path: &str, more: &str) -> String {
        let name = match &self.name {
            Some(name) => format!("{}: {name}\r\n", header::NAME),
            None => String::new(),
        };
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{}: {}\r\n{}: {}\r\n{name}{more}content-length: {}\r\n\r\n{}",
            header::PROTOCOL_VERSION,
            ProtocolVersion::MODERN.as_str(),
            header::METHOD,
            self.method,
            self.body.len(),
            self.body,
        )
    }
}

fn body(called: &str, mut params: Value, extra_meta: &Value) -> String {
    let mut keys = json!({
        meta::PROTOCOL_VERSION: ProtocolVersion::MODERN.as_str(),
        meta::CLIENT_CAPABILITIES: {},
    });
    for (key, value) in extra_meta.as_object().into_iter().flatten() {
        keys[key] = value.clone();
    }
    params["_meta"] = keys;
    json!({ "jsonrpc": "2.0", "id": 1, "method": called, "params": params }).to_string()
}
