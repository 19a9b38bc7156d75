//! Tools are found by words and labels, and called by whoever knows only their names: in a program, from the command line, and
//! through the endpoint that shows two tools instead of all.

mod savings;

use std::sync::Arc;

use bridges::front::Endpoint;
use bus_schema::{Principal, ProtocolVersion, ServerId, mcp::method};
use runtime::{
    Discovery,
    discovery::{DiscoveryError, FindError},
};
use serde_json::{Map, Value, json};
use tests::{
    dialogue::Dialogue,
    fixture::{self, Probe},
    http::{Client, text},
    platform::Platform,
    session::{Session, messages},
};

use crate::processes::up::Up;

async fn platform(file: &str, probe: &Arc<Probe>) -> (Platform, runtime::Host) {
    let platform = Platform::start(file, &["products", "registry"]).await;
    let host = fixture::serve(platform.node.bus(), Arc::clone(probe), |options| {
        options.tags = vec!["small".to_owned()];
    })
    .await;
    platform.knows("fixture").await;
    (platform, host)
}

fn search(platform: &Platform) -> Client {
    Client::new(platform.url("/mcp/search"))
}

fn names(list: &Value) -> Vec<&str> {
    let tools = list["tools"].as_array().unwrap_or_else(|| panic!("{list}"));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name"))
        .collect()
}

