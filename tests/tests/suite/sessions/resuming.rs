//! A client that has lost the stream of its call goes on with it, at any bridge.

use bus_schema::mcp::method;
use serde_json::{Value, json};
use tests::{http::text, stream::Stream};

use super::{Bridge, Opened, Stage, sent, stream};

/// Begins a call that is held, and reads its stream up to the event that makes it one that can be taken up again.
async fn held(stage: &Stage, session: &Opened, at: &Bridge) -> (Stream, String) {
    let mut events = stream(session.call(at, "hold", &json!({}))).await;
    stage.probe.held.begun.next("the call").await;
    let first = events.event().await.expect("an event");
    assert_eq!(
        first.data.as_deref(),
        Some(""),
        "a first event has an id and nothing else"
    );
    (events, first.id.expect("an id"))
}

#[tokio::test]
async fn a_lost_connection_is_no_cancellation_and_the_answer_is_there_at_both_bridges() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    for back in [&stage.a, &stage.b] {
        let (events, id) = held(&stage, &session, &stage.a).await;
        drop(events);
        let mut again = stream(session.get(back, Some(&id))).await;
        stage.probe.release.notify_waiters();
        let answer = again.message().await;
        assert_eq!((&answer["id"], text(&answer)), (&json!(5), "released"));
        assert!(again.event().await.is_none(), "the stream ends with the answer");
        assert!(
            stage.probe.held.dropped.0.try_acquire().is_err(),
            "nobody cancelled it"
        );
        // The answer may have been lost on its way.
        let mut once_more = stream(session.get(back, Some(&id))).await;
        assert_eq!(text(&once_more.message().await), "released");
    }
    stage.end().await;
}

#[tokio::test]
async fn a_resumed_stream_has_the_missed_events_of_that_stream_only() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "fixture", "2025-06-18").await;
    let call = |token: &str| {
        let params =
            json!({ "name": "progress", "arguments": { "n": 4 }, "_meta": { "progressToken": token } });
        session.request(a, method::TOOLS_CALL, &params)
    };
    let (mut mine, mut other) = (stream(call("mine")).await, stream(call("other")).await);
    let mut ids = Vec::new();
    while let Some(event) = mine.event().await {
        ids.push(event.id.expect("an id"));
    }
    while other.event().await.is_some() {}
    assert_eq!(ids.len(), 5);
    for bridge in [a, b] {
        for (at, id) in ids[..4].iter().enumerate() {
            let mut again = stream(session.get(bridge, Some(id))).await;
            let mut seen = Vec::new();
            while let Some(event) = again.event().await {
                let message: Value = serde_json::from_str(&event.data.expect("a message")).expect("JSON");
                assert!(message.get("method").is_none() || message["params"]["progressToken"] == "mine");
                seen.push(event.id.expect("an id"));
            }
            assert_eq!(seen, ids[at + 1..], "after event {at}");
        }
        // Who has the answer is told not to come back.
        assert_eq!(sent(session.get(bridge, Some(&ids[4]))).await.status(), 204);
    }
    stage.end().await;
}

#[tokio::test]
async fn a_question_that_was_lost_with_its_stream_is_asked_again() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-11-25").await;
    let mut events = stream(session.call(a, "elicit", &json!({}))).await;
    let first = events.event().await.and_then(|event| event.id).expect("an id");
    let question = events.message().await;
    drop(events);
    let mut again = stream(session.get(b, Some(&first))).await;
    assert_eq!(again.message().await, question);
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    assert_eq!(session.respond(b, &question, answer).await, 202);
    assert_eq!(text(&again.message().await), "accept Ada");
    stage.end().await;
}

#[tokio::test]
async fn a_stream_is_read_by_its_own_session_only() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let foreign = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let (_events, id) = held(&stage, &session, &stage.a).await;
    for bridge in [&stage.a, &stage.b] {
        let mut nothing = stream(foreign.get(bridge, Some(&id))).await;
        let answer = nothing.message().await;
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        assert!(nothing.event().await.is_none());
        for wrong in ["nonsense", "c.a.b.c", "g.x"] {
            assert_eq!(
                sent(session.get(bridge, Some(wrong))).await.status(),
                400,
                "{wrong}"
            );
        }
    }
    stage.probe.release.notify_waiters();
    stage.end().await;
}

#[tokio::test]
async fn a_call_whose_bridge_was_killed_ends_with_an_error_and_the_session_lives() {
    let mut stage = Stage::set().await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let (mut events, id) = held(&stage, &session, &stage.a).await;
    // One client waits at the other bridge, and one comes when all is over.
    let mut waiting = stream(session.get(&stage.b, Some(&id))).await;
    stage.a.kill().await;
    while events.event().await.is_some() {}
    let mut late = stream(session.get(&stage.b, Some(&id))).await;
    for stream in [&mut waiting, &mut late] {
        let event = stream.event().await.expect("an event");
        let answer: Value = serde_json::from_str(event.data.as_deref().expect("a message")).expect("JSON");
        assert_eq!(
            (&answer["id"], answer["error"]["code"].as_i64()),
            (&json!(5), Some(-32603)),
            "{answer}"
        );
        let end = event.id.expect("an id");
        assert_eq!(sent(session.get(&stage.b, Some(&end))).await.status(), 204);
    }
    let (status, answer) = session
        .answer(session.call(&stage.b, "echo", &json!({ "text": "still here" })))
        .await;
    assert_eq!((status, text(&answer)), (200, "still here"));
    stage.end().await;
}

#[tokio::test]
async fn a_call_is_cancelled_at_the_bridge_that_does_not_run_it() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let foreign = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let (mut events, _) = held(&stage, &session, &stage.a).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": { "requestId": 5 } });
    // The foreign word, about a call of the same id, is for the foreign call.
    let (mut others, _) = held(&stage, &foreign, &stage.a).await;
    assert_eq!(foreign.answer(foreign.post(&stage.b, &cancel)).await.0, 202);
    assert!(others.event().await.is_none());
    stage
        .probe
        .held
        .dropped
        .next("the drop of the foreign call")
        .await;
    assert!(stage.probe.held.dropped.0.try_acquire().is_err(), "mine goes on");
    assert_eq!(session.answer(session.post(&stage.b, &cancel)).await.0, 202);
    assert!(
        events.event().await.is_none(),
        "a cancelled call is answered nothing"
    );
    stage.probe.held.dropped.next("the drop of the call").await;
    stage.end().await;
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_calls_and_streams() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let (mut events, id) = held(&stage, &session, &stage.a).await;
    let mut notices = stream(session.get(&stage.a, None)).await;
    assert_eq!(sent(session.delete(&stage.b)).await.status(), 204);
    stage.probe.held.dropped.next("the drop of the call").await;
    assert!(events.event().await.is_none());
    while notices.event().await.is_some() {}
    assert_eq!(sent(session.get(&stage.b, Some(&id))).await.status(), 404);
    stage.end().await;
}
