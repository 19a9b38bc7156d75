//! Real clients at every door: the official TypeScript client v2, the TypeScript SDK v1 and the MCP Inspector.
//!
//! What they print (see `tests/npm/clients/`) is compared with what a client written by hand gets.

use bus_schema::{mcp::method, principal::DEFAULT_TENANT};
use runtime::{
    telemetry::Ended,
    watch::{CallEvent, CallWatch},
};
use serde_json::{Value, json};
use tests::{
    http::Client,
    parts::{node, npm, package, printed},
    platform::Platform,
    program,
    session::messages,
    within,
};
use tokio::process::Command;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// The legacy code of a resource that does not exist. The client v2 shows its modern one in both eras.
const NOT_FOUND_BY: [(&str, i64); 2] = [("v1.mjs", -32002), ("v2.mjs", -32602)];

/// A platform with the products server, and all its calls as they end.
struct Stage {
    platform: Platform,
    watch: CallWatch,
}

/// What a client is shown: one server as it is, or all of them.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Products,
    All,
}

impl Shown {
    fn prefix(self) -> &'static str {
        match self {
            Self::Products => "",
            Self::All => "products__",
        }
    }

    fn server(self) -> &'static str {
        match self {
            Self::Products => "products",
            Self::All => "trunkline",
        }
    }

    fn client(self, platform: &Platform) -> Client {
        match self {
            Self::Products => platform.client("products"),
            Self::All => platform.client_of_all(),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Products => "/servers/products/mcp",
            Self::All => "/mcp",
        }
    }
}

impl Stage {
    async fn set() -> Self {
        let platform = Platform::start("", &["products"]).await;
        platform.knows("products").await;
        let mut watch = CallWatch::start(platform.node.bus(), DEFAULT_TENANT)
            .await
            .expect("watches");
        // Hosts tell of calls from the moment on that they have heard of the watcher.
        let client = platform.client("products");
        within("the first word of a call", async {
            let calls = async {
                loop {
                    client.call("list_categories", json!({})).await;
                }
            };
            tokio::select! { () = calls => {} _ = watch.next() => {} }
        })
        .await;
        Self { platform, watch }
    }

    /// Waits for a call to end in a certain way.
    async fn ended(&mut self, tool: &str, ended: Ended) -> CallEvent {
        within(&format!("{tool} {ended:?}"), async {
            loop {
                let event = self.watch.next().await.expect("the bus is there");
                if event.name.as_deref() == Some(tool) && event.ended == ended {
                    return event;
                }
            }
        })
        .await
    }

    /// Runs one of our client programs over HTTP and checks what it has seen.
    async fn check_http(&mut self, program: &str, era: &str, version: &str, shown: Shown) {
        let url = self.platform.url(shown.path());
        self.check(program, json!({ "url": url, "era": era }), version, "http", shown)
            .await;
    }

    /// Runs one of our client programs with a stdio bridge as its child and checks what it has seen.
    async fn check_stdio(&mut self, program: &str, era: &str, version: &str, shown: Shown) {
        let trunkline = program::path();
        let nats = self.platform.node.nats_url().expect("a NATS of its own");
        let data = self.platform.folder().join("data");
        let mut command = vec![
            json!(trunkline),
            json!("bridge"),
            json!("stdio"),
            json!("--nats"),
            json!(nats),
        ];
        command.extend([json!("--data-dir"), json!(data)]);
        if let Shown::Products = shown {
            command.extend([json!("--server"), json!("products")]);
        }
        self.check(
            program,
            json!({ "command": command, "era": era }),
            version,
            "stdio",
            shown,
        )
        .await;
    }

    async fn check(&mut self, program: &str, mut settings: Value, version: &str, door: &str, shown: Shown) {
        settings["prefix"] = shown.prefix().into();
        let mut command = node(&npm().join("clients").join(program));
        command.arg(settings.to_string());
        let line = printed(command).await;
        let seen: Value = serde_json::from_str(&line).expect("one line of JSON");
        let context = format!("{program} {settings}");
        for (key, expected) in self.expected(program, version, shown).await {
            assert_eq!(seen[key], expected, "{key} as seen by {context}");
        }
        check_progress(&seen["progress"], &context);
        assert_ne!(seen["aborted"]["ended"], "no error", "{context}");
        assert_eq!(seen["aborted"]["after"], false, "{context}");
        let cancelled = self.ended("reindex", Ended::Cancelled).await;
        assert_eq!(
            (cancelled.protocol_version.as_str(), cancelled.door.as_str()),
            (version, door),
            "{context}"
        );
    }

