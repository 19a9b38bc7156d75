//! What a legacy server asks in the middle of a call, and how the answers of its caller reach it.

use std::time::Duration;

use bus_schema::RoutedState;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::served::{Asking, FORM, Served, code, is, questions, serve, serve_with, tool, until};
use crate::upstream::{AskingOptions, EraKnob};

/// Asks the user once, and answers with what it was answered.
fn elicits() -> String {
    format!(
        r#"case "$line" in *tools/call*) call=$id; ask q elicitation/create {FORM}; next; id=$call; result "{{\"heard\":$line}}";; esac"#
    )
}

fn accepted(answer: &Value) -> Value {
    let keys = questions(answer).into_iter().map(|(key, _)| key);
    keys.map(|key| (key, json!({ "action": "accept", "content": { "x": 1 } })))
        .collect()
}

/// What the server said that it had heard.
fn heard(answer: &Value) -> &Value {
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    &answer["result"]["heard"]
}

#[tokio::test]
async fn a_question_ends_the_round_and_its_answer_goes_on_with_the_call() {
    let served = serve(&elicits()).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    let asked = questions(&first);
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].1,
        json!({ "method": "elicitation/create", "params":
            { "message": "m", "requestedSchema": { "type": "object", "properties": {} } } })
    );
    let state = first["result"]["requestState"].as_str().unwrap();
    assert_eq!(RoutedState::parse(state).unwrap().instance, "00ff");
    let last = served.answer(&call.clone().back(&first, accepted(&first))).await;
    assert_eq!(
        heard(&last),
        &json!({ "jsonrpc": "2.0", "id": "q", "result": { "action": "accept", "content": { "x": 1 } } })
    );
    assert_eq!(served.times("tools/call"), 1);
    assert_eq!(served.server.parks.count(), 0);
}

#[tokio::test]
async fn prompts_and_resources_ask_as_tools_do() {
    let text = elicits().replace("*tools/call*", "*prompts/get*|*resources/read*");
    let served = serve(&text).await;
    for (method, params) in [
        ("prompts/get", json!({ "name": "p" })),
        ("resources/read", json!({ "uri": "a://b" })),
    ] {
        let call = Asking {
            method,
            params,
            ..tool("t")
        };
        let first = served.answer(&call).await;
        let last = served.answer(&call.clone().back(&first, accepted(&first))).await;
        assert_eq!(heard(&last)["id"], "q");
    }
}

#[tokio::test]
async fn a_state_serves_its_caller_once_and_nobody_else() {
    let served = serve(&elicits()).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    let back = call.clone().back(&first, accepted(&first));
    let mut other_arguments = back.clone();
    other_arguments.params["arguments"]["n"] = json!(2);
    let mut other_tool = back.clone();
    other_tool.params["name"] = json!("u");
    let mut other_method = back.clone();
    other_method.method = "prompts/get";
    let state = first["result"]["requestState"].as_str().unwrap();
    let mut wrong = vec![back.clone().by("bob"), other_arguments, other_tool, other_method];
    for state in [
        flipped(state),
        state.replace("00ff", "00fe"),
        "opaque".to_owned(),
        String::new(),
    ] {
        let mut other = back.clone();
        other.params["requestState"] = json!(state);
        wrong.push(other);
    }
    for other in &wrong {
        assert_eq!(code(&served.answer(other).await), -32602);
    }
    // None of that has used it up.
    assert_eq!(heard(&served.answer(&back).await)["id"], "q");
    assert_eq!(code(&served.answer(&back).await), -32602);
    let calls = ["tools/call", "prompts/get"].map(|method| served.times(method));
    assert_eq!(calls, [1, 0], "the server heard of none of them");
}

/// A state of which the last bit is another.
fn flipped(state: &str) -> String {
    let (rest, last) = state.split_at(state.len() - 2);
    format!(
        "{rest}{}{}",
        if last.starts_with('A') { 'B' } else { 'A' },
        &last[1..]
    )
}

#[tokio::test]
async fn who_does_not_come_back_has_cancelled() {
    let soon = AskingOptions {
        input_ttl: Duration::from_millis(50),
        ..AskingOptions::default()
    };
    let text = format!(
        r#"case "$line" in *tools/call*) ask e elicitation/create {FORM}; ask s sampling/createMessage '{{}}'; ask r roots/list '{{}}';; esac"#
    );
    let served = serve_with(&text, soon).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    assert_eq!(
        questions(&first).len(),
        3,
        "what comes together is asked together"
    );
    served
        .hears(|heard| {
            heard
                .iter()
                .any(|message| message["method"] == "notifications/cancelled")
        })
        .await;
    let heard = served.heard();
    let answer = |id: &str| heard.iter().find(|message| message["id"] == id).unwrap();
    assert_eq!(answer("e")["result"], json!({ "action": "cancel" }));
    assert_eq!(answer("s")["error"]["code"], -1);
    assert_eq!(answer("r")["error"]["code"], -32603);
    let late = served.answer(&call.clone().back(&first, json!({}))).await;
    assert_eq!(code(&late), -32602);
    assert_eq!(served.times("tools/call"), 1);
}

