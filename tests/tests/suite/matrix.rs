//! The support matrix: clients of every protocol version at servers of both eras, feature by feature, over HTTP.
//!
//! Each test is one client at one server; it writes down which features it has seen work, and `make matrix` makes
//! `docs/support-matrix.md` of that. A feature that a version does not have is written down as such, and only that.

use std::{fs, path::PathBuf};

use bus_schema::{
    ProtocolVersion,
    mcp::{Era, error, method},
};
use serde_json::{Value, json};
use tests::{
    children,
    conformance::fixture::{self, serve},
    dialogue::Dialogue,
    http::Client,
    platform::Platform,
    program, root,
};

const WATCHED: &str = "test://watched-resource";

/// Where the server is, and which era it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Bus,
    ChildModern,
    ChildLegacy,
    RemoteModern,
    RemoteLegacy,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Bus => "rmcp on the bus (modern)",
            Self::ChildModern => "child process, modern",
            Self::ChildLegacy => "child process, legacy",
            Self::RemoteModern => "remote over HTTP, modern",
            Self::RemoteLegacy => "remote over HTTP, legacy",
        }
    }

    fn era(self) -> Era {
        match self {
            Self::Bus | Self::ChildModern | Self::RemoteModern => Era::Modern,
            Self::ChildLegacy | Self::RemoteLegacy => Era::Legacy,
        }
    }
}

/// What a test has seen.
struct Seen {
    test: String,
    version: ProtocolVersion,
    place: Place,
    features: Vec<(&'static str, &'static str)>,
}

impl Seen {
    fn works(&mut self, feature: &'static str) {
        self.features.push((feature, "yes"));
    }

    fn lacks(&mut self, feature: &'static str) {
        self.features.push((feature, "not in this version"));
    }

    fn write(&self) {
        let folder = folder();
        fs::create_dir_all(&folder).expect("a folder");
        let lines: Vec<Value> = self
            .features
            .iter()
            .map(|(feature, seen)| json!({ "feature": feature, "seen": seen }))
            .collect();
        let seen = json!({
            "test": self.test, "client": self.version.as_str(), "server": self.place.name(), "features": lines,
        });
        fs::write(
            folder.join(format!("{}.json", self.test.replace("::", "-"))),
            seen.to_string(),
        )
        .expect("written");
    }
}

fn folder() -> PathBuf {
    root().join("target/support-matrix")
}

/// What a client of a version can be asked.
fn capabilities(version: ProtocolVersion) -> Value {
    match version {
        ProtocolVersion::V2024_11_05 | ProtocolVersion::V2025_03_26 => json!({ "sampling": {}, "roots": {} }),
        _ => json!({ "sampling": {}, "roots": {}, "elicitation": {} }),
    }
}

async fn check(test: &str, version: ProtocolVersion, place: Place) {
    let era = if place.era() == Era::Legacy {
        fixture::Era::Legacy
    } else {
        fixture::Era::Modern
    };
    let remote = match place {
        Place::RemoteModern | Place::RemoteLegacy => Some(
            serve::on_http(([127, 0, 0, 1], 0).into(), era)
                .await
                .expect("a free port"),
        ),
        _ => None,
    };
    let line = match &remote {
        Some(remote) => format!(
            "[[servers]]\nid = \"target\"\nurl = \"{}\"\nallow_private = true\n",
            remote.url()
        ),
        None => {
            let program = program::path().with_file_name("conformance");
            let word = if era == fixture::Era::Legacy {
                "legacy"
            } else {
                "modern"
            };
            children::server(
                "target",
                &[&program.to_string_lossy(), "fixture", "--era", word],
                "",
            )
        }
    };
    let (platform, host) = if place == Place::Bus {
        let platform = Platform::start("", &[]).await;
        let host = serve::on_bus(platform.node.bus(), "target").await;
        (platform, Some(host))
    } else {
        (Platform::start(&line, &["target"]).await, None)
    };
    platform.knows("target").await;
    let client = platform.client("target");
    let mut seen = Seen {
        test: test.to_owned(),
        version,
        place,
        features: Vec::new(),
    };
    plain(&client, &mut seen).await;
    on_the_way(&client, &mut seen).await;
    asking(&client, &mut seen).await;
    changes(&client, &mut seen).await;
    seen.write();
    if let Some(host) = host {
        host.stop().await;
    }
    platform.stop().await;
}

