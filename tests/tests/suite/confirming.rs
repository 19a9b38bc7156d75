//! A tool that asks the user first, for clients that can ask in either way and for those that cannot.

use bus_schema::{ProtocolVersion, mcp::method};
use serde_json::{Value, json};
use tests::{
    dialogue::Dialogue,
    http::{Client, text},
    platform::Platform,
    within,
};

async fn is_there(client: &Client, sku: &str) -> bool {
    let answer = client.call("get", json!({ "sku": sku })).await;
    answer["result"]["isError"] == false
}

/// Makes a product to delete, and gives its SKU.
async fn create(client: &Client) -> String {
    let product = json!({
        "name": "Quixotic Lantern", "description": "Glows.", "category": "Lighting", "brand": "Testbrand",
        "price_cents": 1999, "currency": "USD", "stock": 3, "tags": [],
    });
    let answer = client.call("create", product).await;
    let sku = answer["result"]["structuredContent"]["sku"].as_str();
    sku.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Calls `delete` as a modern client that can ask its user, and gives the result.
async fn delete(client: &Client, params: Value) -> Value {
    let mut params = params;
    params["name"] = json!("delete");
    params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} } });
    let answer = within("an answer", client.modern(method::TOOLS_CALL, params).send()).await;
    answer.expect("an answer").json().await.expect("JSON")
}

/// The one question of a result: its key and its words.
fn question(answer: &Value) -> (String, String) {
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    let requests = answer["result"]["inputRequests"].as_object().expect("requests");
    assert_eq!(requests.len(), 1);
    let (key, request) = requests.iter().next().expect("a request");
    assert_eq!(request["method"], method::ELICIT);
    let message = request["params"]["message"].as_str().expect("a message");
    (key.clone(), message.to_owned())
}

#[tokio::test]
async fn the_user_is_asked_in_the_way_of_each_version_and_a_yes_deletes() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    for version in [
        ProtocolVersion::V2025_06_18,
        ProtocolVersion::V2025_11_25,
        ProtocolVersion::V2026_07_28,
    ] {
        let sku = &create(&client).await;
        let dialogue = Dialogue::open(client.clone(), version, json!({ "elicitation": {} })).await;
        // A client that can ask is made to, whatever the model says.
        let exchange = dialogue
            .call("delete", json!({ "sku": sku, "confirm": true }))
            .await;
        assert_eq!(exchange.asked.len(), 1, "{version}: {exchange:?}");
        let (asked, params) = &exchange.asked[0];
        assert_eq!(asked, method::ELICIT);
        assert!(
            params["message"].as_str().expect("a message").contains(sku),
            "{params}"
        );
        assert_eq!(
            exchange.answer["result"]["structuredContent"]["sku"], **sku,
            "{exchange:?}"
        );
        assert!(!is_there(&client, sku).await, "{sku}");
    }
}

#[tokio::test]
async fn a_client_that_cannot_ask_is_told_what_to_pass_instead() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    for (version, capabilities) in [
        (ProtocolVersion::V2024_11_05, json!({})),
        (ProtocolVersion::V2025_11_25, json!({ "sampling": {} })),
        (ProtocolVersion::V2026_07_28, json!({})),
        // It shows addresses to its user, and no forms.
        (
            ProtocolVersion::V2026_07_28,
            json!({ "elicitation": { "url": {} } }),
        ),
    ] {
        let sku = &create(&client).await;
        let dialogue = Dialogue::open(client.clone(), version, capabilities).await;
        let refused = dialogue.call("delete", json!({ "sku": sku })).await;
        assert_eq!(refused.answer["result"]["isError"], true, "{refused:?}");
        assert!(
            refused.asked.is_empty() && refused.text().contains("`confirm`: true"),
            "{refused:?}"
        );
        assert!(is_there(&client, sku).await, "{sku}");
        let done = dialogue
            .call("delete", json!({ "sku": sku, "confirm": true }))
            .await;
        assert_eq!(done.answer["result"]["isError"], false, "{done:?}");
        assert!(!is_there(&client, sku).await, "{sku}");
    }
}

#[tokio::test]
async fn only_a_yes_to_the_very_question_deletes() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    let arguments = json!({ "sku": "OFF-0001" });
    let (key, words) = question(&delete(&client, json!({ "arguments": arguments })).await);
    let mut params = json!({ "arguments": arguments, "inputResponses": { &key: { "action": "decline" } } });
    let declined = delete(&client, params.clone()).await;
    assert!(
        declined["result"]["isError"] == true && text(&declined).contains("did not agree"),
        "{declined}"
    );
    params["inputResponses"][&key] = json!({ "action": "accept", "content": { "yes": false } });
    assert!(text(&delete(&client, params.clone()).await).contains("did not agree"));
    params["inputResponses"][&key] = json!("yes");
    let wrong = delete(&client, params.clone()).await;
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    // What the user agrees to has changed meanwhile: the question is another one.
    let sold = json!({ "sku": "OFF-0001", "delta": 1, "reason": "returned" });
    assert_eq!(
        client.call("adjust_stock", sold).await["result"]["isError"],
        false
    );
    params["inputResponses"][&key] = json!({ "action": "accept", "content": { "yes": true } });
    let (new_key, new_words) = question(&delete(&client, params.clone()).await);
    assert!(key != new_key && words != new_words, "{words} {new_words}");
    // An answer for one product is none for another.
    let mut other = params.clone();
    other["arguments"]["sku"] = json!("OFF-0025");
    other["inputResponses"] = json!({ &new_key: { "action": "accept", "content": { "yes": true } } });
    question(&delete(&client, other).await);
    assert!(is_there(&client, "OFF-0001").await && is_there(&client, "OFF-0025").await);
    params["inputResponses"] = json!({ &new_key: { "action": "accept", "content": { "yes": true } } });
    assert_eq!(delete(&client, params).await["result"]["isError"], false);
    assert!(!is_there(&client, "OFF-0001").await);
}
