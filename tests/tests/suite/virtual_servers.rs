//! Virtual servers: endpoints of chosen tools, prompts and resources of several servers, defined in the configuration, over REST and from the
//! command line.

use std::sync::Arc;

use bus_schema::{ProtocolVersion, mcp::method};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{
    changing::Changing,
    dialogue::Dialogue,
    eventually,
    fixture::{self, Probe},
    http::{Client, modern_body, text},
    platform::Platform,
    session::{Session, messages},
    stream::Stream,
    within,
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::processes::up::Up;

const DESK: &str = r#"
[[virtual]]
id = "desk"
title = "The desk"
description = "Finds products and echoes."
items = [
    { server = "products", tools = ["search", "get*", "delete"], prompts = ["*"], resources = ["product://*"], rename = { search = "find" } },
    { server = "fixture", tools = ["echo", "progress", "hold"], prefix = "fx-" },
]
"#;

async fn platform(file: &str, probe: &Arc<Probe>) -> (Platform, runtime::Host) {
    let platform = Platform::start(file, &["products", "registry"]).await;
    let host = fixture::serve(platform.node.bus(), Arc::clone(probe), |options| {
        options.tags = vec!["small".to_owned()];
    })
    .await;
    platform.knows("fixture").await;
    (platform, host)
}

async fn list(client: &Client, called: &str) -> Value {
    let answer = within("a list", client.modern(called, json!({})).send()).await;
    let answer: Value = answer.expect("an answer").json().await.expect("JSON");
    answer["result"].clone()
}

fn names(list: &Value) -> Vec<&str> {
    let entries = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    entries
        .iter()
        .map(|entry| entry["name"].as_str().expect("a name"))
        .collect()
}

async fn rest(
    base: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
    if_match: Option<&str>,
) -> (StatusCode, String, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{base}{path}"));
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(body.to_string());
    }
    if let Some(etag) = if_match {
        request = request.header("if-match", etag);
    }
    let answer = within("an answer", request.send()).await.expect("an answer");
    let (status, etag) = (answer.status(), answer.headers().get("etag").cloned());
    let etag = etag.map(|etag| etag.to_str().expect("text").to_owned());
    let body = answer.bytes().await.expect("a body");
    (
        status,
        etag.unwrap_or_default(),
        serde_json::from_slice(&body).unwrap_or_default(),
    )
}

#[tokio::test]
async fn a_virtual_server_shows_what_was_chosen_and_its_calls_go_to_their_owners() {
    let (platform, _host) = platform(DESK, &Arc::default()).await;
    let desk = platform.client("desk");
    let described = list(&desk, method::DISCOVER).await;
    assert_eq!(described["instructions"], "Finds products and echoes.");
    let info = &described["_meta"]["io.modelcontextprotocol/serverInfo"];
    assert_eq!(
        (&info["name"], &info["title"]),
        (&json!("desk"), &json!("The desk"))
    );
    let tools = list(&desk, method::TOOLS_LIST).await;
    let shown = ["find", "get", "delete", "fx-echo", "fx-hold", "fx-progress"];
    let mut seen = names(&tools["tools"]);
    // The order is that of the definition, and then that of each server.
    assert!(
        seen.len() == 6 && seen[3..].iter().all(|name| name.starts_with("fx-")),
        "{seen:?}"
    );
    seen.sort_unstable();
    let mut wanted = shown.to_vec();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    // But for its name, a tool is as its server wrote it.
    let own = list(&platform.client("products"), method::TOOLS_LIST).await;
    let of = |list: &Value, name: &str| {
        let tools = list["tools"].as_array().expect("tools");
        let tool = tools.iter().find(|tool| tool["name"] == name);
        let mut tool = tool.unwrap_or_else(|| panic!("no {name}")).clone();
        tool["name"] = json!("any");
        tool
    };
    assert_eq!(of(&tools, "find"), of(&own, "search"));
    // Both eras call under the new names, and not under the old ones.
    let wish = json!({ "query": "desk", "limit": 1 });
    let direct = platform.client("products").call("search", wish.clone()).await;
    for version in [
        ProtocolVersion::V2024_11_05,
        ProtocolVersion::V2025_11_25,
        ProtocolVersion::V2026_07_28,
    ] {
        let dialogue = Dialogue::open(desk.clone(), version, json!({})).await;
        let found = dialogue.call("find", wish.clone()).await;
        assert_eq!(found.text(), text(&direct), "{version}");
        let echoed = dialogue.call("fx-echo", json!({ "text": "hi" })).await;
        assert_eq!(echoed.text(), "hi", "{version}");
        for unknown in ["search", "echo", "create", "products__search"] {
            let refused = dialogue.call(unknown, json!({})).await;
            assert_eq!(refused.answer["error"]["code"], -32602, "{unknown}: {refused:?}");
        }
    }
    // What one server alone has is not here.
    let task = desk.modern("tasks/get", json!({ "taskId": "t" })).send().await;
    let task: Value = task.expect("an answer").json().await.expect("JSON");
    assert_eq!(task["error"]["code"], -32601, "{task}");
}

