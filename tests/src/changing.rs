//! A server whose lists and resources change when a test says so, and that remembers what it was asked to watch.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use bus_schema::{Request, RpcError, mcp::method, rpc::Message};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{Bus, Host, HostOptions, McpServer, Outcome, Parts};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// The server.
pub struct Changing {
    tools: AtomicU32,
    prompts: AtomicU32,
    /// What the definition of the first tool has beside its name. Held only to read or replace it.
    first: Mutex<Value>,
    /// What it answers when it is asked for its tools, instead of them. Held only to read or replace it.
    spelled: Mutex<Option<String>>,
    /// Calls of tools that it has answered.
    calls: AtomicU32,
    lists: watch::Sender<u64>,
    updates: broadcast::Sender<Arc<str>>,
    /// Held only to add or read.
    watched: Mutex<Vec<BTreeSet<String>>>,
    /// Held only to add or read.
    notified: Mutex<Vec<String>>,
}

impl Default for Changing {
    fn default() -> Self {
        Self {
            tools: AtomicU32::new(1),
            prompts: AtomicU32::new(1),
            first: Mutex::new(json!({ "inputSchema": { "type": "object" } })),
            spelled: Mutex::default(),
            calls: AtomicU32::new(0),
            lists: watch::Sender::new(0),
            updates: broadcast::Sender::new(16),
            watched: Mutex::default(),
            notified: Mutex::default(),
        }
    }
}

impl Changing {
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

    /// Adds a tool.
    pub fn add_tool(&self) {
        self.tools.fetch_add(1, Ordering::SeqCst);
        self.lists.send_modify(|count| *count += 1);
    }

    /// Defines the first tool otherwise, and says that the list has changed.
    pub fn redefine(&self, definition: Value) {
        self.redefine_silently(definition);
        self.lists.send_modify(|count| *count += 1);
    }

    /// Defines the first tool otherwise, and says nothing.
    pub fn redefine_silently(&self, definition: Value) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = definition;
    }

    /// Answers in these words when it is asked for its tools, and says nothing of that.
    pub fn spell_tools(&self, result: &str) {
        *self.spelled.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.to_owned());
    }

    /// How many calls of tools it has answered.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Adds a prompt.
    pub fn add_prompt(&self) {
        self.prompts.fetch_add(1, Ordering::SeqCst);
        self.lists.send_modify(|count| *count += 1);
    }

    /// Changes a resource.
    pub fn touch(&self, uri: &str) {
        let _ = self.updates.send(uri.into());
    }

    /// What it was asked to watch, one set after the other.
    #[must_use]
    pub fn watched(&self) -> Vec<BTreeSet<String>> {
        self.watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The methods of the notifications that it was given.
    #[must_use]
    pub fn notified(&self) -> Vec<String> {
        self.notified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn answer(&self, request: &Request) -> Outcome {
        let body = &request.body.0;
        let Some(id) = Message::parse(body).ok().and_then(|message| message.id) else {
            let mut notified = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
            notified.push(request.method.clone());
            return Outcome::taken();
        };
        let spelled = self
            .spelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(spelled) = spelled.filter(|_| request.method == method::TOOLS_LIST) {
            return Outcome::result(id.get(), spelled.as_bytes());
        }
        let named = |count: &AtomicU32, more: Value| {
            let mut items = Vec::new();
            for n in 0..count.load(Ordering::SeqCst) {
                let mut item = more.clone();
                item["name"] = format!("n{n}").into();
                items.push(item);
            }
            items
        };
        let result = match request.method.as_str() {
            method::DISCOVER => json!({
                "supportedVersions": ["2026-07-28"],
                "capabilities": {
                    "tools": { "listChanged": true }, "prompts": { "listChanged": true },
                    "resources": { "listChanged": true, "subscribe": true },
                },
            }),
            method::TOOLS_LIST => {
                let mut tools = named(&self.tools, json!({ "inputSchema": { "type": "object" } }));
                let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner).clone();
                first["name"] = json!("n0");
                tools[0] = first;
                json!({ "tools": tools })
            }
            method::TOOLS_CALL => {
                self.calls.fetch_add(1, Ordering::SeqCst);
                json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] })
            }
            method::PROMPTS_LIST => json!({ "prompts": named(&self.prompts, json!({})) }),
            method::RESOURCES_LIST => {
                json!({ "resources": [{ "uri": "test://a", "name": "a" }, { "uri": "test://b", "name": "b" }] })
            }
            method::TEMPLATES_LIST => json!({ "resourceTemplates": [] }),
            "com.example/echo" => json!({ "resultType": "complete", "came": "com.example/echo" }),
            other => return Outcome::error(Some(id.get()), &RpcError::method_not_found(other)),
        };
        Outcome::result(id.get(), result.to_string().as_bytes())
    }
}

impl McpServer for Changing {
    fn handle(self: Arc<Self>, request: Request, _: Parts) -> BoxFuture<'static, Outcome> {
        async move { self.answer(&request) }.boxed()
    }

    fn list_changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.lists.subscribe())
    }

    fn updates(&self) -> Option<broadcast::Receiver<Arc<str>>> {
        Some(self.updates.subscribe())
    }

    fn watch(self: Arc<Self>, uris: BTreeSet<String>) -> BoxFuture<'static, BTreeSet<String>> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(uris.clone());
        let honoured = uris.into_iter().filter(|uri| uri != "test://refused").collect();
        std::future::ready(honoured).boxed()
    }
}