#[tokio::test]
async fn what_is_not_answered_is_asked_again_and_what_is_wrong_is_refused() {
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id; ask a elicitation/create {FORM}; ask b sampling/createMessage '{{}}'
            next; one=$line; next; id=$call; result "{{\"heard\":[$one,$line]}}";; esac"#
    );
    let served = serve(&text).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    let keys: Vec<String> = questions(&first).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 2);
    for wrong in [
        json!(7),
        json!({ &keys[0]: { "action": "perhaps" } }),
        json!({ &keys[1]: { "role": "assistant" } }),
    ] {
        let refused = served.answer(&call.clone().back(&first, wrong)).await;
        assert_eq!(code(&refused), -32602);
    }
    let second = served
        .answer(&call.clone().back(&first, json!({ "unknown": {} })))
        .await;
    assert_eq!(questions(&second), questions(&first));
    let half = json!({ &keys[0]: { "action": "decline" } });
    let third = served.answer(&call.clone().back(&second, half)).await;
    assert_eq!(questions(&third), questions(&second)[1..]);
    // The state of an earlier round is worth nothing.
    let old = served.answer(&call.clone().back(&second, json!({}))).await;
    assert_eq!(code(&old), -32602);
    let sampled = json!({ "role": "assistant", "content": { "type": "text", "text": "x" }, "model": "m" });
    let last = served
        .answer(&call.clone().back(&third, json!({ &keys[1]: sampled })))
        .await;
    assert_eq!(heard(&last)[0]["result"], json!({ "action": "decline" }));
    assert_eq!(heard(&last)[1]["result"], sampled);
    assert_eq!(served.times("tools/call"), 1);
}

#[tokio::test]
async fn questions_one_after_the_other_are_rounds_of_one_call() {
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id; for at in 1 2 3; do ask $at elicitation/create {FORM}; next; done
            id=$call; result '{{"heard":3}}';; esac"#
    );
    let served = serve(&text).await;
    let call = tool("t");
    let mut answer = served.answer(&call).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.extend(questions(&answer).into_iter().map(|(key, _)| key));
        answer = served
            .answer(&call.clone().back(&answer, accepted(&answer)))
            .await;
    }
    assert_eq!(heard(&answer), &json!(3));
    keys.dedup();
    assert_eq!(keys.len(), 3, "no key is used twice: {keys:?}");
    assert_eq!(served.times("tools/call"), 1);
}

#[tokio::test]
async fn a_round_has_its_own_id_and_progress_token() {
    let progress = r#"say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$call,\"progress\":$at}}""#;
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id; at=1; {progress}; ask q elicitation/create {FORM}; next
            at=2; {progress}; id=$call; result '{{"heard":1}}';; esac"#
    );
    let served = serve(&text).await;
    let call = tool("t").with_meta(json!({ "progressToken": "one" }));
    let (told, first) = served.ask(&call).await;
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains(r#""progressToken":"one","progress":1"#),
        "{told:?}"
    );
    let back = call
        .back(&first, accepted(&first))
        .with_meta(json!({ "progressToken": 2 }));
    let (told, _) = served.ask(&back).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].contains(r#""progressToken":2,"progress":2"#), "{told:?}");
}

#[tokio::test]
async fn an_answer_that_comes_while_the_caller_is_away_waits_for_it() {
    // It does not wait for its user.
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id; ask q elicitation/create {FORM}; next; id=$call; result '{{"heard":"early"}}';; esac"#
    );
    let served = serve(&text).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    // A list on the same connection makes the server go on.
    let list = Asking {
        method: "tools/list",
        params: json!({}),
        ..tool("t")
    };
    let mut beside = JoinSet::new();
    served.begin(&list, &mut beside);
    served
        .hears(|heard| heard.iter().any(|message| message["method"] == "tools/list"))
        .await;
    let last = served.answer(&call.clone().back(&first, json!({}))).await;
    // Which of the two comes first is the server's affair; the call has one answer.
    let last = match last["result"]["resultType"].as_str() {
        Some("input_required") => served.answer(&call.back(&last, accepted(&last))).await,
        _ => last,
    };
    assert_eq!(heard(&last), "early");
}