#[tokio::test]
async fn prompts_resources_and_completions_go_to_their_owners() {
    let (platform, _host) = platform(DESK, &Arc::default()).await;
    let (desk, products) = (platform.client("desk"), platform.client("products"));
    for (called, key) in [
        (method::PROMPTS_LIST, "prompts"),
        (method::TEMPLATES_LIST, "resourceTemplates"),
    ] {
        assert_eq!(
            list(&desk, called).await[key],
            list(&products, called).await[key],
            "{called}"
        );
    }
    let prompt = list(&products, method::PROMPTS_LIST).await["prompts"][0].clone();
    let name = prompt["name"].clone();
    let argument = prompt["arguments"][0]["name"].clone();
    for (called, params) in [
        (method::RESOURCES_READ, json!({ "uri": "product://OFF-0001" })),
        (
            method::PROMPTS_GET,
            json!({ "name": name, "arguments": { argument.as_str().expect("a name"): "OFF-0001" } }),
        ),
        (
            method::COMPLETE,
            json!({ "ref": { "type": "ref/prompt", "name": name }, "argument": { "name": argument, "value": "" } }),
        ),
    ] {
        let ask = async |client: &Client| -> Value {
            let answer = within("an answer", client.modern(called, params.clone()).send()).await;
            answer.expect("an answer").json().await.expect("JSON")
        };
        assert_eq!(ask(&desk).await, ask(&products).await, "{called}");
    }
    let foreign = desk
        .modern(method::RESOURCES_READ, json!({ "uri": "other://x" }))
        .send();
    let foreign: Value = foreign.await.expect("an answer").json().await.expect("JSON");
    assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
}

#[tokio::test]
async fn progress_questions_and_the_end_of_a_call_pass_through() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = platform(DESK, &probe).await;
    let desk = platform.client("desk");
    let params = json!({ "name": "fx-progress", "arguments": { "n": 2 }, "_meta": { "progressToken": "p" } });
    let parts = messages(desk.modern(method::TOOLS_CALL, params)).await;
    assert_eq!(parts.len(), 3, "{parts:?}");
    assert_eq!(parts[0]["params"]["progressToken"], "p");
    for (at, version) in [ProtocolVersion::V2025_06_18, ProtocolVersion::V2026_07_28]
        .into_iter()
        .enumerate()
    {
        let dialogue = Dialogue::open(desk.clone(), version, json!({ "elicitation": {} })).await;
        let sku = format!("OFF-000{}", at + 1);
        let exchange = dialogue.call("delete", json!({ "sku": sku })).await;
        assert_eq!(exchange.asked.len(), 1, "{version}: {exchange:?}");
        assert_eq!(
            exchange.answer["result"]["structuredContent"]["sku"], *sku,
            "{exchange:?}"
        );
    }
    let hold = desk.modern(method::TOOLS_CALL, json!({ "name": "fx-hold", "arguments": {} }));
    let held = tokio::spawn(hold.send());
    probe.held.begun.next("the call").await;
    held.abort();
    probe.held.dropped.next("the drop of the handler").await;
}

