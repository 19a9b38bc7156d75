//! What answers say: that they are complete, how long they may be kept, what is missing, and nothing that a client could not read.

use axum::{http::StatusCode, response::Response};
use bus_schema::{
    ProtocolVersion,
    mcp::{error, meta, method},
};
use serde_json::{Value, json};
use tests::{
    children,
    dialogue::Dialogue,
    http::Client,
    platform::Platform,
    scripted::{self as by_hand, Asked, Scripted},
    within,
};

use super::{Era, answer, before, declaring, plain_tool, result, scripted, with_fixture};

#[tokio::test]
async fn a_tool_that_needs_what_a_client_lacks_is_refused_before_a_stream_opens() {
    let (platform, _host) = with_fixture().await;
    for (client, tool) in [
        (platform.client("fixture"), "test_missing_capability"),
        (platform.client_of_all(), "fixture__test_missing_capability"),
    ] {
        let params = || json!({ "name": tool, "arguments": {}, "_meta": { "progressToken": 1 } });
        let request = declaring(
            &client,
            method::TOOLS_CALL,
            params(),
            json!({ "elicitation": {} }),
        );
        let response = within("an answer", request.send()).await.expect("an answer");
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], "application/json");
        let refused: Value = response.json().await.expect("JSON");
        assert_eq!(refused["error"]["code"], error::MISSING_CAPABILITY, "{refused}");
        let required = &refused["error"]["data"]["requiredCapabilities"];
        assert!(required["sampling"].is_object(), "{refused}");
        let able = declaring(&client, method::TOOLS_CALL, params(), json!({ "sampling": {} }));
        let (status, asked) = answer(able).await;
        assert_eq!(
            (status, &asked["result"]["resultType"]),
            (200, &json!("input_required")),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_legacy_server_that_names_the_missing_capabilities_is_believed() {
    let server = scripted(Era::Legacy, json!([plain_tool("picky")]), |asked| {
        let required = match asked.body["params"]["arguments"]["names"].as_bool() {
            Some(true) => json!({ "requiredCapabilities": { "sampling": {} } }),
            _ => Value::Null,
        };
        (asked.called() == method::TOOLS_CALL).then(|| asked.error(200, error::MISSING_CAPABILITY, &required))
    })
    .await;
    let platform = before(&[("server", &server)]).await;
    let client = platform.client("server");
    let call = |names: bool| json!({ "name": "picky", "arguments": { "names": names } });
    let (status, refused) = answer(client.modern(method::TOOLS_CALL, call(true))).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (400, &json!(error::MISSING_CAPABILITY)),
        "{refused}"
    );
    assert_eq!(
        refused["error"]["data"],
        json!({ "requiredCapabilities": { "sampling": {} } })
    );
    // Without that the number may mean anything there.
    let (status, private) = answer(client.modern(method::TOOLS_CALL, call(false))).await;
    assert_eq!(
        (status, &private["error"]["code"]),
        (200, &json!(error::INTERNAL)),
        "{private}"
    );
    assert_eq!(
        private["error"]["data"]["original"]["code"],
        error::MISSING_CAPABILITY
    );
}

#[tokio::test]
async fn a_legacy_server_is_discovered_as_a_modern_one() {
    let remote = scripted(Era::Legacy, json!([plain_tool("a")]), |_| None).await;
    let file = children::scripted("child", "none", "") + &tests::remote::local("remote", &remote.url(), "");
    let platform = Platform::start(&file, &["child", "remote"]).await;
    for (id, name) in [("child", "scripted"), ("remote", "scripted")] {
        platform.knows(id).await;
        let found = result(&platform.client(id), method::DISCOVER, json!({})).await;
        assert_eq!(found["resultType"], "complete");
        assert_eq!(found["supportedVersions"], json!(["2026-07-28"]));
        assert!(found["ttlMs"].is_u64(), "{found}");
        assert_eq!(found["cacheScope"], "private");
        assert!(found["capabilities"]["tools"].is_object() && found["capabilities"].get("tasks").is_none());
        let info = &found["_meta"][meta::SERVER_INFO];
        assert!(info["version"].is_string(), "{found}");
        let names = [&info["name"], &info["title"]];
        assert!(
            names.contains(&&json!(id)) || names.contains(&&json!(name)),
            "{found}"
        );
    }
}

