//! What a server wants to know in the middle of a call is asked of the client, whose answer may come to any bridge.

use bus_schema::{
    Principal,
    block::Blocked,
    mcp::{error, method},
};
use runtime::blocks::Blocks;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{children::everything, eventually, http::text, program::Program, session::messages, within};

use super::{Bridge, Opened, Stage, sent, stream};

/// What a client answers that has everything.
fn result(question: &Value) -> Value {
    match question["method"].as_str().unwrap_or_default() {
        method::ELICIT => json!({ "action": "accept", "content": { "name": "Ada" } }),
        method::SAMPLE => {
            json!({ "role": "assistant", "content": { "type": "text", "text": "Paris" }, "model": "m" })
        }
        method::ROOTS_LIST => json!({ "roots": [{ "uri": "file:///a" }] }),
        other => panic!("asked `{other}`"),
    }
}

/// Calls a tool at one bridge and answers whatever is asked at the other; gives the answer and what was asked.
async fn converse(session: &Opened, at: &Bridge, answers: &Bridge, tool: &str) -> (Value, Vec<Value>) {
    let mut events = stream(session.call(at, tool, &json!({}))).await;
    let mut asked = Vec::new();
    loop {
        let message = events.message().await;
        if message.get("method").is_none() {
            assert_eq!(message["id"], 5);
            assert!(events.event().await.is_none(), "the stream ends with the answer");
            return (message, asked);
        }
        assert_eq!(session.respond(answers, &message, result(&message)).await, 202);
        asked.push(message);
    }
}

#[tokio::test]
async fn a_question_in_the_middle_of_a_call_is_answered_at_the_other_bridge() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "asking", "2025-11-25").await;
    for (tool, expected, methods) in [
        ("elicit", "accept Ada", vec![method::ELICIT]),
        ("sample", "Paris", vec![method::SAMPLE]),
        ("roots", "file:///a", vec![method::ROOTS_LIST]),
        ("two_rounds", "Ada Ada", vec![method::ELICIT, method::ELICIT]),
        (
            "all_at_once",
            "accept m file:///a",
            vec![method::ELICIT, method::ROOTS_LIST, method::SAMPLE],
        ),
    ] {
        for (at, answers) in [(&stage.a, &stage.b), (&stage.b, &stage.a), (&stage.b, &stage.b)] {
            let (answer, asked) = converse(&session, at, answers, tool).await;
            assert_eq!(text(&answer), expected, "{answer}");
            assert!(answer["result"].get("resultType").is_none(), "{answer}");
            let mut told: Vec<_> = asked
                .iter()
                .map(|question| question["method"].as_str().unwrap_or_default())
                .collect();
            told.sort_unstable();
            assert_eq!(told, methods);
        }
    }
    stage.end().await;
}

