//! What becomes of lists of tools on their way to clients: which tools are left out, and what deprecated ones say.

use serde_json::{Value, json};
use tests::{children::server, http::Client, parts, within};

use crate::processes::up::Up;

/// A tool whose schema has one property.
fn annotated(name: &str, property: &str) -> String {
    format!(
        r#"{{"name":"{name}", "inputSchema":{{"type":"object","properties":{{"a":{property}}}}},"x":1.10}}"#
    )
}

/// A server with these tools.
fn listing(tools: &[String]) -> String {
    let program = parts::script("listed.py");
    let tools = format!("[{}]", tools.join(" , "));
    server("listed", &["python3", &program.to_string_lossy(), &tools], "")
}

/// The answer to `tools/list` as it is on the wire.
async fn list(client: &Client) -> String {
    let answer = within("a list", client.modern("tools/list", json!({})).send()).await;
    answer.expect("an answer").text().await.expect("text")
}

#[tokio::test]
async fn a_tool_whose_annotations_no_client_can_follow_is_left_out_and_named() {
    let bad = [
        (
            "twice",
            r#"{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}"#,
        ),
        ("empty", r#"{"type":"string","x-mcp-header":""}"#),
        ("spaced", r#"{"type":"string","x-mcp-header":"a b"}"#),
        ("number", r#"{"type":"number","x-mcp-header":"A"}"#),
        (
            "item",
            r#"{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#,
        ),
        ("referred", r##"{"$ref":"#/$defs/a","x-mcp-header":"A"}"##),
    ];
    let good = [
        annotated("good", r#"{"type":"integer","x-mcp-header":"A"}"#),
        r#"{ "inputSchema":{"type":"object"} , "name":"plain"}"#.to_owned(),
    ];
    let mut tools: Vec<String> = bad
        .iter()
        .map(|(name, property)| annotated(name, property))
        .collect();
    tools.insert(0, good[0].clone());
    tools.push(good[1].clone());
    let mut up = Up::start(&listing(&tools)).await;
    for (name, _) in bad {
        let line = up.program.logged("left a tool out").await;
        assert!(line.contains(name), "{line}");
    }
    let one = list(&up.client("listed")).await;
    assert!(one.contains(&format!("[{}]", good.join(","))), "{one}");
    let all = list(&Client::new(up.text("mcp"))).await;
    for tool in &good {
        let name = tool.split("\"name\":\"").nth(1).expect("a name");
        let renamed = tool.replace(name, &format!("listed__{name}"));
        assert!(all.contains(&renamed), "no {renamed} in {all}");
    }
    assert_eq!(all.matches("listed__").count(), good.len(), "{all}");
    let shown = up.ready["servers"].as_array().expect("servers");
    let shown = shown
        .iter()
        .find(|server| server["id"] == "listed")
        .expect("shown");
    assert_eq!(shown["tools"], good.len());
}

#[tokio::test]
async fn a_deprecated_tool_says_so_works_and_is_counted() {
    let mark = r#"{"since":"1.4","use":"new","removed":"2.0"}"#;
    let marked = format!(
        r#"{{"name":"old","description":"Does it.","inputSchema":{{"type":"object"}},"_meta":{{"io.trunkline/deprecated":{mark}}}}}"#
    );
    let mut up = Up::start(&listing(&[
        marked,
        r#"{"name":"new","inputSchema":{"type":"object"}}"#.to_owned(),
    ]))
    .await;
    let listed: Value = serde_json::from_str(&list(&up.client("listed")).await).expect("JSON");
    let said = &listed["result"]["tools"][0]["description"];
    assert_eq!(
        said,
        "Deprecated since 1.4: use `new` instead. It is to be removed by 2.0. Does it."
    );
    for tool in ["old", "new", "old"] {
        let answer = up.client("listed").call(tool, json!({})).await;
        assert_eq!(tests::http::text(&answer), tool);
    }
    let line = up.program.logged("a deprecated tool is still called").await;
    assert!(line.contains("old"), "{line}");
    let metrics = reqwest::get(format!("{}/metrics", up.text("http")))
        .await
        .expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let counted: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("trunkline_tools_deprecated_calls"))
        .collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    for word in ["gen_ai_tool_name=\"old\"", "server_id=\"listed\"", "} 2"] {
        assert!(counted[0].contains(word), "{counted:?}");
    }
}

#[tokio::test]
async fn the_products_server_keeps_an_older_form_of_its_search_for_a_while() {
    let up = Up::start("").await;
    let listed: Value = serde_json::from_str(&list(&up.client("products")).await).expect("JSON");
    let tools = listed["result"]["tools"].as_array().expect("tools");
    let old = tools
        .iter()
        .find(|tool| tool["name"] == "find_products")
        .expect("the older form");
    let said = old["description"].as_str().expect("a description");
    assert!(
        said.starts_with("Deprecated since 0.1.0: use `search` instead."),
        "{said}"
    );
    let old = up
        .client("products")
        .call("find_products", json!({ "text": "desk lamp" }))
        .await;
    let new = up
        .client("products")
        .call("search", json!({ "query": "desk lamp" }))
        .await;
    let of = |answer: &Value| answer["result"]["structuredContent"]["items"].clone();
    assert!(of(&old)[0]["sku"].is_string(), "{old}");
    assert_eq!(of(&old), of(&new));
}