#[tokio::test]
async fn changes_of_members_reach_who_listens_in_either_era() {
    let file = r#"
[[virtual]]
id = "view"
items = [{ server = "changing", tools = ["*"], prompts = ["*"], resources = ["test://a"], prefix = "c-" }]
"#;
    let platform = Platform::start(file, &["registry"]).await;
    let server = Arc::<Changing>::default();
    let _host = server.serve(platform.node.bus(), "changing").await;
    platform.knows("changing").await;
    let view = platform.client("view");
    for version in [ProtocolVersion::V2025_11_25, ProtocolVersion::V2026_07_28] {
        let dialogue = Dialogue::open(view.clone(), version, json!({})).await;
        let mut stream = dialogue.listen("test://a").await;
        // A subscription of a session begins at its server shortly after it was answered.
        eventually("the server is asked", async || {
            server.watched().iter().any(|uris| uris.contains("test://a"))
        })
        .await;
        server.touch("test://a");
        let told = within("the update", stream.message()).await;
        assert_eq!(
            (&told["method"], &told["params"]["uri"]),
            (&json!(method::UPDATED), &json!("test://a")),
            "{version}"
        );
        server.add_tool();
        let told = within("the notice", stream.message()).await;
        assert_eq!(told["method"], method::TOOLS_CHANGED, "{version}");
        let tools = dialogue.ask(method::TOOLS_LIST, json!({})).await;
        let shown = names(&tools.answer["result"]["tools"]).len();
        assert!(shown > 0 && names(&tools.answer["result"]["tools"])[0].starts_with("c-"));
    }
    // What is not chosen is not told of.
    let wanted = json!({ "notifications": { "resourceSubscriptions": ["test://b"] } });
    let answer = within("a stream", view.modern(method::LISTEN, wanted).send()).await;
    let first = Stream::of(answer.expect("an answer")).message().await;
    assert_eq!(first["params"]["notifications"], json!({}), "{first}");
}

#[tokio::test]
async fn a_websocket_reaches_a_virtual_server() {
    let (platform, _host) = platform(DESK, &Arc::default()).await;
    let url = platform.url("/servers/desk/ws").replacen("http", "ws", 1);
    let (mut socket, _) = within("the connection", connect_async(url))
        .await
        .expect("connects");
    let call = modern_body(
        method::TOOLS_CALL,
        json!({ "name": "fx-echo", "arguments": { "text": "hi" } }),
    );
    socket.send(Message::text(call.to_string())).await.expect("sent");
    let answer = within("an answer", socket.next())
        .await
        .expect("open")
        .expect("a frame");
    let answer: Value = serde_json::from_str(answer.to_text().expect("text")).expect("JSON");
    assert_eq!(text(&answer), "hi");
}