fn arguments(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

#[tokio::test]
async fn a_program_finds_tools_by_labels_and_calls_them_by_name() {
    let (platform, _host) = platform("", &Arc::default()).await;
    let all = Discovery::connect(platform.node.bus(), "default")
        .await
        .expect("connects");
    let small = all.with_tags(["small"]);
    let tools = small.tools().await;
    assert!(tools.missing.is_empty());
    assert!(
        tools.tools.iter().all(|tool| tool.server.as_str() == "fixture"),
        "{tools:?}"
    );
    assert!(all.tools().await.tools.len() > tools.tools.len());
    assert!(small.with_tags(["catalogue"]).servers().is_empty());
    // One name, in each of its spellings, leads to its owner.
    for name in ["get", "products__get", "products.get"] {
        let found = all.find(name).await.expect(name);
        assert_eq!(
            (found.server.as_str(), found.name()),
            ("products", "get"),
            "{name}"
        );
    }
    let result = all
        .call(
            "echo",
            arguments(&json!({ "text": "hi" })),
            Principal::developer(),
        )
        .await
        .expect("a result");
    let result: Value = serde_json::from_str(result.get()).expect("JSON");
    assert_eq!(result["content"][0]["text"], "hi");
    let best = all.search("categories of the catalogue", 1).await;
    assert_eq!(best.tools[0].prefixed(), "products__list_categories");
    assert!(
        small
            .search("categories of the catalogue", 1)
            .await
            .tools
            .is_empty()
    );
    // What its server refuses is the server's own error.
    let refused = all.call("panic", Map::new(), Principal::developer()).await;
    assert!(
        matches!(refused, Err(DiscoveryError::Refused { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_name_that_several_have_lists_them_and_one_that_nobody_has_the_nearest() {
    let (platform, _host) = platform("", &Arc::default()).await;
    let _twin = fixture::serve(platform.node.bus(), Arc::default(), |options| {
        options.id = "twin".parse().expect("an id");
    })
    .await;
    platform.knows("twin").await;
    let all = Discovery::connect(platform.node.bus(), "default")
        .await
        .expect("connects");
    let owners = ["fixture", "twin"].map(|id| id.parse::<ServerId>().expect("an id"));
    let error = all.find("echo").await.expect_err("two have it");
    assert_eq!(
        error,
        FindError::Ambiguous {
            name: "echo".to_owned(),
            owners: owners.to_vec()
        }
    );
    assert!(
        error.to_string().contains("`fixture__echo`, `twin__echo`"),
        "{error}"
    );
    assert_eq!(all.find("twin__echo").await.expect("one").server, owners[1]);
    let FindError::Unknown { nearest, .. } = all.find("serch").await.expect_err("nobody has it") else {
        panic!("it is not ambiguous");
    };
    assert_eq!(nearest[0], "products__search");
    // The same through the door is for the model to read.
    for (name, words) in [
        ("echo", ["several servers", "fixture__echo", "twin__echo"]),
        ("serch", ["no tool `serch`", "products__search", "search_tools"]),
        ("", ["no tool ``", "", ""]),
    ] {
        let answer = search(&platform).call("call_tool", json!({ "name": name })).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        for word in words {
            assert!(text(&answer).contains(word), "`{word}` is not in {answer}");
        }
    }
}

#[tokio::test]
async fn the_search_endpoint_shows_two_tools_and_its_finds_are_called_as_they_are() {
    let (platform, _host) = platform("", &Arc::default()).await;
    let client = search(&platform);
    let list = client.list_tools().await;
    assert_eq!(names(&list["result"]), ["search_tools", "call_tool"]);
    let found = client
        .call(
            "search_tools",
            json!({ "query": "search the catalogue", "limit": 2 }),
        )
        .await;
    let result = &found["result"]["structuredContent"];
    assert_eq!(names(result).len(), 2, "{found}");
    assert!(names(result).contains(&"products__search"), "{found}");
    // A tool is told as its server wrote it, and clients that know only text read the same.
    let own = platform.client("products").list_tools().await;
    for tool in result["tools"].as_array().expect("tools") {
        let own = own["result"]["tools"]
            .as_array()
            .expect("tools")
            .iter()
            .find(|own| tool["name"] == format!("products__{}", own["name"].as_str().expect("a name")));
        let own = own.unwrap_or_else(|| panic!("{tool}"));
        assert_eq!(tool["server"], "products");
        for key in ["description", "inputSchema", "annotations"] {
            assert_eq!(tool[key], own[key], "{key}");
        }
    }
    let read: Value = serde_json::from_str(text(&found)).expect("JSON");
    assert_eq!(read, *result);
    // Narrowed to one server, or to labels.
    for narrow in [json!({ "server": "fixture" }), json!({ "tags": ["small"] })] {
        let mut asked = arguments(&narrow);
        asked.insert("query".to_owned(), json!("search text"));
        let found = client.call("search_tools", Value::Object(asked)).await;
        let names = names(&found["result"]["structuredContent"]);
        assert!(
            !names.is_empty() && names.iter().all(|name| name.starts_with("fixture__")),
            "{found}"
        );
    }
    // The call is the tool's own.
    let wanted = json!({ "query": "desk", "limit": 2 });
    let direct = platform.client("products").call("search", wanted.clone()).await;
    for name in ["products__search", "products.search", "search"] {
        let called = client
            .call("call_tool", json!({ "name": name, "arguments": wanted }))
            .await;
        assert_eq!(
            called["result"]["structuredContent"], direct["result"]["structuredContent"],
            "{called}"
        );
    }
    let by_name = client.call("products__search", wanted).await;
    assert_eq!(
        by_name["result"]["structuredContent"],
        direct["result"]["structuredContent"]
    );
    // Prompts and resources are those of all servers.
    let prompts = client.modern(method::PROMPTS_LIST, json!({})).send().await;
    let prompts: Value = prompts.expect("an answer").json().await.expect("JSON");
    let first = prompts["result"]["prompts"][0]["name"]
        .as_str()
        .expect("a prompt");
    assert!(first.starts_with("products__"), "{prompts}");
}

#[tokio::test]
async fn what_is_wrong_with_a_search_or_a_call_is_said_to_the_model() {
    let (platform, _host) = platform("", &Arc::default()).await;
    for (tool, wrong, words) in [
        (
            "search_tools",
            json!({}),
            ["search_tools", "missing field `query`"],
        ),
        (
            "search_tools",
            json!({ "query": "x", "limit": 0 }),
            ["`limit`", "1 to 50"],
        ),
        (
            "search_tools",
            json!({ "query": "x", "server": "nobody" }),
            ["no server", "nobody"],
        ),
        (
            "search_tools",
            json!({ "query": "x", "tag": "y" }),
            ["unknown field `tag`", "tags"],
        ),
        ("call_tool", json!({}), ["call_tool", "missing field `name`"]),
        (
            "call_tool",
            json!({ "name": "fixture__echo", "arguments": [1] }),
            ["`arguments`", "object"],
        ),
        (
            "call_tool",
            json!({ "name": "fixture__echo", "text": "x" }),
            ["unknown field `text`", "arguments"],
        ),
    ] {
        let answer = search(&platform).call(tool, wrong.clone()).await;
        assert_eq!(answer["result"]["isError"], true, "{wrong}: {answer}");
        for word in words {
            assert!(text(&answer).contains(word), "`{word}` is not in {answer}");
        }
    }
    let nothing = search(&platform)
        .call("search_tools", json!({ "query": "zebra crossing" }))
        .await;
    assert_eq!(
        nothing["result"]["structuredContent"],
        json!({ "tools": [] }),
        "{nothing}"
    );
}

#[tokio::test]
async fn numbers_progress_and_the_end_of_a_call_pass_through_call_tool() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = platform("", &probe).await;
    let client = search(&platform);
    let call = |tool: &str, arguments: Value| {
        client.modern(
            method::TOOLS_CALL,
            json!({
                "name": "call_tool", "arguments": { "arguments": arguments, "name": tool },
                "_meta": { "progressToken": "p" },
            }),
        )
    };
    let parts = messages(call("fixture__progress", json!({ "n": 3 }))).await;
    let told: Vec<_> = parts
        .iter()
        .filter(|part| part["method"] == method::PROGRESS)
        .map(|part| {
            (
                part["params"]["progressToken"].clone(),
                part["params"]["progress"].as_f64(),
            )
        })
        .collect();
    assert_eq!(told, [1.0, 2.0, 3.0].map(|n| (json!("p"), Some(n))), "{parts:?}");
    assert_eq!(text(parts.last().expect("an answer")), "done");
    // A client that goes ends the call at its server.
    let held = tokio::spawn(call("fixture__hold", json!({})).send());
    probe.held.begun.next("the call").await;
    held.abort();
    probe.held.dropped.next("the drop of the handler").await;
}

#[tokio::test]
async fn a_tool_behind_call_tool_asks_the_user_in_the_way_of_each_version() {
    let (platform, _host) = platform("", &Arc::default()).await;
    for (at, version) in [ProtocolVersion::V2025_06_18, ProtocolVersion::V2026_07_28]
        .into_iter()
        .enumerate()
    {
        let dialogue = Dialogue::open(search(&platform), version, json!({ "elicitation": {} })).await;
        let sku = format!("OFF-000{}", at + 1);
        let wanted = json!({ "name": "products__delete", "arguments": { "sku": sku } });
        let exchange = dialogue.call("call_tool", wanted).await;
        assert_eq!(exchange.asked.len(), 1, "{version}: {exchange:?}");
        assert_eq!(exchange.asked[0].0, method::ELICIT);
        assert_eq!(
            exchange.answer["result"]["structuredContent"]["sku"], *sku,
            "{exchange:?}"
        );
    }
}

#[tokio::test]
async fn the_mode_of_the_shared_endpoint_is_configured_and_both_are_always_there() {
    let (mut platform, _host) = platform("[endpoint]\nmode = \"search\"\n", &Arc::default()).await;
    let shared = platform.client_of_all().list_tools().await;
    assert_eq!(names(&shared["result"]), ["search_tools", "call_tool"]);
    let all = Client::new(platform.url("/mcp/all")).list_tools().await;
    assert!(names(&all["result"]).contains(&"fixture__echo"), "{all}");
    // Legacy sessions belong to the endpoint that they were opened on.
    for version in ["2024-11-05", "2025-11-25"] {
        let session = Session::open(&platform.client_of_all(), version).await;
        let opened = &session.opened["result"];
        assert_eq!(opened["capabilities"]["tools"], json!({}), "{opened}");
        assert!(
            opened["instructions"]
                .as_str()
                .expect("text")
                .contains("search_tools"),
            "{opened}"
        );
        let list = session.ask(method::TOOLS_LIST, &json!({})).await;
        assert_eq!(names(&list["result"]), ["search_tools", "call_tool"]);
        let call =
            json!({ "name": "call_tool", "arguments": { "name": "echo", "arguments": { "text": "hi" } } });
        assert_eq!(
            text(&session.ask(method::TOOLS_CALL, &call).await),
            "hi",
            "{version}"
        );
    }
    let front = platform.node.front(&platform.config).await.expect("a front");
    assert_eq!(front.capabilities(&Endpoint::Search)["tools"], json!({}));
    assert_eq!(platform.config.endpoint, Endpoint::Search);
}

#[tokio::test]
async fn the_command_line_shows_the_tools_that_fit() {
    let up = Up::start("").await;
    let data = up.folder_of_data();
    let run = async |words: &[&str]| {
        let mut all = vec!["tools", "--data-dir", data.as_str(), "--nats", up.text("nats")];
        all.extend(words);
        tests::program::run(&all).await
    };
    let (code, out, err) = run(&["--search", "which categories are there", "--limit", "1", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(
        (&found[0]["server"], &found[0]["name"]),
        (&json!("products"), &json!("list_categories"))
    );
    let (_, out, _) = run(&["--tag", "catalogue", "--search", "stock"]).await;
    let first = out.lines().nth(1).expect("a row");
    assert!(first.starts_with("products.adjust_stock"), "{out}");
    let (_, out, _) = run(&["--search", "zebra"]).await;
    assert_eq!(out, "no tool fits `zebra`\n");
    let (code, _, err) = run(&["--tag", "nothing-has-it"]).await;
    assert!(code == 1 && err.contains("nothing-has-it"), "{err}");
}
