//! Arrays of messages, which 2025-03-26 has and no other version.

use bus_schema::{header, mcp::method};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{http::text, session::messages, within};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{Opened, Stage, sent, stream};

fn call(id: u32, tool: &str, arguments: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method::TOOLS_CALL, "params": { "name": tool, "arguments": arguments } })
}

/// The ids and texts of answers, by id.
fn told(answers: &[Value]) -> Vec<(u64, String)> {
    let mut told: Vec<_> = answers
        .iter()
        .map(|answer| (answer["id"].as_u64().unwrap_or_default(), text(answer).to_owned()))
        .collect();
    told.sort();
    told
}

#[tokio::test]
async fn each_request_of_a_batch_is_answered_once_and_notifications_are_not() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "fixture", "2025-03-26").await;
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
    let ping = json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" });
    let wrong = json!({ "jsonrpc": "2.0", "id": 4, "method": method::TOOLS_CALL, "params": {} });
    let batch = json!([
        call(1, "echo", json!({ "text": "one" })),
        note,
        call(2, "echo", json!({ "text": "two" })),
        ping,
        wrong
    ]);
    let (status, answers) = session.answer(session.post(b, &batch)).await;
    assert_eq!(status, 200, "{answers}");
    let answers = answers.as_array().expect("an array").clone();
    assert_eq!(
        told(&answers),
        [
            (1, "one".into()),
            (2, "two".into()),
            (3, String::new()),
            (4, String::new())
        ]
    );
    let failed = answers
        .iter()
        .find(|answer| answer["id"] == 4)
        .expect("an answer");
    assert_eq!(failed["error"]["code"], -32602);
    assert_eq!(
        session.answer(session.post(b, &json!([note, note]))).await,
        (202, Value::Null)
    );
    for refused in [
        json!([]),
        json!([7]),
        json!([{ "jsonrpc": "2.0", "id": 1, "method": method::INITIALIZE, "params": {} }]),
    ] {
        let (status, answer) = session.answer(session.post(b, &refused)).await;
        assert_eq!(
            (status, answer["error"]["code"].as_i64()),
            (400, Some(-32600)),
            "{refused}: {answer}"
        );
    }
    stage.end().await;
}

#[tokio::test]
async fn a_batch_whose_calls_have_something_to_say_is_streamed() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-03-26").await;
    let batch = json!([
        call(1, "sample", json!({})),
        call(2, "touch", json!({ "uri": "test://a" })),
        call(3, "roots", json!({}))
    ]);
    let mut events = stream(session.post(a, &batch)).await;
    let (mut answers, mut questions) = (Vec::new(), Vec::new());
    while answers.len() < 3 {
        let message = events.message().await;
        if message.get("method").is_none() {
            answers.push(message);
            continue;
        }
        let result = if message["method"] == method::SAMPLE {
            json!({ "role": "assistant", "content": { "type": "text", "text": "Paris" }, "model": "m" })
        } else {
            json!({ "roots": [{ "uri": "file:///a" }] })
        };
        questions.push(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }));
        if questions.len() == 2 {
            // The answers come in a batch too, and elsewhere.
            assert_eq!(session.answer(session.post(b, &json!(questions))).await.0, 202);
        }
    }
    assert!(events.event().await.is_none());
    assert_eq!(
        told(&answers),
        [
            (1, "Paris".into()),
            (2, "touched".into()),
            (3, "file:///a".into())
        ]
    );
    assert_eq!(
        session.answer(session.post(b, &json!(questions))).await.0,
        400,
        "nothing waits any more"
    );
    stage.end().await;
}

#[tokio::test]
async fn an_array_is_refused_on_every_other_version_and_in_the_modern_era() {
    let stage = Stage::set().await;
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]);
    for version in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let session = Opened::at(&stage.a, "fixture", version).await;
        let (status, answer) = session.answer(session.post(&stage.b, &batch)).await;
        assert_eq!(
            (status, answer["error"]["code"].as_i64()),
            (400, Some(-32600)),
            "{version}"
        );
    }
    let modern = stage
        .a
        .client("fixture")
        .raw(batch.to_string())
        .header(header::PROTOCOL_VERSION, "2026-07-28");
    let answer = sent(modern).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(
        answer.json::<Value>().await.expect("JSON")["error"]["code"],
        -32600
    );
    stage.end().await;
}

#[tokio::test]
async fn a_batch_on_a_websocket_is_answered_by_one_array() {
    let stage = Stage::set().await;
    let url = format!("{}/servers/fixture/ws", stage.a.base.replacen("http", "ws", 1));
    // The bridge for HTTP has no WebSocket; another process has.
    assert!(connect_async(&url).await.is_err());
    let platform = tests::platform::Platform::start("", &[]).await;
    let host = tests::fixture::serve(platform.node.bus(), std::sync::Arc::default(), |_| {}).await;
    platform.knows("fixture").await;
    let url = platform.url("/servers/fixture/ws").replacen("http", "ws", 1);
    let (mut socket, _) = within("the connection", connect_async(url))
        .await
        .expect("connects");
    let mut say = async |message: Value| {
        socket
            .send(Message::text(message.to_string()))
            .await
            .expect("sent");
        let frame = within("a frame", socket.next())
            .await
            .expect("open")
            .expect("a frame");
        serde_json::from_str::<Value>(frame.to_text().expect("text")).expect("JSON")
    };
    let info = json!({ "name": "t", "version": "1" });
    let params = json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": info });
    say(json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params })).await;
    let answers = say(json!([
        call(1, "echo", json!({ "text": "one" })),
        { "jsonrpc": "2.0", "id": 2, "method": "ping" },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        call(3, "measure", json!({ "text": "three" })),
    ]))
    .await;
    let answers = answers.as_array().expect("an array");
    assert_eq!(
        told(answers),
        [(1, "one".into()), (2, String::new()), (3, "5".into())]
    );
    let refused = say(json!([])).await;
    assert_eq!(refused["error"]["code"], -32600);
    host.stop().await;
    platform.stop().await;
    stage.end().await;
}

#[tokio::test]
async fn an_old_session_sees_no_event_ids_and_a_newer_one_does() {
    let stage = Stage::set().await;
    for (version, has_ids, is_primed) in [
        ("2024-11-05", false, false),
        ("2025-03-26", true, false),
        ("2025-06-18", true, false),
        ("2025-11-25", true, true),
    ] {
        let session = Opened::at(&stage.a, "fixture", version).await;
        let params = json!({ "name": "progress", "arguments": { "n": 2 }, "_meta": { "progressToken": 1 } });
        let request = session.request(&stage.b, method::TOOLS_CALL, &params);
        let mut events = stream(request).await;
        let mut all = Vec::new();
        while let Some(event) = events.event().await {
            all.push(event);
        }
        assert_eq!(
            all.iter().all(|event| event.id.is_some()),
            has_ids,
            "{version}: {all:?}"
        );
        let ids: std::collections::HashSet<_> = all.iter().filter_map(|event| event.id.clone()).collect();
        assert!(!has_ids || ids.len() == all.len(), "{version}: ids are unique");
        let primed = all.first().is_some_and(|event| event.data.as_deref() == Some(""));
        assert_eq!(primed, is_primed, "{version}");
        assert_eq!(all.len(), 3 + usize::from(is_primed), "{version}");
        let answers = messages(session.call(&stage.b, "echo", &json!({ "text": "x" }))).await;
        assert_eq!(answers.len(), 1, "an answer that comes first comes alone");
    }
    stage.end().await;
}
