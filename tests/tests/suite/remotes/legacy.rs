//! Streamable HTTP of the legacy era: sessions that end, streams that break and are resumed, and a stream of the server's own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bus_schema::{header, mcp::method};
use serde_json::{Value, json};
use tests::{
    eventually,
    http::text,
    remote::local,
    scripted::{Asked, Events, Scripted, message, status, typed},
    session::messages,
    stream::Stream,
    within,
};
use tokio::time::{Duration, Instant};

use super::platform_that_knows;

/// Reading tools may be called twice, and others may not.
fn two_tools() -> Value {
    let schema = json!({ "type": "object" });
    json!([
        { "name": "reads", "inputSchema": schema, "annotations": { "readOnlyHint": true } },
        { "name": "writes", "inputSchema": schema },
    ])
}

const LEGACY: &str = "era = \"legacy\"";

#[tokio::test]
async fn a_session_is_opened_named_in_every_request_and_ended() {
    let server =
        Scripted::start(|asked: Asked| async move { asked.legacy("the-session", &two_tools()) }).await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let client = platform.client("there");
    assert_eq!(
        text(&client.call("writes", json!({ "n": 1 })).await),
        r#"{"n":1}"#
    );
    platform.stop().await;
    let opening = &server.asked(method::INITIALIZE)[0];
    assert_eq!(
        (
            opening.header(header::SESSION_ID),
            opening.header(header::PROTOCOL_VERSION)
        ),
        ("", "")
    );
    for called in [
        method::INITIALIZED,
        method::TOOLS_LIST,
        method::TOOLS_CALL,
        "GET",
        "DELETE",
    ] {
        let asked = server.asked(called);
        assert!(!asked.is_empty(), "{called} did not come");
        for asked in asked {
            assert_eq!(asked.header(header::SESSION_ID), "the-session", "{called}");
            assert_eq!(asked.header(header::PROTOCOL_VERSION), "2025-11-25", "{called}");
            assert_eq!(asked.header(header::METHOD), "", "{called}");
        }
    }
    assert_eq!(server.asked("DELETE").len(), 1);
    let params = &server.asked(method::TOOLS_CALL)[0].body["params"];
    assert_eq!(
        (&params["name"], &params["arguments"]),
        (&json!("writes"), &json!({ "n": 1 }))
    );
    assert!(
        !params.to_string().contains("io.modelcontextprotocol/"),
        "{params}"
    );
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_by_a_message() {
    let open: Arc<Mutex<Vec<Events>>> = Arc::default();
    let calls = Arc::clone(&open);
    let server = Scripted::start(move |asked: Asked| {
        let answer = if asked.called() == method::TOOLS_CALL {
            let (events, answer) = Events::open();
            calls.lock().expect("no panic").push(events);
            answer
        } else {
            asked.legacy("s", &two_tools())
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let params = json!({ "name": "writes", "arguments": {} });
    let call = tokio::spawn(platform.client("there").modern(method::TOOLS_CALL, params).send());
    let called = server.was_asked(method::TOOLS_CALL, 1).await;
    call.abort();
    let cancelled = server.was_asked(method::CANCELLED, 1).await;
    assert_eq!(cancelled[0].body["params"]["requestId"], called[0].body["id"]);
    assert_eq!(cancelled[0].header(header::SESSION_ID), "s");
    let events = open.lock().expect("no panic")[0].clone();
    events.dropped().await;
    platform.stop().await;
}

/// A server that answers a call in pieces: each stream is written and closed, and the next one goes on from there.
async fn in_pieces(pieces: Vec<fn(&Value) -> String>) -> (Scripted, Arc<Mutex<Vec<Instant>>>) {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (at, clock) = (AtomicUsize::new(0), Arc::clone(&times));
    let call = Mutex::new(Value::Null);
    let server = Scripted::start(move |asked: Asked| {
        let begins = asked.called() == method::TOOLS_CALL;
        let resumes = asked.called() == "GET" && !asked.header(header::LAST_EVENT_ID).is_empty();
        let answer = if begins || resumes {
            clock.lock().expect("no panic").push(Instant::now());
            let mut call = call.lock().expect("no panic");
            if begins {
                *call = asked.body["id"].clone();
            }
            match pieces.get(at.fetch_add(1, Ordering::SeqCst)) {
                Some(piece) => typed(StatusCode::OK, "text/event-stream", piece(&call)),
                None => status(500),
            }
        } else {
            asked.legacy("s", &two_tools())
        };
        async move { answer }
    })
    .await;
    (server, times)
}

fn result(call: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": call, "result": { "content": [{ "type": "text", "text": "whole" }] } })
}

#[tokio::test]
async fn a_stream_that_breaks_is_resumed_where_it_broke_and_the_call_is_made_once() {
    let (server, times) = in_pieces(vec![
        |_| "retry: 300\nid: one\ndata:\n\n".to_owned(),
        |call| {
            let params = json!({ "progressToken": call, "progress": 1 });
            let progress = json!({ "jsonrpc": "2.0", "method": method::PROGRESS, "params": params });
            format!("id: two\ndata: {progress}\n\nid: three\ndata: {{\"cut")
        },
        |call| format!("data: {}\n\n", result(call)),
    ])
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let params = json!({ "name": "writes", "arguments": {}, "_meta": { "progressToken": "p" } });
    let answer = platform.client("there").modern(method::TOOLS_CALL, params).send();
    let told = tests::http::events(within("an answer", answer).await.expect("an answer")).await;
    assert_eq!(told[0]["params"]["progressToken"], "p");
    assert_eq!(text(told.last().expect("an answer")), "whole");
    assert_eq!(server.asked(method::TOOLS_CALL).len(), 1);
    let resumed: Vec<String> = server
        .asked("GET")
        .iter()
        .map(|asked| asked.header(header::LAST_EVENT_ID).to_owned())
        .filter(|id| !id.is_empty())
        .collect();
    assert_eq!(resumed, ["one", "two"], "an event that was cut was not seen");
    let times = times.lock().expect("no panic").clone();
    for pair in times.windows(2) {
        let paused = pair[1] - pair[0];
        assert!(paused >= Duration::from_millis(290), "came back after {paused:?}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_is_one_error_and_the_call_is_not_made_again() {
    for piece in [
        // It names no event to go on from.
        (|_: &Value| {
            "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/elicitation/complete\"}\n\n".to_owned()
        }) as fn(&Value) -> String,
        // It does not know the event any more.
        |_| "retry: 100\nid: lost\ndata:\n\n".to_owned(),
    ] {
        let (server, _) = in_pieces(vec![piece]).await;
        let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
        let client = platform.client("there");
        let params = json!({ "name": "reads", "arguments": {} });
        let told = messages(client.modern(method::TOOLS_CALL, params)).await;
        let answer = told.last().expect("an error");
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        assert_eq!(server.asked(method::TOOLS_CALL).len(), 1);
        assert!(
            client
                .modern(method::TOOLS_LIST, json!({}))
                .send()
                .await
                .expect("an answer")
                .status()
                .is_success()
        );
        platform.stop().await;
    }
}

/// A server that forgets its session when the test says so, and says that in one of several ways.
async fn forgetful(gone: fn(&Asked) -> Response) -> (Scripted, Arc<AtomicUsize>) {
    let generation = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&generation);
    let server = Scripted::start(move |asked: Asked| {
        let session = format!("session-{}", now.load(Ordering::SeqCst));
        let shown = asked.header(header::SESSION_ID);
        let answer = if !shown.is_empty() && shown != session {
            gone(&asked)
        } else {
            asked.legacy(&session, &two_tools())
        };
        async move { answer }
    })
    .await;
    (server, generation)
}

#[tokio::test]
async fn an_ended_session_is_opened_anew_and_only_what_reads_is_asked_again() {
    let ways: [fn(&Asked) -> Response; 3] = [
        |_| status(404),
        |_| {
            message(
                StatusCode::NOT_FOUND,
                &json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32001, "message": "Session not found" } }),
            )
        },
        |_| {
            message(
                StatusCode::BAD_REQUEST,
                &json!({ "jsonrpc": "2.0", "error": { "code": -32000, "message": "Bad Request: No valid session ID provided" } }),
            )
        },
    ];
    for gone in ways {
        let (server, generation) = forgetful(gone).await;
        let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
        let client = platform.client("there");
        generation.store(1, Ordering::SeqCst);
        // Many find it ended at once, and one new session serves them all.
        let calls = (0..8).map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call("reads", json!({ "n": n })).await })
        });
        for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
            let answer = within("an answer", call).await.expect("joined");
            assert_eq!(text(&answer), format!("{{\"n\":{n}}}"), "{answer}");
        }
        assert_eq!(server.asked(method::INITIALIZE).len(), 2);
        generation.store(2, Ordering::SeqCst);
        let before = server.asked(method::TOOLS_CALL).len();
        let answer = client.call("writes", json!({})).await;
        let words = answer["error"]["message"].as_str().expect("an error");
        assert!(words.contains("ended the session"), "{words}");
        assert_eq!(server.asked(method::TOOLS_CALL).len(), before + 1);
        assert_eq!(
            text(&client.call("writes", json!({ "n": 9 })).await),
            r#"{"n":9}"#
        );
        assert_eq!(server.asked(method::INITIALIZE).len(), 3);
        platform.stop().await;
    }
}

