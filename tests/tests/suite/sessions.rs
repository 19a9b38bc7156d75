//! Legacy sessions on two bridges: whatever a client says to one of them holds at the other.

mod batches;
mod forged;
mod http_sse;
mod listening;
mod questions;
mod records;
mod resuming;
mod typescript;

use std::sync::Arc;

use bus_schema::{header, mcp::method};
use reqwest::{Method, RequestBuilder, Response};
use runtime::{Bus, Host};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    asking,
    changing::Changing,
    eventually,
    fixture::{self, Probe},
    http::Client,
    nats::Nats,
    program::Program,
    stream::Stream,
    within,
};

/// Picks a free port.
const ANY_PORT: &str = "127.0.0.1:0";

/// Two bridges, each a process of its own, and servers in this one.
struct Stage {
    a: Bridge,
    b: Bridge,
    probe: Arc<Probe>,
    changing: Arc<Changing>,
    hosts: Vec<Host>,
    bus: Bus,
    nats: Nats,
}

/// One `trunkline bridge http`.
struct Bridge {
    program: Program,
    base: String,
}

impl Stage {
    async fn set() -> Self {
        Self::set_on(Nats::start().await).await
    }

    async fn set_on(nats: Nats) -> Self {
        let bus = nats.bus().await;
        let (probe, changing) = (Arc::<Probe>::default(), Arc::<Changing>::default());
        let hosts = vec![
            asking::serve(&bus).await,
            fixture::serve(&bus, Arc::clone(&probe), |_| {}).await,
            changing.serve(&bus, "changing").await,
        ];
        let (a, b) = tokio::join!(Bridge::start(&nats, nats.url()), Bridge::start(&nats, nats.url()));
        let stage = Self {
            a,
            b,
            probe,
            changing,
            hosts,
            bus,
            nats,
        };
        for bridge in [&stage.a, &stage.b] {
            for server in ["asking", "fixture", "changing"] {
                bridge.knows(server).await;
            }
        }
        stage
    }

    async fn end(self) {
        for host in self.hosts {
            host.stop().await;
        }
        self.bus.close().await;
        drop((self.a, self.b));
        drop(self.nats);
    }
}

impl Bridge {
    /// Starts one that reaches the bus by a URL.
    async fn start(nats: &Nats, url: &str) -> Self {
        Self::start_with(nats, url, &[]).await
    }

    /// Starts one with further words on its command line.
    async fn start_with(nats: &Nats, url: &str, more: &[&str]) -> Self {
        let data_dir = nats.data_dir().display().to_string();
        let mut words = vec![
            "bridge",
            "http",
            "--listen",
            ANY_PORT,
            "--log-json",
            "--nats",
            url,
            "--data-dir",
            &data_dir,
        ];
        words.extend(more);
        let mut program = Program::start(&words);
        let line = program.logged("bridge is ready").await;
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        let mcp = line["fields"]["mcp"].as_str().expect("an address");
        let base = mcp
            .strip_suffix("/mcp")
            .expect("the endpoint of all servers")
            .to_owned();
        Self { program, base }
    }

    fn client(&self, server: &str) -> Client {
        Client::new(format!("{}/servers/{server}/mcp", self.base))
    }

    async fn knows(&self, server: &str) {
        let client = self.client(server);
        eventually("a bridge knows a server", async || {
            client
                .modern(method::DISCOVER, json!({}))
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Ends it without a word.
    async fn kill(&mut self) {
        self.program.signal(Signal::KILL);
        within("the end of a bridge", self.program.child.wait())
            .await
            .expect("it ends");
    }
}

/// A session, to be used at any bridge.
#[derive(Clone)]
struct Opened {
    id: String,
    server: &'static str,
    /// The answer to `initialize`.
    answer: Value,
}

/// What a client can do that answers everything.
fn able() -> Value {
    json!({ "elicitation": {}, "sampling": {}, "roots": { "listChanged": true } })
}

impl Opened {
    /// Opens a session with all capabilities.
    async fn at(bridge: &Bridge, server: &'static str, version: &str) -> Self {
        Self::declaring(bridge, server, version, able()).await
    }

    async fn declaring(bridge: &Bridge, server: &'static str, version: &str, capabilities: Value) -> Self {
        let params = json!({
            "protocolVersion": version, "capabilities": capabilities, "clientInfo": { "name": "t", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
        let answer = sent(bridge.client(server).raw(body.to_string())).await;
        assert_eq!(answer.status(), 200);
        let id = answer.headers()[header::SESSION_ID]
            .to_str()
            .expect("visible ASCII")
            .to_owned();
        assert!(
            id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) && id.len() >= 32,
            "{id}"
        );
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["result"]["protocolVersion"], version);
        let opened = Self { id, server, answer };
        let told = opened.post(
            bridge,
            &json!({ "jsonrpc": "2.0", "method": method::INITIALIZED }),
        );
        assert_eq!(sent(told).await.status(), 202);
        opened
    }

    fn post(&self, bridge: &Bridge, body: &Value) -> RequestBuilder {
        bridge
            .client(self.server)
            .raw(body.to_string())
            .header(header::SESSION_ID, &self.id)
    }

    /// A request under the id 5.
    fn request(&self, bridge: &Bridge, called: &str, params: &Value) -> RequestBuilder {
        self.post(
            bridge,
            &json!({ "jsonrpc": "2.0", "id": 5, "method": called, "params": params }),
        )
    }

    /// A tool call under the id 5.
    fn call(&self, bridge: &Bridge, tool: &str, arguments: &Value) -> RequestBuilder {
        self.request(
            bridge,
            method::TOOLS_CALL,
            &json!({ "name": tool, "arguments": arguments }),
        )
    }

    /// The status and the body of an answer that is JSON, or nothing.
    async fn answer(&self, request: RequestBuilder) -> (u16, Value) {
        let answer = sent(request).await;
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn ask(&self, bridge: &Bridge, called: &str, params: Value) -> (u16, Value) {
        self.answer(self.request(bridge, called, &params)).await
    }

    fn get(&self, bridge: &Bridge, last: Option<&str>) -> RequestBuilder {
        let request = bridge
            .client(self.server)
            .request(Method::GET)
            .header("accept", "text/event-stream")
            .header(header::SESSION_ID, &self.id);
        match last {
            Some(last) => request.header(header::LAST_EVENT_ID, last),
            None => request,
        }
    }

    fn delete(&self, bridge: &Bridge) -> RequestBuilder {
        bridge
            .client(self.server)
            .request(Method::DELETE)
            .header(header::SESSION_ID, &self.id)
    }

    /// Responds to a question.
    async fn respond(&self, bridge: &Bridge, question: &Value, result: Value) -> u16 {
        let response = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
        self.answer(self.post(bridge, &response)).await.0
    }
}

async fn sent(request: RequestBuilder) -> Response {
    within("an answer", request.send()).await.expect("an answer")
}

async fn stream(request: RequestBuilder) -> Stream {
    let answer = sent(request).await;
    assert_eq!(answer.status(), 200);
    Stream::of(answer)
}
