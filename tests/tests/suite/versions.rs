//! `server://version`: every server of ours says which versions it speaks, runs and offers.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::{
    fixture::{self, Probe},
    http::Client,
    platform::Platform,
    session::Session,
    within,
};

const URI: &str = runtime::rmcp_host::VERSION_URI;

async fn ask(client: &Client, called: &str, params: Value) -> Value {
    let answer = within("an answer", client.modern(called, params).send()).await;
    answer.expect("an answer").json().await.expect("JSON")
}

/// What stands in the resource, after a look at the result around it.
fn content(answer: &Value) -> Value {
    let content = &answer["result"]["contents"][0];
    assert_eq!(
        (&content["uri"], &content["mimeType"]),
        (&json!(URI), &json!("application/json"))
    );
    serde_json::from_str(content["text"].as_str().expect("text")).expect("JSON")
}

/// The version of a dependency, as the lock file of the workspace has it.
fn locked(package: &str) -> String {
    let lock = std::fs::read_to_string(tests::root().join("Cargo.lock")).expect("a lock file");
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    version.expect("the package is locked").to_owned()
}

#[tokio::test]
async fn a_server_of_ours_says_which_versions_it_speaks_runs_and_offers() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    let listed = ask(&client, "resources/list", json!({})).await;
    let resources = listed["result"]["resources"].as_array().expect("resources");
    let uris: Vec<_> = resources
        .iter()
        .filter_map(|resource| resource["uri"].as_str())
        .collect();
    assert!(uris.len() > 1 && uris.contains(&URI), "{uris:?}");
    let answer = ask(&client, "resources/read", json!({ "uri": URI })).await;
    let result = &answer["result"];
    assert_eq!(
        (&result["resultType"], &result["cacheScope"]),
        (&json!("complete"), &json!("private"))
    );
    assert!(result["ttlMs"].is_u64());
    let about = content(&answer);
    let spoken = [
        "2024-11-05",
        "2025-03-26",
        "2025-06-18",
        "2025-11-25",
        "2026-07-28",
    ];
    assert_eq!(about["protocolVersions"], json!(spoken));
    assert_eq!(about["sdk"], json!({ "name": "rmcp", "version": locked("rmcp") }));
    assert_eq!(about["server"]["name"], "products");
    assert_eq!(about["server"]["version"], env!("CARGO_PKG_VERSION"));
    let tools = about["tools"].as_array().expect("tools");
    let tool = |name: &str| tools.iter().find(|tool| tool["name"] == name).expect(name);
    assert_eq!(
        (&tool("search")["version"], &tool("get")["version"]),
        (&json!("2.0"), &Value::Null)
    );
    let digest = |name: &str| tool(name)["schemaDigest"].as_str().expect("a digest");
    assert!(digest("search").starts_with("sha256:") && digest("search").len() == 7 + 64);
    assert_ne!(digest("search"), digest("find_products"));
    let session = Session::open(&client, "2025-06-18").await;
    let answer = session.ask("resources/read", &json!({ "uri": URI })).await;
    assert_eq!(content(&answer), about);
}

#[tokio::test]
async fn a_server_without_resources_has_this_one() {
    let platform = Platform::start("", &["products"]).await;
    let _host = fixture::serve(platform.node.bus(), Arc::<Probe>::default(), |_| {}).await;
    platform.knows("fixture").await;
    let client = platform.client("fixture");
    let discovered = ask(&client, "server/discover", json!({})).await;
    assert!(
        discovered["result"]["capabilities"]["resources"].is_object(),
        "{discovered}"
    );
    let listed = ask(&client, "resources/list", json!({})).await;
    let resources = listed["result"]["resources"].as_array().expect("resources");
    assert_eq!((resources.len(), &resources[0]["uri"]), (1, &json!(URI)));
    let about = content(&ask(&client, "resources/read", json!({ "uri": URI })).await);
    assert_eq!(about["server"], json!({ "name": "fixture", "version": "1.0.0" }));
    // Where many servers are shown it belongs to each of them, and the answer says so.
    let all = ask(&platform.client_of_all(), "resources/read", json!({ "uri": URI })).await;
    let why = all["error"]["message"].as_str().expect("an error");
    assert!(why.contains("fixture") && why.contains("products"), "{why}");
}