#[tokio::test]
async fn an_unknown_method_that_is_answered_with_404_does_not_end_the_session() {
    let server = Scripted::start(|asked: Asked| async move {
        match asked.called() {
            method::TOOLS_CALL => asked.error(404, -32601, &Value::Null),
            // It offers no stream of its own, and says so with the wrong status.
            "GET" => status(404),
            _ => asked.legacy("s", &two_tools()),
        }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let answer = platform.client("there").call("writes", json!({})).await;
    assert_eq!(answer["error"]["code"], -32601, "{answer}");
    // It was asked whether it still knows the session, and it does.
    server.was_asked(method::PING, 1).await;
    assert_eq!(server.asked(method::INITIALIZE).len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn the_servers_own_stream_is_read_answered_and_resumed() {
    let streams: Arc<Mutex<Vec<Events>>> = Arc::default();
    let shown = Arc::new(Mutex::new(vec!["first"]));
    let (opened, names) = (Arc::clone(&streams), Arc::clone(&shown));
    let server = Scripted::start(move |asked: Asked| {
        let list: Vec<Value> = names
            .lock()
            .expect("no panic")
            .iter()
            .map(|name| json!({ "name": name, "inputSchema": { "type": "object" } }))
            .collect();
        let answer = if asked.called() == "GET" && asked.body.is_null() {
            let (events, answer) = Events::open();
            opened.lock().expect("no panic").push(events);
            answer
        } else if asked.body["method"].is_null() && asked.body["result"].is_object() {
            StatusCode::ACCEPTED.into_response()
        } else {
            asked.legacy("s", &json!(list))
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let client = platform.client("there");
    assert_eq!(client.tool_names().await, ["first"]);
    server.was_asked("GET", 1).await;
    let stream = |at: usize| streams.lock().expect("no panic")[at].clone();
    stream(0)
        .send(&json!({ "jsonrpc": "2.0", "id": "are you there", "method": "ping" }))
        .await;
    let answers = server.was_asked("POST", 1).await;
    assert_eq!(
        answers[0].body,
        json!({ "jsonrpc": "2.0", "id": "are you there", "result": {} })
    );
    shown.lock().expect("no panic").push("second");
    let changed = json!({ "jsonrpc": "2.0", "method": method::TOOLS_CHANGED });
    stream(0)
        .write(format!("id: e-1\nretry: 100\ndata: {changed}\n\n"))
        .await;
    eventually("the second tool is shown", async || {
        client.tool_names().await == ["first", "second"]
    })
    .await;
    // It is cut, and goes on after the last event that was seen.
    streams.lock().expect("no panic").clear();
    let resumed = server.was_asked("GET", 2).await;
    assert_eq!(resumed[1].header(header::LAST_EVENT_ID), "e-1");
    shown.lock().expect("no panic").push("third");
    eventually("the stream is open again", async || {
        !streams.lock().expect("no panic").is_empty()
    })
    .await;
    stream(0).send(&changed).await;
    eventually("the third tool is shown", async || {
        client.tool_names().await.len() == 3
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn a_server_of_the_second_version_may_answer_in_a_batch() {
    let server = Scripted::start(|asked: Asked| async move {
        match asked.called() {
            method::INITIALIZE => {
                let info = json!({ "name": "scripted", "version": "1" });
                asked.result(&json!({ "protocolVersion": "2025-03-26", "capabilities": { "tools": {} }, "serverInfo": info }))
            }
            method::TOOLS_CALL => {
                let log = json!({ "jsonrpc": "2.0", "method": method::MESSAGE, "params": { "level": "info", "data": 1 } });
                message(StatusCode::OK, &json!([log, asked.result_message(&json!({ "content": [] }))]))
            }
            _ => {
                // It has no sessions, and that version has no header.
                assert_eq!(asked.header(header::PROTOCOL_VERSION), "");
                asked.legacy("", &two_tools())
            }
        }
    })
    .await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let answer = platform.client("there").call("writes", json!({})).await;
    assert_eq!(answer["result"]["content"], json!([]), "{answer}");
    platform.stop().await;
    assert!(server.asked("DELETE").is_empty(), "there is no session to end");
}

/// A server that forgets its session when the test says so, and has a resource that can be subscribed to and log levels.
async fn watched() -> (Scripted, Arc<AtomicUsize>, Arc<Mutex<Vec<Events>>>) {
    let (generation, streams) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::<Mutex<Vec<Events>>>::default(),
    );
    let (now, opened) = (Arc::clone(&generation), Arc::clone(&streams));
    let server = Scripted::start(move |asked: Asked| {
        let session = format!("session-{}", now.load(Ordering::SeqCst));
        let shown = asked.header(header::SESSION_ID);
        let answer = match asked.called() {
            _ if !shown.is_empty() && shown != session => status(404),
            method::INITIALIZE => {
                let capabilities = json!({ "tools": {}, "logging": {}, "resources": { "subscribe": true } });
                let info = json!({ "name": "scripted", "version": "1" });
                let mut answer = asked.result(&json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info }));
                answer.headers_mut().insert(header::SESSION_ID, session.parse().expect("visible ASCII"));
                answer
            }
            method::SUBSCRIBE | method::UNSUBSCRIBE | method::SET_LEVEL => asked.result(&json!({})),
            method::RESOURCES_LIST => asked.result(&json!({ "resources": [{ "uri": "test://a", "name": "a" }] })),
            method::TEMPLATES_LIST => asked.result(&json!({ "resourceTemplates": [] })),
            "GET" => {
                let (events, answer) = Events::open();
                opened.lock().expect("no panic").push(events);
                answer
            }
            _ => asked.legacy(&session, &two_tools()),
        };
        async move { answer }
    })
    .await;
    (server, generation, streams)
}

#[tokio::test]
async fn a_new_session_is_told_what_the_old_one_knew() {
    let (server, generation, streams) = watched().await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let client = platform.client("there");
    let wanted = json!({ "notifications": { "resourceSubscriptions": ["test://a"] } });
    let listening = within("a stream", client.modern(method::LISTEN, wanted).send()).await;
    let mut told = Stream::of(listening.expect("an answer"));
    assert_eq!(told.message().await["method"], method::ACKNOWLEDGED);
    let subscribed = server.was_asked(method::SUBSCRIBE, 1).await;
    assert_eq!(subscribed[0].header(header::SESSION_ID), "session-0");
    server.was_asked("GET", 1).await;
    let with_log =
        json!({ "name": "reads", "arguments": {}, "_meta": { "io.modelcontextprotocol/logLevel": "info" } });
    messages(client.modern(method::TOOLS_CALL, with_log.clone())).await;
    assert_eq!(server.asked(method::SET_LEVEL).len(), 1);
    generation.store(1, Ordering::SeqCst);
    let answer = messages(client.modern(method::TOOLS_CALL, with_log)).await;
    assert!(answer[0]["result"].is_object(), "{answer:?}");
    let subscribed = server.was_asked(method::SUBSCRIBE, 2).await;
    let last = subscribed.last().expect("it was asked");
    assert_eq!(last.header(header::SESSION_ID), "session-1");
    assert_eq!(last.body["params"]["uri"], "test://a");
    // What has changed in between nobody has told, so it counts as changed.
    let update = told.message().await;
    assert_eq!(
        (&update["method"], &update["params"]["uri"]),
        (&json!(method::UPDATED), &json!("test://a"))
    );
    // The new session has a stream of its own, and what comes there is told.
    server.was_asked("GET", 2).await;
    let stream = streams
        .lock()
        .expect("no panic")
        .last()
        .cloned()
        .expect("a stream");
    stream
        .send(&json!({ "jsonrpc": "2.0", "method": method::UPDATED, "params": { "uri": "test://a/part" } }))
        .await;
    while told.message().await["params"]["uri"] != "test://a/part" {}
    let with_log =
        json!({ "name": "reads", "arguments": {}, "_meta": { "io.modelcontextprotocol/logLevel": "info" } });
    messages(client.modern(method::TOOLS_CALL, with_log)).await;
    let levels = server.asked(method::SET_LEVEL);
    assert_eq!(
        levels.last().expect("a level").header(header::SESSION_ID),
        "session-1"
    );
    platform.stop().await;
}

/// A server that asks its client for a name in the course of every call, on the stream of that call.
async fn curious() -> Scripted {
    let calls: Arc<Mutex<HashMap<String, (Asked, Events)>>> = Arc::default();
    Scripted::start(move |asked: Asked| {
        let calls = Arc::clone(&calls);
        async move {
            if asked.called() == method::TOOLS_CALL {
                let (events, answer) = Events::open();
                let question = format!("question-{}", asked.body["id"]);
                let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
                let params = json!({ "message": asked.body["params"]["arguments"]["n"].to_string(), "requestedSchema": schema });
                events.send(&json!({ "jsonrpc": "2.0", "id": question, "method": "elicitation/create", "params": params })).await;
                calls.lock().expect("no panic").insert(question, (asked, events));
                return answer;
            }
            if asked.body["method"].is_null() && asked.body["result"].is_object() {
                let question = asked.body["id"].as_str().unwrap_or_default();
                let (call, events) = calls.lock().expect("no panic").remove(question).expect("a question that was put");
                let said = json!({ "name": asked.body["result"]["content"]["name"], "n": call.body["params"]["arguments"]["n"],
                    "session": asked.header(header::SESSION_ID) });
                let text = json!({ "content": [{ "type": "text", "text": said.to_string() }] });
                events.send(&call.result_message(&text)).await;
                return status(202);
            }
            // Each session has its own name, made of what its client can be asked.
            let asks = asked.body["params"]["capabilities"]["elicitation"].is_object();
            let session = match (asked.called(), asked.header(header::SESSION_ID)) {
                (method::INITIALIZE, _) if asks => "asking",
                (method::INITIALIZE, _) => "plain",
                (_, shown) => shown,
            };
            asked.legacy(session, &two_tools())
        }
    })
    .await
}

#[tokio::test]
async fn calls_of_one_session_are_asked_each_on_its_own_stream_at_the_same_time() {
    let server = curious().await;
    let platform = platform_that_knows(&local("there", &server.url(), LEGACY), &["there"]).await;
    let client = platform.client("there");
    let params = |n: u32| {
        let meta = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} } });
        json!({ "name": "writes", "arguments": { "n": n }, "_meta": meta })
    };
    // All are asked before any of them is answered.
    let mut asked = Vec::new();
    for n in 0..3 {
        let answer = messages(client.modern(method::TOOLS_CALL, params(n))).await;
        let result = answer.last().expect("an answer")["result"].clone();
        assert_eq!(result["resultType"], "input_required", "{answer:?}");
        let (key, request) = result["inputRequests"]
            .as_object()
            .expect("a question")
            .iter()
            .next()
            .expect("one");
        assert_eq!(request["params"]["message"], n.to_string());
        asked.push((n, key.clone(), result["requestState"].clone()));
    }
    for (n, key, state) in asked.into_iter().rev() {
        let mut again = params(n);
        again["inputResponses"] =
            json!({ key: { "action": "accept", "content": { "name": format!("name-{n}") } } });
        again["requestState"] = state;
        let answer = messages(client.modern(method::TOOLS_CALL, again)).await;
        let said: Value = serde_json::from_str(text(answer.last().expect("an answer"))).expect("JSON");
        assert_eq!(
            said,
            json!({ "name": format!("name-{n}"), "n": n, "session": "asking" })
        );
    }
    assert_eq!(
        server.asked(method::TOOLS_CALL).len(),
        3,
        "no call was made twice"
    );
    assert_eq!(
        server.asked(method::INITIALIZE).len(),
        2,
        "one session for all, and one for this caller"
    );
    platform.stop().await;
    // Both sessions are ended.
    assert_eq!(server.asked("DELETE").len(), 2);
}
