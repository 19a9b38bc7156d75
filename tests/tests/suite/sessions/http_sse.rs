//! HTTP+SSE, the transport of 2024-11-05: one stream for everything that comes, and an address for everything that goes.

use std::collections::VecDeque;

use bus_schema::mcp::method;
use futures::StreamExt as _;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tests::{http::text, within};

use super::{Bridge, Stage, able, sent};

/// An open stream, and the path to POST to.
struct Channel {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    unread: String,
    events: VecDeque<(String, String)>,
    path: String,
}

impl Channel {
    async fn open(bridge: &Bridge, path: &str) -> Self {
        let request = reqwest::Client::new()
            .get(format!("{}{path}", bridge.base))
            .header("accept", "text/event-stream");
        let response = sent(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut channel = Self {
            body: Box::pin(response.bytes_stream()),
            unread: String::new(),
            events: VecDeque::new(),
            path: String::new(),
        };
        let (event, data) = channel.event().await.expect("a first event");
        assert_eq!(event, "endpoint");
        channel.path = data;
        channel
    }

    async fn event(&mut self) -> Option<(String, String)> {
        within("an event", async {
            loop {
                if let Some(event) = self.events.pop_front() {
                    return Some(event);
                }
                let piece = self.body.next().await?.ok()?;
                self.unread.push_str(&String::from_utf8_lossy(&piece));
                while let Some((block, rest)) = self.unread.split_once("\n\n") {
                    let field = |name: &str| {
                        let lines = block.lines().filter_map(|line| line.strip_prefix(name));
                        lines.map(str::trim_start).collect::<Vec<_>>().join("\n")
                    };
                    if !block.starts_with(':') {
                        self.events.push_back((field("event:"), field("data:")));
                    }
                    self.unread = rest.to_owned();
                }
            }
        })
        .await
    }

    async fn message(&mut self) -> Value {
        let (event, data) = self.event().await.expect("a message");
        assert_eq!(event, "message");
        serde_json::from_str(&data).expect("JSON")
    }

    fn post(&self, bridge: &Bridge, message: &Value) -> RequestBuilder {
        reqwest::Client::new()
            .post(format!("{}{}", bridge.base, self.path))
            .header("content-type", "application/json")
            .body(message.to_string())
    }

    async fn send(&self, bridge: &Bridge, message: &Value) {
        let answer = sent(self.post(bridge, message)).await;
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.text().await.expect("text"), "");
    }

    /// Opens a channel and makes the handshake on it.
    async fn ready(open_at: &Bridge, post_at: &Bridge, path: &str) -> Self {
        let mut channel = Self::open(open_at, path).await;
        let info = json!({ "name": "t", "version": "1" });
        let params = json!({ "protocolVersion": "2024-11-05", "capabilities": able(), "clientInfo": info });
        let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
        channel.send(post_at, &hello).await;
        let answer = channel.message().await;
        assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
        channel
            .send(
                post_at,
                &json!({ "jsonrpc": "2.0", "method": method::INITIALIZED }),
            )
            .await;
        channel
    }
}

fn call(id: u32, tool: &str, arguments: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method::TOOLS_CALL, "params": { "name": tool, "arguments": arguments } })
}

#[tokio::test]
async fn what_is_posted_to_any_bridge_is_answered_on_the_stream() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    for (path, prefix) in [("/sse", "asking__"), ("/servers/asking/sse", "")] {
        for (open_at, post_at) in [(a, a), (a, b), (b, a)] {
            let mut channel = Channel::ready(open_at, post_at, path).await;
            channel
                .send(post_at, &call(1, &format!("{prefix}roots"), json!({})))
                .await;
            let question = channel.message().await;
            assert_eq!(question["method"], method::ROOTS_LIST, "{question}");
            let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [{ "uri": "file:///a" }] } });
            channel.send(post_at, &answer).await;
            let answer = channel.message().await;
            assert_eq!((&answer["id"], text(&answer)), (&json!(1), "file:///a"));
        }
    }
    stage.end().await;
}

#[tokio::test]
async fn an_address_is_worth_nothing_when_its_stream_is_gone_or_was_another() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let channel = Channel::ready(a, a, "/servers/fixture/sse").await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let post = |path: &str, body: &str| {
        reqwest::Client::new()
            .post(format!("{}{path}", b.base))
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let guessed = format!("{}x", channel.path);
    let other_endpoint = channel.path.replace("/servers/fixture", "");
    for path in [
        guessed.as_str(),
        &other_endpoint,
        "/messages/nonsense",
        "/messages/nobody.1",
    ] {
        assert_eq!(sent(post(path, &ping.to_string())).await.status(), 404, "{path}");
    }
    assert_eq!(sent(post(&channel.path, "{")).await.status(), 400);
    let foreign = post(&channel.path, &ping.to_string()).header("origin", "https://evil.example");
    assert_eq!(sent(foreign).await.status(), 403);
    let url = format!("{}/sse", a.base);
    let foreign = reqwest::Client::new()
        .get(&url)
        .header("origin", "https://evil.example");
    assert_eq!(sent(foreign).await.status(), 403);
    assert_eq!(sent(reqwest::Client::new().post(&url)).await.status(), 405);
    let request = channel.post(b, &ping);
    drop(channel);
    let request = || request.try_clone().expect("a body in memory");
    tests::eventually("the address is worth nothing", async || {
        sent(request()).await.status() == 404
    })
    .await;
    stage.end().await;
}

#[tokio::test]
async fn changes_and_progress_come_on_the_stream_and_its_end_ends_its_calls() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let mut channel = Channel::ready(a, b, "/servers/changing/sse").await;
    let subscribe =
        json!({ "jsonrpc": "2.0", "id": 1, "method": method::SUBSCRIBE, "params": { "uri": "test://a" } });
    channel.send(b, &subscribe).await;
    assert_eq!(channel.message().await["result"], json!({}));
    stage.changing.touch("test://a");
    assert_eq!(channel.message().await["params"]["uri"], "test://a");
    stage.changing.add_tool();
    assert_eq!(channel.message().await["method"], method::TOOLS_CHANGED);
    let mut channel = Channel::ready(a, b, "/servers/fixture/sse").await;
    let mut progress = call(1, "progress", json!({ "n": 3 }));
    progress["params"]["_meta"] = json!({ "progressToken": "p" });
    channel.send(b, &progress).await;
    for n in 1..=3 {
        assert_eq!(
            channel.message().await["params"]["progress"].as_f64(),
            Some(f64::from(n))
        );
    }
    assert_eq!(text(&channel.message().await), "done");
    channel.send(b, &call(2, "hold", json!({}))).await;
    stage.probe.held.begun.next("the call").await;
    drop(channel);
    stage.probe.held.dropped.next("the drop of the call").await;
    stage.end().await;
}
