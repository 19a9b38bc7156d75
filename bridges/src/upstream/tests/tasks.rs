//! Tasks of a legacy server, as callers of the modern era make, follow and end them.

use bus_schema::RoutedState;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    scripted::within,
    served::{Asking, Served, code, questions, serve_script, tool, until},
};
use crate::upstream::{AskingOptions, EraKnob};

/// Knows tasks, and can be asked everything.
const KNOWS: &str = r#"{"elicitation":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
/// Knows tasks, and can be asked nothing.
const KNOWS_ONLY: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
const ASKS: &str = r#"{"elicitation":{}}"#;

/// Handshake, and what the server makes of everything but `tasks/result`. The tool `become` sets the status of all tasks.
const SERVER: &str = r#"
next; result '{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"tasks":{"cancel":{},"requests":{"tools":{"call":{}}}}}}'; next
status=working; ttl=60000
task() { printf '{"taskId":"t","status":"%s","createdAt":"c","lastUpdatedAt":"c","ttl":%s,"pollInterval":5}' "$status" "$ttl"; }
related='"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}'
question() { ask "$1" elicitation/create "{\"message\":\"$1\",\"requestedSchema\":{\"type\":\"object\",\"properties\":{}},$related}"; }
while next; do case "$line" in
*tools/list*cursor*) result '{"tools":[{"name":"must","execution":{"taskSupport":"required"}},{"name":"plain"}]}';;
*tools/list*) result '{"tools":[{"name":"may","execution":{"taskSupport":"optional"}}],"nextCursor":"more"}';;
*tools/call*'"task":'*) CREATE;;
*tools/call*'"become"'*) status=${line#*status\":\"}; status=${status%%\"*}; result '{"content":[]}';;
*tools/call*'"die"'*) exit 3;;
*tools/call*) result '{"content":[]}';;
*tasks/get*) result "$(task)";;
*tasks/cancel*) case $status in
    working|input_required) status=cancelled; result "$(task)";;
    *) error '{"code":-32602,"message":"it has ended"}';; esac;;
*tasks/result*) RESULT;;
*'"id":"q'*) ANSWERED;;
esac; done"#;

/// What differs from server to server.
struct Script {
    create: &'static str,
    result: &'static str,
    answered: &'static str,
}

const CREATES: &str = r#"result "{\"task\":$(task)}""#;
const RESULT: &str = r#"result "{\"content\":[{\"type\":\"text\",\"text\":\"done\"}],$related}""#;
/// Asks one question when it is asked for the result, and has the result when that is answered.
const ASKING: Script = Script {
    create: r#"status=input_required; result "{\"task\":$(task)}""#,
    result: r#"waiting=$id; question q1"#,
    answered: r#"status=completed; id=$waiting; result "{\"content\":[],\"heard\":$line,$related}""#,
};

async fn serve(script: &Script) -> Served {
    let text = SERVER
        .replace("CREATE;", &format!("{};", script.create))
        .replace("RESULT;", &format!("{};", script.result))
        .replace("ANSWERED;", &format!("{};", script.answered));
    serve_script(&text, EraKnob::Legacy, AskingOptions::default()).await
}

async fn plain() -> Served {
    serve(&Script {
        create: CREATES,
        result: RESULT,
        answered: ":",
    })
    .await
}

fn about<'a>(method: &'a str, id: &Value) -> Asking<'a> {
    Asking {
        method,
        params: json!({ "taskId": id, "inputResponses": {} }),
        ..tool("t").declaring(KNOWS)
    }
}

/// Makes a task, and gives its id.
async fn make(served: &Served, call: &Asking<'_>) -> Value {
    let made = served.answer(call).await;
    assert_eq!(made["result"]["resultType"], "task", "{made}");
    made["result"]["taskId"].clone()
}

/// Makes a task on the connection where callers can be asked.
async fn must(served: &Served) -> Value {
    make(served, &tool("must").declaring(KNOWS)).await
}

async fn get(served: &Served, id: &Value) -> Value {
    let told = served.answer(&about("tasks/get", id)).await;
    assert_eq!(told["result"]["resultType"], "complete", "{told}");
    assert_eq!(&told["result"]["taskId"], id, "{told}");
    told["result"].clone()
}

async fn becomes(served: &Served, status: &str) {
    let mut call = tool("become").declaring(KNOWS);
    call.params["arguments"] = json!({ "status": status });
    served.answer(&call).await;
}

/// The wishes for tasks that the server has heard with its calls.
fn wishes(served: &Served) -> Vec<Value> {
    let heard = served.heard();
    let calls = heard.iter().filter(|message| message["method"] == "tools/call");
    calls.map(|call| call["params"]["task"].clone()).collect()
}

