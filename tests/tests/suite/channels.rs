//! The doors that hold a conversation: WebSocket and stdio, in both eras.

use std::{collections::BTreeSet, process::Stdio, sync::Arc};

use bridges::front::Endpoint;
use bus_schema::mcp::{meta, method};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{
    asking,
    changing::Changing,
    channel::Channel,
    eventually,
    fixture::{self, Probe},
    http::modern_body,
    parts::{node, npm},
    platform::Platform,
    within,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::frame::coding::CloseCode},
};

async fn platform(probe: Arc<Probe>) -> (Platform, runtime::Host) {
    let platform = Platform::start("", &[]).await;
    let host = fixture::serve(platform.node.bus(), probe, |_| {}).await;
    platform.knows("fixture").await;
    (platform, host)
}

#[tokio::test]
async fn both_channels_serve_both_eras() {
    let (mut platform, _host) = platform(Arc::default()).await;
    let endpoint = || Endpoint::Server("fixture".parse().expect("an id"));
    let mut channels = [
        Channel::socket(&platform, "/servers/fixture/ws").await,
        Channel::pipe(&mut platform, endpoint()).await,
    ];
    for channel in &mut channels {
        let call = |id: u32| {
            let mut body = modern_body(
                "tools/call",
                json!({ "name": "echo", "arguments": { "text": "hi" } }),
            );
            body["id"] = json!(id);
            body
        };
        let answer = channel.ask(&call(7)).await;
        assert_eq!((&answer["id"], tests::http::text(&answer)), (&json!(7), "hi"));
        let early = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        assert_eq!(
            channel.ask(&early).await["error"]["code"],
            -32600,
            "no handshake, no metadata"
        );
        let initialize = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
        });
        assert_eq!(
            channel.ask(&initialize).await["result"]["protocolVersion"],
            "2025-06-18"
        );
        channel
            .send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
        assert_eq!(
            channel
                .ask(&json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" }))
                .await["result"],
            json!({})
        );
        let legacy = json!({
            "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": { "name": "echo", "arguments": { "text": "old" } },
        });
        assert_eq!(tests::http::text(&channel.ask(&legacy).await), "old");
        // Both eras may share a channel.
        assert_eq!(tests::http::text(&channel.ask(&call(8)).await), "hi");
    }
}

#[tokio::test]
async fn progress_comes_before_the_answer_and_the_endpoint_of_all_servers_prefixes() {
    let (mut platform, _host) = platform(Arc::default()).await;
    let mut channels = [
        Channel::socket(&platform, "/ws").await,
        Channel::pipe(&mut platform, Endpoint::All).await,
    ];
    for channel in &mut channels {
        let params = json!({ "name": "fixture__progress", "arguments": { "n": 3 }, "_meta": { "progressToken": "p" } });
        channel.send(&modern_body("tools/call", params)).await;
        for n in 1..=3 {
            assert_eq!(channel.receive().await["params"]["progress"], json!(f64::from(n)));
        }
        assert_eq!(tests::http::text(&channel.receive().await), "done");
    }
}

#[tokio::test]
async fn a_cancelled_call_stops_and_is_not_answered() {
    let probe = Arc::<Probe>::default();
    let (mut platform, _host) = platform(Arc::clone(&probe)).await;
    let mut channels = [
        Channel::socket(&platform, "/ws").await,
        Channel::pipe(&mut platform, Endpoint::All).await,
    ];
    for channel in &mut channels {
        let mut hold = modern_body("tools/call", json!({ "name": "fixture__hold" }));
        hold["id"] = json!("h");
        channel.send(&hold).await;
        probe.held.begun.next("the call").await;
        channel.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "h" } })).await;
        probe.held.dropped.next("the drop of the handler").await;
        let next = channel.ask(&modern_body("server/discover", json!({}))).await;
        assert_eq!(
            next["result"]["supportedVersions"],
            json!(["2026-07-28"]),
            "the next message is the next answer"
        );
    }
}

