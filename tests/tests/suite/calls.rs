//! Calls on the bus: what a caller may rely on whatever becomes of the host.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bus_schema::{
    Principal, Request, Token,
    mcp::method,
    subject::{self, EventKind, MethodPath, Subject},
};
use runtime::{Answer, Bus, CallError, Retry};
use serde_json::{Value, json};
use tests::{
    fixture::{self, Probe},
    http::modern_body,
    nats::Nats,
    wire::{Cable, RawClient},
    within,
};

fn request(tool: &str, arguments: Value, timeout: Duration) -> Request {
    let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" } });
    Request {
        caller: String::new(),
        call: 0,
        server: "fixture".to_owned(),
        method: method::TOOLS_CALL.to_owned(),
        name: Some(tool.to_owned()),
        principal: Principal::developer(),
        protocol_version: "2026-07-28".to_owned(),
        door: "test".to_owned(),
        timeout_ms: u64::try_from(timeout.as_millis()).expect("short"),
        trace: None,
        chunked_bytes: 0,
        body: modern_body(method::TOOLS_CALL, params)
            .to_string()
            .into_bytes()
            .into(),
    }
}

const LONG: Duration = Duration::from_secs(60);

async fn ask(bus: &Bus, tool: &str, arguments: Value) -> Result<Value, CallError> {
    let (_, body) = bus.ask(request(tool, arguments, LONG), Retry::Never).await?;
    Ok(serde_json::from_slice(&body).expect("an answer is JSON"))
}

fn text(answer: &Value) -> &str {
    tests::http::text(answer)
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_at_once() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let asked = within("the error", ask(&bus, "echo", json!({}))).await;
    assert!(matches!(asked, Err(CallError::NoResponders { .. })), "{asked:?}");
}

#[tokio::test]
async fn notifications_come_in_order_and_before_the_answer() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |_| {}).await;
    // More than a window, so that credit is needed.
    let mut call = calling.call(request("progress", json!({ "n": 500 }), LONG), Retry::Never);
    let mut seen = Vec::new();
    loop {
        match within("a step", call.next()).await.expect("no error") {
            Answer::Part(part) => {
                let part: Value = serde_json::from_slice(&part).expect("JSON");
                seen.push(part["params"]["progress"].as_f64().expect("progress"));
            }
            Answer::Final { code, .. } => break assert_eq!(code, None),
        }
    }
    assert_eq!(seen, (1..=500).map(f64::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn large_arguments_and_answers_pass_whole() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |_| {}).await;
    let ten_mib = 10 * 1024 * 1024;
    let answer = within("the answer", ask(&calling, "big", json!({ "n": ten_mib })))
        .await
        .expect("answered");
    assert_eq!(text(&answer).len(), ten_mib);
    let argument = json!({ "text": "y".repeat(ten_mib) });
    let answer = within("the answer", ask(&calling, "measure", argument))
        .await
        .expect("answered");
    assert_eq!(text(&answer), ten_mib.to_string());
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_its_size() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |_| {}).await;
    let hundred_mib = 100 * 1024 * 1024;
    let asked = ask(&calling, "measure", json!({ "text": "y".repeat(hundred_mib) })).await;
    assert!(
        matches!(asked, Err(CallError::TooLarge { what: "request", .. })),
        "{asked:?}"
    );
    let answer = within("the answer", ask(&calling, "big", json!({ "n": hundred_mib })))
        .await
        .expect("answered");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("larger than"), "{answer}");
}

#[tokio::test]
async fn a_dropped_call_drops_its_handler() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    for _ in 0..3 {
        let mut call = calling.call(request("hold", json!({}), LONG), Retry::Never);
        tokio::select! {
            _ = call.next() => panic!("nobody let it go"),
            () = probe.held.begun.next("the call") => {}
        }
        drop(call);
        probe.held.dropped.next("the drop of the handler").await;
    }
}