#[tokio::test]
async fn progress_flows_through_all_rounds_under_the_clients_token() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "asking", "2025-06-18").await;
    let params = json!({ "name": "elicit", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let mut events = stream(session.request(&stage.a, method::TOOLS_CALL, &params)).await;
    let mut told = Vec::new();
    let answer = loop {
        let message = events.message().await;
        match message["method"].as_str() {
            Some(method::PROGRESS) => {
                assert_eq!(message["params"]["progressToken"], "mine");
                told.push(message["params"]["progress"].as_f64().expect("a number"));
            }
            Some(method::ELICIT) => {
                assert_eq!(told, [1.0]);
                // A version that has forms only knows no modes.
                assert!(message["params"].get("mode").is_none(), "{message}");
                assert_eq!(session.respond(&stage.b, &message, result(&message)).await, 202);
            }
            _ => break message,
        }
    };
    assert_eq!((told.as_slice(), text(&answer)), (&[1.0, 2.0][..], "accept Ada"));
    stage.end().await;
}

#[tokio::test]
async fn a_bridge_that_stops_ends_calls_that_wait_for_their_client_at_once_and_finishes_the_others() {
    let mut stage = Stage::set().await;
    let asked = Opened::at(&stage.a, "asking", "2025-11-25").await;
    let working = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let mut waiting = stream(asked.call(&stage.a, "elicit", &json!({}))).await;
    let question = waiting.message().await;
    assert_eq!(question["method"], method::ELICIT);
    let hold = working.call(&stage.a, "hold", &json!({}));
    let work = tokio::spawn(async move { working.answer(hold).await });
    stage.probe.held.begun.next("the call begins").await;
    stage.a.program.signal(Signal::TERM);
    // Nobody lets the other call go before this one was ended.
    let ended = waiting.message().await;
    assert_eq!(
        (&ended["id"], &ended["error"]["code"]),
        (&json!(5), &json!(error::INTERNAL)),
        "{ended}"
    );
    let words = ended["error"]["message"].as_str().expect("words");
    assert!(
        words.contains("stopping") && words.contains("make the call again"),
        "{words}"
    );
    assert!(waiting.event().await.is_none(), "the stream ends with the answer");
    stage.probe.release.notify_waiters();
    let (status, answer) = within("the other answer", work).await.expect("no panic");
    assert_eq!((status, text(&answer)), (200, "released"), "{answer}");
    let end = within("the end of the bridge", stage.a.program.child.wait()).await;
    assert!(end.expect("it ends").success());
    // What the session was is there at the other bridge, and so the call can be made again.
    let (answer, _) = converse(&asked, &stage.b, &stage.b, "elicit").await;
    assert_eq!(text(&answer), "accept Ada", "{answer}");
    stage.end().await;
}

#[tokio::test]
async fn only_the_session_that_was_asked_can_answer_and_only_once() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-11-25").await;
    let foreign = Opened::at(a, "asking", "2025-11-25").await;
    let mut events = stream(session.call(a, "elicit", &json!({}))).await;
    let question = events.message().await;
    for bridge in [a, b] {
        assert_eq!(foreign.respond(bridge, &question, result(&question)).await, 400);
        for id in [json!("nobody-1"), json!(7), json!("")] {
            let unasked = json!({ "id": id, "method": method::ELICIT });
            assert_eq!(session.respond(bridge, &unasked, result(&unasked)).await, 400);
        }
    }
    let response = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result(&question) });
    let nameless = b.client("asking").raw(response.to_string());
    assert_eq!(sent(nameless).await.status(), 400, "a session is needed");
    assert_eq!(session.respond(b, &question, result(&question)).await, 202);
    assert_eq!(text(&events.message().await), "accept Ada");
    let (status, error) = session.answer(session.post(b, &response)).await;
    assert_eq!(status, 400);
    assert!(
        error["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("waits")),
        "{error}"
    );
    stage.end().await;
}

#[tokio::test]
async fn a_client_that_says_no_ends_the_call_unless_a_form_was_asked_for() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-11-25").await;
    for (tool, word) in [("sample", "the user said no"), ("roots", "the user said no")] {
        let mut events = stream(session.call(a, tool, &json!({}))).await;
        let question = events.message().await;
        let refusal = json!({ "jsonrpc": "2.0", "id": question["id"], "error": { "code": -1, "message": "the user said no" } });
        assert_eq!(session.answer(session.post(b, &refusal)).await.0, 202);
        let answer = events.message().await;
        assert_eq!(
            (&answer["id"], answer["error"]["code"].as_i64()),
            (&json!(5), Some(-32603))
        );
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains(word)),
            "{answer}"
        );
    }
    let mut events = stream(session.call(a, "elicit", &json!({}))).await;
    let question = events.message().await;
    assert_eq!(
        session
            .respond(b, &question, json!({ "action": "decline" }))
            .await,
        202
    );
    assert_eq!(text(&events.message().await), "decline nobody");
    stage.end().await;
}

#[tokio::test]
async fn what_a_client_did_not_declare_is_not_asked_of_it() {
    let stage = Stage::set().await;
    let a = &stage.a;
    for (version, capabilities, tool) in [
        ("2025-11-25", json!({}), "elicit"),
        ("2025-11-25", json!({ "elicitation": {} }), "sample"),
        // This version has no elicitation, whatever its client says.
        (
            "2025-03-26",
            json!({ "elicitation": {}, "sampling": {} }),
            "elicit",
        ),
    ] {
        let session = Opened::declaring(a, "asking", version, capabilities).await;
        let answer = messages(session.call(a, tool, &json!({})))
            .await
            .pop()
            .expect("an answer");
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("declare")),
            "{answer}"
        );
    }
    stage.end().await;
}

