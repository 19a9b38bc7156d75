//! A request that the platform itself makes of a server, in the form of the modern era.

use bus_schema::{Principal, ProtocolVersion, Request, mcp::meta};
use serde_json::{Map, Value, json};

/// The door that the platform's own requests name; no door of clients has it.
pub(crate) const PLATFORM: &str = "platform";
/// How long the platform waits for an answer.
const TIMEOUT_MS: u64 = 30_000;

/// A request with these parameters, in somebody's name, for clients that can do so much.
pub(crate) fn own_request(
    server: &str,
    method: &str,
    mut params: Map<String, Value>,
    capabilities: &Map<String, Value>,
    principal: Principal,
) -> Request {
    let version = ProtocolVersion::MODERN.as_str();
    params.insert(
        "_meta".to_owned(),
        json!({
            meta::PROTOCOL_VERSION: version,
            meta::CLIENT_CAPABILITIES: capabilities,
            meta::CLIENT_INFO: { "name": "trunkline", "version": env!("CARGO_PKG_VERSION") },
        }),
    );
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    Request {
        caller: String::new(),
        call: 0,
        server: server.to_owned(),
        method: method.to_owned(),
        name: None,
        principal,
        protocol_version: version.to_owned(),
        door: PLATFORM.to_owned(),
        timeout_ms: TIMEOUT_MS,
        trace: None,
        chunked_bytes: 0,
        body: body.to_string().into_bytes().into(),
    }
}
