//! Calls to children of both eras: what reaches the child, and what comes back.

use std::time::Duration;

use serde_json::json;

use super::scripted::{command, finish, limits, request, script, start, start_with, within};
use crate::{outbox::Step, upstream::options::Limits};

/// Answers every message with itself, as a string would be, in `echo`.
const ECHO: &str = r#"while next; do result "{\"echo\":$line}"; done"#;

#[tokio::test]
async fn a_legacy_child_hears_nothing_of_the_modern_era() {
    let ready = start(&script(&format!("legacy; {ECHO}"))).await.unwrap();
    let body = request("tools/call", "\"mine\"", r#""name":"t","arguments":{"n":1}"#, "");
    let (parts, answer) = ready.call(&body).await;
    assert_eq!(parts, Vec::<String>::new());
    let id = answer["result"]["echo"]["id"].clone();
    assert!(id.is_u64());
    let heard = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "t", "arguments": { "n": 1 } } });
    assert_eq!(
        answer,
        json!({ "jsonrpc": "2.0", "id": "mine", "result": { "resultType": "complete", "echo": heard } })
    );
}

#[tokio::test]
async fn a_modern_child_hears_what_the_caller_said() {
    let ready = start(&script(&format!("modern; {ECHO}"))).await.unwrap();
    let body = request("tools/list", "7", "", r#","com.example/k":1e400"#);
    let Step::Answer(outcome) = within(ready.begin(&body).await.message()).await else {
        panic!("a part came");
    };
    let text = String::from_utf8(outcome.body.to_vec()).unwrap();
    assert!(text.contains(r#""com.example/k":1e400"#), "{text}");
    assert!(
        text.contains(r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#),
        "{text}"
    );
    assert!(text.starts_with(
        r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","#
    ));
}

#[tokio::test]
async fn progress_comes_in_order_under_the_callers_token_and_before_the_answer() {
    let text = r#"legacy; while next; do
        for at in 1 2 3 4 5; do
            say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$id,\"progress\":$at}}"
        done; result '{}'; done"#;
    let ready = start(&script(text)).await.unwrap();
    let body = request("tools/call", "1", "", r#","progressToken":"mine""#);
    let (parts, _) = ready.call(&body).await;
    let expected: Vec<String> = (1..=5)
        .map(|at| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"mine","progress":{at}}}}}"#)
        })
        .collect();
    assert_eq!(parts, expected);
    // Who did not ask for progress hears none.
    let (parts, _) = ready.call(&request("tools/call", "1", "", "")).await;
    assert_eq!(parts, Vec::<String>::new());
}

