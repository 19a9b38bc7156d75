//! A server that belongs to one tenant, and tells it by everything that it says: each of its answers has the tenant's mark.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bus_schema::{
    Request, RpcError,
    mcp::{error, meta, method},
    rpc::Message,
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{Bus, Host, HostOptions, McpServer, Outcome, Parts};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// The resource that every one has.
pub const SHARED: &str = "notes://today";

/// The server.
pub struct Notes {
    mark: String,
    more_tools: AtomicU32,
    lists: watch::Sender<u64>,
    updates: broadcast::Sender<Arc<str>>,
}

impl Notes {
    /// One that tells this mark.
    #[must_use]
    pub fn new(mark: &str) -> Arc<Self> {
        Arc::new(Self {
            mark: mark.to_owned(),
            more_tools: AtomicU32::new(0),
            lists: watch::Sender::new(0),
            updates: broadcast::Sender::new(16),
        })
    }

    /// Puts it on the bus under an id, as a server of a tenant.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve(self: &Arc<Self>, bus: &Bus, tenant: &str, id: &str) -> Host {
        let options = HostOptions {
            tenant: tenant.to_owned(),
            ..HostOptions::new(id.parse().expect("an id"))
        };
        Host::start(bus.clone(), Arc::clone(self) as Arc<dyn McpServer>, options)
            .await
            .expect("the server starts")
    }

    /// Adds a tool.
    pub fn add_tool(&self) {
        self.more_tools.fetch_add(1, Ordering::SeqCst);
        self.lists.send_modify(|count| *count += 1);
    }

    /// Changes a resource.
    pub fn touch(&self, uri: &str) {
        let _ = self.updates.send(uri.into());
    }

    fn list(&self, called: &str) -> Option<Value> {
        let mark = &self.mark;
        let tool = |name: &str| json!({ "name": name, "description": format!("reads {mark}"), "inputSchema": { "type": "object" } });
        let resource = |uri: &str, name: &str| json!({ "uri": uri, "name": name });
        let (key, items) = match called {
            method::TOOLS_LIST => {
                let own = [tool("read"), tool("job"), tool(&format!("{mark}-only"))];
                let more = (0..self.more_tools.load(Ordering::SeqCst)).map(|n| tool(&format!("{mark}-{n}")));
                ("tools", own.into_iter().chain(more).collect())
            }
            method::PROMPTS_LIST => (
                "prompts",
                json!([{ "name": "brief" }, { "name": format!("{mark}-brief") }]),
            ),
            method::RESOURCES_LIST => (
                "resources",
                json!([
                    resource(SHARED, "today"),
                    resource(&format!("notes://{mark}"), mark)
                ]),
            ),
            method::TEMPLATES_LIST => (
                "resourceTemplates",
                json!([{ "uriTemplate": format!("notes://{mark}/{{day}}"), "name": mark }]),
            ),
            _ => return None,
        };
        Some(json!({ "resultType": "complete", key: items, "ttlMs": 0, "cacheScope": "private" }))
    }

    fn answer(&self, called: &str, params: &Value) -> Result<Value, RpcError> {
        let mark = &self.mark;
        if let Some(list) = self.list(called) {
            return Ok(list);
        }
        let named = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        let has = |name: &str, shared: &[&str], own: String| shared.contains(&name) || name == own;
        let unknown = |what: &str| {
            Err(RpcError::new(
                error::INVALID_PARAMS,
                format!("there is no such {what}"),
            ))
        };
        let task = format!("job-{mark}");
        match called {
            method::DISCOVER => Ok(json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
                "instructions": format!("notes of {mark}"),
                "capabilities": {
                    "tools": { "listChanged": true }, "prompts": {}, "completions": {},
                    "resources": { "listChanged": true, "subscribe": true },
                    "extensions": { (meta::TASKS_EXTENSION): {} },
                },
            })),
            method::TOOLS_CALL if named("name") == "job" => Ok(json!({
                "resultType": "task", "taskId": task, "status": "working", "ttlMs": 60_000,
                "createdAt": "2026-11-23T09:00:00Z", "lastUpdatedAt": "2026-11-23T09:00:00Z",
            })),
            method::TOOLS_CALL if has(&named("name"), &["read"], format!("{mark}-only")) => Ok(json!({
                "resultType": "complete", "content": [{ "type": "text", "text": format!("secret of {mark}") }],
            })),
            method::PROMPTS_GET if has(&named("name"), &["brief"], format!("{mark}-brief")) => Ok(json!({
                "resultType": "complete",
                "messages": [{ "role": "user", "content": { "type": "text", "text": format!("secret of {mark}") } }],
            })),
            method::RESOURCES_READ if has(&named("uri"), &[SHARED], format!("notes://{mark}")) => Ok(json!({
                "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "contents": [{ "uri": params["uri"], "text": format!("secret of {mark}") }],
            })),
            method::COMPLETE => Ok(json!({ "resultType": "complete", "completion": { "values": [mark] } })),
            method::TASKS_GET if named("taskId") == task => Ok(json!({
                "resultType": "complete", "taskId": task, "status": "working", "ttlMs": 60_000,
                "createdAt": "2026-11-23T09:00:00Z", "lastUpdatedAt": "2026-11-23T09:00:00Z",
                "statusMessage": format!("secret of {mark}"),
            })),
            method::TASKS_CANCEL if named("taskId") == task => Ok(json!({ "resultType": "complete" })),
            method::TOOLS_CALL => unknown("tool"),
            method::PROMPTS_GET => unknown("prompt"),
            method::RESOURCES_READ => unknown("resource"),
            called if method::TASKS.contains(&called) => unknown("task"),
            other => Err(RpcError::method_not_found(other)),
        }
    }
}

impl McpServer for Notes {
    fn handle(self: Arc<Self>, request: Request, _: Parts) -> BoxFuture<'static, Outcome> {
        async move {
            let body = request.body.0.clone();
            let Ok(message) = Message::parse(&body) else {
                return Outcome::taken();
            };
            let Some(id) = message.id else {
                return Outcome::taken();
            };
            let params = message.params.map_or("{}", |params| params.get());
            let params: Value = serde_json::from_str(params).unwrap_or_default();
            match self.answer(message.method.as_deref().unwrap_or_default(), &params) {
                Ok(result) => Outcome::result(id.get(), result.to_string().as_bytes()),
                Err(error) => Outcome::error(Some(id.get()), &error),
            }
        }
        .boxed()
    }

    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.lists.subscribe())
    }

    fn updates(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        Some(self.updates.subscribe())
    }

    fn watch(self: Arc<Self>, uris: BTreeSet<String>) -> BoxFuture<'static, BTreeSet<String>> {
        std::future::ready(uris).boxed()
    }
}
