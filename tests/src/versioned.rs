//! A server of which several versions are on the bus at once: it says in every answer which one it is.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use bus_schema::{
    Request, RpcError,
    mcp::{meta, method},
    rpc::Message,
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{Bus, Host, HostOptions, McpServer, Outcome, Parts, Verdict};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The id that it has on the bus.
pub const ID: &str = "versioned";
/// What all tasks of a version are called, behind the version.
const TASK: &str = "task";

/// The server.
pub struct Versioned {
    /// Held only to read or replace it.
    version: Mutex<String>,
    /// Calls of `which` that have come.
    pub which: AtomicU32,
    /// Calls of `write` that have come.
    pub written: AtomicU32,
    /// Whether calls of `which` are never answered.
    pub is_stuck: AtomicBool,
    /// Whether calls of tools fail, and say so of the server.
    pub is_failing: AtomicBool,
    lists: watch::Sender<u64>,
}

impl Versioned {
    /// One of a version.
    #[must_use]
    pub fn new(version: &str) -> Arc<Self> {
        Arc::new(Self {
            version: Mutex::new(version.to_owned()),
            which: AtomicU32::new(0),
            written: AtomicU32::new(0),
            is_stuck: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            lists: watch::Sender::new(0),
        })
    }

    /// Puts it on the bus.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serve(self: &Arc<Self>, bus: &Bus, adjust: impl FnOnce(&mut HostOptions)) -> Host {
        let mut options = HostOptions::new(ID.parse().expect("an id"));
        adjust(&mut options);
        Host::start(bus.clone(), Arc::clone(self) as Arc<dyn McpServer>, options)
            .await
            .expect("the server starts")
    }

    /// Becomes another version where it is, and says that its lists have changed.
    pub fn upgrade(&self, version: &str) {
        version.clone_into(&mut self.version.lock().unwrap_or_else(PoisonError::into_inner));
        self.lists.send_modify(|count| *count += 1);
    }

    fn version(&self) -> String {
        self.version
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn call(&self, params: &Value) -> Result<Value, RpcError> {
        let version = self.version();
        let says =
            |text: String| json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] });
        match params["name"].as_str().unwrap_or_default() {
            "which" => {
                self.which.fetch_add(1, Ordering::SeqCst);
                if self.is_stuck.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                Ok(says(version))
            }
            "same" => Ok(says("the same in all".to_owned())),
            "write" | "turns" => {
                self.written.fetch_add(1, Ordering::SeqCst);
                Ok(says(version))
            }
            "ask" => Ok(match params["requestState"].as_str() {
                Some(state) => says(format!("{version} has {state}")),
                None => json!({
                    "resultType": "input_required",
                    "requestState": format!("of {version}"),
                    "inputRequests": { "q": { "method": method::ELICIT, "params": {
                        "mode": "form", "message": "?", "requestedSchema": { "type": "object", "properties": {} },
                    } } },
                }),
            }),
            "begin" => Ok(json!({
                "resultType": "task", "taskId": format!("{version}-{TASK}"), "status": "working",
                "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttlMs": null,
            })),
            other => Err(RpcError::invalid_params(format!("unknown tool `{other}`"))),
        }
    }

    fn task(&self, params: &Value) -> Result<Value, RpcError> {
        let version = self.version();
        if params["taskId"] != format!("{version}-{TASK}").as_str() {
            return Err(RpcError::invalid_params(format!("{version} knows no such task")));
        }
        Ok(json!({
            "resultType": "complete", "taskId": params["taskId"], "status": "completed",
            "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttlMs": null,
            "result": { "content": [{ "type": "text", "text": version }] },
        }))
    }

    fn describe(&self, called: &str) -> Result<Value, RpcError> {
        let version = self.version();
        match called {
            method::DISCOVER => Ok(json!({
                "supportedVersions": ["2026-07-28"],
                "capabilities": {
                    "tools": { "listChanged": true },
                    "extensions": { meta::TASKS_EXTENSION: {} },
                },
                "_meta": { meta::SERVER_INFO: { "name": ID, "version": version } },
            })),
            method::TOOLS_LIST => {
                let tool = |name: &str, reads: bool| json!({ "name": name, "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": reads } });
                let own = format!("only-in-{version}");
                // It reads in versions before the second.
                let turns = tool("turns", version.starts_with('1'));
                Ok(json!({ "tools": [
                    tool("which", true), tool("same", true), tool("write", false), tool("ask", false), tool("begin", false), tool(&own, true), turns,
                ] }))
            }
            other => Err(RpcError::method_not_found(other)),
        }
    }

    async fn answer(&self, request: &Request) -> Outcome {
        let Ok(message) = Message::parse(&request.body.0) else {
            return Outcome::taken();
        };
        let Some(id) = message.id else {
            return Outcome::taken();
        };
        let params = message.params.map(|raw| serde_json::from_str(raw.get()));
        let params: Value = params.and_then(Result::ok).unwrap_or_default();
        let answered = match request.method.as_str() {
            method::TOOLS_CALL if self.is_failing.load(Ordering::SeqCst) => {
                let error = RpcError::internal("it is broken");
                return Outcome::error(Some(id.get()), &error).saying(Verdict::Failed);
            }
            method::TOOLS_CALL => self.call(&params).await,
            method::TASKS_GET => self.task(&params),
            other => self.describe(other),
        };
        match answered {
            Ok(result) => Outcome::result(id.get(), result.to_string().as_bytes()),
            Err(error) => Outcome::error(Some(id.get()), &error),
        }
    }
}

impl McpServer for Versioned {
    fn handle(self: Arc<Self>, request: Request, _: Parts) -> BoxFuture<'static, Outcome> {
        async move { self.answer(&request).await }.boxed()
    }

    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.lists.subscribe())
    }
}