#[tokio::test]
async fn a_server_is_told_what_its_caller_cannot_do() {
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id
            ask a elicitation/create {FORM}; next; one=$line
            ask b roots/list '{{}}'; next; id=$call; result "{{\"heard\":[$one,$line]}}";; esac"#
    );
    let served = serve(&text).await;
    for (declares, codes) in [
        ("{}", [-32601, -32601]),
        (r#"{"sampling":{}}"#, [-32601, -32601]),
        (r#"{"elicitation":{"url":{}}}"#, [-32602, -32601]),
    ] {
        let answer = served.answer(&tool("t").declaring(declares)).await;
        let found = [&heard(&answer)[0], &heard(&answer)[1]].map(|said| said["error"]["code"].as_i64());
        assert_eq!(found, codes.map(Some), "{declares}");
    }
}

#[tokio::test]
async fn a_question_outside_of_a_call_is_refused() {
    let text = r#"next; initialized; ask q roots/list '{}'; while next; do
        case "$line" in *tools/list*) result '{"tools":[]}';; esac; done"#;
    let served =
        super::served::serve_script(text, crate::upstream::EraKnob::Legacy, AskingOptions::default()).await;
    let refusal = |heard: &[Value], code: i64| {
        heard
            .iter()
            .any(|message| message["id"] == "q" && message["error"]["code"] == code)
    };
    // Over the shared connection nobody can be asked at all.
    served.hears(|heard| refusal(heard, -32601)).await;
    let list = Asking {
        method: "tools/list",
        params: json!({}),
        ..tool("t")
    };
    served.answer(&list).await;
    served.hears(|heard| refusal(heard, -32602)).await;
}

#[tokio::test]
async fn what_is_asked_right_after_the_handshake_is_no_question_of_the_first_call() {
    let text = r#"next; initialized; ask q roots/list '{}'; said=null; while next; do case "$line" in
        *'"id":"q"'*) said=$line;;
        *tools/call*) call=$id; first=$said; ask later roots/list '{}'; next; id=$call; result "{\"heard\":[$first,$line]}";;
        esac; done"#;
    let served = super::served::serve_script(text, EraKnob::Legacy, AskingOptions::default()).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    let asked = questions(&first);
    assert_eq!(asked.len(), 1, "{first}");
    let roots = json!({ "roots": [{ "uri": "file:///a" }] });
    let last = served
        .answer(&call.clone().back(&first, json!({ &asked[0].0: roots })))
        .await;
    // It was refused, and not answered with roots that are none: some servers would go by those.
    let [before, within] = [&heard(&last)[0], &heard(&last)[1]];
    assert_eq!(before["error"]["code"], -32602, "{last}");
    assert_eq!(
        (&within["id"], &within["result"]),
        (&json!("later"), &roots),
        "{last}"
    );
}

#[tokio::test]
async fn a_server_may_take_its_question_back() {
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id; ask q elicitation/create {FORM}
            say '{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"q"}}}}'
            id=$call; result '{{"heard":"nothing"}}';; esac"#
    );
    let served = serve(&text).await;
    assert_eq!(heard(&served.answer(&tool("t")).await), "nothing");
    assert!(served.heard().iter().all(|message| message["id"] != "q"));
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_its_call_and_the_next_one_is_not_asked_its_questions() {
    let text = format!(
        r#"case "$line" in *tools/call*) ask q elicitation/create {FORM};; *pid*) result "{{\"heard\":$$}}";; esac"#
    );
    let served = serve(&text).await;
    let first = served.answer(&tool("t")).await;
    let pid = Asking {
        method: "com.example/pid",
        params: json!({}),
        ..tool("t")
    };
    let before = served.answer(&pid).await;
    let mut tasks = JoinSet::new();
    served.begin(&tool("t").back(&first, accepted(&first)), &mut tasks);
    served
        .hears(|heard| heard.iter().any(|message| message["id"] == "q"))
        .await;
    tasks.abort_all();
    served
        .hears(|heard| {
            heard
                .iter()
                .any(|message| message["method"] == "notifications/cancelled")
        })
        .await;
    let heard_of = served.heard();
    let call = heard_of
        .iter()
        .find(|message| message["method"] == "tools/call")
        .unwrap();
    let cancelled = heard_of.last().unwrap();
    assert_eq!(cancelled["params"]["requestId"], call["id"]);
    // What the server may still ask for that call is nobody's: the next one has another process.
    until(|| served.server.lanes.count() == 0).await;
    assert_ne!(heard(&before), heard(&served.answer(&pid).await));
}

