//! The same answers over a channel as over HTTP, where there are no headers and no statuses.

use bus_schema::mcp::{error, meta, method};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{http::modern_body, within};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::with_fixture;

#[tokio::test]
async fn what_is_wrong_with_a_request_has_the_same_code_over_a_channel() {
    let (platform, _host) = with_fixture().await;
    let url = platform.url("/servers/fixture/ws").replacen("http", "ws", 1);
    let (mut socket, _) = within("the connection", connect_async(url))
        .await
        .expect("connects");
    let mut ask = async |body: Value| -> Value {
        let sent = socket.send(Message::text(body.to_string())).await;
        sent.expect("the channel is open");
        let frame = within("an answer", socket.next()).await.expect("open");
        let frame = frame.expect("a frame");
        serde_json::from_str(frame.to_text().expect("text")).expect("JSON")
    };
    let without = |key: &str| {
        let mut body = modern_body(method::TOOLS_LIST, json!({}));
        let keys = body["params"]["_meta"].as_object_mut().expect("metadata");
        assert!(keys.remove(key).is_some());
        body
    };
    let mut unknown_version = modern_body(method::TOOLS_LIST, json!({}));
    unknown_version["params"]["_meta"][meta::PROTOCOL_VERSION] = "v999".into();
    let called = |name: &str| modern_body(method::TOOLS_CALL, json!({ "name": name, "arguments": {} }));
    let refused = [
        (without(meta::PROTOCOL_VERSION), error::INVALID_PARAMS),
        (without(meta::CLIENT_CAPABILITIES), error::INVALID_PARAMS),
        (unknown_version, error::UNSUPPORTED_VERSION),
        (modern_body("nonsense", json!({})), error::METHOD_NOT_FOUND),
        (modern_body(method::PING, json!({})), error::METHOD_NOT_FOUND),
        (
            modern_body(method::SET_LEVEL, json!({ "level": "info" })),
            error::METHOD_NOT_FOUND,
        ),
        (
            modern_body(method::INITIALIZE, json!({})),
            error::METHOD_NOT_FOUND,
        ),
        (called("test_missing_capability"), error::MISSING_CAPABILITY),
        (called("nobody"), error::INVALID_PARAMS),
        (
            modern_body(method::RESOURCES_READ, json!({ "uri": "test://missing" })),
            error::INVALID_PARAMS,
        ),
    ];
    for (n, (mut body, code)) in refused.into_iter().enumerate() {
        body["id"] = format!("request {n}").into();
        let answer = ask(body.clone()).await;
        assert_eq!(
            (&answer["error"]["code"], &answer["id"]),
            (&json!(code), &body["id"]),
            "{body}: {answer}"
        );
    }
    // Whoever made them is served on, with or without a name.
    let answer = ask(without(meta::CLIENT_INFO)).await;
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    let batch = ask(json!([modern_body(method::TOOLS_LIST, json!({}))])).await;
    assert_eq!(batch["error"]["code"], error::INVALID_REQUEST, "{batch}");
}