#[tokio::test]
async fn a_tool_has_a_limit_of_its_own_and_its_work_is_stopped_there() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |options| {
        options.tool_timeouts = HashMap::from([("hold".to_owned(), Duration::from_millis(50))]);
    })
    .await;
    let asked = calling.ask(request("hold", json!({}), LONG), Retry::Never);
    let (code, body) = within("the limit", asked).await.expect("an answer");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(code, Some(-32603));
    assert!(body.contains("`hold`") && body.contains("50 ms"), "{body}");
    probe.held.dropped.next("the end of the work").await;
    let asked = calling.ask(request("echo", json!({ "text": "x" }), LONG), Retry::Safe);
    assert_eq!(within("another tool", asked).await.expect("an answer").0, None);
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_its_handler() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let asked = calling
        .ask(
            request("hold", json!({}), Duration::from_millis(200)),
            Retry::Never,
        )
        .await;
    match asked {
        // Whichever clock is first: the caller's, or the host's.
        Err(CallError::Deadline { timeout_ms: 200, .. }) => {}
        Ok((Some(-32603), _)) => {}
        other => panic!("{other:?}"),
    }
    probe.held.dropped.next("the drop of the handler").await;
}

#[tokio::test]
async fn beyond_its_slots_a_host_says_busy_and_loses_nothing() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |options| options.max_in_flight = 2).await;
    let held: Vec<_> = (0..2)
        .map(|_| {
            let calling = calling.clone();
            tokio::spawn(async move { ask(&calling, "hold", json!({})).await })
        })
        .collect();
    probe.held.begun.many("both calls", 2).await;
    let asked = within("the error", ask(&calling, "echo", json!({ "text": "x" }))).await;
    assert!(matches!(asked, Err(CallError::Busy { .. })), "{asked:?}");
    probe.release.notify_waiters();
    for call in held {
        assert_eq!(
            text(&call.await.expect("no panic").expect("answered")),
            "released"
        );
    }
    let answer = ask(&calling, "echo", json!({ "text": "x" }))
        .await
        .expect("free again");
    assert_eq!(text(&answer), "x");
}

#[tokio::test]
async fn a_panic_is_answered_and_the_next_call_works() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |_| {}).await;
    let answer = within("the answer", ask(&calling, "panic", json!({})))
        .await
        .expect("answered");
    assert_eq!(
        (answer["id"].clone(), answer["error"]["code"].clone()),
        (json!(1), json!(-32603))
    );
    assert_eq!(
        text(
            &ask(&calling, "echo", json!({ "text": "x" }))
                .await
                .expect("works")
        ),
        "x"
    );
}

#[tokio::test]
async fn a_stopped_host_finishes_what_it_has_and_takes_no_more() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let held = tokio::spawn({
        let calling = calling.clone();
        async move { ask(&calling, "hold", json!({})).await }
    });
    probe.held.begun.next("the call").await;
    let stopping = tokio::spawn(host.stop());
    tests::eventually("no more calls", async || {
        matches!(
            ask(&calling, "echo", json!({ "text": "x" })).await,
            Err(CallError::NoResponders { .. })
        )
    })
    .await;
    probe.release.notify_waiters();
    assert_eq!(
        text(&held.await.expect("no panic").expect("answered")),
        "released"
    );
    within("the end of the host", stopping).await.expect("no panic");
}

#[tokio::test]
async fn a_lost_host_is_named_within_a_second_and_a_safe_call_goes_elsewhere() {
    let nats = Nats::start().await;
    let cable = Cable::to(nats.url()).await;
    let (lost, calling) = (nats.bus_at(cable.url(&nats.core_url())).await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _gone = fixture::serve(&lost, Arc::clone(&probe), |_| {}).await;
    let unsafe_call = async {
        let answer = calling.ask(request("hold", json!({}), LONG), Retry::Never).await;
        (answer, tokio::time::Instant::now())
    };
    let safe_call = calling.ask(request("hold_safe", json!({}), LONG), Retry::Safe);
    let lose = async {
        probe.held.begun.many("both calls", 2).await;
        let there = nats.bus().await;
        let other = fixture::serve(&there, Arc::clone(&probe), |_| {}).await;
        // What the broker sees of a killed process is its connection ending.
        let at = tokio::time::Instant::now();
        cable.cut();
        probe.held.begun.next("the call at the other replica").await;
        probe.release.notify_waiters();
        (other, at)
    };
    let ((unsafe_answer, ended), safe_answer, (_other, at)) = tokio::join!(unsafe_call, safe_call, lose);
    match unsafe_answer {
        Err(CallError::HostLost { instance, .. }) => assert_eq!(instance, lost.instance()),
        other => panic!("{other:?}"),
    }
    let took = ended.saturating_duration_since(at);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(safe_answer.expect("answered elsewhere").0, None);
}

/// A replica that comes and goes quicker than others hear of it; what it was handed last, it lost in its drain.
#[tokio::test]
async fn a_call_that_a_replica_left_without_beginning_it_goes_to_another() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let (tenant, server) = (Token::encode("default"), Token::encode("fixture"));
    let mut leaver = RawClient::connect_as(&nats.core_url(), "leaver").await;
    leaver.join_hosts(&subject::all_calls(&tenant, &server)).await;
    let asking = tokio::spawn(async move { ask(&calling, "count", json!({})).await });
    leaver.take_and_forget().await;
    let probe = Arc::<Probe>::default();
    let host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let mut card = host.card();
    card.instance = "leaver".to_owned();
    let card = serde_json::to_vec(&card).expect("a card is always JSON");
    let events = [EventKind::Up, EventKind::Down, EventKind::Left].map(|kind| {
        let event = Subject::Event {
            tenant: tenant.clone(),
            server: server.clone(),
            kind,
        };
        (event.to_string(), card.clone())
    });
    leaver.publish_together(&events).await;
    drop(leaver);
    let answer = within("the answer", asking).await.expect("no panic");
    assert_eq!(text(&answer.expect("the other replica's")), "1");
}

