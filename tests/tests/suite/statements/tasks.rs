//! Tasks of a modern client at a modern server: what is needed to get one, and to ask about it. `legacy_tasks.rs` has the rest.

use bus_schema::{
    header,
    mcp::{error, meta, method},
};
use serde_json::{Value, json};
use tests::http::Client;

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