#[tokio::test]
async fn a_call_that_may_be_a_task_is_one_for_who_knows_tasks() {
    let served = plain().await;
    for (name, declares) in [("must", KNOWS), ("may", KNOWS), ("may", KNOWS_ONLY)] {
        let made = served.answer(&tool(name).declaring(declares)).await;
        let id = made["result"]["taskId"].as_str().unwrap();
        assert_eq!(RoutedState::parse(id).unwrap().instance, "00ff");
        assert_eq!(
            made["result"],
            json!({
                "resultType": "task", "taskId": id, "status": "working", "createdAt": "c", "lastUpdatedAt": "c",
                "ttlMs": 60_000, "pollIntervalMs": 5
            })
        );
    }
    let plain = served.answer(&tool("plain").declaring(KNOWS)).await;
    assert_eq!(
        plain["result"],
        json!({ "resultType": "complete", "content": [] })
    );
    let day = json!({ "ttl": 86_400_000 });
    assert_eq!(wishes(&served), [day.clone(), day.clone(), day, Value::Null]);
}

#[tokio::test]
async fn who_knows_no_tasks_gets_what_the_call_comes_to() {
    let served = plain().await;
    let done = json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] });
    let optional = served.answer(&tool("may").declaring("{}")).await;
    assert_eq!(optional["result"]["content"], json!([]));
    for declares in ["{}", ASKS] {
        let driven = served.answer(&tool("must").declaring(declares)).await;
        assert_eq!(driven["result"], done);
    }
    assert_eq!(wishes(&served)[0], Value::Null);
    assert_eq!(served.times("tasks/result"), 2);
    assert_eq!(served.times("tasks/cancel"), 0, "what has ended is not cancelled");
    assert_eq!(served.server.tasks.count(), 0);
}

#[tokio::test]
async fn what_a_task_asks_while_its_caller_waits_is_asked_as_of_any_call() {
    let served = serve(&ASKING).await;
    let call = tool("must").declaring(ASKS);
    let first = served.answer(&call).await;
    let asked = questions(&first);
    assert_eq!(
        asked[0].1,
        json!({ "method": "elicitation/create", "params":
            { "message": "q1", "requestedSchema": { "type": "object", "properties": {} } } })
    );
    let answer = json!({ &asked[0].0: { "action": "accept", "content": {} } });
    let last = served.answer(&call.clone().back(&first, answer)).await;
    assert_eq!(last["result"]["heard"]["id"], "q1", "{last}");
    assert_eq!(last["result"].get("_meta"), None, "{last}");
    assert_eq!(served.times("tools/call"), 1);
}

#[tokio::test]
async fn a_task_is_told_with_what_it_came_to_and_the_server_is_not_asked_again() {
    let served = plain().await;
    let id = must(&served).await;
    assert_eq!(get(&served, &id).await["status"], "working");
    becomes(&served, "failed").await;
    let done = get(&served, &id).await;
    assert_eq!(done["status"], "completed", "a result is no error: {done}");
    assert_eq!(done["result"]["content"][0]["text"], "done");
    let asked = served.times("tasks/get");
    assert_eq!(get(&served, &id).await, done);
    assert_eq!(served.times("tasks/get"), asked);
    let update = served.answer(&about("tasks/update", &id)).await;
    assert_eq!(update["result"], json!({ "resultType": "complete" }));
    assert_eq!(served.times("tasks/cancel"), 0);
}

#[tokio::test]
async fn an_error_that_a_task_came_to_is_told_with_it() {
    let served = serve(&Script {
        create: CREATES,
        result: r#"error '{"code":-32603,"message":"broken"}'"#,
        answered: ":",
    })
    .await;
    let id = must(&served).await;
    becomes(&served, "completed").await;
    let refused = served.answer(&about("tasks/get", &id)).await;
    assert_eq!(code(&refused), -32603, "a completed task came to no error");
    becomes(&served, "failed").await;
    let failed = get(&served, &id).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"], json!({ "code": -32603, "message": "broken" }));
}