#[tokio::test]
async fn a_request_whose_reply_is_no_callers_inbox_is_refused_before_any_work() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let mut forged = request("count", json!({}), LONG);
    forged.caller = calling.instance().to_owned();
    forged.call = 1;
    let subject = Subject::Rpc {
        tenant: Token::encode("default"),
        server: Token::encode("fixture"),
        method: MethodPath::encode(method::TOOLS_CALL),
    };
    let mut forger = RawClient::connect(&nats.core_url()).await;
    for reply in [
        "mcp.evt.default.fixture.replica.up",
        "$JS.API.STREAM.DELETE.AUDIT",
        "_INBOX.someone.1",
        "_INBOX_bridge.x.call.zz",
    ] {
        forger.publish(&subject.to_string(), reply, &forged).await;
    }
    // The broker took the forged requests first, and hands them to the same subscription in order.
    let answer = ask(&calling, "count", json!({})).await.expect("answered");
    assert_eq!((text(&answer), probe.counted.load(Ordering::SeqCst)), ("1", 1));
}

#[tokio::test]
async fn calls_go_on_after_the_broker_was_restarted() {
    let mut nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |_| {}).await;
    assert_eq!(
        text(
            &ask(&calling, "echo", json!({ "text": "before" }))
                .await
                .expect("answered")
        ),
        "before"
    );
    nats.restart().await;
    let answer = within("an answer after the restart", async {
        loop {
            if let Ok(answer) = ask(&calling, "echo", json!({ "text": "after" })).await {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(text(&answer), "after");
}

#[tokio::test]
async fn a_caller_that_is_gone_stops_its_handler() {
    let nats = Nats::start().await;
    let cable = Cable::to(nats.url()).await;
    let (serving, calling) = (nats.bus().await, nats.bus_at(cable.url(&nats.core_url())).await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let waiting = tokio::spawn(async move { ask(&calling, "hold", json!({})).await });
    probe.held.begun.next("the call").await;
    cable.cut();
    probe.held.dropped.next("the drop of the handler").await;
    waiting.abort();
}

#[tokio::test]
async fn a_long_call_outlives_the_limit_of_silence_by_its_heartbeats() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let calls = async {
        // Longer than the limit of silence and its second look: without heartbeats the caller would give the host up.
        let deadline = Duration::from_secs(10);
        calling
            .ask(request("hold", json!({}), deadline), Retry::Never)
            .await
    };
    match calls.await {
        Err(CallError::Deadline { .. }) | Ok((Some(-32603), _)) => {}
        other => panic!("the deadline was to end it: {other:?}"),
    }
}

#[tokio::test]
async fn a_flood_of_calls_is_answered_whole_or_refused_as_busy() {
    let nats = Nats::start().await;
    let (serving, calling) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |options| options.max_in_flight = 4).await;
    let calls = (0..200).map(|n| {
        let calling = calling.clone();
        async move { (n, ask(&calling, "echo", json!({ "text": n.to_string() })).await) }
    });
    for (n, answer) in within("all answers", futures::future::join_all(calls)).await {
        match answer {
            Ok(answer) => assert_eq!(text(&answer), n.to_string()),
            Err(CallError::Busy { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
