//! A server that tells its callers who they are, as the bus says it: nothing else can show what a door has made of a token.

use std::sync::Arc;

use bus_schema::{Request, RpcError, mcp::method, rpc::Message};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{Bus, Host, HostOptions, McpServer, Outcome, Parts};
use serde_json::json;

/// What its one resource is called.
pub const RESOURCE: &str = "who://me";

/// The server.
pub struct WhoAmI;

impl WhoAmI {
    /// Puts one on the bus as `whoami`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve(bus: &Bus) -> Host {
        let options = HostOptions::new("whoami".parse().expect("an id"));
        Host::start(bus.clone(), Arc::new(Self) as Arc<dyn McpServer>, options)
            .await
            .expect("the server starts")
    }
}

impl McpServer for WhoAmI {
    fn handle(self: Arc<Self>, request: Request, _: Parts) -> BoxFuture<'static, Outcome> {
        async move {
            let body = &request.body.0;
            let Some(id) = Message::parse(body).ok().and_then(|message| message.id) else {
                return Outcome::taken();
            };
            let who = json!(request.principal);
            let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
            let mut result = match request.method.as_str() {
                method::DISCOVER => json!({
                    "supportedVersions": ["2026-07-28"],
                    "capabilities": { "tools": { "listChanged": true }, "resources": { "listChanged": true } },
                }),
                method::TOOLS_LIST => json!({ "tools": [tool("whoami"), tool("other")] }),
                method::TOOLS_CALL => json!({
                    "resultType": "complete", "structuredContent": who,
                    "content": [{ "type": "text", "text": who["subject"] }],
                }),
                method::RESOURCES_LIST => json!({ "resources": [{ "uri": RESOURCE, "name": "me" }] }),
                method::TEMPLATES_LIST => json!({ "resourceTemplates": [] }),
                // A server that lets anybody keep what is for one caller only.
                method::RESOURCES_READ => json!({
                    "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private",
                    "contents": [{ "uri": RESOURCE, "text": who["subject"] }],
                }),
                other => return Outcome::error(Some(id.get()), &RpcError::method_not_found(other)),
            };
            if result.get("resultType").is_none() {
                for (key, value) in [("resultType", json!("complete")), ("ttlMs", json!(0)), ("cacheScope", json!("private"))] {
                    result[key] = value;
                }
            }
            Outcome::result(id.get(), result.to_string().as_bytes())
        }
        .boxed()
    }
}