#[tokio::test]
async fn it_is_defined_changed_and_removed_over_rest_while_clients_listen() {
    let (platform, _host) = platform("", &Arc::default()).await;
    let base = platform.url("");
    let ask = async |method: Method, path: &str, body: Option<&Value>, etag: Option<&str>| {
        rest(&base, method, path, body, etag).await
    };
    let wish = |tools: Value| json!({ "id": "both", "items": [{ "tags": ["small"], "tools": tools }] });
    let (status, etag, told) = ask(
        Method::POST,
        "/virtual-servers",
        Some(&wish(json!(["echo"]))),
        None,
    )
    .await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    assert_eq!(told["endpoint"], "/servers/both/mcp");
    let both = platform.client("both");
    eventually("the door serves it", async || {
        both.list_tools().await["result"]["tools"]
            .as_array()
            .is_some_and(|tools| tools.len() == 1)
    })
    .await;
    // The same again changes nothing, another one needs PUT.
    let (status, again, _) = ask(
        Method::POST,
        "/virtual-servers",
        Some(&wish(json!(["echo"]))),
        None,
    )
    .await;
    assert_eq!((status, &again), (StatusCode::OK, &etag));
    let (status, _, refused) = ask(
        Method::POST,
        "/virtual-servers",
        Some(&wish(json!(["big"]))),
        None,
    )
    .await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("exists"))
    );
    // A client that listens hears of a change.
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let answer = within("a stream", both.modern(method::LISTEN, filter).send()).await;
    let mut stream = Stream::of(answer.expect("an answer"));
    let first = within("the acknowledgement", stream.message()).await;
    assert_eq!(first["method"], method::ACKNOWLEDGED, "{first:?}");
    let path = "/virtual-servers/both";
    let late = Some("\"999999\"");
    let (status, _, _) = ask(Method::PUT, path, Some(&wish(json!(["echo", "big"]))), late).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let (status, next, told) = ask(
        Method::PUT,
        path,
        Some(&wish(json!(["echo", "big"]))),
        Some(&etag),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_ne!(next, etag);
    let notice = within("the notice", stream.message()).await;
    assert_eq!(notice["method"], method::TOOLS_CHANGED, "{notice:?}");
    assert_eq!(names(&list(&both, method::TOOLS_LIST).await["tools"]).len(), 2);
    // It is one of the servers, and says what it is made of.
    let (_, _, servers) = ask(Method::GET, "/servers", None, None).await;
    let shown = servers["servers"].as_array().expect("servers").iter();
    let shown: Vec<_> = shown.filter(|server| server["id"] == "both").collect();
    assert_eq!(
        (&shown[0]["source"], &shown[0]["status"]),
        (&json!("virtual"), &json!("healthy"))
    );
    let (_, shown, definition) = ask(Method::GET, path, None, None).await;
    assert_eq!(shown, next);
    let tools = definition["tools"].as_array().expect("tools");
    assert!(
        tools.contains(&json!({ "name": "echo", "server": "fixture", "own": "echo" })),
        "{definition}"
    );
    let (status, _, _) = ask(Method::DELETE, path, None, Some(&next)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    eventually("it is gone", async || {
        both.modern(method::TOOLS_LIST, json!({}))
            .send()
            .await
            .expect("an answer")
            .status()
            != StatusCode::OK
    })
    .await;
    let (status, _, _) = ask(Method::DELETE, path, None, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_its_place() {
    let (platform, _host) = platform(DESK, &Arc::default()).await;
    let base = platform.url("");
    let every = json!({ "server": "fixture", "tools": ["*"] });
    for (body, status, words) in [
        (json!({ "id": "v", "items": [] }), 422, ["items", "1 to 100"]),
        (json!({ "id": "V", "items": [every] }), 422, ["`V`", "lower-case"]),
        (json!({ "id": "v", "item": [every] }), 422, ["item", "items"]),
        (
            json!({ "id": "products", "items": [every] }),
            409,
            ["`products`", "on the bus"],
        ),
        (
            json!({ "id": "desk", "items": [every] }),
            409,
            ["`desk`", "configuration"],
        ),
        (
            json!({ "id": "v", "items": [every, { "server": "products", "tools": ["search"], "rename": { "search": "echo" } }] }),
            422,
            ["`echo`", "`products`"],
        ),
        (json!([]), 422, ["definition", ""]),
    ] {
        let (is, _, refused) = rest(&base, Method::POST, "/virtual-servers", Some(&body), None).await;
        assert_eq!(is.as_u16(), status, "{body}: {refused}");
        for word in words {
            let message = refused["error"]["message"].as_str().expect("a message");
            assert!(message.contains(word), "`{word}` is not in {refused}");
        }
    }
    for (method, path, code) in [
        (Method::DELETE, "/servers/desk", "is_virtual"),
        (Method::POST, "/servers", "exists"),
    ] {
        let wish = json!({ "id": "desk", "url": "https://example.com/mcp" });
        let (status, _, refused) = rest(&base, method, path, Some(&wish), None).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (StatusCode::CONFLICT, &json!(code)),
            "{refused}"
        );
    }
    let (status, _, refused) = rest(&base, Method::DELETE, "/virtual-servers/desk", None, None).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("configured"))
    );
}

