//! The doors that hold a conversation: WebSocket and stdio, in both eras.

use std::sync::Arc;

use bridges::{front::Endpoint, stdio};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{
    asking,
    changing::Changing,
    fixture::{self, Probe},
    http::modern_body,
    platform::Platform,
    within,
};
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, duplex,
    split,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;

async fn platform(probe: Arc<Probe>) -> (Platform, runtime::Host) {
    let platform = Platform::start("", &[]).await;
    let host = fixture::serve(platform.node.bus(), probe, |_| {}).await;
    platform.knows("fixture").await;
    (platform, host)
}

/// A channel of messages to a door, whichever it is.
enum Channel {
    Socket(Box<WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>>),
    Pipe {
        input: WriteHalf<DuplexStream>,
        output: Lines<BufReader<ReadHalf<DuplexStream>>>,
    },
}

impl Channel {
    async fn socket(platform: &Platform, path: &str) -> Self {
        let url = platform.url(path).replacen("http", "ws", 1);
        Self::Socket(Box::new(
            within("the connection", connect_async(url))
                .await
                .expect("connects")
                .0,
        ))
    }

    async fn pipe(platform: &mut Platform, endpoint: Endpoint) -> Self {
        let (near, far) = duplex(64 * 1024);
        let front = platform.node.front(&platform.config).await.expect("a front");
        let (read, write) = split(far);
        tokio::spawn(stdio::serve(
            front,
            endpoint,
            read,
            write,
            CancellationToken::new(),
        ));
        let (read, write) = split(near);
        Self::Pipe {
            input: write,
            output: BufReader::new(read).lines(),
        }
    }

    async fn send(&mut self, message: &Value) {
        match self {
            Self::Socket(socket) => socket
                .send(Message::text(message.to_string()))
                .await
                .expect("sent"),
            Self::Pipe { input, .. } => input
                .write_all(format!("{message}\n").as_bytes())
                .await
                .expect("sent"),
        }
    }

    async fn receive(&mut self) -> Value {
        let text = within("a message", async {
            match self {
                Self::Socket(socket) => loop {
                    if let Message::Text(text) = socket.next().await.expect("open").expect("a frame") {
                        return text.to_string();
                    }
                },
                Self::Pipe { output, .. } => output.next_line().await.expect("readable").expect("open"),
            }
        })
        .await;
        serde_json::from_str(&text).expect("JSON")
    }

    async fn ask(&mut self, message: &Value) -> Value {
        self.send(message).await;
        self.receive().await
    }
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
        within("the call", probe.held.begun.acquire())
            .await
            .expect("open")
            .forget();
        channel.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "h" } })).await;
        within("the drop of the handler", probe.held.dropped.acquire())
            .await
            .expect("open")
            .forget();
        let next = channel.ask(&modern_body("server/discover", json!({}))).await;
        assert_eq!(
            next["result"]["supportedVersions"],
            json!(["2026-07-28"]),
            "the next message is the next answer"
        );
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
    within("the call", probe.held.begun.acquire())
        .await
        .expect("open")
        .forget();
    drop(channel);
    within("the drop of the handler", probe.held.dropped.acquire())
        .await
        .expect("open")
        .forget();
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