#[tokio::test]
async fn a_request_under_the_id_of_a_running_one_is_refused_in_both_eras() {
    let probe = Arc::<Probe>::default();
    let (mut platform, _host) = platform(Arc::clone(&probe)).await;
    let channels = [
        (Channel::socket(&platform, "/ws").await, true),
        (Channel::socket(&platform, "/ws").await, false),
        (Channel::pipe(&mut platform, Endpoint::All).await, true),
        (Channel::pipe(&mut platform, Endpoint::All).await, false),
    ];
    for (mut channel, is_legacy) in channels {
        if is_legacy {
            let info = json!({ "name": "test", "version": "1" });
            let params = json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": info });
            let opened = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
            let opened = channel.ask(&opened).await;
            assert_eq!(opened["result"]["protocolVersion"], "2025-03-26", "{opened}");
        }
        let call = |tool: &str| {
            let params = json!({ "name": format!("fixture__{tool}"), "arguments": { "text": "hi" } });
            let mut call = if is_legacy {
                json!({ "jsonrpc": "2.0", "method": method::TOOLS_CALL, "params": params })
            } else {
                modern_body(method::TOOLS_CALL, params)
            };
            call["id"] = json!("h");
            call
        };
        channel.send(&call("hold")).await;
        probe.held.begun.next("the call").await;
        let refused = channel.ask(&call("echo")).await;
        assert_eq!(refused["error"]["code"], -32600, "{refused}");
        assert_eq!(refused["id"], "h");
        if is_legacy {
            let refused = channel.ask(&json!([call("echo")])).await;
            assert_eq!(refused[0]["error"]["code"], -32600, "{refused}");
        }
        // The one that runs is not harmed, and can be cancelled.
        assert_eq!(probe.held.dropped.0.available_permits(), 0);
        let cancel = json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": { "requestId": "h" } });
        channel.send(&cancel).await;
        probe.held.dropped.next("the drop of the handler").await;
        eventually("the id is free", async || {
            tests::http::text(&channel.ask(&call("echo")).await) == "hi"
        })
        .await;
    }
}

#[tokio::test]
async fn a_closed_channel_cancels_its_calls() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = platform(Arc::clone(&probe)).await;
    let mut channel = Channel::socket(&platform, "/ws").await;
    channel
        .send(&modern_body("tools/call", json!({ "name": "fixture__hold" })))
        .await;
    probe.held.begun.next("the call").await;
    drop(channel);
    probe.held.dropped.next("the drop of the handler").await;
}

#[tokio::test]
async fn what_is_no_message_is_answered_and_the_channel_lives() {
    let (mut platform, _host) = platform(Arc::default()).await;
    let mut channels = [
        Channel::socket(&platform, "/ws").await,
        Channel::pipe(&mut platform, Endpoint::All).await,
    ];
    for channel in &mut channels {
        for (message, code) in [
            (json!("text"), -32600),
            (json!([]), -32600),
            (
                json!({ "jsonrpc": "2.0", "id": 1, "method": "nothing", "params": modern_body("x", json!({}))["params"] }),
                -32601,
            ),
        ] {
            assert_eq!(channel.ask(&message).await["error"]["code"], code, "{message}");
        }
    }
}

#[tokio::test]
async fn a_foreign_origin_gets_no_websocket_and_binary_frames_close_it() {
    let (platform, _host) = platform(Arc::default()).await;
    let url = platform.url("/ws").replacen("http", "ws", 1);
    let mut request = url.clone().into_client_request().expect("a request");
    request
        .headers_mut()
        .insert("origin", "https://evil.example".parse().expect("a value"));
    let refused = within("the refusal", connect_async(request))
        .await
        .expect_err("refused")
        .to_string();
    assert!(refused.contains("403"), "{refused}");
    let (mut socket, _) = connect_async(url).await.expect("connects");
    socket.send(Message::binary(vec![1, 2, 3])).await.expect("sent");
    let frame = within("the close", socket.next())
        .await
        .expect("open")
        .expect("a frame");
    assert!(
        matches!(&frame, Message::Close(Some(close)) if close.code == CloseCode::Unsupported),
        "{frame:?}"
    );
}

/// Two channels, a WebSocket and a pipe, to one server, each with a session of a client that can be asked everything.
async fn sessions(platform: &mut Platform, server: &str) -> [Channel; 2] {
    let endpoint = Endpoint::Server(server.parse().expect("an id"));
    let mut channels = [
        Channel::socket(platform, &format!("/servers/{server}/ws")).await,
        Channel::pipe(platform, endpoint).await,
    ];
    let params = json!({
        "protocolVersion": "2025-11-25", "clientInfo": { "name": "t", "version": "1" },
        "capabilities": { "elicitation": {}, "sampling": {}, "roots": {} },
    });
    for channel in &mut channels {
        channel
            .ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }))
            .await;
        channel
            .send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await;
    }
    channels
}

