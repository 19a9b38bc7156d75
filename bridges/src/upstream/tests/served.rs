//! Scripts behind everything that a host would serve, but without the bus.

use std::{
    convert::Infallible,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bus_schema::{Body, Principal, ProtocolVersion, Request, mcp::meta, rpc::Message};
use runtime::{McpServer as _, Outcome, Parts};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::interval,
};

use super::scripted::{json as parsed, limits, script, within};
use crate::upstream::{
    AskingOptions, EraKnob,
    child::ChildConnector,
    connection::{Carrier, Connection, Connector as _, Opening},
    lanes::Lanes,
    park::Parks,
    server::UpstreamServer,
    tasks::Tasks,
};

/// How a question to a user looks in scripts.
pub(super) const FORM: &str = r#"'{"message":"m","requestedSchema":{"type":"object","properties":{}}}'"#;
/// What a caller declares that takes every question.
pub(super) const EVERYTHING: &str =
    r#"{"roots":{},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}}"#;

/// A server as its host has it.
pub(super) struct Served {
    pub(super) server: Arc<UpstreamServer>,
    /// The shared connection.
    _carrier: Box<dyn Carrier>,
    heard: PathBuf,
    beside: JoinHandle<Infallible>,
    calls: AtomicU32,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.beside.abort();
        self.server.parks.clear();
        self.server.lanes.stop();
        let _ = fs::remove_file(&self.heard);
    }
}

/// Serves a legacy server whose script handles one message at a time in `line`.
pub(super) async fn serve(each: &str) -> Served {
    serve_with(each, AskingOptions::default()).await
}

pub(super) async fn serve_with(each: &str, asking: AskingOptions) -> Served {
    serve_script(
        &format!("next; initialized; while next; do {each}; done"),
        EraKnob::Legacy,
        asking,
    )
    .await
}

/// Serves any script.
pub(super) async fn serve_script(text: &str, era: EraKnob, asking: AskingOptions) -> Served {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let heard = std::env::temp_dir().join(format!("trunkline-heard-{}-{number}", std::process::id()));
    let mut options = script(text);
    options
        .env
        .insert("HEARD".to_owned(), heard.display().to_string());
    options.era = era;
    options.asking = asking;
    let id = options.id.clone();
    let connector = Arc::new(ChildConnector::new(options, limits()));
    let parks = Parks::new(id.clone(), "00ff".to_owned(), asking.input_ttl, None);
    let lanes = Lanes::new(id, connector.clone(), asking.into(), Arc::clone(&parks));
    let Connection {
        link,
        session,
        carrier,
    } = within(connector.connect(Opening::shared(era))).await.unwrap();
    let tasks = Tasks::new("00ff".to_owned());
    let server = Arc::new(UpstreamServer::new(link, session, lanes, parks, tasks));
    let accompanied = Arc::clone(&server);
    Served {
        server,
        _carrier: carrier,
        heard,
        beside: tokio::spawn(async move { accompanied.accompany().await }),
        calls: AtomicU32::new(0),
    }
}

/// What a caller says beside its method.
#[derive(Clone)]
pub(super) struct Asking<'a> {
    pub(super) who: &'a str,
    pub(super) method: &'a str,
    pub(super) params: Value,
    /// Further keys of `_meta`.
    pub(super) meta: Value,
    /// The caller's capabilities, as spelled.
    pub(super) declares: &'a str,
    /// How long it will wait.
    pub(super) timeout_ms: u64,
}

/// A call of a tool by a caller that takes every question.
pub(super) fn tool(name: &str) -> Asking<'_> {
    Asking {
        who: "ann",
        method: "tools/call",
        params: json!({ "name": name, "arguments": { "n": 1 } }),
        meta: json!({}),
        declares: EVERYTHING,
        timeout_ms: 60_000,
    }
}

impl<'a> Asking<'a> {
    /// The same by a caller that declares something else.
    pub(super) fn declaring(mut self, declares: &'a str) -> Self {
        self.declares = declares;
        self
    }

    pub(super) fn by(mut self, who: &'a str) -> Self {
        self.who = who;
        self
    }

    pub(super) fn with_meta(mut self, meta: Value) -> Self {
        self.meta = meta;
        self
    }

