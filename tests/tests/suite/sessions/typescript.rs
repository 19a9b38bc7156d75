//! The TypeScript SDK v1 before a load balancer that sends each request to the other bridge.

use std::{
    io,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::{
    parts::{node, npm},
    within,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpListener,
    process::ChildStdout,
    sync::watch,
};

use super::Stage;

/// Sends each request to the next bridge, and cuts what is open when the test says so.
#[derive(Clone)]
struct Balancer {
    bridges: Arc<Vec<String>>,
    turn: Arc<AtomicUsize>,
    cuts: watch::Sender<u32>,
    http: reqwest::Client,
}

impl Balancer {
    async fn before(stage: &Stage) -> (Self, SocketAddr) {
        let balancer = Self {
            bridges: Arc::new(vec![stage.a.base.clone(), stage.b.base.clone()]),
            turn: Arc::default(),
            cuts: watch::Sender::new(0),
            http: reqwest::Client::new(),
        };
        let router = axum::Router::new().fallback(hand_on).with_state(balancer.clone());
        let listener = TcpListener::bind(super::ANY_PORT).await.expect("a free port");
        let local = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        (balancer, local)
    }

    fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }
}

async fn hand_on(State(balancer): State<Balancer>, request: Request) -> Response {
    let turn = balancer.turn.fetch_add(1, Ordering::SeqCst);
    let base = &balancer.bridges[turn % balancer.bridges.len()];
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().expect("a path");
    parts.headers.remove("host");
    let answer = balancer
        .http
        .request(parts.method, format!("{base}{path}"))
        .headers(parts.headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()))
        .send()
        .await
        .expect("a bridge answers");
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" {
            response = response.header(name, value);
        }
    }
    let state = (Box::pin(answer.bytes_stream()), balancer.cuts.subscribe());
    let body = stream::unfold(state, |(mut pieces, mut cuts)| async move {
        let piece = tokio::select! {
            piece = pieces.next() => piece?.map_err(|error| io::Error::other(error.to_string())),
            _ = cuts.changed() => Err(io::Error::other("cut")),
        };
        Some((piece, (pieces, cuts)))
    });
    response.body(Body::from_stream(body)).expect("a response")
}

/// Runs the client; gives what it has seen, and whether it came to be held in between.
async fn run(stage: &Stage, balancer: &Balancer, settings: Value) -> (Value, bool) {
    let mut command = node(&npm().join("clients/session.mjs"));
    let mut child = command
        .arg(settings.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut first = line(&mut lines).await;
    let is_held = first == "holding";
    if is_held {
        stage.probe.held.begun.next("the call").await;
        balancer.cut();
        stage.probe.release.notify_waiters();
        first = line(&mut lines).await;
    }
    within("its end", child.wait()).await.expect("it ends");
    (serde_json::from_str(&first).expect("one line of JSON"), is_held)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    within("a line", lines.next_line())
        .await
        .expect("text")
        .expect("a line before its end")
}

/// What the client has to have seen, over either transport.
fn expected() -> Value {
    json!({
        "elicited": "accept Ada", "told": [1, 2], "sample": "Paris", "roots": "file:///a", "two_rounds": "Ada Ada",
        "all_at_once": "accept m file:///a", "put_off": "done after 2", "logged": "logged", "line": "a line",
        "updated": "test://a",
    })
}

#[tokio::test]
async fn the_typescript_sdk_v1_is_asked_and_told_behind_a_load_balancer_and_survives_a_cut() {
    let stage = Stage::set().await;
    let (balancer, address) = Balancer::before(&stage).await;
    let url = |server: &str| format!("http://{address}/servers/{server}/mcp");
    let settings = json!({ "asking": url("asking"), "holding": url("fixture") });
    let (seen, is_held) = run(&stage, &balancer, settings).await;
    let mut expected = expected();
    expected["released"] = "released".into();
    assert_eq!((seen, is_held), (expected, true));
    stage.end().await;
}

#[tokio::test]
async fn the_typescript_sdk_v1_is_asked_and_told_over_http_and_sse() {
    let stage = Stage::set().await;
    let (balancer, address) = Balancer::before(&stage).await;
    let url = format!("http://{address}/servers/asking/sse");
    let (mut seen, _) = run(&stage, &balancer, json!({ "asking": url, "sse": true })).await;
    // Over this transport the SDK forgets progress that it reads together with the answer.
    let told = seen["told"].take();
    assert_eq!(told[0], 1, "{told}");
    seen["told"] = expected()["told"].take();
    assert_eq!(seen, expected());
    stage.end().await;
}