fn call(tool: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
}

#[tokio::test]
async fn a_legacy_client_is_asked_on_its_own_channel() {
    let mut platform = Platform::start("", &[]).await;
    let host = asking::serve(platform.node.bus()).await;
    platform.knows("asking").await;
    let [mut one, mut other] = sessions(&mut platform, "asking").await;
    for (mine, foreign) in [(0, 1), (1, 0)] {
        let channels = [&mut one, &mut other];
        let [a, b] = channels;
        let (mine, foreign) = if mine < foreign { (a, b) } else { (b, a) };
        let question = mine.ask(&call("two_rounds")).await;
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let answer = |question: &Value, name: &str| {
            let result = json!({ "action": "accept", "content": { "name": name } });
            json!({ "jsonrpc": "2.0", "id": question["id"], "result": result })
        };
        // Another client's answer to the same id is none.
        foreign.send(&answer(&question, "Eve")).await;
        foreign
            .ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }))
            .await;
        let second = mine.ask(&answer(&question, "Ada")).await;
        let last = mine.ask(&answer(&second, "Lovelace")).await;
        assert_eq!(
            (&last["id"], last["result"]["content"][0]["text"].as_str()),
            (&json!(7), Some("Ada Lovelace"))
        );
        // A call that waits for its client is cancelled like any other, and answered nothing.
        let question = mine.ask(&call("sample")).await;
        assert_eq!(question["method"], "sampling/createMessage");
        let cancel =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
        mine.send(&cancel).await;
        let pong = mine
            .ask(&json!({ "jsonrpc": "2.0", "id": 8, "method": "ping" }))
            .await;
        assert_eq!(pong["id"], 8);
    }
    host.stop().await;
    platform.stop().await;
}

#[tokio::test]
async fn a_legacy_client_hears_of_changes_on_its_own_channel() {
    let mut platform = Platform::start("", &[]).await;
    let server = Arc::<Changing>::default();
    let host = server.serve(platform.node.bus(), "changing").await;
    platform.knows("changing").await;
    let mut channels = sessions(&mut platform, "changing").await;
    for channel in &mut channels {
        for (method, uri) in [
            ("resources/subscribe", "test://a"),
            ("resources/subscribe", "test://b"),
            ("resources/unsubscribe", "test://b"),
        ] {
            let request = json!({ "jsonrpc": "2.0", "id": uri, "method": method, "params": { "uri": uri } });
            let answer = channel.ask(&request).await;
            assert_eq!((&answer["id"], &answer["result"]), (&json!(uri), &json!({})));
        }
    }
    server.touch("test://b");
    server.touch("test://a");
    for channel in &mut channels {
        let notice = channel.receive().await;
        assert_eq!(notice["method"], "notifications/resources/updated");
        assert_eq!(notice["params"], json!({ "uri": "test://a" }));
    }
    server.add_tool();
    for channel in &mut channels {
        let notice = channel.receive().await;
        assert_eq!(notice["method"], "notifications/tools/list_changed");
    }
    host.stop().await;
    platform.stop().await;
}

/// A request to listen under an id.
fn listen(id: Value, wanted: Value) -> Value {
    let mut body = modern_body(method::LISTEN, json!({ "notifications": wanted }));
    body["id"] = id;
    body
}

/// The listener that a message is for.
fn listener(message: &Value) -> &Value {
    &message["params"]["_meta"][meta::SUBSCRIPTION_ID]
}

/// A platform with a server that changes and one that holds its calls.
struct Busy {
    platform: Platform,
    changing: Arc<Changing>,
    probe: Arc<Probe>,
    hosts: [runtime::Host; 2],
}

impl Busy {
    async fn begin() -> Self {
        let (changing, probe) = (Arc::<Changing>::default(), Arc::<Probe>::default());
        let (platform, holding) = platform(Arc::clone(&probe)).await;
        let host = changing.serve(platform.node.bus(), "changing").await;
        platform.knows("changing").await;
        Self {
            platform,
            changing,
            probe,
            hosts: [host, holding],
        }
    }

    async fn channels(&mut self) -> [Channel; 2] {
        [
            Channel::socket(&self.platform, "/ws").await,
            Channel::pipe(&mut self.platform, Endpoint::All).await,
        ]
    }

    /// Begins a call under the id `h` that lasts until it is let go.
    async fn hold(&self, channel: &mut Channel) {
        let mut hold = modern_body("tools/call", json!({ "name": "fixture__hold" }));
        hold["id"] = json!("h");
        channel.send(&hold).await;
        self.probe.held.begun.next("the call").await;
    }
}