    /// The same again, with answers to what was asked.
    pub(super) fn back(mut self, asked: &Value, answers: Value) -> Self {
        self.params["requestState"] = asked["result"]["requestState"].clone();
        self.params["inputResponses"] = answers;
        self
    }

    fn body(&self, id: Option<u32>) -> String {
        let mut params = self.params.clone();
        params["_meta"] = self.meta.clone();
        params["_meta"][meta::PROTOCOL_VERSION] = ProtocolVersion::MODERN.as_str().into();
        params["_meta"][meta::CLIENT_CAPABILITIES] = serde_json::from_str(self.declares).unwrap();
        let mut body = json!({ "jsonrpc": "2.0", "method": self.method, "params": params });
        if let Some(id) = id {
            body["id"] = id.into();
        }
        body.to_string()
    }

    fn request(&self, id: Option<u32>) -> Request {
        Request {
            caller: "caller".to_owned(),
            call: 1,
            server: "scripted".to_owned(),
            method: self.method.to_owned(),
            name: None,
            principal: Principal::new(self.who, "t"),
            protocol_version: ProtocolVersion::MODERN.to_string(),
            door: "test".to_owned(),
            timeout_ms: self.timeout_ms,
            trace: None,
            chunked_bytes: 0,
            body: Body(self.body(id).into()),
        }
    }
}

impl Served {
    /// Asks, and gives the notifications and the answer, which bears the request's own id.
    pub(super) async fn ask(&self, asking: &Asking<'_>) -> (Vec<String>, Value) {
        let id = self.calls.fetch_add(1, Ordering::Relaxed);
        let (parts_in, mut parts) = mpsc::channel(1_000);
        let handled = Arc::clone(&self.server).handle(asking.request(Some(id)), Parts::new(parts_in));
        let answer = parsed(&within(handled).await);
        assert_eq!(answer["id"], id, "{answer}");
        let mut told = Vec::new();
        while let Ok(part) = parts.try_recv() {
            told.push(String::from_utf8(part.to_vec()).unwrap());
        }
        (told, answer)
    }

    pub(super) async fn answer(&self, asking: &Asking<'_>) -> Value {
        self.ask(asking).await.1
    }

    /// Begins something whose answer a test waits for later, or never.
    pub(super) fn begin(&self, asking: &Asking<'_>, tasks: &mut JoinSet<Value>) {
        let id = self.calls.fetch_add(1, Ordering::Relaxed);
        let (parts_in, _) = mpsc::channel(1);
        let handled = Arc::clone(&self.server).handle(asking.request(Some(id)), Parts::new(parts_in));
        tasks.spawn(async move { parsed(&handled.await) });
    }

    /// Says something that is not answered.
    pub(super) async fn tell(&self, asking: &Asking<'_>) -> Outcome {
        let (parts_in, _) = mpsc::channel(1);
        within(Arc::clone(&self.server).handle(asking.request(None), Parts::new(parts_in))).await
    }

    /// What all processes of the server have heard so far.
    pub(super) fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.heard).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// How often they have heard a method.
    pub(super) fn times(&self, method: &str) -> usize {
        let heard = self.heard();
        heard.iter().filter(|message| message["method"] == method).count()
    }

    /// Waits until something holds of what they have heard.
    pub(super) async fn hears(&self, holds: impl Fn(&[Value]) -> bool) {
        until(|| holds(&self.heard())).await;
    }
}

/// Waits until something holds that no event tells of.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    let mut again = interval(Duration::from_millis(5));
    within(async {
        while !holds() {
            again.tick().await;
        }
    })
    .await;
}

/// The requests that an answer asks its caller.
pub(super) fn questions(answer: &Value) -> Vec<(String, Value)> {
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    let requests = answer["result"]["inputRequests"].as_object().unwrap();
    requests
        .iter()
        .map(|(key, request)| (key.clone(), request.clone()))
        .collect()
}

/// The error code of an answer.
pub(super) fn code(answer: &Value) -> i64 {
    answer["error"]["code"]
        .as_i64()
        .unwrap_or_else(|| panic!("no error: {answer}"))
}

/// Whether a line is a message of this method.
pub(super) fn is(line: &str, method: &str) -> bool {
    Message::parse(line.as_bytes()).unwrap().method.as_deref() == Some(method)
}