    /// What a client has to see, as a client written by hand sees it on the same endpoint.
    async fn expected(&self, program: &str, version: &str, shown: Shown) -> Vec<(&'static str, Value)> {
        let client = shown.client(&self.platform);
        let prefix = shown.prefix();
        let keys = |result: &Value, list: &str, key: &str| -> Value {
            result[list]
                .as_array()
                .expect("a list")
                .iter()
                .map(|item| item[key].clone())
                .collect()
        };
        let tools = ask(&client, method::TOOLS_LIST, json!({})).await;
        let prompts = ask(&client, method::PROMPTS_LIST, json!({})).await;
        let resources = ask(&client, method::RESOURCES_LIST, json!({})).await;
        let found = client
            .call(&format!("{prefix}search"), json!({ "query": "desk", "limit": 3 }))
            .await;
        let read = ask(
            &client,
            method::RESOURCES_READ,
            json!({ "uri": "product://categories" }),
        )
        .await;
        let read = read["contents"][0]["text"].as_str().expect("a text");
        assert_eq!(
            found["result"]["structuredContent"]["items"]
                .as_array()
                .map(Vec::len),
            Some(3)
        );
        let mut prompt = vec!["text"];
        prompt.extend(["resource"; 10]);
        let named = |own: &[&str]| own.iter().map(|own| format!("{prefix}{own}")).collect::<Value>();
        assert_eq!(
            keys(&prompts, "prompts", "name"),
            named(&["describe_product", "find_in_category"])
        );
        let not_found = NOT_FOUND_BY
            .iter()
            .find(|(by, _)| *by == program)
            .map(|(_, code)| *code);
        vec![
            ("version", json!(version)),
            ("server", json!(shown.server())),
            ("tools", keys(&tools, "tools", "name")),
            ("prompts", keys(&prompts, "prompts", "name")),
            ("resources", keys(&resources, "resources", "uri")),
            ("templates", json!(["product://{sku}"])),
            ("found", found["result"]["structuredContent"].clone()),
            ("refused", json!(true)),
            ("unknown", json!(-32602)),
            ("read", serde_json::from_str(read).expect("JSON")),
            ("missing", json!(not_found)),
            ("prompt", json!(prompt)),
            ("completed", json!(["factual", "friendly"])),
        ]
    }
}

/// The result of a modern request that is answered with one.
async fn ask(client: &Client, called: &str, params: Value) -> Value {
    let answer = messages(client.modern(called, params))
        .await
        .pop()
        .expect("a response");
    assert!(answer["result"].is_object(), "{called}: {answer}");
    answer["result"].clone()
}

/// Each batch of 60 was told of once and in order, up to the last product.
fn check_progress(progress: &Value, context: &str) {
    assert_eq!(progress["isError"], false, "{context}");
    let told: Vec<(u64, u64)> = serde_json::from_value(progress["told"].clone()).expect("pairs of numbers");
    let total = told.last().expect("progress").1;
    let expected: Vec<_> = (1..=total.div_ceil(60))
        .map(|batch| ((batch * 60).min(total), total))
        .collect();
    assert_eq!(told, expected, "{context}");
}

#[tokio::test]
async fn the_typescript_client_v2_uses_both_endpoints_in_both_eras() {
    let mut stage = Stage::set().await;
    for shown in [Shown::Products, Shown::All] {
        for (era, version) in [("modern", MODERN), ("auto", MODERN), ("legacy", LEGACY)] {
            stage.check_http("v2.mjs", era, version, shown).await;
        }
    }
}

#[tokio::test]
async fn the_typescript_sdk_v1_uses_both_endpoints() {
    let mut stage = Stage::set().await;
    for shown in [Shown::Products, Shown::All] {
        stage.check_http("v1.mjs", "legacy", LEGACY, shown).await;
    }
}

#[tokio::test]
async fn typescript_clients_use_the_stdio_bridge_as_their_child() {
    let mut stage = Stage::set().await;
    stage
        .check_stdio("v2.mjs", "modern", MODERN, Shown::Products)
        .await;
    stage.check_stdio("v2.mjs", "auto", MODERN, Shown::All).await;
    stage.check_stdio("v2.mjs", "legacy", LEGACY, Shown::All).await;
    stage
        .check_stdio("v1.mjs", "legacy", LEGACY, Shown::Products)
        .await;
    stage.check_stdio("v1.mjs", "legacy", LEGACY, Shown::All).await;
}

/// A run of the Inspector's command line.
fn inspector(platform: &Platform, shown: Shown, era: &str, arguments: &[&str]) -> Command {
    let mut command = node(&package(
        "@modelcontextprotocol/inspector/clients/launcher/build/index.js",
    ));
    command
        .args([
            "--cli",
            "--transport",
            "http",
            "--server-url",
            &platform.url(shown.path()),
        ])
        .args(["--protocol-era", era, "--format", "json", "--quiet", "--method"])
        .args(arguments)
        // It keeps files in its user's home.
        .env("HOME", platform.folder());
    command
}

#[tokio::test]
async fn the_inspector_lists_and_calls_tools_on_both_endpoints_in_both_eras() {
    let mut stage = Stage::set().await;
    for (shown, era, version) in [
        (Shown::Products, "modern", MODERN),
        (Shown::Products, "legacy", LEGACY),
        (Shown::All, "modern", MODERN),
        (Shown::All, "legacy", LEGACY),
    ] {
        let name = format!("{}search", shown.prefix());
        let arguments = r#"{"query":"desk","limit":2}"#;
        let call = [
            method::TOOLS_CALL,
            "--tool-name",
            &name,
            "--tool-args-json",
            arguments,
        ];
        let (listed, called) = tokio::join!(
            printed(inspector(&stage.platform, shown, era, &[method::TOOLS_LIST])),
            printed(inspector(&stage.platform, shown, era, &call)),
        );
        let [listed, called]: [Value; 2] =
            [listed, called].map(|text| serde_json::from_str(&text).expect("JSON"));
        let client = shown.client(&stage.platform);
        let expected = ask(&client, method::TOOLS_LIST, json!({})).await;
        let names = |tools: &Value| -> Vec<Value> {
            tools
                .as_array()
                .expect("a list")
                .iter()
                .map(|tool| tool["name"].clone())
                .collect()
        };
        assert_eq!(
            names(&listed["result"]["tools"]),
            names(&expected["tools"]),
            "{shown:?} {era}"
        );
        let content = &called["result"]["structuredContent"];
        assert_eq!(
            content["items"].as_array().map(Vec::len),
            Some(2),
            "{shown:?} {era}: {called}"
        );
        let event = stage.ended("search", Ended::Answered).await;
        assert_eq!(event.protocol_version, version, "{shown:?} {era}");
    }
}
