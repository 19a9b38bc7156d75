//! A server with something open and something shut of each kind, which remembers all that reaches it.

use std::sync::{Arc, Mutex, PoisonError};

use bus_schema::{
    Principal, Request, RpcError,
    mcp::{error, method},
    rpc::Message,
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{Bus, Host, HostOptions, McpServer, Outcome, Parts};
use serde_json::{Value, json};

use crate::http::modern_body;

/// The server.
#[derive(Default)]
pub struct Vault {
    /// What was asked for in somebody's name: a method and what it names. Held only to add, read or clear.
    asked: Mutex<Vec<(String, String)>>,
}

impl Vault {
    /// Puts one on the bus under an id.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve(self: &Arc<Self>, bus: &Bus, id: &str) -> Host {
        let options = HostOptions::new(id.parse().expect("an id"));
        Host::start(bus.clone(), Arc::clone(self) as Arc<dyn McpServer>, options)
            .await
            .expect("the server starts")
    }

    /// What has reached it in somebody's name, beside lists, since this was asked last.
    #[must_use]
    pub fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, by: &Principal, called: &str, params: &Value) {
        if by.is_platform() || called.ends_with("/list") || called == method::DISCOVER {
            return;
        }
        let keys = ["/name", "/uri", "/ref/name", "/ref/uri"];
        let name = keys.iter().find_map(|key| params.pointer(key)?.as_str());
        let asked = (called.to_owned(), name.unwrap_or_default().to_owned());
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(asked);
    }

    fn answer(&self, request: &Request) -> Result<Value, RpcError> {
        let message = Message::parse(&request.body.0)?;
        let called = message.method.as_deref().unwrap_or_default().to_owned();
        let params = message.params.map_or("{}", |params| params.get());
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        self.note(&request.principal, &called, &params);
        let whole = |key: &str, items: Value| json!({ "resultType": "complete", key: items, "ttlMs": 0, "cacheScope": "private" });
        let named = |names: &[&str]| -> Value { names.iter().map(|name| json!({ "name": name })).collect() };
        let is = |names: &[&str]| params["name"].as_str().is_some_and(|name| names.contains(&name));
        match called.as_str() {
            method::DISCOVER => Ok(json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "capabilities": { "tools": {}, "prompts": {}, "resources": { "subscribe": true }, "completions": {} },
            })),
            method::TOOLS_LIST => Ok(whole("tools", tools())),
            method::PROMPTS_LIST => Ok(whole("prompts", named(&["open", "shut"]))),
            method::RESOURCES_LIST => Ok(whole(
                "resources",
                json!([{ "name": "open", "uri": "vault://open/a" }, { "name": "shut", "uri": "vault://shut/a" }]),
            )),
            method::TEMPLATES_LIST => Ok(whole(
                "resourceTemplates",
                json!([{ "name": "any", "uriTemplate": "vault://{drawer}/{item}" }]),
            )),
            method::TOOLS_CALL if is(&["open", "shut", "pay"]) => {
                Ok(json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] }))
            }
            method::PROMPTS_GET if is(&["open", "shut"]) => {
                Ok(json!({ "resultType": "complete", "messages": [] }))
            }
            method::RESOURCES_READ => {
                let uri = params["uri"].clone();
                Ok(
                    json!({ "resultType": "complete", "contents": [{ "uri": uri, "text": "x" }], "ttlMs": 0, "cacheScope": "private" }),
                )
            }
            method::COMPLETE => Ok(json!({ "resultType": "complete", "completion": { "values": ["x"] } })),
            "acme/open" | "acme/shut" => Ok(json!({ "resultType": "complete" })),
            method::TOOLS_CALL | method::PROMPTS_GET => {
                let why = format!("the vault has no {}", params["name"]);
                Err(RpcError::new(error::INVALID_PARAMS, why))
            }
            other => Err(RpcError::method_not_found(other)),
        }
    }
}

fn tools() -> Value {
    let tool = |name: &str, read_only: bool| {
        json!({
            "name": name, "description": format!("The {name} drawer"),
            "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": read_only },
        })
    };
    json!([tool("open", true), tool("shut", false), tool("pay", false)])
}

impl McpServer for Vault {
    fn handle(self: Arc<Self>, request: Request, _parts: Parts) -> BoxFuture<'static, Outcome> {
        async move {
            let id = Message::parse(&request.body.0)
                .ok()
                .and_then(|message| message.id)
                .map(ToString::to_string);
            match self.answer(&request) {
                Ok(result) => Outcome::result(id.as_deref().unwrap_or("null"), result.to_string().as_bytes()),
                Err(error) => Outcome::error(id.as_deref(), &error),
            }
        }
        .boxed()
    }
}

/// A request to it as a door that was broken into would send it.
#[must_use]
pub fn forged(called: &str, in_envelope: &str, params: &Value) -> Request {
    let body = modern_body(called, params.clone());
    Request {
        caller: String::new(),
        call: 0,
        server: "vault".to_owned(),
        method: in_envelope.to_owned(),
        name: Some("open".to_owned()),
        principal: Principal::new("mallory", "default"),
        protocol_version: "2026-07-28".to_owned(),
        door: "platform".to_owned(),
        timeout_ms: 10_000,
        trace: None,
        chunked_bytes: 0,
        body: body.to_string().into_bytes().into(),
    }
}
