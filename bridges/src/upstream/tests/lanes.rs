//! Which process serves which caller, and what becomes of those that nobody uses or that end.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::served::{Asking, EVERYTHING, FORM, Served, code, questions, serve, serve_with, tool, until};
use crate::upstream::AskingOptions;

/// Tells its process, its handshake and what it lists; waits for its user when a tool is called `wait`.
fn tells() -> String {
    format!(
        r#"case "$line" in
            *'"wait"'*) call=$id; ask q elicitation/create {FORM}; answering=$call;;
            *'"id":"q"'*) id=$answering; result "{{\"pid\":$$}}";;
            *'"die"'*) exit 3;;
            *tools/call*|*tools/list*|*com.example*) result "{{\"pid\":$$,\"tools\":[]}}";;
        esac"#
    )
}

fn pid(answer: &Value) -> u64 {
    answer["result"]["pid"]
        .as_u64()
        .unwrap_or_else(|| panic!("no process: {answer}"))
}

fn accept(asked: &Value) -> Value {
    json!({ &questions(asked)[0].0: { "action": "accept" } })
}

async fn declared(served: &Served) -> Vec<Value> {
    let heard = served.heard();
    let handshakes = heard.iter().filter(|message| message["method"] == "initialize");
    handshakes
        .map(|message| message["params"]["capabilities"].clone())
        .collect()
}

