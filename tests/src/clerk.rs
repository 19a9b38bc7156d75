//! A server that says what it is told to say, and remembers the messages that reach it, byte by byte.

use std::sync::{Arc, Mutex, PoisonError};

use bus_schema::{
    Request, RpcError,
    mcp::method,
    rpc::{Message, result_response},
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{Bus, Host, HostOptions, McpServer, Outcome, Parts};
use serde_json::{Value, json};

/// The server. Its tools are `say`, `report` and `outside`, its prompt is `greet`, and its resources are `clerk://…`.
pub struct Clerk {
    /// What the schema of `outside` refers to.
    outside: String,
    /// The bodies of calls. Held only to add or take.
    asked: Mutex<Vec<String>>,
}

impl Clerk {
    /// One whose tool `outside` has a schema that refers to a URL.
    #[must_use]
    pub fn new(outside: &str) -> Arc<Self> {
        Arc::new(Self {
            outside: outside.to_owned(),
            asked: Mutex::default(),
        })
    }

    /// Puts it on the bus as `clerk`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve(self: &Arc<Self>, bus: &Bus) -> Host {
        let options = HostOptions::new("clerk".parse().expect("an id"));
        Host::start(bus.clone(), Arc::clone(self) as Arc<dyn McpServer>, options)
            .await
            .expect("the server starts")
    }

    /// The calls that have reached it since this was asked last.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tools(&self) -> Value {
        let say = json!({
            "type": "object", "required": ["text"],
            "properties": { "text": { "type": "string" }, "times": { "type": "integer", "minimum": 1, "maximum": 3 } },
        });
        let count =
            json!({ "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } });
        json!([
            { "name": "say", "inputSchema": say },
            { "name": "report", "inputSchema": { "type": "object" }, "outputSchema": count },
            { "name": "outside", "inputSchema": { "type": "object", "properties": { "a": { "$ref": self.outside } } } },
        ])
    }

    async fn answer(&self, body: &[u8], parts: &Parts) -> Result<String, RpcError> {
        let message = Message::parse(body)?;
        let called = message.method.as_deref().unwrap_or_default();
        let params: Value = message
            .params
            .and_then(|params| serde_json::from_str(params.get()).ok())
            .unwrap_or_default();
        let whole = |key: &str, items: Value| {
            json!({ "resultType": "complete", key: items, "ttlMs": 0, "cacheScope": "private" }).to_string()
        };
        let arguments = &params["arguments"];
        if method::NAMED.contains(&called) {
            let body = String::from_utf8_lossy(body).into_owned();
            self.asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(body);
        }
        Ok(match (called, params["name"].as_str().unwrap_or_default()) {
            (method::DISCOVER, _) => json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "capabilities": { "tools": {}, "prompts": {}, "resources": {}, "logging": {}, "completions": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } },
            })
            .to_string(),
            (method::TOOLS_LIST, _) => whole("tools", self.tools()),
            (method::PROMPTS_LIST, _) => whole("prompts", json!([{ "name": "greet" }])),
            (method::RESOURCES_LIST, _) => whole("resources", json!([{ "name": "a", "uri": "clerk://a" }])),
            (method::TEMPLATES_LIST, _) => whole("resourceTemplates", json!([])),
            (method::TOOLS_CALL, "say" | "outside") => {
                if let Some(note) = arguments.get("note") {
                    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "error", "data": note } });
                    parts.send(Bytes::from(note.to_string())).await;
                }
                // A number whose spelling must survive.
                let said = json!([{ "type": "text", "text": arguments["text"] }]);
                format!(r#"{{"resultType":"complete","content":{said},"_meta":{{"exact":1.50}}}}"#)
            }
            (method::TOOLS_CALL, "report") => json!({
                "resultType": "complete", "content": [], "structuredContent": { "n": arguments["n"] },
            })
            .to_string(),
            (method::COMPLETE, _) => completed(&params).to_string(),
            (method::TASKS_GET, _) => done_task(&params).to_string(),
            (method::PROMPTS_GET, "greet") => json!({
                "resultType": "complete",
                "messages": [{ "role": "user", "content": { "type": "text", "text": format!("Greet {}", arguments["who"]) } }],
            })
            .to_string(),
            (method::RESOURCES_READ, _) => json!({
                "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "contents": [{ "uri": params["uri"], "text": "ask ann@example.com" }],
            })
            .to_string(),
            (method::TOOLS_CALL | method::PROMPTS_GET, name) => {
                return Err(RpcError::invalid_params(format!("the clerk has no `{name}`")));
            }
            (other, _) => return Err(RpcError::method_not_found(other)),
        })
    }
}

/// What has been typed, and something else.
fn completed(params: &Value) -> Value {
    let values = [&params["argument"]["value"], &json!("else")];
    json!({ "resultType": "complete", "completion": { "values": values } })
}

/// A task that is done, with an address in its result.
fn done_task(params: &Value) -> Value {
    json!({
        "resultType": "complete", "taskId": params["taskId"], "status": "completed", "ttlMs": null,
        "createdAt": "2026-11-23T12:00:00Z", "lastUpdatedAt": "2026-11-23T12:00:00Z",
        "result": { "content": [{ "type": "text", "text": "mail ann@example.com" }] },
    })
}

impl McpServer for Clerk {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        async move {
            let body = request.body.0;
            let id = Message::parse(&body).ok().and_then(|message| message.id);
            let id = id.map_or("null", serde_json::value::RawValue::get);
            match self.answer(&body, &parts).await {
                Ok(result) => Outcome {
                    body: result_response(id, result.as_bytes()).into(),
                    ..Outcome::result(id, b"{}")
                },
                Err(error) => Outcome::error(Some(id), &error),
            }
        }
        .boxed()
    }
}
