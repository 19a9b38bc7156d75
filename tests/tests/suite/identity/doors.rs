//! Every door asks, and what is open ends with the token that opened it.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{
    eventually,
    http::{Client, modern_body},
    issuer::now,
    program::{self, Program},
    session::Session,
    stream::Stream,
    within,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::{Stage, challenge, send};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens a WebSocket, or gives the status and the challenge of the refusal.
async fn socket(stage: &Stage, path: &str, token: Option<&str>) -> Result<Socket, (u16, String)> {
    let url = stage.platform.url(path).replacen("http", "ws", 1);
    let mut request = url.into_client_request().expect("a request");
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
    }
    match within("the connection", connect_async(request)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(refusal)) => {
            let challenge = refusal.headers().get("www-authenticate");
            let challenge = challenge.map(|value| value.to_str().expect("ASCII").to_owned());
            Err((refusal.status().as_u16(), challenge.unwrap_or_default()))
        }
        Err(error) => panic!("no connection: {error}"),
    }
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        match within("a message", socket.next())
            .await
            .expect("a message")
            .expect("a frame")
        {
            Message::Ping(_) => {}
            other => return other,
        }
    }
}

impl Stage {
    /// A token that ends soon, for a platform that knows no skew.
    fn short(&self, subject: &str) -> String {
        let end = json!({ "exp": now() + 2 });
        self.issuer.token(subject, &self.platform.url(""), end)
    }
}

#[tokio::test]
async fn a_websocket_is_opened_with_a_token_and_closed_when_that_expires() {
    let stage = Stage::start("clock_skew_secs = 0").await;
    for path in ["/ws", "/servers/whoami/ws"] {
        let (status, challenge) = socket(&stage, path, None).await.expect_err("no token");
        assert_eq!(status, 401);
        let at = stage
            .platform
            .url(&format!("/.well-known/oauth-protected-resource{path}"));
        assert_eq!(challenge, format!("Bearer resource_metadata=\"{at}\""));
        let other = stage.issuer.token("ann", &stage.platform.url("/mcp"), json!({}));
        let (status, _) = socket(&stage, path, Some(&other))
            .await
            .expect_err("for another endpoint");
        assert_eq!(status, 401);
    }
    let own = stage
        .issuer
        .token("ann", &stage.platform.url("/servers/whoami/ws"), json!({}));
    let mut lasting = socket(&stage, "/servers/whoami/ws", Some(&own))
        .await
        .expect("a socket");
    let short = stage.short("bob");
    let mut ending = socket(&stage, "/servers/whoami/ws", Some(&short))
        .await
        .expect("a socket");
    let call = modern_body("tools/call", json!({ "name": "whoami" })).to_string();
    for (socket, who) in [(&mut lasting, "ann"), (&mut ending, "bob")] {
        socket.send(Message::text(call.clone())).await.expect("sends");
        let answer: Value = serde_json::from_str(next(socket).await.to_text().expect("text")).expect("JSON");
        assert_eq!(answer["result"]["structuredContent"]["subject"], who, "{answer}");
    }
    let Message::Close(Some(close)) = next(&mut ending).await else {
        panic!("it is closed with a reason");
    };
    assert_eq!(
        (u16::from(close.code), close.reason.contains("expired")),
        (3000, true)
    );
    lasting
        .send(Message::text(call))
        .await
        .expect("the other one is still open");
    assert!(matches!(next(&mut lasting).await, Message::Text(_)));
    stage.platform.stop().await;
}

