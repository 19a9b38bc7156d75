//! Servers of the legacy era that ask back: whoever calls them, in whatever era, is asked, and nobody else.

use std::{collections::BTreeSet, fs, path::PathBuf};

use bus_schema::{
    Body, Principal, ProtocolVersion, Request, RoutedState,
    mcp::{Era, error, meta, method},
};
use futures::{SinkExt as _, StreamExt as _};
use runtime::Retry;
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    children::{asking, everything},
    dialogue::Dialogue,
    eventually,
    http::{modern_body, text},
    platform::Platform,
    remote::{Process, local},
    stream::Stream,
    within,
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// A client that takes every question.
fn everything_declared() -> Value {
    json!({ "roots": {}, "sampling": {}, "elicitation": { "form": {}, "url": {} } })
}

/// A platform with the server that notes what it hears.
struct Setting {
    platform: Platform,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Setting {
    async fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("heard");
        let platform = Platform::start(&asking("asking", &file, more), &["asking"]).await;
        platform.knows("asking").await;
        Self {
            platform,
            file,
            _folder: folder,
        }
    }

    /// Everything that the server's processes have heard, each with the number of the process.
    fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// The messages of one method that any of them has heard.
    fn messages(&self, called: &str) -> Vec<Value> {
        let heard = self.heard().into_iter().map(|line| line["message"].clone());
        heard.filter(|message| message["method"] == called).collect()
    }

    /// How often a tool was called.
    fn calls(&self, tool: &str) -> usize {
        let calls = self.messages(method::TOOLS_CALL);
        calls.iter().filter(|call| call["params"]["name"] == tool).count()
    }

    /// Asks over the bus, as a door does for this caller.
    async fn ask(&self, who: &str, params: &Value) -> Value {
        let mut params = params.clone();
        params["_meta"][meta::CLIENT_CAPABILITIES] = everything_declared();
        let request = Request {
            caller: String::new(),
            call: 0,
            server: "asking".to_owned(),
            method: method::TOOLS_CALL.to_owned(),
            name: None,
            principal: Principal::new(who, "default"),
            protocol_version: ProtocolVersion::MODERN.to_string(),
            door: "test".to_owned(),
            timeout_ms: 20_000,
            trace: None,
            chunked_bytes: 0,
            body: Body(modern_body(method::TOOLS_CALL, params.clone()).to_string().into()),
        };
        let bus = self.platform.node.bus();
        let state = params["requestState"].as_str().and_then(RoutedState::parse);
        let mut call = match state {
            Some(state) => bus.call_instance(request, state.instance),
            None => bus.call(request, Retry::Never),
        };
        let (_, body) = within("an answer", call.last()).await.expect("an answer");
        serde_json::from_slice(&body).expect("JSON")
    }
}

