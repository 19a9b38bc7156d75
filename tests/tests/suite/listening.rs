//! `subscriptions/listen`: who listens is told of what it asked for, and of nothing else.

use std::{collections::BTreeSet, sync::Arc};

use bus_schema::mcp::{error, meta, method};
use reqwest::StatusCode;
use runtime::Host;
use serde_json::{Value, json};
use tests::{changing::Changing, eventually, http::Client, platform::Platform, stream::Stream, within};

struct Setting {
    platform: Platform,
    server: Arc<Changing>,
    host: Host,
}

async fn setting() -> Setting {
    let platform = Platform::start("", &[]).await;
    let server = Arc::<Changing>::default();
    let host = server.serve(platform.node.bus(), "changing").await;
    platform.knows("changing").await;
    Setting {
        platform,
        server,
        host,
    }
}

impl Setting {
    async fn stop(self) {
        self.host.stop().await;
        self.platform.stop().await;
    }
}

/// Begins to listen under an id, and gives what was granted.
async fn listen(client: &Client, id: Value, wanted: Value) -> (Stream, Value) {
    let mut body = tests::http::modern_body(method::LISTEN, json!({ "notifications": wanted }));
    body["id"] = id.clone();
    let request = client
        .raw(body.to_string())
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method::LISTEN);
    let response = within("an answer", request.send()).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = Stream::of(response);
    let first = stream.message().await;
    assert_eq!(first["method"], method::ACKNOWLEDGED, "{first}");
    assert_eq!(first["params"]["_meta"][meta::SUBSCRIPTION_ID], id);
    (stream, first["params"]["notifications"].clone())
}

#[tokio::test]
async fn the_first_message_acknowledges_what_is_supported_and_each_bears_the_listeners_id() {
    let setting = setting().await;
    let client = setting.platform.client("changing");
    let wanted = json!({ "toolsListChanged": true, "resourceSubscriptions": ["test://a", "test://refused"] });
    for id in [json!(7), json!("seven")] {
        let (mut stream, granted) = listen(&client, id.clone(), wanted.clone()).await;
        assert_eq!(
            granted,
            json!({ "toolsListChanged": true, "resourceSubscriptions": ["test://a"] })
        );
        setting.server.touch("test://a/part");
        let message = stream.message().await;
        assert_eq!(message["method"], method::UPDATED);
        assert_eq!(message["params"]["uri"], "test://a/part");
        assert_eq!(message["params"]["_meta"][meta::SUBSCRIPTION_ID], id);
        setting.server.add_tool();
        let message = stream.message().await;
        assert_eq!(message["method"], method::TOOLS_CHANGED);
        assert_eq!(message["params"]["_meta"][meta::SUBSCRIPTION_ID], id);
    }
    setting.stop().await;
}

#[tokio::test]
async fn a_change_of_tools_never_reaches_who_listens_for_prompts() {
    let setting = setting().await;
    for client in [
        setting.platform.client("changing"),
        setting.platform.client_of_all(),
    ] {
        let (mut prompts, granted) = listen(&client, json!(1), json!({ "promptsListChanged": true })).await;
        assert_eq!(granted, json!({ "promptsListChanged": true }));
        let (mut tools, _) = listen(&client, json!(2), json!({ "toolsListChanged": true })).await;
        setting.server.add_tool();
        assert_eq!(tools.message().await["method"], method::TOOLS_CHANGED);
        setting.server.touch("test://a");
        setting.server.add_prompt();
        // Had any of the others been told here, it would have come before.
        assert_eq!(prompts.message().await["method"], method::PROMPTS_CHANGED);
    }
    setting.stop().await;
}

#[tokio::test]
async fn who_lists_after_the_notice_sees_the_change() {
    let setting = setting().await;
    for client in [
        setting.platform.client("changing"),
        setting.platform.client_of_all(),
    ] {
        let (mut stream, _) = listen(&client, json!(1), json!({ "toolsListChanged": true })).await;
        let count = async || {
            let answer = client
                .modern(method::TOOLS_LIST, json!({}))
                .send()
                .await
                .expect("an answer");
            let answer: Value = answer.json().await.expect("JSON");
            answer["result"]["tools"].as_array().expect("tools").len()
        };
        let before = count().await;
        setting.server.add_tool();
        assert_eq!(stream.message().await["method"], method::TOOLS_CHANGED);
        assert_eq!(count().await, before + 1);
    }
    setting.stop().await;
}