#[tokio::test]
async fn a_call_that_is_put_off_is_made_again_and_one_that_asks_without_end_is_ended() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-11-25").await;
    let answer = messages(session.call(a, "put_off", &json!({})))
        .await
        .pop()
        .expect("an answer");
    assert_eq!(text(&answer), "done after 2");
    let (answer, asked) = within("the end", converse(&session, a, b, "endless")).await;
    assert_eq!(asked.len(), 16);
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    stage.end().await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_ends_when_the_client_cancels_it_at_the_other_bridge() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-11-25").await;
    let mut events = stream(session.call(a, "elicit", &json!({}))).await;
    let question = events.message().await;
    let cancel = json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": { "requestId": 5 } });
    assert_eq!(session.answer(session.post(b, &cancel)).await.0, 202);
    assert!(
        events.event().await.is_none(),
        "a cancelled call is answered nothing"
    );
    assert_eq!(session.respond(b, &question, result(&question)).await, 400);
    stage.end().await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_ends_when_that_is_blocked_and_with_it_the_question() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let (session, other) = (
        Opened::at(a, "asking", "2025-11-25").await,
        Opened::at(b, "asking", "2025-11-25").await,
    );
    let mut events = stream(session.call(a, "elicit", &json!({}))).await;
    let question = events.message().await;
    // Another block changes nothing for this caller.
    let (blocks, by) = (Blocks::open(&stage.bus).await, Principal::developer());
    let who = |subject: &str| Blocked {
        tenant: by.tenant.clone(),
        issuer: None,
        subject: subject.to_owned(),
    };
    blocks
        .block(&by, who("mallory"), None, None)
        .await
        .expect("blocked");
    let mut others = stream(other.call(b, "elicit", &json!({}))).await;
    let theirs = others.message().await;
    assert_eq!(other.respond(a, &theirs, result(&theirs)).await, 202);
    assert_eq!(text(&others.message().await), "accept Ada");
    blocks
        .block(&by, who(&by.subject), None, None)
        .await
        .expect("blocked");
    assert!(
        events.event().await.is_none(),
        "a call that is stopped so has no answer"
    );
    eventually("nothing is taken of a blocked caller", async || {
        session.respond(b, &question, result(&question)).await == 403
    })
    .await;
    // Who is let go finds the session, and nothing of the call.
    blocks.unblock(&by, &who(&by.subject)).await.expect("let go");
    eventually("nothing waits for the answer", async || {
        session.respond(b, &question, result(&question)).await == 400
    })
    .await;
    let (answer, _) = within("a call", converse(&session, a, b, "elicit")).await;
    assert_eq!(text(&answer), "accept Ada");
    stage.end().await;
}

#[tokio::test]
async fn a_client_that_takes_json_only_is_not_asked() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "asking", "2025-11-25").await;
    let call = |tool: &str, arguments: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 5, "method": method::TOOLS_CALL, "params": { "name": tool, "arguments": arguments } });
        reqwest::Client::new()
            .post(format!("{}/servers/asking/mcp", stage.a.base))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header(bus_schema::header::SESSION_ID, &session.id)
            .body(body.to_string())
    };
    let (status, answer) = session.answer(call("elicit", json!({}))).await;
    assert_eq!(
        (status, answer["error"]["code"].as_i64()),
        (200, Some(-32603)),
        "{answer}"
    );
    let (_, answer) = session.answer(call("touch", json!({ "uri": "test://a" }))).await;
    assert_eq!(text(&answer), "touched");
    stage.end().await;
}

#[tokio::test]
async fn a_legacy_server_asks_a_legacy_client_through_two_bridges() {
    let stage = Stage::set().await;
    let file = stage.nats.data_dir().join("everything.toml");
    std::fs::write(&file, everything("everything", "")).expect("the file is written");
    let (file, data_dir) = (
        file.display().to_string(),
        stage.nats.data_dir().display().to_string(),
    );
    let words = [
        "serve",
        "everything",
        "--config",
        &file,
        "--log-json",
        "--nats",
        stage.nats.url(),
        "--data-dir",
        &data_dir,
    ];
    let mut program = Program::start(&words);
    program.logged("\"serving\"").await;
    stage.a.knows("everything").await;
    stage.b.knows("everything").await;
    let session = Opened::at(&stage.a, "everything", "2025-11-25").await;
    for (tool, arguments, asked, word) in [
        ("trigger-elicitation-request", json!({}), method::ELICIT, "Ada"),
        (
            "trigger-sampling-request",
            json!({ "prompt": "a capital", "maxTokens": 5 }),
            method::SAMPLE,
            "Paris",
        ),
    ] {
        let mut events = stream(session.call(&stage.a, tool, &arguments)).await;
        let question = events.message().await;
        assert_eq!(question["method"], asked, "{question}");
        assert_eq!(session.respond(&stage.b, &question, result(&question)).await, 202);
        let answer = events.message().await;
        assert_eq!(answer["id"], 5);
        assert!(answer["result"].to_string().contains(word), "{answer}");
    }
    drop(program);
    stage.end().await;
}
