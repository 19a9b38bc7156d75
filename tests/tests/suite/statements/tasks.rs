//! Tools that go on as tasks, between a modern client and a modern server: the platform carries them, and hosts none itself yet.

use bus_schema::{
    header,
    mcp::{error, meta, method},
};
use serde_json::{Value, json};
use tests::{eventually, http::Client};

use super::{answer, declaring, with_fixture};

/// What a client declares that knows tasks, and can be asked.
fn knows_tasks() -> Value {
    json!({ "elicitation": {}, "extensions": { (meta::TASKS_EXTENSION): {} } })
}

async fn ask(client: &Client, called: &str, params: Value) -> (u16, Value) {
    answer(declaring(client, called, params, knows_tasks())).await
}

/// Starts a task, and gives its id.
async fn start(client: &Client, tool: &str, arguments: Value) -> Value {
    let (status, created) = ask(
        client,
        method::TOOLS_CALL,
        json!({ "name": tool, "arguments": arguments }),
    )
    .await;
    let task = &created["result"];
    assert_eq!((status, &task["resultType"]), (200, &json!("task")), "{created}");
    assert!(task["task"].is_null() && task["status"].is_string() && task["createdAt"].is_string());
    task["taskId"].clone()
}

async fn get(client: &Client, task: &Value) -> Value {
    let (status, got) = ask(client, method::TASKS_GET, json!({ "taskId": task })).await;
    assert_eq!(
        (status, &got["result"]["resultType"]),
        (200, &json!("complete")),
        "{got}"
    );
    got["result"].clone()
}

/// Waits until a task has come to a state.
async fn until(client: &Client, task: &Value, state: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("the task is {state}"), async || {
        last = get(client, task).await;
        last["status"] == state
    })
    .await;
    last
}

#[tokio::test]
async fn a_client_that_knows_no_tasks_gets_a_plain_result_or_hears_what_it_would_have_to_know() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let plain = client.call("slow_compute", json!({ "seconds": 0 })).await;
    assert_eq!(plain["result"]["resultType"], "complete", "{plain}");
    for (client, tool) in [
        (client, "failing_job"),
        (platform.client_of_all(), "fixture__failing_job"),
    ] {
        let params = json!({ "name": tool, "arguments": {} });
        let (status, refused) = answer(client.modern(method::TOOLS_CALL, params)).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (400, &json!(error::MISSING_CAPABILITY))
        );
        let required = &refused["error"]["data"]["requiredCapabilities"];
        assert!(
            required["extensions"][meta::TASKS_EXTENSION].is_object(),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_task_is_told_flat_and_is_there_at_once() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let task = start(&client, "slow_compute", json!({ "seconds": 0.05 })).await;
    assert_eq!(get(&client, &task).await["taskId"], task);
    let ended = until(&client, &task, "completed").await;
    assert!(ended["result"]["content"].is_array(), "{ended}");
}

#[tokio::test]
async fn a_tool_that_fails_in_a_task_completes_it() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let task = start(&client, "failing_job", json!({})).await;
    let ended = until(&client, &task, "completed").await;
    assert_eq!(ended["result"]["isError"], true, "{ended}");
    let task = start(&client, "protocol_error_job", json!({})).await;
    let ended = until(&client, &task, "failed").await;
    assert!(ended["error"]["code"].is_i64(), "{ended}");
}

#[tokio::test]
async fn a_task_waits_for_the_answers_that_are_missing_and_for_no_others() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let task = start(&client, "multi_input", json!({})).await;
    let keys = |told: &Value| -> Vec<String> {
        let asked = told["inputRequests"].as_object().into_iter().flatten();
        asked.map(|(key, _)| key.clone()).collect()
    };
    let mut asked = Vec::new();
    eventually("both are asked", async || {
        asked = keys(&get(&client, &task).await);
        asked.len() == 2
    })
    .await;
    let named = |name: &str| json!({ "action": "accept", "content": { "name": name } });
    let update = async |responses: Value| {
        let params = json!({ "taskId": task, "inputResponses": responses });
        let (status, taken) = ask(&client, method::TASKS_UPDATE, params).await;
        assert_eq!(
            (status, &taken["result"]["resultType"]),
            (200, &json!("complete")),
            "{taken}"
        );
    };
    update(json!({ (asked[0].clone()): named("one"), "nobody-asked": named("x") })).await;
    eventually("one question is left", async || {
        let told = get(&client, &task).await;
        told["status"] == "input_required" && keys(&told) == [asked[1].clone()]
    })
    .await;
    // The answered key is used up; a second answer to it changes nothing.
    update(json!({ (asked[0].clone()): named("other") })).await;
    update(json!({ (asked[1].clone()): named("two") })).await;
    let ended = until(&client, &task, "completed").await;
    let words = ended["result"]["content"][0]["text"].as_str().expect("a text");
    assert!(words == "one and two" || words == "two and one", "{words}");
}

#[tokio::test]
async fn requests_about_tasks_are_refused_without_the_extension_under_another_name_and_in_the_old_way() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let task = start(&client, "slow_compute", json!({ "seconds": 0 })).await;
    for called in method::TASKS {
        let params = json!({ "taskId": task, "inputResponses": {} });
        let (status, refused) = answer(client.modern(called, params.clone())).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (400, &json!(error::MISSING_CAPABILITY)),
            "{called}: {refused}"
        );
        let mut other = declaring(&client, called, params, knows_tasks())
            .build()
            .expect("a request");
        other
            .headers_mut()
            .insert(header::NAME, "another".parse().expect("a value"));
        let response = reqwest::Client::new().execute(other).await.expect("an answer");
        assert_eq!(response.status(), 400, "{called}");
        let refused: Value = response.json().await.expect("JSON");
        assert_eq!(
            refused["error"]["code"],
            error::HEADER_MISMATCH,
            "{called}: {refused}"
        );
        let unknown = json!({ "taskId": "unknown", "inputResponses": {} });
        let (_, refused) = ask(&client, called, unknown).await;
        assert_eq!(
            refused["error"]["code"],
            error::INVALID_PARAMS,
            "{called}: {refused}"
        );
    }
    for called in ["tasks/result", "tasks/list"] {
        let (status, refused) = ask(&client, called, json!({ "taskId": task })).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (404, &json!(error::METHOD_NOT_FOUND)),
            "{called}: {refused}"
        );
    }
}