#[tokio::test]
async fn callers_that_can_be_asked_nothing_share_one_process() {
    let served = serve(&tells()).await;
    let own = pid(&served.answer(&tool("t").declaring("{}")).await);
    for (who, declares) in [
        ("bob", "{}"),
        ("ann", r#"{"experimental":{},"tasks":{}}"#),
        ("cid", r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#),
    ] {
        let answer = served.answer(&tool("t").by(who).declaring(declares)).await;
        assert_eq!(pid(&answer), own, "{declares}");
    }
    assert_eq!(declared(&served).await, [json!({})]);
    assert_eq!(served.server.lanes.count(), 0);
}

#[tokio::test]
async fn callers_that_can_be_asked_have_processes_of_their_own_that_know_what_for() {
    let served = serve(&tells()).await;
    let mut pids = Vec::new();
    for (who, declares) in [
        ("ann", EVERYTHING),
        ("bob", EVERYTHING),
        ("ann", r#"{"roots":{"listChanged":true}}"#),
        ("ann", "{}"),
    ] {
        let call = tool("t").by(who).declaring(declares);
        let own = pid(&served.answer(&call).await);
        assert_eq!(pid(&served.answer(&call).await), own, "it is used again");
        let list = Asking {
            method: "tools/list",
            params: json!({}),
            ..call
        };
        assert_eq!(pid(&served.answer(&list).await), own, "its lists are its own");
        pids.push(own);
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 4);
    let everything: Value = serde_json::from_str(EVERYTHING).unwrap();
    let mut handshakes = declared(&served).await;
    handshakes.retain(|capabilities| *capabilities != everything);
    assert_eq!(handshakes, [json!({}), json!({ "roots": {} })]);
}

#[tokio::test]
async fn extensions_reach_the_server_and_who_has_the_same_shares() {
    let served = serve(&tells()).await;
    let shown = r#"{"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html"],"n":1.0},"io.modelcontextprotocol/tasks":{}}}"#;
    let one = pid(&served.answer(&tool("t").declaring(shown)).await);
    let other = pid(&served.answer(&tool("t").by("bob").declaring(shown)).await);
    assert_eq!(one, other);
    assert_eq!(
        declared(&served).await,
        [
            json!({}),
            json!({ "extensions": { "io.modelcontextprotocol/ui": { "mimeTypes": ["text/html"], "n": 1.0 } } })
        ]
    );
}

#[tokio::test]
async fn a_call_that_waits_for_its_user_holds_up_no_other_of_the_same_caller() {
    let served = serve(&tells()).await;
    let wait = tool("wait");
    let first = served.answer(&wait).await;
    let second = served.answer(&tool("t")).await;
    let last = served.answer(&wait.clone().back(&first, accept(&first))).await;
    assert_ne!(pid(&second), pid(&last), "the busy process was left alone");
    assert_eq!(served.server.lanes.count(), 2);
}

#[tokio::test]
async fn where_there_may_be_no_more_processes_calls_wait_for_their_turn() {
    let one = AskingOptions {
        max_children: 1,
        ..AskingOptions::default()
    };
    let served = serve_with(&tells(), one).await;
    let wait = tool("wait");
    let first = served.answer(&wait).await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        served.begin(&tool("t"), &mut waiting);
    }
    // Lists ask nobody anything.
    let list = Asking {
        method: "tools/list",
        params: json!({}),
        ..tool("t")
    };
    let own = pid(&served.answer(&list).await);
    assert!(waiting.try_join_next().is_none());
    let last = served.answer(&wait.clone().back(&first, accept(&first))).await;
    for answer in waiting.join_all().await {
        assert_eq!(pid(&answer), own);
    }
    assert_eq!(pid(&last), own);
    // What another caller no longer uses makes room.
    let other = served.answer(&tool("t").by("bob")).await;
    assert_ne!(pid(&other), own);
    assert_eq!(served.server.lanes.count(), 1);
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_is_told_why() {
    let one = AskingOptions {
        max_children: 1,
        ..AskingOptions::default()
    };
    let served = serve_with(&tells(), one).await;
    questions(&served.answer(&tool("wait")).await);
    let mut hurried = tool("t").by("bob");
    hurried.timeout_ms = 100;
    let refused = served.answer(&hurried).await;
    assert_eq!(code(&refused), -32603);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("wait for input"), "{words}");
}

#[tokio::test]
async fn a_process_that_nobody_uses_ends() {
    let soon = AskingOptions {
        idle: Duration::from_millis(50),
        ..AskingOptions::default()
    };
    let served = serve_with(&tells(), soon).await;
    let first = served.answer(&tool("wait")).await;
    let before = served.answer(&tool("t").by("bob")).await;
    until(|| served.server.lanes.count() == 1).await;
    // The one that waits for its user stays.
    assert!(served.answer(&tool("wait").back(&first, accept(&first))).await["result"].is_object());
    until(|| served.server.lanes.count() == 0).await;
    let after = served.answer(&tool("t").by("bob")).await;
    assert_ne!(pid(&before), pid(&after));
}

#[tokio::test]
async fn a_process_that_ends_fails_its_own_calls_and_nobody_elses() {
    let served = serve(&tells()).await;
    let bobs = served.answer(&tool("wait").by("bob")).await;
    let parked = served.answer(&tool("wait")).await;
    let shared = pid(&served.answer(&tool("t").declaring("{}")).await);
    // The list goes to the process whose call is parked.
    let die = Asking {
        method: "com.example/die",
        params: json!({ "x": "die" }),
        ..tool("t")
    };
    let died = served.answer(&die).await;
    assert_eq!(code(&died), -32603);
    let words = died["error"]["message"].as_str().unwrap();
    assert!(words.contains("`scripted` ended"), "{words}");
    until(|| served.server.parks.count() == 1).await;
    let gone = served.answer(&tool("wait").back(&parked, accept(&parked))).await;
    assert_eq!(code(&gone), -32602);
    assert_eq!(pid(&served.answer(&tool("t").declaring("{}")).await), shared);
    pid(&served.answer(&tool("t")).await);
    let bobs = served
        .answer(&tool("wait").by("bob").back(&bobs, accept(&bobs)))
        .await;
    pid(&bobs);
}

#[tokio::test]
async fn a_process_that_cannot_be_started_is_told_of() {
    let text = format!(
        r#"next; case "$line" in *elicitation*) exit 4;; esac; initialized; while next; do {}; done"#,
        tells()
    );
    let served =
        super::served::serve_script(&text, crate::upstream::EraKnob::Legacy, AskingOptions::default()).await;
    let refused = served.answer(&tool("t")).await;
    assert_eq!(code(&refused), -32603);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(words.contains("could not be started"), "{words}");
    pid(&served.answer(&tool("t").declaring("{}")).await);
    assert_eq!(served.server.lanes.count(), 0);
}

#[tokio::test]
async fn stopped_lanes_leave_nothing_behind() {
    let served = serve(&tells()).await;
    questions(&served.answer(&tool("wait")).await);
    served.answer(&tool("t").by("bob")).await;
    served.server.parks.clear();
    served.server.lanes.close().await;
    assert_eq!(served.server.lanes.count(), 0);
    assert_eq!(code(&served.answer(&tool("t")).await), -32603);
    let heard = served.heard();
    assert!(
        heard
            .iter()
            .any(|message| message["result"] == json!({ "action": "cancel" }))
    );
}