#[tokio::test]
async fn a_listener_shares_its_channel_until_it_cancels_and_then_hears_nothing() {
    let mut busy = Busy::begin().await;
    for mut channel in busy.channels().await {
        let wanted = json!({ "resourceSubscriptions": ["test://a"] });
        let first = channel.ask(&listen(json!("a"), wanted)).await;
        assert_eq!(
            (&first["method"], listener(&first)),
            (&json!(method::ACKNOWLEDGED), &json!("a"))
        );
        let first = channel
            .ask(&listen(json!(2), json!({ "toolsListChanged": true })))
            .await;
        assert_eq!(
            (&first["method"], listener(&first)),
            (&json!(method::ACKNOWLEDGED), &json!(2))
        );
        busy.hold(&mut channel).await;
        busy.changing.touch("test://a");
        let told = channel.receive().await;
        assert_eq!(
            (&told["method"], listener(&told)),
            (&json!(method::UPDATED), &json!("a"))
        );
        let cancel = json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": { "requestId": "a" } });
        channel.send(&cancel).await;
        eventually("nobody watches any more", async || {
            busy.changing.watched().last().is_some_and(BTreeSet::is_empty)
        })
        .await;
        busy.changing.touch("test://a");
        busy.changing.add_tool();
        // The one that was cancelled is sent nothing, and above all no result; the other listener goes on.
        let told = channel.receive().await;
        assert_eq!(
            (&told["method"], listener(&told)),
            (&json!(method::TOOLS_CHANGED), &json!(2))
        );
        // So does the call.
        busy.probe.release.notify_waiters();
        let answer = channel.receive().await;
        assert_eq!(
            (&answer["id"], tests::http::text(&answer)),
            (&json!("h"), "released")
        );
    }
    busy.platform.stop().await;
}

#[tokio::test]
async fn a_listener_is_told_by_its_result_when_its_channel_ends_and_calls_are_finished() {
    let mut busy = Busy::begin().await;
    let [mut socket, mut pipe] = busy.channels().await;
    for channel in [&mut socket, &mut pipe] {
        let first = channel
            .ask(&listen(json!("a"), json!({ "toolsListChanged": true })))
            .await;
        assert_eq!(first["method"], method::ACKNOWLEDGED, "{first}");
        busy.hold(channel).await;
    }
    let stopping = tokio::spawn(busy.platform.stop());
    pipe.close().await;
    told_of_the_end(&mut [socket, pipe], &busy.probe).await;
    within("the end", stopping).await.expect("it stops");
    drop(busy.hosts);
}

/// The listeners hear that it is over while the calls on the same channels still run; then those are answered, and nothing is left.
async fn told_of_the_end(channels: &mut [Channel], probe: &Probe) {
    let tag = json!({ (meta::SUBSCRIPTION_ID): "a" });
    for channel in &mut *channels {
        let last = channel.receive().await;
        let result = json!({ "resultType": "complete", "_meta": tag });
        assert_eq!(last, json!({ "jsonrpc": "2.0", "id": "a", "result": result }));
        let parting = channel.receive().await;
        let params = json!({ "requestId": "a", "_meta": tag });
        assert_eq!(
            parting,
            json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": params })
        );
    }
    probe.release.notify_waiters();
    for channel in channels {
        let answer = channel.receive().await;
        assert_eq!(
            (&answer["id"], tests::http::text(&answer)),
            (&json!("h"), "released")
        );
        assert_eq!(channel.next().await, None);
    }
}

#[tokio::test]
async fn the_typescript_client_v2_hears_that_its_listening_ends_in_order() {
    let busy = Busy::begin().await;
    let url = busy
        .platform
        .url("/servers/changing/ws")
        .replacen("http", "ws", 1);
    let mut command = node(&npm().join("clients/listening.mjs"));
    let mut child = command
        .arg(json!({ "ws": url }).to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = async || within("a line", lines.next_line()).await.expect("text");
    assert_eq!(line().await.as_deref(), Some("listening"));
    let stopping = tokio::spawn(busy.platform.stop());
    // It would say `remote` of a connection that was lost.
    assert_eq!(line().await.as_deref(), Some("graceful"));
    within("the end", stopping).await.expect("it stops");
    within("its end", child.wait()).await.expect("it ends");
}
