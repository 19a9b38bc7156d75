//! The second wall: what the broker itself refuses, whatever the programs behind it and before it would do.
//!
//! Everything here is tried by hand, as no program of ours would try it.

mod callout;
mod consumers;
mod plain;
mod roles;
mod sent_away;
mod tenants;

use bus_schema::{
    Token,
    mcp::method,
    principal::DEFAULT_TENANT,
    subject::{MethodPath, Subject},
};
use serde_json::{Value, json};

/// The public subject of a tool.
fn tool_of(tenant: &str, server: &str, tool: &str) -> String {
    let subject = Subject::Public {
        tenant: Token::encode(tenant),
        server: Token::encode(server),
        method: MethodPath::encode(method::TOOLS_CALL),
        name: Some(Token::encode(tool)),
    };
    subject.to_string()
}

/// The public subject of a tool of the tenant that everybody has.
fn tool(server: &str, name: &str) -> String {
    tool_of(DEFAULT_TENANT, server, name)
}

/// A plain call of a tool.
fn call(name: &str) -> Vec<u8> {
    let request: Value = json!({
        "jsonrpc": "2.0", "id": 1, "method": method::TOOLS_CALL, "params": { "name": name, "arguments": {} },
    });
    request.to_string().into_bytes()
}