/// Everything that a client may keep, with what to ask for.
const CACHEABLE: [(&str, &str); 6] = [
    (method::DISCOVER, ""),
    (method::TOOLS_LIST, ""),
    (method::PROMPTS_LIST, ""),
    (method::RESOURCES_LIST, ""),
    (method::TEMPLATES_LIST, ""),
    (method::RESOURCES_READ, "test://static-text"),
];

/// A legacy server that has some of everything, and says nothing of keeping.
fn some_of_everything(asked: &Asked) -> Option<Response> {
    let result = match asked.called() {
        method::PROMPTS_LIST => json!({ "prompts": [] }),
        method::RESOURCES_LIST => json!({ "resources": [] }),
        method::TEMPLATES_LIST => json!({ "resourceTemplates": [] }),
        method::RESOURCES_READ => json!({ "contents": [{ "uri": "test://static-text", "text": "x" }] }),
        _ => return None,
    };
    Some(asked.result(&result))
}

/// The same with capabilities that say so.
async fn legacy_with_everything() -> Scripted {
    Scripted::start(|asked| async move {
        if asked.called() == method::INITIALIZE {
            let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {} });
            let info = json!({ "name": "everything", "version": "1" });
            return asked.result(
                &json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info }),
            );
        }
        match some_of_everything(&asked) {
            Some(answer) => answer,
            None => asked.legacy("", &json!([plain_tool("a")])),
        }
    })
    .await
}

#[tokio::test]
async fn whatever_may_be_kept_says_how_long_and_by_whom_and_nothing_else_does() {
    let (platform, _host) = with_fixture().await;
    let legacy = legacy_with_everything().await;
    let with_legacy = before(&[("legacy", &legacy)]).await;
    let endpoints = [
        platform.client("fixture"),
        platform.client_of_all(),
        with_legacy.client("legacy"),
    ];
    for client in &endpoints {
        for (called, uri) in CACHEABLE {
            let params = if uri.is_empty() {
                json!({})
            } else {
                json!({ "uri": uri })
            };
            let kept = result(client, called, params).await;
            assert!(kept["ttlMs"].is_u64(), "{called}: {kept}");
            let scope = kept["cacheScope"].as_str();
            assert!(matches!(scope, Some("public" | "private")), "{called}: {kept}");
            assert_eq!(kept["resultType"], "complete", "{called}: {kept}");
        }
    }
    // What a legacy server says is for the one who asked.
    let list = result(&endpoints[2], method::TOOLS_LIST, json!({})).await;
    assert_eq!(
        (&list["ttlMs"], &list["cacheScope"]),
        (&json!(0), &json!("private"))
    );
    let params = json!({ "name": "test_input_required_result_prompt" });
    let request = declaring(
        &endpoints[0],
        method::PROMPTS_GET,
        params,
        json!({ "elicitation": {} }),
    );
    let (_, asked) = answer(request).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    assert!(asked["result"].get("ttlMs").is_none() && asked["result"].get("cacheScope").is_none());
}