#[tokio::test]
async fn a_list_of_roots_that_is_asked_for_twice_is_given_twice() {
    let text = r#"case "$line" in *tools/call*) call=$id; ask a roots/list '{}'; ask b roots/list '{}'
        next; one=$line; next; id=$call; result "{\"heard\":[$one,$line]}";; esac"#;
    let served = serve(text).await;
    let first = served.answer(&tool("t")).await;
    let asked = questions(&first);
    assert_eq!(asked.len(), 1);
    let roots = json!({ "roots": [{ "uri": "file:///a" }] });
    let last = served
        .answer(&tool("t").back(&first, json!({ &asked[0].0: roots })))
        .await;
    for (at, id) in ["a", "b"].into_iter().enumerate() {
        assert_eq!(
            heard(&last)[at],
            json!({ "jsonrpc": "2.0", "id": id, "result": roots })
        );
    }
}

/// Wants its user to open a page, until it was called so often.
async fn needs_a_page(calls: u32) -> Served {
    let url = r#"{"mode":"url","url":"https://a/b","message":"m","elicitationId":"e"}"#;
    let error = format!(r#"'{{"code":-32042,"message":"open it","data":{{"elicitations":[{url}]}}}}'"#);
    serve(&format!(
        r#"case "$line" in *tools/call*) called=$((called+1))
            if [ $called -gt {calls} ]; then result '{{"heard":"opened"}}'; else error {error}; fi;; esac"#
    ))
    .await
}

#[tokio::test]
async fn a_page_that_must_be_opened_first_is_shown_and_the_call_made_again() {
    let served = needs_a_page(1).await;
    let call = tool("t");
    let first = served.answer(&call).await;
    let asked = questions(&first);
    assert_eq!(
        asked[0].1,
        json!({ "method": "elicitation/create", "params": { "mode": "url", "url": "https://a/b", "message": "m" } })
    );
    let again = served.answer(&call.clone().back(&first, json!({}))).await;
    assert_eq!(questions(&again), asked);
    let wrong = served
        .answer(&call.clone().back(&again, json!({ &asked[0].0: {} })))
        .await;
    assert_eq!(code(&wrong), -32602);
    assert_eq!(
        code(
            &served
                .answer(&call.clone().by("bob").back(&again, accepted(&again)))
                .await
        ),
        -32602
    );
    assert_eq!(served.times("tools/call"), 1);
    let last = served.answer(&call.clone().back(&again, accepted(&again))).await;
    assert_eq!(heard(&last), "opened");
    assert_eq!(
        code(&served.answer(&call.back(&again, accepted(&again))).await),
        -32602
    );
    let calls: Vec<Value> = served
        .heard()
        .into_iter()
        .filter(|message| message["method"] == "tools/call")
        .map(|message| message["params"].clone())
        .collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0], calls[1], "the server hears the same call again");
}

#[tokio::test]
async fn a_page_is_not_shown_to_who_cannot_and_the_call_not_made_again_for_who_will_not() {
    let served = needs_a_page(9).await;
    let answer = served.answer(&tool("t").declaring(r#"{"elicitation":{}}"#)).await;
    assert_eq!(code(&answer), -32021);
    assert_eq!(
        answer["error"]["data"]["requiredCapabilities"],
        json!({ "elicitation": { "url": {} } })
    );
    let first = served.answer(&tool("t")).await;
    let declined = json!({ &questions(&first)[0].0: { "action": "decline" } });
    assert_eq!(
        code(&served.answer(&tool("t").back(&first, declined)).await),
        -32603
    );
    assert_eq!(served.times("tools/call"), 2);
}

#[tokio::test]
async fn a_caller_may_let_so_many_calls_wait_and_no_more() {
    let served = needs_a_page(99).await;
    for _ in 0..32 {
        questions(&served.answer(&tool("t")).await);
    }
    let refused = served.answer(&tool("t")).await;
    assert_eq!(code(&refused), -32603);
    let words = refused["error"]["message"].as_str().unwrap();
    assert!(
        words.contains("32 calls") && words.contains("`scripted`"),
        "{words}"
    );
    questions(&served.answer(&tool("t").by("bob")).await);
}

#[tokio::test]
async fn log_lines_of_a_round_are_for_who_asked_for_them_in_it() {
    let log =
        r#"say '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":1}}'"#;
    let text = format!(
        r#"case "$line" in *tools/call*) call=$id; {log}; ask q elicitation/create {FORM}; next; {log}; id=$call; result '{{"heard":1}}';; esac"#
    );
    let served = serve(&text).await;
    let wants = json!({ "io.modelcontextprotocol/logLevel": "debug" });
    let (told, first) = served.ask(&tool("t")).await;
    assert_eq!(told, Vec::<String>::new());
    let (told, _) = served
        .ask(&tool("t").back(&first, accepted(&first)).with_meta(wants))
        .await;
    assert_eq!(told.len(), 1);
    assert!(is(&told[0], "notifications/message"));
}