#[tokio::test]
async fn members_that_are_away_or_hidden_are_named_and_the_list_follows_those_that_come() {
    let file = r#"
[[virtual]]
id = "all"
items = [{ server = "fixture", tools = ["echo"] }, { server = "late", tools = ["echo", "count"] }]
"#;
    let (platform, _host) = platform(file, &Arc::default()).await;
    let all = platform.client("all");
    let tools = list(&all, method::TOOLS_LIST).await;
    assert_eq!(names(&tools["tools"]), ["echo"]);
    assert_eq!(tools["_meta"]["io.trunkline/missing"], json!(["late"]), "{tools}");
    let base = platform.url("");
    let (_, _, shown) = rest(&base, Method::GET, "/servers/all", None, None).await;
    assert_eq!(shown["status"], "degraded", "{shown}");
    assert!(
        shown["reason"].as_str().expect("a reason").contains("late"),
        "{shown}"
    );
    let session = Session::open(&all, "2025-06-18").await;
    let _late = fixture::serve(platform.node.bus(), Arc::default(), |options| {
        options.id = "late".parse().expect("an id");
    })
    .await;
    platform.knows("late").await;
    let tools = list(&all, method::TOOLS_LIST).await;
    assert_eq!(names(&tools["tools"]), ["echo", "count"]);
    let left_out = json!([{ "name": "echo", "server": "late" }]);
    assert_eq!(
        tools["_meta"],
        json!({ "io.trunkline/leftOut": left_out }),
        "{tools}"
    );
    // A session that was opened before goes on with what is there now.
    let counted = session
        .ask(method::TOOLS_CALL, &json!({ "name": "count", "arguments": {} }))
        .await;
    assert_eq!(text(&counted), "1", "{counted}");
}

#[tokio::test]
async fn it_is_defined_from_the_command_line_and_served_by_a_running_platform() {
    let up = Up::start("").await;
    let data = up.folder_of_data();
    let run = async |words: &[&str]| {
        let mut all = vec!["virtual"];
        all.extend(words);
        all.extend(["--data-dir", data.as_str(), "--nats", up.text("nats")]);
        tests::program::run(&all).await
    };
    let add = [
        "add",
        "--id",
        "shop",
        "--title",
        "Shop",
        "--tool",
        "products.search=find",
        "--tool",
        "products.get",
    ];
    let (code, out, err) = run(&add).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("added shop") && out.contains("/servers/shop/mcp"),
        "{out}"
    );
    let shop = up.client("shop");
    eventually("the platform serves it", async || {
        let found = shop.call("find", json!({ "query": "desk", "limit": 1 })).await;
        found["result"]["structuredContent"].is_object()
    })
    .await;
    let (_, out, _) = run(&["list"]).await;
    assert!(
        out.lines()
            .any(|line| line.starts_with("shop") && line.contains("products")),
        "{out}"
    );
    let (_, shown, _) = run(&["show", "shop"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["items"][0]["rename"], json!({ "search": "find" }));
    // The same from a file takes the place of the first.
    let file = up.folder_of_data() + "/shop.json";
    let mut changed = shown.clone();
    changed["items"][0]["rename"] = json!({ "search": "seek" });
    std::fs::write(&file, changed.to_string()).expect("the file is written");
    let (code, _, err) = run(&["add", &file]).await;
    assert!(code == 1 && err.contains("defined already"), "{err}");
    let (code, out, err) = run(&["add", &file, "--replace"]).await;
    assert!(code == 0 && out.contains("changed shop"), "{out}{err}");
    let (code, out, _) = run(&["remove", "shop"]).await;
    assert_eq!((code, out.as_str()), (0, "removed shop\n"));
    let (code, _, err) = run(&["show", "shop"]).await;
    assert!(code == 1 && err.contains("trunkline virtual list"), "{err}");
}
