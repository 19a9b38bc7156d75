//! Streamable HTTP of the modern era: what a server gets, and what becomes of what it sends.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use axum::response::Response;
use bus_schema::{header, mcp::method};
use serde_json::{Value, json};
use tests::{
    http::{events, text},
    remote::local,
    scripted::{Asked, Events, Scripted, status},
    within,
};

use super::platform_that_knows;

fn plain_tool(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object" } })
}

fn region_tool(name: &str, annotation: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object",
        "properties": { "region": { "type": "string", "x-mcp-header": annotation } } } })
}

#[tokio::test]
async fn headers_repeat_the_body_and_carry_what_the_operator_gave() {
    let list = json!([region_tool("größe", "Region")]);
    let server = Scripted::start(move |asked: Asked| {
        let answer = asked.modern(&list);
        async move { answer }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "own-token\n").expect("the file is written");
    let more = format!(
        "headers = {{ X-Team = \"support\" }}\nbearer_file = {}",
        json!(token)
    );
    let platform = platform_that_knows(&local("there", &server.url(), &more), &["there"]).await;
    let params = json!({ "name": "größe", "arguments": { "region": "Ost " } });
    let answer = platform
        .client("there")
        .modern(method::TOOLS_CALL, params)
        .header("mcp-param-region", "=?base64?T3N0IA==?=")
        .header("authorization", "Bearer the-clients-own")
        .header("x-team", "the client's")
        .send()
        .await
        .expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(text(&answer), r#"{"region":"Ost "}"#);
    let called = server.was_asked(method::TOOLS_CALL, 1).await.remove(0);
    for (name, value) in [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        (header::PROTOCOL_VERSION, "2026-07-28"),
        (header::METHOD, "tools/call"),
        (header::NAME, "=?base64?Z3LDtsOfZQ==?="),
        ("mcp-param-region", "=?base64?T3N0IA==?="),
        ("x-team", "support"),
        ("authorization", "Bearer own-token"),
        (header::SESSION_ID, ""),
    ] {
        assert_eq!(called.header(name), value, "{name}");
    }
    assert_eq!(called.body["params"]["name"], "größe");
    for listed in server.asked(method::TOOLS_LIST) {
        assert_eq!(listed.header(header::METHOD), method::TOOLS_LIST);
        assert_eq!(listed.header("authorization"), "Bearer own-token");
    }
    platform.stop().await;
}

#[tokio::test]
async fn connections_are_used_again() {
    let list = json!([plain_tool("t")]);
    let server = Scripted::start(move |asked: Asked| {
        let answer = asked.modern(&list);
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    for n in 0..50 {
        client.call("t", json!({ "n": n })).await;
    }
    let called = server.asked(method::TOOLS_CALL);
    let peers: std::collections::BTreeSet<_> = called.iter().map(|asked| asked.peer).collect();
    assert_eq!(called.len(), 50);
    assert!(
        peers.len() <= 3,
        "{} connections for 50 calls in a row",
        peers.len()
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_tool_with_a_wrong_header_annotation_is_not_shown_and_the_others_are() {
    let list = json!([
        region_tool("good", "Region"),
        region_tool("spaced", "my region"),
        region_tool("empty", ""),
        json!({ "name": "float", "inputSchema": { "type": "object", "properties": { "n": { "type": "number", "x-mcp-header": "N" } } } }),
        json!({ "name": "twice", "inputSchema": { "type": "object", "properties": {
            "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } } } }),
        plain_tool("plain"),
    ]);
    let server = Scripted::start(move |asked: Asked| {
        let answer = asked.modern(&list);
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    assert_eq!(platform.client("there").tool_names().await, ["good", "plain"]);
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_expects_other_headers_is_listed_again_and_asked_once_more() {
    let strict = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&strict);
    let server = Scripted::start(move |asked: Asked| {
        let strict = switch.load(Ordering::SeqCst);
        let annotated = if strict {
            region_tool("t", "Region")
        } else {
            plain_tool("t")
        };
        let mismatch =
            strict && asked.called() == method::TOOLS_CALL && asked.header("mcp-param-region") != "eu";
        let answer = if mismatch {
            asked.error(400, -32020, &Value::Null)
        } else {
            asked.modern(&json!([annotated]))
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    // The door has looked at the tool by then, and asks for no header.
    client.call("t", json!({ "region": "before" })).await;
    strict.store(true, Ordering::SeqCst);
    let answer = client.call("t", json!({ "region": "eu" })).await;
    assert_eq!(text(&answer), r#"{"region":"eu"}"#, "{answer}");
    let called: Vec<String> = server
        .asked(method::TOOLS_CALL)
        .iter()
        .map(|asked| asked.header("mcp-param-region").to_owned())
        .collect();
    assert_eq!(called, ["", "", "eu"]);
    // A mismatch that no header can mend is not asked about again.
    let listed = server.asked(method::TOOLS_LIST).len();
    let answer = client.call("t", json!({ "region": "us" })).await;
    assert_eq!(answer["error"]["code"], -32020, "{answer}");
    assert_eq!(server.asked(method::TOOLS_CALL).len(), 4);
    assert_eq!(server.asked(method::TOOLS_LIST).len(), listed + 1);
    platform.stop().await;
}

/// A server whose calls stay open until the test ends them.
async fn held(more: &'static str) -> (Scripted, Arc<Mutex<Vec<(Asked, Events)>>>) {
    let open: Arc<Mutex<Vec<(Asked, Events)>>> = Arc::default();
    let calls = Arc::clone(&open);
    let server = Scripted::start(move |asked: Asked| {
        let answer: Response = if asked.called() == method::TOOLS_CALL {
            let (events, answer) = Events::open();
            calls.lock().expect("no panic").push((asked, events));
            answer
        } else {
            asked.modern(&json!([plain_tool(more)]))
        };
        async move { answer }
    })
    .await;
    (server, open)
}

/// The stream of a call that has come.
fn stream_of(open: &Mutex<Vec<(Asked, Events)>>, name: &str) -> (Asked, Events) {
    let open = open.lock().expect("no panic");
    let found = open
        .iter()
        .find(|(asked, _)| asked.body["params"]["arguments"]["name"] == name);
    found.expect("the call has come").clone()
}

#[tokio::test]
async fn what_comes_on_the_stream_of_a_call_belongs_to_that_call() {
    let (server, open) = held("t").await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    let begin = |name: &str| {
        let meta = json!({ "progressToken": name, "io.modelcontextprotocol/logLevel": "info" });
        let params = json!({ "name": "t", "arguments": { "name": name }, "_meta": meta });
        tokio::spawn(client.modern(method::TOOLS_CALL, params).send())
    };
    let (first, second) = (begin("a"), begin("b"));
    server.was_asked(method::TOOLS_CALL, 2).await;
    for name in ["a", "b"] {
        let (asked, events) = stream_of(&open, name);
        let token = &asked.body["params"]["_meta"]["progressToken"];
        let told =
            |called: &str, params: Value| json!({ "jsonrpc": "2.0", "method": called, "params": params });
        events
            .write(": a comment\nevent: other\ndata: not for us\n\n")
            .await;
        events
            .send(&told(
                method::MESSAGE,
                json!({ "level": "warning", "data": name }),
            ))
            .await;
        events
            .send(&told(
                method::MESSAGE,
                json!({ "level": "debug", "data": "too low" }),
            ))
            .await;
        events
            .send(&told(
                method::PROGRESS,
                json!({ "progressToken": token, "progress": 1 }),
            ))
            .await;
        events
            .send(&asked.result_message(&json!({ "resultType": "complete", "content": [] })))
            .await;
    }
    for (name, answer) in [("a", first), ("b", second)] {
        let answer = within("an answer", answer)
            .await
            .expect("joined")
            .expect("an answer");
        let told = events(answer).await;
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0]["params"]["data"], name);
        assert_eq!(told[1]["params"]["progressToken"], name);
        assert_eq!(told[2]["result"]["resultType"], "complete");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_closes_its_stream_and_no_other() {
    let (server, open) = held("t").await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    let begin = |name: &str| {
        let params = json!({ "name": "t", "arguments": { "name": name } });
        tokio::spawn(client.modern(method::TOOLS_CALL, params).send())
    };
    let (dropped, kept) = (begin("dropped"), begin("kept"));
    server.was_asked(method::TOOLS_CALL, 2).await;
    dropped.abort();
    stream_of(&open, "dropped").1.dropped().await;
    let (asked, events) = stream_of(&open, "kept");
    events
        .send(&asked.result_message(&json!({ "content": [] })))
        .await;
    let answer: Value = within("an answer", kept)
        .await
        .expect("joined")
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert!(answer["result"].is_object(), "{answer}");
    assert!(
        server.asked(method::CANCELLED).is_empty(),
        "a modern client cancels by going"
    );
    platform.stop().await;
}

#[tokio::test]
async fn refusals_with_a_message_are_answers_and_others_are_errors_of_that_call_only() {
    let server = Scripted::start(|asked: Asked| async move {
        let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32602, "message": "bad", "data": 1.0 } });
        match asked.body["params"]["arguments"]["case"].as_str() {
            Some("unknown") => asked.error(404, -32601, &Value::Null),
            Some("no id") => tests::scripted::message(axum::http::StatusCode::BAD_REQUEST, &error),
            Some("failed") => asked.error(500, -32603, &json!({ "why": "x" })),
            Some("missing") => asked.error(400, -32021, &json!({ "requiredCapabilities": { "sampling": {} } })),
            Some("status") => status(500),
            Some("teapot") => status(418),
            Some("denied") => status(401),
            Some("forbidden") => asked.error(403, -32602, &Value::Null),
            Some("accepted") => status(202),
            _ => asked.modern(&json!([plain_tool("t")])),
        }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    for (case, code, words) in [
        ("unknown", -32601, "scripted"),
        ("no id", -32602, "bad"),
        ("failed", -32603, "scripted"),
        ("missing", -32021, "scripted"),
        ("status", -32603, "server `there` answered HTTP 500"),
        ("teapot", -32603, "server `there` answered HTTP 418"),
        (
            "denied",
            -32603,
            "server `there` refuses this platform's credentials (HTTP 401)",
        ),
        (
            "forbidden",
            -32603,
            "server `there` refuses this platform's credentials (HTTP 403)",
        ),
        ("accepted", -32603, "before the answer"),
    ] {
        let params = json!({ "name": "t", "arguments": { "case": case } });
        let answer = client
            .modern(method::TOOLS_CALL, params)
            .send()
            .await
            .expect("an answer");
        assert!(
            !matches!(answer.status().as_u16(), 401 | 403),
            "{case}: it is not the client's credentials"
        );
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(
            (&answer["error"]["code"], &answer["id"]),
            (&json!(code), &json!(1)),
            "{case}: {answer}"
        );
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(words), "{case}: {message}");
        assert!(
            client.call("t", json!({})).await["result"].is_object(),
            "after {case}"
        );
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again() {
    let accepted = Arc::new(Mutex::new("Bearer one".to_owned()));
    let check = Arc::clone(&accepted);
    let server = Scripted::start(move |asked: Asked| {
        let known = *check.lock().expect("no panic") == asked.header("authorization");
        let answer = if known {
            asked.modern(&json!([plain_tool("t")]))
        } else {
            status(401)
        };
        async move { answer }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "one").expect("the file is written");
    let more = format!("bearer_file = {}", json!(token));
    let platform = platform_that_knows(&local("there", &server.url(), &more), &["there"]).await;
    let client = platform.client("there");
    assert!(client.call("t", json!({})).await["result"].is_object());
    std::fs::write(&token, "two").expect("the file is written");
    "Bearer two".clone_into(&mut accepted.lock().expect("no panic"));
    let answer = client.call("t", json!({ "n": 1 })).await;
    assert_eq!(text(&answer), r#"{"n":1}"#, "{answer}");
    let shown: Vec<String> = server
        .asked(method::TOOLS_CALL)
        .iter()
        .map(|asked| asked.header("authorization").to_owned())
        .collect();
    assert_eq!(shown, ["Bearer one", "Bearer one", "Bearer two"]);
    platform.stop().await;
}

#[tokio::test]
async fn changed_lists_are_told_on_a_stream_that_is_opened_again_when_it_is_cut() {
    let listening: Arc<Mutex<Vec<(Asked, Events)>>> = Arc::default();
    let names = Arc::new(Mutex::new(vec!["first"]));
    let (streams, now) = (Arc::clone(&listening), Arc::clone(&names));
    let server = Scripted::start(move |asked: Asked| {
        let list: Vec<Value> = now
            .lock()
            .expect("no panic")
            .iter()
            .map(|name| plain_tool(name))
            .collect();
        let answer = match asked.called() {
            "subscriptions/listen" => {
                let (events, answer) = Events::open();
                streams.lock().expect("no panic").push((asked, events));
                answer
            }
            method::DISCOVER => asked.result(
                &json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": { "tools": { "listChanged": true } }, "ttlMs": 0, "cacheScope": "private" }),
            ),
            _ => asked.modern(&json!(list)),
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), ""), &["there"]).await;
    let client = platform.client("there");
    server.was_asked("subscriptions/listen", 1).await;
    assert_eq!(client.tool_names().await, ["first"]);
    names.lock().expect("no panic").push("second");
    let (asked, events) = listening.lock().expect("no panic")[0].clone();
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": asked.body["id"] });
    events
        .send(&json!({ "jsonrpc": "2.0", "method": method::TOOLS_CHANGED, "params": { "_meta": meta } }))
        .await;
    tests::eventually("the second tool is shown", async || {
        client.tool_names().await == ["first", "second"]
    })
    .await;
    // What changes while the stream is cut is seen when it is there again.
    names.lock().expect("no panic").push("third");
    drop(events);
    listening.lock().expect("no panic").clear();
    server.was_asked("subscriptions/listen", 2).await;
    tests::eventually("the third tool is shown", async || {
        client.tool_names().await == ["first", "second", "third"]
    })
    .await;
    platform.stop().await;
}