#[tokio::test]
async fn a_read_is_asked_of_its_server_each_time_whatever_it_said_of_keeping() {
    let server = scripted(Era::Modern, json!([]), |asked| {
        let result = match asked.called() {
            method::DISCOVER => {
                json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "resources": {} } })
            }
            method::RESOURCES_LIST => json!({ "resources": [] }),
            method::TEMPLATES_LIST => json!({ "resourceTemplates": [] }),
            method::RESOURCES_READ => json!({ "contents": [{ "uri": "test://a", "text": "x" }] }),
            _ => return None,
        };
        let mut kept = json!({ "resultType": "complete", "ttlMs": 60000, "cacheScope": "public" });
        let members = kept.as_object_mut().expect("an object");
        members.extend(result.as_object().expect("an object").clone());
        Some(asked.result(&kept))
    })
    .await;
    let platform = before(&[("server", &server)]).await;
    let client = platform.client("server");
    for _ in 0..3 {
        let read = result(&client, method::RESOURCES_READ, json!({ "uri": "test://a" })).await;
        assert_eq!(
            (&read["ttlMs"], &read["cacheScope"]),
            (&json!(60000), &json!("public"))
        );
    }
    let retried = json!({ "uri": "test://a", "requestState": "s", "inputResponses": {} });
    result(&client, method::RESOURCES_READ, retried).await;
    assert_eq!(server.asked(method::RESOURCES_READ).len(), 4);
}

#[tokio::test]
async fn a_resource_that_is_not_there_is_an_error_that_names_it_in_the_way_of_each_era() {
    const MISSING: &str = "test://missing";
    let refusing = Scripted::start(|asked| async move {
        match asked.called() {
            method::INITIALIZE => asked.result(&json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {}, "resources": {} },
                "serverInfo": { "name": "s", "version": "1" },
            })),
            method::RESOURCES_READ => asked.error(200, error::LEGACY_RESOURCE_NOT_FOUND, &Value::Null),
            _ => match some_of_everything(&asked) {
                Some(answer) => answer,
                None => asked.legacy("", &json!([plain_tool("a")])),
            },
        }
    })
    .await;
    let (own, _host) = with_fixture().await;
    let platform = before(&[("legacy", &refusing)]).await;
    for client in [
        own.client("fixture"),
        own.client_of_all(),
        platform.client("legacy"),
    ] {
        let (status, missing) =
            answer(client.modern(method::RESOURCES_READ, json!({ "uri": MISSING }))).await;
        assert_eq!(
            (status, &missing["error"]["code"]),
            (200, &json!(error::INVALID_PARAMS)),
            "{missing}"
        );
        assert_eq!(missing["error"]["data"]["uri"], MISSING, "{missing}");
        assert!(missing.get("result").is_none());
        for version in LEGACY {
            let old = Dialogue::open(client.clone(), version, json!({})).await;
            let missing = old
                .ask(method::RESOURCES_READ, json!({ "uri": MISSING }))
                .await
                .answer;
            assert_eq!(
                missing["error"]["code"],
                error::LEGACY_RESOURCE_NOT_FOUND,
                "{missing}"
            );
            assert!(missing.get("result").is_none());
        }
    }
}

const LEGACY: [ProtocolVersion; 4] = [
    ProtocolVersion::V2024_11_05,
    ProtocolVersion::V2025_03_26,
    ProtocolVersion::V2025_06_18,
    ProtocolVersion::V2025_11_25,
];

#[tokio::test]
async fn a_result_gets_the_type_that_it_lacks_and_one_of_an_unknown_type_is_no_answer() {
    let own = |asked: &Asked| {
        let kind = match asked.body["params"]["name"].as_str() {
            Some("unknown") => json!("surprise"),
            Some("number") => json!(7),
            _ => return None,
        };
        Some(asked.result(&json!({ "resultType": kind, "content": [] })))
    };
    let tools = json!([plain_tool("plain"), plain_tool("unknown"), plain_tool("number")]);
    let modern = scripted(Era::Modern, tools.clone(), own).await;
    let legacy = scripted(Era::Legacy, tools, own).await;
    let platform = before(&[("modern", &modern), ("legacy", &legacy)]).await;
    for id in ["modern", "legacy"] {
        let client = platform.client(id);
        let plain = client.call("plain", json!({})).await;
        assert_eq!(plain["result"]["resultType"], "complete", "{plain}");
        for version in [ProtocolVersion::MODERN, ProtocolVersion::V2025_11_25] {
            let caller = Dialogue::open(client.clone(), version, json!({})).await;
            for tool in ["unknown", "number"] {
                let answer = caller.call(tool, json!({})).await.answer;
                assert_eq!(answer["error"]["code"], error::INTERNAL, "{id} {tool}: {answer}");
                assert!(answer.get("result").is_none());
            }
        }
    }
}