#[tokio::test]
async fn a_resource_is_watched_once_however_many_listen_and_left_with_the_last() {
    let setting = setting().await;
    let client = setting.platform.client("changing");
    let wanted = json!({ "resourceSubscriptions": ["test://a"] });
    let (mut one, _) = listen(&client, json!(1), wanted.clone()).await;
    let (mut two, _) = listen(&client, json!(2), wanted).await;
    setting.server.touch("test://a");
    assert_eq!(one.message().await["params"]["uri"], "test://a");
    assert_eq!(two.message().await["params"]["uri"], "test://a");
    let a = BTreeSet::from(["test://a".to_owned()]);
    let watched = setting.server.watched();
    assert!(watched.iter().all(|uris| *uris == a), "{watched:?}");
    drop(one);
    setting.server.touch("test://a");
    assert_eq!(two.message().await["params"]["uri"], "test://a");
    let watched = setting.server.watched();
    assert!(watched.iter().all(|uris| *uris == a), "{watched:?}");
    drop(two);
    eventually("nothing is watched any more", async || {
        setting.server.watched().last().is_some_and(BTreeSet::is_empty)
    })
    .await;
    setting.stop().await;
}

#[tokio::test]
async fn a_listener_is_told_by_its_result_when_the_door_closes() {
    let setting = setting().await;
    let (mut stream, _) = listen(
        &setting.platform.client("changing"),
        json!("x"),
        json!({ "toolsListChanged": true }),
    )
    .await;
    let stopping = tokio::spawn(setting.stop());
    let last = stream.message().await;
    assert_eq!(
        last,
        json!({ "jsonrpc": "2.0", "id": "x", "result": { "resultType": "complete", "_meta": { (meta::SUBSCRIPTION_ID): "x" } } })
    );
    assert_eq!(stream.event().await, None);
    within("the end", stopping).await.expect("it stops");
}

#[tokio::test]
async fn a_wrong_listen_request_is_refused_with_what_would_be_right() {
    let setting = setting().await;
    let client = setting.platform.client("changing");
    for (params, code, words) in [
        (json!({}), error::INVALID_PARAMS, "toolsListChanged"),
        (
            json!({ "notifications": { "toolsListChanged": 7 } }),
            error::INVALID_PARAMS,
            "notifications",
        ),
        (
            json!({ "notifications": { "taskIds": ["t"] } }),
            error::MISSING_CAPABILITY,
            "tasks extension",
        ),
    ] {
        let response = client
            .modern(method::LISTEN, params)
            .send()
            .await
            .expect("an answer");
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer["error"]["code"], code, "{answer}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .expect("words")
                .contains(words),
            "{answer}"
        );
    }
    setting.stop().await;
}

#[tokio::test]
async fn custom_methods_and_notifications_reach_their_server() {
    let setting = setting().await;
    let one = setting.platform.client("changing");
    let all = setting.platform.client_of_all();
    for (client, called) in [(&one, "com.example/echo"), (&all, "changing__com.example/echo")] {
        let response = client.modern(called, json!({})).send().await.expect("an answer");
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer["result"]["came"], "com.example/echo", "{answer}");
    }
    for (client, called, status) in [
        (&one, "com.example/unknown", StatusCode::NOT_FOUND),
        (&all, "com.example/echo", StatusCode::NOT_FOUND),
        (&one, "ping", StatusCode::NOT_FOUND),
        (&one, "tasks/list", StatusCode::NOT_FOUND),
    ] {
        let response = client.modern(called, json!({})).send().await.expect("an answer");
        assert_eq!(response.status(), status, "{called}");
    }
    let mut body = tests::http::modern_body("com.example/told", json!({}));
    body.as_object_mut().expect("an object").remove("id");
    let request = one
        .raw(body.to_string())
        .header("mcp-protocol-version", "2026-07-28");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(setting.server.notified(), ["com.example/told"]);
    setting.stop().await;
}