#[tokio::test]
async fn what_a_task_asks_is_told_with_it_and_answered_by_an_update() {
    let served = serve(&Script {
        create: ASKING.create,
        result: r#"waiting=$id; question q1; question q2"#,
        answered: r#"case "$line" in *'"id":"q2"'*) status=completed; id=$waiting; result "{\"heard\":$line}";; *) status=input_required;; esac"#,
    })
    .await;
    let id = must(&served).await;
    let mut asked: Vec<String> = Vec::new();
    within(async {
        // A question that is still on its way is waited for, and no task waits for none.
        while asked.len() < 2 {
            let told = get(&served, &id).await;
            let requests = told["inputRequests"].as_object();
            let status = if requests.is_some() {
                "input_required"
            } else {
                "working"
            };
            assert_eq!(told["status"], status, "{told}");
            asked = requests
                .into_iter()
                .flatten()
                .map(|(key, _)| key.clone())
                .collect();
        }
    })
    .await;
    assert_eq!(served.times("tasks/result"), 1);
    let update = async |answers: Value| {
        let mut update = about("tasks/update", &id);
        update.params["inputResponses"] = answers;
        served.answer(&update).await
    };
    assert_eq!(
        code(&update(json!({ &asked[0]: { "action": "perhaps" } })).await),
        -32602
    );
    assert_eq!(code(&update(json!(7)).await), -32602);
    let accept = json!({ "action": "accept", "content": {} });
    update(json!({ &asked[0]: accept, "nobody-asked": accept })).await;
    let left = get(&served, &id).await;
    let keys: Vec<_> = left["inputRequests"].as_object().unwrap().keys().collect();
    assert_eq!(keys, [&asked[1]]);
    update(json!({ &asked[0]: { "action": "cancel" } })).await;
    update(json!({ &asked[1]: { "action": "decline" } })).await;
    served
        .hears(|heard| heard.iter().any(|message| message["id"] == "q2"))
        .await;
    let done = get(&served, &id).await;
    assert_eq!(done["result"]["heard"]["result"]["action"], "decline", "{done}");
    let first: Vec<_> = served
        .heard()
        .into_iter()
        .filter(|message| message["id"] == "q1")
        .collect();
    assert_eq!(first.len(), 1, "{first:?}");
}

#[tokio::test]
async fn a_question_that_comes_with_the_task_is_the_tasks_and_no_other_calls() {
    let served = serve(&Script {
        create: r#"made=$(task); status=input_required; first=$(result "{\"task\":$made}"); printf '%s\n%s\n' "$first" "$(question q1)""#,
        ..ASKING
    })
    .await;
    let id = must(&served).await;
    // Another call of the same caller is in flight on the same connection and is asked nothing.
    let plain = served.answer(&tool("plain").declaring(KNOWS)).await;
    assert_eq!(plain["result"]["resultType"], "complete", "{plain}");
    let told = get(&served, &id).await;
    assert_eq!(told["inputRequests"].as_object().unwrap().len(), 1, "{told}");
}

#[tokio::test]
async fn a_task_is_its_callers_and_only_who_knows_tasks_may_ask() {
    let served = plain().await;
    let id = must(&served).await;
    let unknown = json!("tl1.00ff.unknown");
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let foreign = served.answer(&about(method, &id).by("bob")).await;
        assert_eq!(code(&foreign), -32602, "{foreign}");
        let nobodys = served.answer(&about(method, &unknown)).await;
        assert_eq!(foreign["error"], nobodys["error"]);
        let undeclared = served.answer(&about(method, &id).declaring(ASKS)).await;
        assert_eq!(code(&undeclared), -32021);
        let unnamed = served.answer(&about(method, &Value::Null)).await;
        assert_eq!(code(&unnamed), -32602);
    }
    for method in ["tasks/result", "tasks/list"] {
        assert_eq!(code(&served.answer(&about(method, &id)).await), -32601);
        assert_eq!(served.times(method), 0);
    }
    assert_eq!(get(&served, &id).await["status"], "working");
}

#[tokio::test]
async fn a_task_is_cancelled_and_one_that_has_ended_without_complaint() {
    let served = plain().await;
    let cancel = async |id: &Value| {
        let answer = served.answer(&about("tasks/cancel", id)).await;
        assert_eq!(answer["result"], json!({ "resultType": "complete" }), "{answer}");
    };
    let id = must(&served).await;
    cancel(&id).await;
    cancel(&id).await;
    assert_eq!(served.times("tasks/cancel"), 2);
    assert_eq!(get(&served, &id).await["status"], "cancelled");
    cancel(&id).await;
    assert_eq!(served.times("tasks/cancel"), 2, "the end was told");
}

#[tokio::test]
async fn a_caller_that_goes_takes_its_task_along() {
    let served = serve(&Script {
        result: ":",
        create: CREATES,
        answered: ":",
    })
    .await;
    let mut tasks = JoinSet::new();
    served.begin(&tool("must").declaring("{}"), &mut tasks);
    served
        .hears(|heard| heard.iter().any(|message| message["method"] == "tasks/result"))
        .await;
    tasks.shutdown().await;
    served
        .hears(|heard| {
            let at = |method: &str| heard.iter().position(|message| message["method"] == method);
            at("tasks/cancel").is_some() && at("notifications/cancelled") > at("tasks/result")
        })
        .await;
}