#[tokio::test]
async fn structured_content_that_is_no_object_reaches_those_who_know_such_and_is_text_to_others() {
    let array = json!([1, { "a": 1.5 }]);
    let schema = json!({ "type": "array", "items": {} });
    let mut tool = plain_tool("many");
    tool["outputSchema"] = schema.clone();
    let server = scripted(Era::Modern, json!([tool, plain_tool("other")]), |asked| {
        (asked.called() == method::TOOLS_CALL).then(|| {
            let result =
                json!({ "resultType": "complete", "content": [], "structuredContent": [1, { "a": 1.5 }] });
            asked.result(&result)
        })
    })
    .await;
    let platform = before(&[("server", &server)]).await;
    for (client, name) in [
        (platform.client("server"), "many"),
        (platform.client_of_all(), "server__many"),
    ] {
        let called = client.call(name, json!({})).await;
        assert_eq!(called["result"]["structuredContent"], array, "{called}");
        assert_eq!(tool_named(&client, name).await["outputSchema"], schema);
        for version in LEGACY {
            let old = Dialogue::open(client.clone(), version, json!({})).await;
            let called = old.call(name, json!({})).await;
            assert!(called.answer["result"].get("structuredContent").is_none());
            let said: Value = serde_json::from_str(called.text()).expect("JSON as a text");
            assert_eq!(said, array, "{version}");
            let listed = old.ask(method::TOOLS_LIST, json!({})).await.answer;
            let tools = listed["result"]["tools"].as_array().expect("tools");
            let tool = tools
                .iter()
                .find(|tool| tool["name"] == name)
                .expect("still listed");
            assert!(tool.get("outputSchema").is_none(), "{version}: {tool}");
        }
    }
}

async fn tool_named(client: &Client, name: &str) -> Value {
    let listed = result(client, method::TOOLS_LIST, json!({})).await;
    let tools = listed["tools"].as_array().expect("tools");
    tools
        .iter()
        .find(|tool| tool["name"] == name)
        .expect("listed")
        .clone()
}

/// Three pages of tools. The cursor of the second is the empty text, which is a cursor like any other.
fn pages(asked: &Asked) -> Option<Response> {
    if asked.called() != method::TOOLS_LIST {
        return None;
    }
    let page = |names: [&str; 2], next: Option<&str>| {
        let mut result = json!({
            "resultType": "complete", "tools": names.map(plain_tool), "ttlMs": 0, "cacheScope": "private",
        });
        if let Some(next) = next {
            result["nextCursor"] = next.into();
        }
        Some(asked.result(&result))
    };
    match asked.body["params"].get("cursor").map(Value::as_str) {
        None => page(["z", "b"], Some("")),
        Some(Some("")) => page(["y", "c"], Some("last")),
        Some(Some("last")) => page(["x", "a"], None),
        Some(_) => Some(asked.error(200, error::INVALID_PARAMS, &Value::Null)),
    }
}