#[tokio::test]
async fn a_slow_caller_holds_up_nobody() {
    let text = r#"legacy; next; slow=$id
        at=0; while [ $at -lt 2000 ]; do at=$((at+1))
            say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$slow,\"progress\":$at}}"
        done; next; result '{}'; id=$slow; result '{}'; cat"#;
    let ready = start(&script(text)).await.unwrap();
    let slow = ready
        .begin(&request("tools/call", "1", "", r#","progressToken":1"#))
        .await;
    ready.call(&request("tools/call", "2", "", "")).await;
    let (parts, answer) = finish(slow).await;
    assert_eq!(answer["id"], 1);
    assert!(parts.len() <= 64);
    assert!(parts.last().unwrap().contains("\"progress\":2000"));
}

#[tokio::test]
async fn log_lines_reach_the_one_call_that_asked_for_them() {
    let log = |level: &str| {
        format!(
            r#"say '{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}'"#
        )
    };
    let text = format!(
        "legacy; while next; do {}; {}; result '{{}}'; done",
        log("debug"),
        log("error")
    );
    let ready = start(&script(&text)).await.unwrap();
    let wants = r#","io.modelcontextprotocol/logLevel":"info""#;
    let (parts, _) = ready.call(&request("tools/call", "1", "", wants)).await;
    assert_eq!(parts.len(), 1);
    assert!(parts[0].contains(r#""level":"error""#));
    let (parts, _) = ready.call(&request("tools/call", "1", "", "")).await;
    assert_eq!(parts, Vec::<String>::new());
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_at_the_child() {
    // The first call is never answered; the second is answered with what came in between.
    let text =
        r#"legacy; next; first=$id; next; said=$line; next; result "{\"first\":$first,\"said\":$said}"; cat"#;
    let ready = start(&script(text)).await.unwrap();
    drop(ready.begin(&request("tools/call", "1", "", "")).await);
    let (_, answer) = ready.call(&request("tools/call", "2", "", "")).await;
    let said = &answer["result"]["said"];
    assert_eq!(said["method"], "notifications/cancelled");
    assert_eq!(said["params"]["requestId"], answer["result"]["first"]);
    assert_eq!(said["id"], json!(null));
}

#[tokio::test]
async fn a_child_that_asks_back_is_answered() {
    let ask = |id: &str, method: &str| {
        format!(
            r#"say '{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}'; call=$id; next; id=$call; {}="$line""#,
            method.replace('/', "_")
        )
    };
    let text = format!(
        r#"legacy; next; {}; {}; result "{{\"ping\":$ping,\"roots\":$roots_list}}"; cat"#,
        ask("\"a\"", "ping"),
        ask("5", "roots/list")
    );
    let ready = start(&script(&text)).await.unwrap();
    let (_, answer) = ready.call(&request("tools/call", "1", "", "")).await;
    assert_eq!(
        answer["result"]["ping"],
        json!({ "jsonrpc": "2.0", "id": "a", "result": {} })
    );
    assert_eq!(answer["result"]["roots"]["error"]["code"], -32601);
    assert_eq!(answer["result"]["roots"]["id"], 5);
}

#[tokio::test]
async fn batches_of_the_second_version_come_apart() {
    let text = r#"legacy; next; a=$id; next
        say "[{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"n\":2}},7,{\"jsonrpc\":\"2.0\",\"id\":$a,\"result\":{\"n\":1}}]"; cat"#;
    let ready = start(&script(text)).await.unwrap();
    let first = ready.begin(&request("tools/call", "1", "", "")).await;
    let (_, second) = ready.call(&request("tools/call", "2", "", "")).await;
    let (_, first) = finish(first).await;
    assert_eq!(
        (&first["result"]["n"], &second["result"]["n"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn calls_of_a_child_that_ends_are_answered_and_later_ones_are_refused() {
    let mut ready = start(&script("legacy; next; next; exit 3")).await.unwrap();
    let first = ready.begin(&request("tools/call", "1", "", "")).await;
    let second = ready.begin(&request("tools/call", "\"b\"", "", "")).await;
    let error = within(ready.child.ended()).await;
    assert_eq!(error.to_string(), "its process ended (exit status: 3)");
    for (call, id) in [(first, json!(1)), (second, json!("b"))] {
        let (_, answer) = finish(call).await;
        assert_eq!(
            answer,
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32603, "message":
                "server `scripted` ended while it worked on the call (exit status: 3); it will be started again" } })
        );
    }
    let body = request("tools/call", "3", "", "");
    let refused = ready.try_begin(&body).await;
    assert_eq!(refused.err().unwrap().code, -32603);
}

#[tokio::test]
async fn an_answer_given_just_before_the_end_is_not_lost() {
    let mut ready = start(&script("legacy; next; result '{\"last\":1}'; exit 0"))
        .await
        .unwrap();
    let call = ready.begin(&request("tools/call", "1", "", "")).await;
    within(ready.child.ended()).await;
    assert_eq!(finish(call).await.1["result"]["last"], 1);
}

#[tokio::test]
async fn a_child_that_does_not_read_is_told_of_instead_of_fed() {
    let soon = Limits {
        unread: Duration::from_millis(50),
        ..limits()
    };
    let ready = start_with(&script("legacy; exec sleep 1000"), soon)
        .await
        .unwrap();
    let body = request("tools/call", "1", &format!("\"x\":\"{}\"", "x".repeat(4000)), "");
    let mut calls = Vec::new();
    let refused = loop {
        match ready.try_begin(&body).await {
            Ok(call) => calls.push(call),
            Err(error) => break error,
        }
        assert!(calls.len() < 1000);
    };
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            -32603,
            "server `scripted` does not read its input; the call was not begun"
        )
    );
}

#[tokio::test]
async fn ten_mebibytes_pass_in_both_directions() {
    let echo = r"
import sys, json
for line in sys.stdin:
    message = json.loads(line)
    result = {'protocolVersion': '2025-06-18', 'capabilities': {}}
    if message['method'] == 'tools/call':
        result = {'length': len(line), 'echo': message['params']['x']}
    if 'id' in message:
        print(json.dumps({'result': result, 'jsonrpc': '2.0', 'id': message['id']}), flush=True)
";
    let ready = start(&command(&["python3", "-c", echo])).await.unwrap();
    let large = "x".repeat(10 * 1024 * 1024);
    let (_, answer) = ready
        .call(&request("tools/call", "1", &format!("\"x\":\"{large}\""), ""))
        .await;
    assert_eq!(answer["result"]["echo"], large);
}

#[tokio::test]
async fn an_answer_of_a_hundred_mebibytes_becomes_a_clear_error() {
    let text = r#"legacy; next; printf '{"jsonrpc":"2.0","id":%s,"result":{"x":"' "$id"
        head -c 104857600 /dev/zero | tr '\0' x; say '"}}'
        next; result '{}'; cat"#;
    let ready = start(&script(text)).await.unwrap();
    let (_, answer) = ready.call(&request("tools/call", "1", "", "")).await;
    assert_eq!(answer["error"]["code"], -32603);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("larger than the 67108864 bytes"), "{message}");
    let (_, answer) = ready.call(&request("tools/call", "2", "", "")).await;
    assert_eq!(answer["id"], 2);
}