async fn plain(client: &Client, seen: &mut Seen) {
    let dialogue = Dialogue::open(client.clone(), seen.version, json!({})).await;
    let listed = dialogue.ask(method::TOOLS_LIST, json!({})).await.answer;
    assert!(
        listed["result"]["tools"]
            .as_array()
            .is_some_and(|tools| tools.len() > 20),
        "{listed}"
    );
    let called = dialogue.call("test_simple_text", json!({})).await;
    assert_eq!(called.text(), "This is a simple text response for testing.");
    let unknown = dialogue.call("no_such_tool", json!({})).await.answer;
    assert_eq!(unknown["error"]["code"], error::INVALID_PARAMS, "{unknown}");
    seen.works("tools");
    let prompt = dialogue
        .ask(method::PROMPTS_GET, json!({ "name": "test_simple_prompt" }))
        .await
        .answer;
    assert!(prompt["result"]["messages"].is_array(), "{prompt}");
    seen.works("prompts");
    let read = dialogue
        .ask(method::RESOURCES_READ, json!({ "uri": "test://static-text" }))
        .await
        .answer;
    assert!(read["result"]["contents"][0]["text"].is_string(), "{read}");
    let missing = dialogue
        .ask(method::RESOURCES_READ, json!({ "uri": "test://none" }))
        .await
        .answer;
    let code = match seen.version.era() {
        Era::Modern => error::INVALID_PARAMS,
        Era::Legacy => error::LEGACY_RESOURCE_NOT_FOUND,
    };
    assert_eq!(missing["error"]["code"], code, "{missing}");
    seen.works("resources");
    let completed = dialogue.ask(method::COMPLETE, json!({
        "ref": { "type": "ref/prompt", "name": "test_prompt_with_arguments" }, "argument": { "name": "arg1", "value": "te" },
    }));
    let completed = completed.await.answer;
    assert!(
        completed["result"]["completion"]["values"].is_array(),
        "{completed}"
    );
    seen.works("completion");
}

async fn on_the_way(client: &Client, seen: &mut Seen) {
    let mut dialogue = Dialogue::open(client.clone(), seen.version, json!({})).await;
    let params =
        json!({ "name": "test_tool_with_progress", "arguments": {}, "_meta": { "progressToken": "p" } });
    let exchange = dialogue.ask(method::TOOLS_CALL, params).await;
    let told: Vec<_> = exchange
        .parts_of(method::PROGRESS)
        .iter()
        .map(|part| {
            (
                part["params"]["progressToken"].clone(),
                part["params"]["progress"].as_f64(),
            )
        })
        .collect();
    assert_eq!(told, [0.0, 50.0, 100.0].map(|done| (json!("p"), Some(done))));
    seen.works("progress");
    dialogue.want_log("info").await;
    let exchange = dialogue.call("test_tool_with_logging", json!({})).await;
    assert_eq!(exchange.parts_of(method::MESSAGE).len(), 3, "{exchange:?}");
    seen.works("log lines");
}

async fn asking(client: &Client, seen: &mut Seen) {
    let dialogue = Dialogue::open(client.clone(), seen.version, capabilities(seen.version)).await;
    let asked_for = |exchange: &tests::dialogue::Exchange| -> Vec<String> {
        exchange.asked.iter().map(|(method, _)| method.clone()).collect()
    };
    if seen.version < ProtocolVersion::V2025_06_18 {
        let refused = dialogue.call("test_elicitation", json!({ "message": "m" })).await;
        assert!(refused.asked.is_empty(), "{refused:?}");
        assert!(
            refused.answer.get("error").is_some() || refused.answer["result"]["isError"] == true,
            "{refused:?}"
        );
        seen.lacks("elicitation");
    } else {
        let exchange = dialogue
            .call("test_elicitation", json!({ "message": "Who are you?" }))
            .await;
        assert_eq!(asked_for(&exchange), [method::ELICIT], "{exchange:?}");
        assert_eq!(exchange.asked[0].1["message"], "Who are you?");
        assert!(exchange.text().contains("accept"), "{exchange:?}");
        let exchange = dialogue
            .call("test_input_required_result_multi_round", json!({}))
            .await;
        assert_eq!(exchange.asked.len(), 2, "{exchange:?}");
        assert!(exchange.text().contains("blue"), "{exchange:?}");
        seen.works("elicitation");
    }
    let exchange = dialogue
        .call("test_sampling", json!({ "prompt": "two and two" }))
        .await;
    assert_eq!(asked_for(&exchange), [method::SAMPLE], "{exchange:?}");
    assert!(exchange.text().contains("four"), "{exchange:?}");
    seen.works("sampling");
    let exchange = dialogue
        .call("test_input_required_result_list_roots", json!({}))
        .await;
    assert_eq!(asked_for(&exchange), [method::ROOTS_LIST], "{exchange:?}");
    assert!(exchange.text().contains("file:///home/test"), "{exchange:?}");
    seen.works("roots");
}