#[tokio::test]
async fn lists_keep_their_order_and_go_on_where_a_cursor_says_and_nowhere_else() {
    let (one, two) = (
        scripted(Era::Modern, json!([]), pages).await,
        scripted(Era::Legacy, json!([]), pages).await,
    );
    let platform = before(&[("one", &one), ("two", &two)]).await;
    let names = |result: &Value| -> Vec<String> {
        let tools = result["tools"].as_array().expect("tools").iter();
        tools
            .map(|tool| tool["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let walk = async |client: &Client| {
        let (mut all, mut cursor) = (Vec::new(), None::<Value>);
        loop {
            let params = cursor.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
            let page = result(client, method::TOOLS_LIST, params).await;
            all.extend(names(&page));
            cursor = page.get("nextCursor").cloned();
            if cursor.is_none() {
                return all;
            }
            assert!(all.len() < 100, "the list has no end: {all:?}");
        }
    };
    let own = ["z", "b", "y", "c", "x", "a"];
    let expected: Vec<String> = ["one", "two"]
        .iter()
        .flat_map(|id| own.map(|name| format!("{id}__{name}")))
        .collect();
    for _ in 0..2 {
        assert_eq!(walk(&platform.client("one")).await, own);
        assert_eq!(walk(&platform.client("two")).await, own);
        assert_eq!(walk(&platform.client_of_all()).await, expected);
    }
    for client in [
        platform.client("one"),
        platform.client("two"),
        platform.client_of_all(),
    ] {
        result(&client, method::TOOLS_LIST, json!({ "cursor": "" })).await;
        let (status, refused) =
            answer(client.modern(method::TOOLS_LIST, json!({ "cursor": "garbage" }))).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (200, &json!(error::INVALID_PARAMS)),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_long_list_of_all_servers_comes_in_pages_and_goes_on_behind_its_cursor() {
    let many: Vec<Value> = (0..1_500).map(|n| plain_tool(&format!("t{n:04}"))).collect();
    let (one, two) = (
        scripted(Era::Modern, json!(many), |_| None).await,
        scripted(Era::Modern, json!(many), |_| None).await,
    );
    let platform = before(&[("one", &one), ("two", &two)]).await;
    let all = platform.client_of_all();
    let first = result(&all, method::TOOLS_LIST, json!({})).await;
    let cursor = first["nextCursor"].clone();
    let second = result(&all, method::TOOLS_LIST, json!({ "cursor": cursor })).await;
    assert!(second.get("nextCursor").is_none(), "{}", second["nextCursor"]);
    let names = |page: &Value| -> Vec<String> {
        let tools = page["tools"].as_array().expect("tools").iter();
        tools
            .map(|tool| tool["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!((names(&first).len(), names(&second).len()), (2_000, 1_000));
    let expected = ["one", "two"]
        .iter()
        .flat_map(|id| (0..1_500).map(move |n| format!("{id}__t{n:04}")));
    assert!([names(&first), names(&second)].concat().into_iter().eq(expected));
}

#[tokio::test]
async fn log_lines_come_to_the_one_request_that_asks_for_them_and_from_its_level_on() {
    let server = scripted(Era::Modern, json!([plain_tool("log")]), |asked| {
        (asked.called() == method::TOOLS_CALL).then(|| {
            // A server that says more than it was asked to.
            let mut text = String::new();
            for level in ["debug", "info", "warning", "error"] {
                let params = json!({ "level": level, "data": "a line" });
                text += &by_hand::event(
                    &json!({ "jsonrpc": "2.0", "method": method::MESSAGE, "params": params }),
                );
            }
            text +=
                &by_hand::event(&asked.result_message(&json!({ "resultType": "complete", "content": [] })));
            by_hand::typed(StatusCode::OK, "text/event-stream", text)
        })
    })
    .await;
    let platform = before(&[("server", &server)]).await;
    for (level, expected) in [
        (None, &[][..]),
        (Some("warning"), &["warning", "error"][..]),
        (Some("debug"), &["debug", "info", "warning", "error"][..]),
    ] {
        let mut caller = Dialogue::open(platform.client("server"), ProtocolVersion::MODERN, json!({})).await;
        if let Some(level) = level {
            caller.want_log(level).await;
        }
        let quiet = Dialogue::open(platform.client("server"), ProtocolVersion::MODERN, json!({})).await;
        let (told, silent) = tokio::join!(caller.call("log", json!({})), quiet.call("log", json!({})));
        let levels: Vec<_> = told.parts_of(method::MESSAGE);
        let levels: Vec<&str> = levels
            .iter()
            .filter_map(|part| part["params"]["level"].as_str())
            .collect();
        assert_eq!(levels, expected, "{level:?}");
        assert!(silent.parts.is_empty(), "{:?}", silent.parts);
    }
}