#[tokio::test]
async fn streams_without_an_end_of_their_own_end_with_the_token() {
    let stage = Stage::start("clock_skew_secs = 0").await;
    let open_session = Session::open(&stage.client_of("ann"), "2025-11-25").await;
    let token = stage.short("ann");
    let client = stage.client().with_token(&token);
    let listen = client.modern(
        "subscriptions/listen",
        json!({ "notifications": { "toolsListChanged": true } }),
    );
    let mut modern = Stream::of(send(listen).await);
    assert_eq!(
        modern.message().await["method"],
        "notifications/subscriptions/acknowledged"
    );
    let mut legacy = Stream::of(send(open_session.listening(&client)).await);
    let first = Client::new(stage.platform.url("/sse")).with_token(&token);
    let mut sse = Stream::of(send(first.request(reqwest::Method::GET)).await);
    assert!(
        sse.event()
            .await
            .expect("an address")
            .data
            .is_some_and(|at| at.starts_with("/messages/"))
    );
    // Who listens in the modern way hears that this is all.
    let last = modern.message().await;
    assert_eq!(last["result"]["resultType"], "complete", "{last}");
    assert_eq!(modern.event().await, None);
    while legacy.event().await.is_some() {}
    while sse.event().await.is_some() {}
    // The session has not ended: it goes on with another token.
    let answer = open_session
        .ask("tools/call", &json!({ "name": "whoami", "arguments": {} }))
        .await;
    assert_eq!(answer["result"]["content"][0]["text"], "ann", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn the_address_of_somebody_elses_stream_leads_nowhere() {
    let stage = Stage::start("").await;
    let at = |path: &str, who: &str| Client::new(stage.platform.url(path)).with_token(&stage.token(who));
    let mut stream = Stream::of(send(at("/servers/whoami/sse", "ann").request(reqwest::Method::GET)).await);
    let address = stream.event().await.expect("an event").data.expect("an address");
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" }
    }});
    let post = async |path: &str, who: &str| {
        let answer = send(at(path, who).raw(message.to_string())).await;
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    };
    let foreign = post(&address, "bob").await;
    assert_eq!(foreign.0, 404);
    assert_eq!(
        foreign,
        post("/servers/whoami/messages/nobody.s", "bob").await,
        "as if there were none"
    );
    let nobody = send(Client::new(stage.platform.url(&address)).raw(message.to_string())).await;
    assert_eq!(nobody.status(), 401);
    assert!(challenge(&nobody).contains("/.well-known/oauth-protected-resource/servers/whoami/sse\""));
    assert_eq!(post(&address, "ann").await.0, 202);
    assert_eq!(stream.message().await["id"], 1);
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_open_door_without_authentication_is_refused_in_the_network_and_loud_on_loopback() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let file = folder.path().join("t.toml");
    let up = |listen: &'static str| {
        let (data, file) = (data.clone(), file.display().to_string());
        [
            "up",
            "--listen",
            listen,
            "--nats-listen",
            "127.0.0.1:0",
            "--data-dir",
            &data,
            "--config",
            &file,
        ]
        .map(str::to_owned)
    };
    let refused = async |listen, text: &str, words: &[&str]| {
        std::fs::write(&file, text).expect("a file");
        let arguments = up(listen);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, _, log) = program::run(&arguments).await;
        assert_eq!(code, 1, "{log}");
        for word in words {
            assert!(log.contains(word), "`{word}` is not in: {log}");
        }
    };
    let policy = "[policy.scopes]\na = [\"products__*\"]\n";
    let oauth = "[auth]\nmode = \"oauth\"\n[[auth.issuers]]\nissuer = \"https://id.example\"\n";
    refused(
        "0.0.0.0:0",
        "",
        &["0.0.0.0:0", "auth.mode = \"none\"", "127.0.0.1"],
    )
    .await;
    refused("[::]:0", "", &["[::]:0", "auth.mode = \"none\""]).await;
    refused(
        "127.0.0.1:0",
        policy,
        &["policy.scopes", "nobody has any", "[auth]"],
    )
    .await;
    refused("0.0.0.0:0", oauth, &["public_url", "0.0.0.0"]).await;
    std::fs::write(&file, "").expect("a file");
    let arguments = up("127.0.0.1:0");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut program = Program::start(&arguments);
    assert!(program.logged("AUTHENTICATION IS OFF").await.contains("WARN"));
    within("the banner", async {
        while let Some(line) = program.output.next_line().await.expect("output") {
            if line.contains("AUTHENTICATION IS OFF") {
                return;
            }
        }
        panic!("the banner does not say so");
    })
    .await;
}

#[tokio::test]
async fn no_log_and_no_metric_shows_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = tests::issuer::Issuer::start().await;
    let file = folder.path().join("t.toml");
    std::fs::write(&file, issuer.section("")).expect("a file");
    let (data, file) = (
        folder.path().join("data").display().to_string(),
        file.display().to_string(),
    );
    let mut program = Program::start(&[
        "up",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--nats-listen",
        "127.0.0.1:0",
        "--data-dir",
        &data,
        "--config",
        &file,
        "--log",
        "trace",
    ]);
    let Program { log, output, .. } = &mut program;
    let mut all = String::new();
    let drain = async {
        while let Some(line) = log.next_line().await.expect("the log can be read") {
            all.push_str(&line);
            all.push('\n');
        }
    };
    let work = async {
        let ready = within("the banner", output.next_line()).await.expect("output");
        let ready: Value = serde_json::from_str(&ready.expect("a line")).expect("JSON");
        let base = ready["http"].as_str().expect("a URL").to_owned();
        let good = issuer.token("ann", &base, json!({}));
        let bad = issuer.token("ann", "https://other.example", json!({}));
        let client = Client::new(format!("{base}/mcp"));
        for (token, expected) in [(good.as_str(), 200), (&bad, 401), ("tlk_not-a-key", 401)] {
            let list = client.with_token(token).modern("tools/list", json!({}));
            assert_eq!(send(list).await.status(), expected);
        }
        let in_url = send(reqwest::Client::new().get(format!("{base}/mcp?access_token={good}"))).await;
        assert_eq!(in_url.status(), 400);
        let metrics = send(reqwest::Client::new().get(format!("{base}/metrics"))).await;
        (good, bad, metrics.text().await.expect("text"))
    };
    let (good, bad, metrics) = tokio::select! {
        done = work => done,
        () = drain => panic!("the platform has ended"),
    };
    program.signal(rustix::process::Signal::TERM);
    while let Some(line) = within("the end of the log", program.log.next_line())
        .await
        .expect("a log")
    {
        all.push_str(&line);
    }
    assert!(
        all.contains("refused a request by what it shows"),
        "it logs all it can: {all}"
    );
    for token in [good.as_str(), &bad, "tlk_not-a-key"] {
        let signature = token.rsplit('.').next().expect("a signature");
        assert!(!all.contains(signature) && !metrics.contains(signature));
    }
}

#[tokio::test]
async fn one_process_has_its_gate_at_each_of_its_listeners() {
    let stage = Stage::start("").await;
    // Whatever the HTTP method, an endpoint asks first.
    for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS", "PATCH"] {
        let method = method.parse::<reqwest::Method>().expect("a method");
        for path in [
            "/mcp",
            "/servers/whoami/mcp",
            "/ws",
            "/servers/whoami/ws",
            "/sse",
            "/messages/a.b",
        ] {
            let client = Client::new(stage.platform.url(path));
            let status = send(client.request(method.clone())).await.status().as_u16();
            assert!(matches!(status, 401 | 405), "{method} {path}: {status}");
            assert!(
                status == 401 || !path.ends_with("mcp"),
                "{method} {path}: {status}"
            );
        }
    }
    eventually("the platform still serves", async || {
        super::status(&stage.client(), &stage.token("ann")).await == 200
    })
    .await;
    stage.platform.stop().await;
}