/// The request again, with the answer "blue" to everything that was asked.
fn retry(params: &Value, asked: &Value) -> Value {
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let mut params = params.clone();
    params["requestState"] = asked["result"]["requestState"].clone();
    let keys = asked["result"]["inputRequests"].as_object().expect("questions");
    params["inputResponses"] = keys
        .keys()
        .map(|key| {
            let answer = json!({ "action": "accept", "content": { "colour": "blue" } });
            (key.clone(), answer)
        })
        .collect();
    params
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"]
        .as_i64()
        .unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn the_reference_server_asks_clients_of_every_version_through_both_endpoints() {
    let platform = Platform::start(&everything("everything", ""), &["everything"]).await;
    platform.knows("everything").await;
    for (endpoint, prefix) in [
        (platform.client("everything"), ""),
        (platform.client_of_all(), "everything__"),
    ] {
        for version in ProtocolVersion::ALL {
            let client = Dialogue::open(endpoint.clone(), version, everything_declared()).await;
            let call = async |tool: &str, arguments: Value| {
                let exchange = client.call(&format!("{prefix}{tool}"), arguments).await;
                assert!(
                    exchange.answer["result"]["isError"] != true,
                    "{version} {exchange:?}"
                );
                exchange
            };
            let sampled = call(
                "trigger-sampling-request",
                json!({ "prompt": "2+2", "maxTokens": 9 }),
            )
            .await;
            assert_eq!(sampled.asked.len(), 1, "{version} {sampled:?}");
            assert_eq!(sampled.asked[0].0, method::SAMPLE);
            assert!(sampled.text().contains("four"), "{sampled:?}");
            let listed = call("get-roots-list", json!({})).await;
            assert!(
                listed.text().contains("file:///home/test"),
                "{version} {listed:?}"
            );
            // Its form has a field that no client of an earlier version can show.
            if version < ProtocolVersion::V2025_11_25 {
                continue;
            }
            let elicited = call("trigger-elicitation-request", json!({})).await;
            assert_eq!(elicited.asked.len(), 1, "{version} {elicited:?}");
            assert_eq!(elicited.asked[0].0, method::ELICIT);
            assert!(elicited.text().contains("User provided"), "{elicited:?}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_server_at_a_url_asks_as_a_child_does() {
    let streamable = Process::everything("streamableHttp").await;
    let sse = Process::everything("sse").await;
    let file = local("streamable", &streamable.url("/mcp"), "") + &local("sse", &sse.url("/sse"), "");
    let servers = ["streamable", "sse"];
    let platform = Platform::start(&file, &servers).await;
    for server in servers {
        platform.knows(server).await;
        for version in [ProtocolVersion::V2025_11_25, ProtocolVersion::MODERN] {
            let client = Dialogue::open(platform.client(server), version, everything_declared()).await;
            // Two at a time: over HTTP each question comes on the stream of its own call.
            let sample = json!({ "prompt": "2+2", "maxTokens": 9 });
            let (sampled, elicited) = tokio::join!(
                client.call("trigger-sampling-request", sample),
                client.call("trigger-elicitation-request", json!({}))
            );
            for (exchange, asked, words) in [
                (sampled, method::SAMPLE, "four"),
                (elicited, method::ELICIT, "User provided"),
            ] {
                let methods = exchange.asked.iter().map(|(asked, _)| asked.as_str());
                // The server asks for roots a moment after its handshake, in whatever call there is then.
                let methods: Vec<&str> = methods.filter(|asked| *asked != method::ROOTS_LIST).collect();
                assert_eq!(methods, [asked], "{server} {version} {exchange:?}");
                assert!(exchange.text().contains(words), "{server} {version} {exchange:?}");
            }
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn the_reference_server_shows_pages_to_clients_that_take_them() {
    let platform = Platform::start(&everything("everything", ""), &["everything"]).await;
    platform.knows("everything").await;
    for version in [ProtocolVersion::V2025_11_25, ProtocolVersion::MODERN] {
        let client = Dialogue::open(platform.client("everything"), version, everything_declared()).await;
        for by_error in [false, true] {
            let arguments = json!({ "url": "https://example.com/", "errorPath": by_error });
            let shown = client.call("trigger-url-elicitation", arguments).await;
            assert!(shown.text().contains("User completed"), "{version} {shown:?}");
            let pages: Vec<&Value> = shown.asked.iter().map(|(_, params)| &params["url"]).collect();
            let expected = if by_error {
                vec!["https://modelcontextprotocol.io", "https://example.com/"]
            } else {
                vec!["https://example.com/"]
            };
            assert_eq!(pages, expected, "{version}");
            let has_id = shown
                .asked
                .iter()
                .any(|(_, params)| params.get("elicitationId").is_some());
            assert_eq!(has_id, version.era() == Era::Legacy, "{version} {shown:?}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_client_sees_the_tools_that_its_capabilities_open_on_both_endpoints() {
    let platform = Platform::start(&everything("everything", ""), &["everything"]).await;
    platform.knows("everything").await;
    for version in [ProtocolVersion::MODERN, ProtocolVersion::V2025_11_25] {
        for (endpoint, prefix) in [
            (platform.client("everything"), ""),
            (platform.client_of_all(), "everything__"),
        ] {
            let names = async |declared: Value| -> BTreeSet<String> {
                let client = Dialogue::open(endpoint.clone(), version, declared).await;
                let listed = client.ask(method::TOOLS_LIST, json!({})).await.answer;
                let tools = listed["result"]["tools"].as_array().expect("tools").iter();
                let names = tools.map(|tool| tool["name"].as_str().expect("a name"));
                names
                    .map(|name| name.strip_prefix(prefix).expect("the prefix").to_owned())
                    .collect()
            };
            let plain = names(json!({})).await;
            for (declared, opened) in [
                (json!({ "roots": {} }), vec!["get-roots-list"]),
                (
                    json!({ "sampling": {}, "elicitation": {} }),
                    vec!["trigger-elicitation-request", "trigger-sampling-request"],
                ),
                (
                    everything_declared(),
                    vec![
                        "get-roots-list",
                        "trigger-elicitation-request",
                        "trigger-sampling-request",
                        "trigger-url-elicitation",
                    ],
                ),
            ] {
                let seen = names(declared).await;
                let more: Vec<&String> = seen.difference(&plain).collect();
                assert_eq!(more, opened, "{version} {prefix}");
                assert!(seen.is_superset(&plain));
            }
            assert_eq!(names(json!({})).await, plain, "{version} {prefix}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn the_list_of_all_servers_costs_one_connection_for_clients_that_are_alike_and_none_for_those_that_declare_nothing()
 {
    let setting = Setting::start("").await;
    let all = setting.platform.client_of_all();
    let list = async |declared: Value| -> usize {
        let params = json!({ "_meta": { meta::CLIENT_CAPABILITIES: declared } });
        let answer = within("a list", all.modern(method::TOOLS_LIST, params).send()).await;
        let listed: Value = answer.expect("an answer").json().await.expect("JSON");
        let tools = listed["result"]["tools"].as_array().expect("tools");
        assert!(!tools.is_empty(), "{listed}");
        setting.messages(method::INITIALIZE).len()
    };
    let before = setting.messages(method::INITIALIZE).len();
    for declares_nothing in [json!({}), json!({ "extensions": { "a/b": {} }, "roots": null })] {
        assert_eq!(list(declares_nothing).await, before);
    }
    for alike in [
        json!({ "elicitation": {} }),
        json!({ "elicitation": { "form": { "x": 1 } }, "experimental": { "y": {} } }),
        json!({ "elicitation": {} }),
    ] {
        assert_eq!(list(alike).await, before + 1);
    }
    assert_eq!(list(json!({ "sampling": {} })).await, before + 2);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_tool_that_asks_twice_is_called_once() {
    let setting = Setting::start("").await;
    let mut expected = 0;
    for version in [
        ProtocolVersion::V2025_06_18,
        ProtocolVersion::V2025_11_25,
        ProtocolVersion::MODERN,
    ] {
        let client = setting.platform.client("asking");
        let client = Dialogue::open(client, version, everything_declared()).await;
        let exchange = client.call("twice", json!({ "n": 1 })).await;
        let words: Vec<&Value> = exchange
            .asked
            .iter()
            .map(|(_, params)| &params["message"])
            .collect();
        assert_eq!(
            words,
            ["Which colour (twice-0)?", "Which colour (twice-1)?"],
            "{version}"
        );
        assert_eq!(exchange.text().matches("blue").count(), 2, "{exchange:?}");
        expected += 1;
        assert_eq!(setting.calls("twice"), expected, "{version}");
    }
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_state_is_good_for_its_own_caller_and_call_and_for_once() {
    let setting = Setting::start("").await;
    let params = json!({ "name": "confirm", "arguments": { "n": 1 } });
    let asked = setting.ask("ann", &params).await;
    let back = retry(&params, &asked);
    let with = |key: &str, value: Value| {
        let mut other = back.clone();
        other[key] = value;
        other
    };
    let state = asked["result"]["requestState"].as_str().expect("a state");
    let flipped: String = {
        let last = state.len() - 8;
        let other = if &state[last..=last] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &state[..last], &state[last + 1..])
    };
    for (who, wrong) in [
        ("bob", back.clone()),
        ("ann", with("name", json!("twice"))),
        ("ann", with("arguments", json!({ "n": 2 }))),
        ("ann", with("requestState", json!(flipped))),
        ("ann", with("requestState", json!("somebody else's"))),
    ] {
        let refused = setting.ask(who, &wrong).await;
        assert_eq!(code(&refused), error::INVALID_PARAMS, "{who} {wrong}");
    }
    assert_eq!(setting.messages(method::TOOLS_CALL).len(), 1);
    let last = setting.ask("ann", &back).await;
    assert!(text(&last).contains("blue"), "{last}");
    assert_eq!(code(&setting.ask("ann", &back).await), error::INVALID_PARAMS);
    assert_eq!(setting.messages(method::TOOLS_CALL).len(), 1);
    setting.platform.stop().await;
}

#[tokio::test]
async fn answers_without_a_state_are_to_no_question_and_the_server_asks_its_own() {
    let setting = Setting::start("").await;
    let unasked = json!({ "someone": { "action": "accept", "content": { "colour": "red" } } });
    let params = json!({ "name": "confirm", "arguments": { "n": 1 }, "inputResponses": unasked });
    let asked = setting.ask("ann", &params).await;
    let last = setting.ask("ann", &retry(&params, &asked)).await;
    assert!(
        text(&last).contains("blue") && !text(&last).contains("red"),
        "{last}"
    );
    let calls = setting.messages(method::TOOLS_CALL);
    assert_eq!(calls.len(), 1);
    assert!(calls[0]["params"].get("inputResponses").is_none(), "{calls:?}");
    let keyless = json!({ "name": "confirm", "arguments": { "n": 1 }, "inputResponses": ["red"] });
    let refused = setting.ask("ann", &keyless).await;
    assert_eq!(code(&refused), error::INVALID_PARAMS, "{refused}");
    assert_eq!(setting.messages(method::TOOLS_CALL).len(), 1);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_state_that_is_too_old_is_refused_and_the_server_hears_that_nobody_comes() {
    let setting = Setting::start("input_ttl_secs = 1").await;
    let params = json!({ "name": "confirm" });
    let asked = setting.ask("ann", &params).await;
    eventually("the call is cancelled", async || {
        !setting.messages(method::CANCELLED).is_empty()
    })
    .await;
    let refused = setting.ask("ann", &retry(&params, &asked)).await;
    assert_eq!(code(&refused), error::INVALID_PARAMS);
    let cancelled = setting
        .heard()
        .into_iter()
        .any(|line| line["message"]["result"]["action"] == "cancel");
    assert!(cancelled);
    assert_eq!(setting.calls("confirm"), 1);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_page_is_shown_without_its_id_to_modern_clients_that_take_pages() {
    let setting = Setting::start("").await;
    let client = |declared: Value| {
        Dialogue::open(
            setting.platform.client("asking"),
            ProtocolVersion::MODERN,
            declared,
        )
    };
    let shown = client(everything_declared()).await.call("page", json!({})).await;
    assert_eq!(shown.text(), "page");
    let page = json!({ "mode": "url", "url": "https://example.com/sign-in", "message": "Sign in." });
    assert_eq!(shown.asked, [(method::ELICIT.to_owned(), page)]);
    assert_eq!(setting.calls("page"), 2);
    for declared in [json!({}), json!({ "elicitation": {} })] {
        let params = json!({ "name": "page", "_meta": { meta::CLIENT_CAPABILITIES: declared } });
        let client = setting.platform.client("asking");
        let answer = within("an answer", client.modern(method::TOOLS_CALL, params).send())
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 400);
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(code(&answer), error::MISSING_CAPABILITY);
        assert_eq!(
            answer["error"]["data"]["requiredCapabilities"]["elicitation"]["url"],
            json!({})
        );
    }
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_result_of_a_kind_that_nobody_knows_is_an_error() {
    let setting = Setting::start("").await;
    for version in [ProtocolVersion::V2025_11_25, ProtocolVersion::MODERN] {
        let client = Dialogue::open(setting.platform.client("asking"), version, json!({})).await;
        assert_eq!(code(&client.call("odd", json!({})).await.answer), error::INTERNAL);
        let known = client.call("touch", json!({ "uri": "asking://0" })).await;
        assert_eq!(known.text(), "touch");
        let result_type = known.answer["result"].get("resultType");
        assert_eq!(result_type.is_some(), version.era() == Era::Modern, "{known:?}");
    }
    setting.platform.stop().await;
}

#[tokio::test]
async fn log_lines_are_for_who_wants_them_from_the_level_on() {
    let setting = Setting::start("").await;
    for declared in [json!({}), everything_declared()] {
        let mut client = Dialogue::open(
            setting.platform.client("asking"),
            ProtocolVersion::MODERN,
            declared,
        )
        .await;
        let silent = client.call("noisy", json!({})).await;
        assert_eq!(silent.parts, Vec::<Value>::new());
        client.want_log("error").await;
        let told = client.call("noisy", json!({})).await;
        let levels: Vec<&Value> = told.parts.iter().map(|part| &part["params"]["level"]).collect();
        assert_eq!(levels, ["error", "critical", "alert", "emergency"]);
    }
    // Each of the two connections heard the level once.
    let set = setting.messages(method::SET_LEVEL);
    let levels: Vec<&Value> = set.iter().map(|message| &message["params"]["level"]).collect();
    assert_eq!(levels, ["error", "error"]);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_closed_cancels_the_call_at_the_server() {
    let setting = Setting::start("").await;
    for declared in [json!({}), everything_declared()] {
        let before = setting.messages(method::CANCELLED).len();
        let params = json!({
            "name": "hold", "arguments": {}, "_meta": { "progressToken": 1, meta::CLIENT_CAPABILITIES: declared },
        });
        let client = setting.platform.client("asking");
        let request = client.modern(method::TOOLS_CALL, params).send();
        let mut stream = Stream::of(within("an answer", request).await.expect("an answer"));
        assert_eq!(stream.message().await["method"], method::PROGRESS);
        drop(stream);
        eventually("the server hears of it", async || {
            setting.messages(method::CANCELLED).len() > before
        })
        .await;
        let calls = setting.messages(method::TOOLS_CALL);
        let cancelled = setting.messages(method::CANCELLED);
        assert_eq!(
            cancelled.last().expect("one")["params"]["requestId"],
            calls.last().expect("one")["id"]
        );
    }
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_resource_is_subscribed_to_once_however_many_listen() {
    let setting = Setting::start("").await;
    let client = async |version| Dialogue::open(setting.platform.client("asking"), version, json!({})).await;
    let (one, other) = (
        client(ProtocolVersion::MODERN).await,
        client(ProtocolVersion::MODERN).await,
    );
    let mut streams = vec![one.listen("asking://1").await, other.listen("asking://1").await];
    one.call("touch", json!({ "uri": "asking://1" })).await;
    one.call("touch", json!({ "uri": "asking://2" })).await;
    one.call("touch", json!({ "uri": "asking://1" })).await;
    for stream in &mut streams {
        // Two changes that come together may be told of as one.
        let told = stream.message().await;
        assert_eq!(
            (&told["method"], &told["params"]["uri"]),
            (&json!(method::UPDATED), &json!("asking://1"))
        );
    }
    let subscribed = |called: &str| {
        let messages = setting.messages(called);
        messages
            .iter()
            .map(|message| message["params"]["uri"].as_str().expect("a URI").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(subscribed(method::SUBSCRIBE), ["asking://1"]);
    drop(streams.pop());
    one.call("touch", json!({ "uri": "asking://1" })).await;
    assert_eq!(subscribed(method::UNSUBSCRIBE), Vec::<String>::new());
    streams.clear();
    eventually("the last one has left", async || {
        !subscribed(method::UNSUBSCRIBE).is_empty()
    })
    .await;
    assert_eq!(subscribed(method::SUBSCRIBE), ["asking://1"]);
    assert_eq!(subscribed(method::UNSUBSCRIBE), ["asking://1"]);
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_server_that_ends_fails_its_calls_once_and_is_subscribed_to_again() {
    let setting = Setting::start("").await;
    let open = |declared: Value| {
        Dialogue::open(
            setting.platform.client("asking"),
            ProtocolVersion::MODERN,
            declared,
        )
    };
    let (plain, asked) = (open(json!({})).await, open(everything_declared()).await);
    let _listening = plain.listen("asking://1").await;
    // One that may be asked has a process of its own; its end is nobody else's affair.
    let crashed = asked.call("crash", json!({})).await;
    assert_eq!(code(&crashed.answer), error::INTERNAL);
    assert_eq!(
        plain.call("touch", json!({ "uri": "asking://2" })).await.text(),
        "touch"
    );
    // Its own process is subscribed to as well, before its first call, and so is the one after it.
    assert_eq!(setting.messages(method::SUBSCRIBE).len(), 2);
    let confirmed = asked.call("confirm", json!({})).await;
    assert!(confirmed.text().contains("blue"), "{confirmed:?}");
    // The one that all share is started again.
    let before = setting.messages(method::SUBSCRIBE).len();
    let crashed = plain.call("crash", json!({})).await;
    assert_eq!(code(&crashed.answer), error::INTERNAL);
    eventually("the new process is subscribed to", async || {
        setting.messages(method::SUBSCRIBE).len() > before
    })
    .await;
    setting.platform.stop().await;
}

#[tokio::test]
async fn messages_that_no_revision_defines_pass_both_ways() {
    let setting = Setting::start("").await;
    let client = setting.platform.client("asking");
    let params = json!({ "own": [1, { "x": null }] });
    let mut exchange = Stream::of(
        within(
            "an answer",
            client.modern("com.example/ask", params.clone()).send(),
        )
        .await
        .expect("an answer"),
    );
    let told = exchange.message().await;
    assert_eq!(told["method"], "com.example/told");
    assert_eq!(told["params"]["own"], params["own"]);
    let answer = exchange.message().await;
    assert_eq!(answer["result"]["own"], params["own"]);
    for told in ["com.example/tell", "notifications/com.example/tell"] {
        let mut body = modern_body(told, json!({ "x": 1 }));
        body.as_object_mut().expect("an object").remove("id");
        let request = client
            .raw(body.to_string())
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", told);
        let answer = within("an answer", request.send()).await.expect("an answer");
        assert_eq!(answer.status(), 202, "{told}");
        eventually("the server hears it", async || !setting.messages(told).is_empty()).await;
        assert_eq!(setting.messages(told)[0]["params"]["x"], 1);
    }
    setting.platform.stop().await;
}

/// Opens a legacy session on a WebSocket, with these capabilities.
async fn session(platform: &Platform, capabilities: Value) -> Channel {
    let mut channel = Channel::socket(platform, "/servers/asking/ws").await;
    let hello = json!({
        "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": {
            "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": { "name": "t", "version": "1" },
        },
    });
    assert!(channel.ask(&hello).await["result"].is_object());
    let initialized = json!({ "jsonrpc": "2.0", "method": method::INITIALIZED });
    channel.send(&initialized).await;
    channel
}

#[tokio::test]
async fn a_request_that_no_revision_defines_reaches_the_clients_that_speak_of_such() {
    let setting = Setting::start("").await;
    let own = json!({ "name": "own", "arguments": {} });
    let call =
        |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": method::TOOLS_CALL, "params": own.clone() });
    let told = |answer: &Value| -> Value { serde_json::from_str(text(answer)).expect("JSON") };
    let mut speaks = session(
        &setting.platform,
        json!({ "experimental": { "com.example/choose": {} } }),
    )
    .await;
    for (id, given) in [
        (1, json!({ "result": { "chosen": 1.5 } })),
        (2, json!({ "error": { "code": 7, "message": "not today" } })),
    ] {
        let asked = speaks.ask(&call(id)).await;
        assert_eq!(asked["method"], "com.example/choose", "{asked}");
        assert_eq!(asked["params"], json!({ "of": [1.0, { "x": null }] }));
        let mut response = given.clone();
        response["jsonrpc"] = json!("2.0");
        response["id"] = asked["id"].clone();
        let answer = speaks.ask(&response).await;
        assert_eq!(answer["id"], id);
        let expected = given.as_object().expect("an object").values().next();
        assert_eq!(Some(&told(&answer)), expected);
    }
    // One that says nothing of the kind is not asked, and its server hears that at once.
    let mut quiet = session(&setting.platform, json!({ "elicitation": {} })).await;
    assert_eq!(told(&quiet.ask(&call(1)).await)["code"], error::METHOD_NOT_FOUND);

    let client = setting.platform.client("asking");
    let modern = async |more: Value| {
        let mut params = own.clone();
        params["_meta"] =
            json!({ meta::CLIENT_CAPABILITIES: { "extensions": { meta::REQUESTS_EXTENSION: {} } } });
        for (key, value) in more.as_object().expect("an object") {
            params[key] = value.clone();
        }
        let answer = within("an answer", client.modern(method::TOOLS_CALL, params).send());
        answer
            .await
            .expect("an answer")
            .json::<Value>()
            .await
            .expect("JSON")
    };
    let asked = modern(json!({})).await;
    let (key, request) = asked["result"]["inputRequests"]
        .as_object()
        .and_then(|requests| requests.iter().next())
        .expect("a question");
    assert_eq!(request["method"], "com.example/choose");
    let state = &asked["result"]["requestState"];
    let answers = json!({ key: { "result": { "chosen": [] } } });
    let answer = modern(json!({ "inputResponses": answers, "requestState": state })).await;
    assert_eq!(told(&answer), json!({ "chosen": [] }));
    assert_eq!(
        told(&client.call("own", json!({})).await)["code"],
        error::METHOD_NOT_FOUND
    );
    setting.platform.stop().await;
}

#[tokio::test]
async fn the_tasks_of_an_older_server_are_not_shown() {
    let setting = Setting::start("").await;
    let client = Dialogue::open(
        setting.platform.client("asking"),
        ProtocolVersion::MODERN,
        json!({}),
    )
    .await;
    let capabilities = &client.opened["capabilities"];
    assert!(
        capabilities.get("tasks").is_none() && capabilities["tools"].is_object(),
        "{capabilities}"
    );
    setting.platform.stop().await;
}

#[tokio::test]
async fn a_subscription_that_the_server_refuses_is_refused_in_its_own_words() {
    let setting = Setting::start("").await;
    let refused = |answer: &Value| {
        assert_eq!(code(answer), error::LEGACY_RESOURCE_NOT_FOUND, "{answer}");
        assert_eq!(answer["error"]["message"], "there is no such resource");
        assert_eq!(answer["error"]["data"]["asked"], 1.0);
    };
    let missing = json!({ "uri": "asking://missing" });
    for endpoint in [
        setting.platform.client("asking"),
        setting.platform.client_of_all(),
    ] {
        let client = Dialogue::open(endpoint, ProtocolVersion::V2025_11_25, json!({})).await;
        refused(&client.ask(method::SUBSCRIBE, missing.clone()).await.answer);
        // The same with a stream, which goes on to tell of what was not refused.
        let mut stream = client.listen("asking://1").await;
        refused(&client.ask(method::SUBSCRIBE, missing.clone()).await.answer);
        let is_one = client.opened["serverInfo"]["name"] == "asking";
        let tool = if is_one { "touch" } else { "asking__touch" };
        client.call(tool, json!({ "uri": "asking://1" })).await;
        let told = stream.message().await;
        assert_eq!(told["params"]["uri"], "asking://1", "{told}");
    }
    let all = Dialogue::open(
        setting.platform.client_of_all(),
        ProtocolVersion::V2025_06_18,
        json!({}),
    );
    let unknown = json!({ "uri": "nobody://x" });
    let answer = all.await.ask(method::SUBSCRIBE, unknown).await.answer;
    assert_eq!(code(&answer), error::INVALID_PARAMS, "{answer}");
    // A channel that holds a conversation tells the same.
    let url = setting
        .platform
        .url("/servers/asking/ws")
        .replacen("http", "ws", 1);
    let (mut socket, _) = within("the connection", connect_async(url))
        .await
        .expect("connects");
    let info = json!({ "name": "test", "version": "1" });
    let opening = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
    for (id, called, params) in [
        (1, method::INITIALIZE, opening),
        (2, method::SUBSCRIBE, missing),
        (3, method::SUBSCRIBE, json!({ "uri": "asking://2" })),
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": called, "params": params });
        let sent = socket.send(Message::text(body.to_string())).await;
        sent.expect("the channel is open");
        let frame = within("an answer", socket.next()).await.expect("open");
        let frame = frame.expect("a frame");
        let answer: Value = serde_json::from_str(frame.to_text().expect("text")).expect("JSON");
        assert_eq!(answer["id"], id, "{answer}");
        match id {
            2 => refused(&answer),
            _ => assert!(answer["result"].is_object(), "{answer}"),
        }
    }
    setting.platform.stop().await;
}
