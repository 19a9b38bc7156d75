//! Servers at a URL that misbehave: each costs its own callers an error, and nobody else anything.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bus_schema::mcp::method;
use futures::stream;
use serde_json::{Value, json};
use tests::{
    eventually,
    http::{Client, text},
    remote::local,
    scripted::{Asked, Events, Scripted, status, typed},
    within,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{Duration, Instant},
};

use super::{failure, platform_that_knows};

/// More than one message may have.
const TOO_LONG: usize = 70 * 1024 * 1024;

fn one_tool() -> Value {
    json!([{ "name": "t", "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": true } }])
}

/// A body of so many bytes between two pieces, made as it is sent.
fn long(before: String, bytes: usize, after: String) -> Body {
    const PIECE: usize = 1024 * 1024;
    let filler = Bytes::from(vec![b'x'; PIECE]);
    let pieces = std::iter::once(Bytes::from(before))
        .chain(std::iter::repeat_n(filler, bytes / PIECE))
        .chain(std::iter::once(Bytes::from(after)));
    Body::from_stream(stream::iter(pieces.map(Ok::<_, std::convert::Infallible>)))
}

fn misbehave(asked: &Asked) -> Response {
    let id = &asked.body["id"];
    let result = asked.result_message(&json!({ "content": [] })).to_string();
    let json = |body: String| typed(StatusCode::OK, "application/json", body);
    match asked.body["params"]["arguments"]["case"].as_str() {
        Some("page") => typed(StatusCode::OK, "text/html", "<html></html>"),
        Some("no type") => status(200),
        Some("garbage") => json("this is no message".to_owned()),
        Some("other id") => json(result.replace(&id.to_string(), "999999999")),
        Some("coded") => {
            let mut answer = json(result);
            answer
                .headers_mut()
                .insert("content-encoding", "gzip".parse().expect("a value"));
            answer
        }
        Some("long") => {
            let before = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"x":""#);
            typed(
                StatusCode::OK,
                "application/json",
                long(before, TOO_LONG, r#""}}"#.to_owned()),
            )
        }
        Some("long event") => {
            let before = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"x\":\"");
            typed(
                StatusCode::OK,
                "text/event-stream",
                long(before, TOO_LONG, "\"}}\n\n".to_owned()),
            )
        }
        Some("empty stream") => typed(StatusCode::OK, "text/event-stream", ""),
        Some("cut") => typed(
            StatusCode::OK,
            "text/event-stream",
            format!("data: {}", &result[..20]),
        ),
        Some("moved") => (StatusCode::FOUND, [("location", asked.header("x-target"))]).into_response(),
        _ => asked.modern(&one_tool()),
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_of_that_call_and_the_next_goes_well() {
    let target = Scripted::start(|_| async { status(200) }).await;
    let server = Scripted::start(|asked: Asked| async move { misbehave(&asked) }).await;
    // So many failures would be a reason to leave it alone.
    let more = format!(
        "headers = {{ X-Target = {} }}\nbreaker = {{ failures = 0 }}",
        json!(target.url())
    );
    let platform = platform_that_knows(&local("there", &server.url(), &more), &["there", "products"]).await;
    let (client, products) = (platform.client("there"), platform.client("products"));
    for (case, words) in [
        ("page", "content type `text/html`"),
        ("no type", "before the answer"),
        ("garbage", "before the answer"),
        ("other id", "before the answer"),
        ("coded", "encoded with `gzip`"),
        ("long", "larger than the 67108864 bytes"),
        ("long event", "larger than the 67108864 bytes"),
        ("empty stream", "before the answer"),
        ("cut", "before the answer"),
        ("moved", "redirects elsewhere, which is not followed"),
    ] {
        let answer = within("an error", client.call("t", json!({ "case": case }))).await;
        assert_eq!(
            (&answer["error"]["code"], &answer["id"]),
            (&json!(-32603), &json!(1)),
            "{case}: {answer}"
        );
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(words), "{case}: {message}");
        assert_eq!(
            text(&client.call("t", json!({ "n": 1 })).await),
            r#"{"n":1}"#,
            "after {case}"
        );
        let found = products
            .call("search", json!({ "query": "desk", "limit": 1 }))
            .await;
        assert!(found["result"].is_object(), "{found}");
    }
    assert!(target.asked("GET").is_empty() && target.asked(method::TOOLS_CALL).is_empty());
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_never_answers_costs_its_callers_their_time_and_nobody_elses() {
    let open: Arc<Mutex<Vec<Events>>> = Arc::default();
    let calls = Arc::clone(&open);
    let server = Scripted::start(move |asked: Asked| {
        let silent = asked.called() == method::TOOLS_CALL;
        let calls = Arc::clone(&calls);
        async move {
            if silent {
                let (events, answer) = Events::open();
                // Comments keep the connection busy, and are no answer.
                events.write(": still here\n\n").await;
                calls.lock().expect("no panic").push(events);
                return answer;
            }
            asked.modern(&one_tool())
        }
    })
    .await;
    let file = format!("call_timeout_secs = 1\n{}", local("there", &server.url(), ""));
    let platform = platform_that_knows(&file, &["there", "products"]).await;
    let waiting = (0..4).map(|_| {
        let client = platform.client("there");
        tokio::spawn(async move { client.call("t", json!({})).await })
    });
    let waiting: Vec<_> = waiting.collect();
    let products = platform.client("products");
    for _ in 0..10 {
        let called = Instant::now();
        let found = products
            .call("search", json!({ "query": "desk", "limit": 1 }))
            .await;
        assert!(found["result"].is_object(), "{found}");
        assert!(called.elapsed() < Duration::from_secs(1));
    }
    for call in waiting {
        let answer = within("the end of the wait", call).await.expect("joined");
        assert!(answer["error"].is_object(), "{answer}");
    }
    // Its connections are closed with the calls.
    let streams = std::mem::take(&mut *open.lock().expect("no panic"));
    assert_eq!(streams.len(), 4);
    for events in streams {
        events.dropped().await;
    }
    platform.stop().await;
}

/// A server below HTTP: what it writes to each connection is up to the test.
async fn raw(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer).await;
                if answer.ends_with(b"more") {
                    // The head never ends.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn what_speaks_no_http_is_told_and_tried_again() {
    let closes = raw(b"").await;
    let gibberish = raw(b"220 this is a mail server\r\n").await;
    let cut =
        raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"jsonrpc\"")
            .await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        format!("http://{}/mcp", listener.local_addr().expect("an address"))
    };
    let file = local("closes", &closes, "")
        + &local("gibberish", &gibberish, "")
        + &local("cut", &cut, "")
        + &local("nobody", &nobody, "");
    let platform =
        tests::platform::Platform::start(&file, &["closes", "gibberish", "cut", "nobody", "products"]).await;
    for (id, words) in [
        ("closes", "the connection was lost"),
        ("gibberish", "the connection was lost"),
        ("cut", "the connection was lost"),
        ("nobody", "cannot connect to `127.0.0.1`"),
    ] {
        let why = failure(&platform, id).await;
        assert!(why.contains(words), "{id}: {why}");
        eventually("it is tried again", async || {
            let meters = platform.node.bus().metrics().render();
            let part = format!(r#"part="{id}""#);
            meters
                .lines()
                .any(|line| line.contains("restarts") && line.contains(&part) && !line.ends_with(" 1"))
        })
        .await;
    }
    let found = platform
        .client("products")
        .call("search", json!({ "query": "desk", "limit": 1 }))
        .await;
    assert!(found["result"].is_object(), "{found}");
    platform.stop().await;
}

async fn calls(client: &Client) -> Value {
    within("an answer", client.call("t", json!({ "n": 1 }))).await
}

#[tokio::test]
async fn a_server_that_goes_down_is_found_out_by_the_call_that_fails_and_comes_back() {
    let down = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&down);
    let server = Scripted::start(move |asked: Asked| {
        // What stands before it answers in its place.
        let answer = if switch.load(Ordering::SeqCst) {
            status(503)
        } else {
            asked.modern(&one_tool())
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    assert!(calls(&client).await["result"].is_object());
    down.store(true, Ordering::SeqCst);
    let answer = calls(&client).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|words| words.contains("HTTP 503")),
        "{answer}"
    );
    let why = failure(&platform, "there").await;
    assert!(why.contains("HTTP 503"), "{why}");
    // It is off the bus by then, and calls are refused at once.
    eventually("it is off the bus", async || {
        calls(&client).await["error"]["message"]
            .as_str()
            .is_some_and(|words| !words.contains("503"))
    })
    .await;
    down.store(false, Ordering::SeqCst);
    eventually("it is back", async || calls(&client).await["result"].is_object()).await;
    platform.stop().await;
}

#[tokio::test]
async fn one_bad_moment_does_not_take_a_server_off_the_bus() {
    let bad = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&bad);
    let server = Scripted::start(move |asked: Asked| {
        let fails = asked.called() == method::TOOLS_CALL && switch.swap(false, Ordering::SeqCst);
        let answer = if fails {
            status(502)
        } else {
            asked.modern(&one_tool())
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(
        &local("there", &server.url(), "retry = { attempts = 1 }"),
        &["there"],
    )
    .await;
    let client = platform.client("there");
    let before = server.asked(method::DISCOVER).len();
    bad.store(true, Ordering::SeqCst);
    assert!(calls(&client).await["error"].is_object());
    // It was asked whether it is there, and said so.
    server.was_asked(method::DISCOVER, before + 1).await;
    assert!(calls(&client).await["result"].is_object());
    assert_eq!(super::status(&platform, "there"), runtime::supervise::Status::Up);
    platform.stop().await;
}