async fn changes(client: &Client, seen: &mut Seen) {
    let dialogue = Dialogue::open(client.clone(), seen.version, json!({})).await;
    let mut stream = dialogue.listen(WATCHED).await;
    for (tool, notice) in [
        ("test_trigger_resource_update", method::UPDATED),
        ("test_trigger_tool_change", method::TOOLS_CHANGED),
        ("test_trigger_prompt_change", method::PROMPTS_CHANGED),
    ] {
        let called = dialogue.call(tool, json!({})).await;
        assert!(called.answer["error"].is_null(), "{called:?}");
        let told = stream.message().await;
        assert_eq!(told["method"], notice, "{told}");
    }
    seen.works("resource subscriptions");
    seen.works("list changes");
}

/// One test for each client and server.
macro_rules! cells {
    ($($name:ident: $version:ident at $place:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                check(concat!("matrix::", stringify!($name)), ProtocolVersion::$version, Place::$place).await;
            }
        )*
    };
}

cells! {
    a_2024_11_05_client_uses_a_server_on_the_bus: V2024_11_05 at Bus;
    a_2025_03_26_client_uses_a_server_on_the_bus: V2025_03_26 at Bus;
    a_2025_06_18_client_uses_a_server_on_the_bus: V2025_06_18 at Bus;
    a_2025_11_25_client_uses_a_server_on_the_bus: V2025_11_25 at Bus;
    a_2026_07_28_client_uses_a_server_on_the_bus: V2026_07_28 at Bus;
    a_2024_11_05_client_uses_a_modern_child: V2024_11_05 at ChildModern;
    a_2025_03_26_client_uses_a_modern_child: V2025_03_26 at ChildModern;
    a_2025_06_18_client_uses_a_modern_child: V2025_06_18 at ChildModern;
    a_2025_11_25_client_uses_a_modern_child: V2025_11_25 at ChildModern;
    a_2026_07_28_client_uses_a_modern_child: V2026_07_28 at ChildModern;
    a_2024_11_05_client_uses_a_legacy_child: V2024_11_05 at ChildLegacy;
    a_2025_03_26_client_uses_a_legacy_child: V2025_03_26 at ChildLegacy;
    a_2025_06_18_client_uses_a_legacy_child: V2025_06_18 at ChildLegacy;
    a_2025_11_25_client_uses_a_legacy_child: V2025_11_25 at ChildLegacy;
    a_2026_07_28_client_uses_a_legacy_child: V2026_07_28 at ChildLegacy;
    a_2024_11_05_client_uses_a_modern_remote_server: V2024_11_05 at RemoteModern;
    a_2025_03_26_client_uses_a_modern_remote_server: V2025_03_26 at RemoteModern;
    a_2025_06_18_client_uses_a_modern_remote_server: V2025_06_18 at RemoteModern;
    a_2025_11_25_client_uses_a_modern_remote_server: V2025_11_25 at RemoteModern;
    a_2026_07_28_client_uses_a_modern_remote_server: V2026_07_28 at RemoteModern;
    a_2024_11_05_client_uses_a_legacy_remote_server: V2024_11_05 at RemoteLegacy;
    a_2025_03_26_client_uses_a_legacy_remote_server: V2025_03_26 at RemoteLegacy;
    a_2025_06_18_client_uses_a_legacy_remote_server: V2025_06_18 at RemoteLegacy;
    a_2025_11_25_client_uses_a_legacy_remote_server: V2025_11_25 at RemoteLegacy;
    a_2026_07_28_client_uses_a_legacy_remote_server: V2026_07_28 at RemoteLegacy;
}