#[tokio::test]
async fn a_task_that_nobody_waited_for_is_cancelled_when_it_comes() {
    let served = serve(&Script {
        create: r#"made=$id; next; id=$made; result "{\"task\":$(task)}""#,
        result: ":",
        answered: ":",
    })
    .await;
    let mut tasks = JoinSet::new();
    served.begin(&tool("must").declaring(KNOWS_ONLY), &mut tasks);
    served
        .hears(|heard| heard.iter().any(|message| message["method"] == "tools/call"))
        .await;
    tasks.shutdown().await;
    // The server has made the task before it heard that nobody waits.
    served
        .hears(|heard| {
            let method = |at: usize| heard[heard.len() - at]["method"].clone();
            heard.len() > 3 && method(2) == "notifications/cancelled" && method(1) == "tasks/cancel"
        })
        .await;
    assert_eq!(served.server.tasks.count(), 0);
}

#[tokio::test]
async fn a_task_whose_server_has_ended_has_failed() {
    let served = plain().await;
    let id = must(&served).await;
    assert_eq!(code(&served.answer(&tool("die").declaring(KNOWS)).await), -32603);
    let failed = get(&served, &id).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(failed["error"]["code"], -32603, "{failed}");
    assert_eq!(get(&served, &id).await, failed);
    let cancelled = served.answer(&about("tasks/cancel", &id)).await;
    assert_eq!(cancelled["result"]["resultType"], "complete");
}

#[tokio::test]
async fn a_task_is_held_for_as_long_as_its_server_said() {
    let served = serve(&Script {
        create: r#"ttl=80; result "{\"task\":$(task)}""#,
        result: RESULT,
        answered: ":",
    })
    .await;
    let id = must(&served).await;
    until(|| served.server.tasks.count() == 0).await;
    assert_eq!(code(&served.answer(&about("tasks/get", &id)).await), -32602);
    served
        .hears(|heard| heard.iter().any(|message| message["method"] == "tasks/cancel"))
        .await;
}

#[tokio::test]
async fn a_caller_holds_no_more_tasks_than_it_may_and_what_was_told_to_its_end_gives_way() {
    let served = plain().await;
    let first = must(&served).await;
    for _ in 1..128 {
        must(&served).await;
    }
    let full = served.answer(&tool("must").declaring(KNOWS)).await;
    assert_eq!(code(&full), -32603, "{full}");
    served
        .hears(|heard| heard.iter().any(|message| message["method"] == "tasks/cancel"))
        .await;
    make(&served, &tool("must").declaring(KNOWS).by("bob")).await;
    becomes(&served, "completed").await;
    get(&served, &first).await;
    must(&served).await;
    assert_eq!(code(&served.answer(&about("tasks/get", &first)).await), -32602);
    assert_eq!(served.server.tasks.count(), 129);
}

#[tokio::test]
async fn a_task_that_nobody_asks_about_needs_its_connection_only_until_it_ends() {
    let served = plain().await;
    let id = must(&served).await;
    served.server.tasks.look().await;
    assert_eq!(served.times("tasks/result"), 0, "it goes on");
    becomes(&served, "completed").await;
    served.server.tasks.look().await;
    assert_eq!(served.times("tasks/result"), 1);
    // Even when its server has ended meanwhile, its caller hears what it came to.
    served.answer(&tool("die").declaring(KNOWS)).await;
    assert_eq!(get(&served, &id).await["status"], "completed");
}

#[tokio::test]
async fn the_progress_of_a_task_comes_to_who_waits_for_its_result_and_to_nobody_else() {
    let served = serve(&Script {
        create: r#"call=$id; result "{\"task\":$(task)}""#,
        result: r#"say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$call,\"progress\":1}}"; result '{"content":[]}'"#,
        answered: ":",
    })
    .await;
    let call = |declares| {
        let call = tool("must").declaring(declares);
        call.with_meta(json!({ "progressToken": "mine" }))
    };
    let (told, _) = served.ask(&call(ASKS)).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(r#""progressToken":"mine""#), "{told:?}");
    let id = make(&served, &call(KNOWS)).await;
    becomes(&served, "completed").await;
    let (told, done) = served.ask(&about("tasks/get", &id)).await;
    assert_eq!(done["result"]["status"], "completed", "{done}");
    assert_eq!(told, Vec::<String>::new());
}
