//! The support matrix: clients of every protocol version at every door, and servers of both eras behind it, feature by feature.
//!
//! Each test is one client at one door; it writes down which features it has seen work at which server, and `make matrix` makes
//! `docs/support-matrix.md` of that. A feature that a version does not have is written down as such, and only that.

mod sdks;

use std::{
    fs,
    path::{Path, PathBuf},
};

use bus_schema::{
    ProtocolVersion,
    mcp::{Era, error, method},
};
use futures::future::join_all;
use runtime::Host;
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    children,
    conformance::fixture::{self, serve},
    dialogue::Dialogue,
    eventually,
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

/// The servers behind the doors that hold a conversation: both eras, on the bus, on pipes and over HTTP.
const BOTH_ERAS: [Place; 4] = [
    Place::Bus,
    Place::ChildLegacy,
    Place::RemoteModern,
    Place::RemoteLegacy,
];

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

    /// The id of the server there.
    fn id(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::ChildModern => "child-modern",
            Self::ChildLegacy => "child-legacy",
            Self::RemoteModern => "remote-modern",
            Self::RemoteLegacy => "remote-legacy",
        }
    }

    fn era(self) -> fixture::Era {
        match self {
            Self::Bus | Self::ChildModern | Self::RemoteModern => fixture::Era::Modern,
            Self::ChildLegacy | Self::RemoteLegacy => fixture::Era::Legacy,
        }
    }
}

/// Where the client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Http,
    HttpSse,
    WebSocket,
    Stdio,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::HttpSse => "HTTP+SSE",
            Self::WebSocket => "WebSocket",
            Self::Stdio => "stdio",
        }
    }
}

/// What a test has seen at one server.
struct Seen {
    test: String,
    /// Its version, or the name of its SDK with that.
    client: String,
    door: Door,
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
            "test": self.test, "client": self.client, "door": self.door.name(), "server": self.place.name(),
            "features": lines,
        });
        let name = format!(
            "{}-{}-{}.json",
            self.test.replace("::", "-"),
            self.door.name(),
            self.place.id()
        );
        fs::write(folder.join(name), seen.to_string()).expect("written");
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

/// A platform with servers.
struct Stand {
    platform: Platform,
    host: Option<Host>,
    _remotes: Vec<serve::Serving>,
}

impl Stand {
    async fn set(places: &[Place]) -> Self {
        let (mut file, mut remotes) = (String::new(), Vec::new());
        for place in places {
            let (id, era) = (place.id(), place.era());
            match place {
                Place::Bus => {}
                Place::ChildModern | Place::ChildLegacy => {
                    let program = program::path().with_file_name("conformance");
                    let word = if era == fixture::Era::Legacy {
                        "legacy"
                    } else {
                        "modern"
                    };
                    let command = [&program.to_string_lossy(), "fixture", "--era", word];
                    file.push_str(&children::server(id, &command, ""));
                }
                Place::RemoteModern | Place::RemoteLegacy => {
                    let remote = serve::on_http(([127, 0, 0, 1], 0).into(), era)
                        .await
                        .expect("a free port");
                    let url = remote.url();
                    file.push_str(&format!(
                        "[[servers]]\nid = \"{id}\"\nurl = \"{url}\"\nallow_private = true\n"
                    ));
                    remotes.push(remote);
                }
            }
        }
        let started: Vec<&str> = places
            .iter()
            .filter(|place| **place != Place::Bus)
            .map(|place| place.id())
            .collect();
        let platform = Platform::start(&file, &started).await;
        let host = if places.contains(&Place::Bus) {
            Some(serve::on_bus(platform.node.bus(), Place::Bus.id()).await)
        } else {
            None
        };
        for place in places {
            platform.knows(place.id()).await;
        }
        Self {
            platform,
            host,
            _remotes: remotes,
        }
    }

    /// A client at a door to one of the servers.
    async fn open(
        &self,
        door: Door,
        place: Place,
        version: ProtocolVersion,
        capabilities: Value,
    ) -> Dialogue {
        let server = place.id();
        let channel = match door {
            Door::Http => return Dialogue::open(self.platform.client(server), version, capabilities).await,
            Door::HttpSse => Channel::events(&self.platform, &format!("/servers/{server}/sse")).await,
            Door::WebSocket => Channel::socket(&self.platform, &format!("/servers/{server}/ws")).await,
            Door::Stdio => Channel::child(&self.platform, server),
        };
        Dialogue::open_on(channel, version, capabilities).await
    }

    /// The file that a server writes when a call of a test is given up.
    fn mark(&self, door: Door, place: Place) -> PathBuf {
        let name = format!("{}-{}", door.name(), place.id());
        self.platform.folder().join(name)
    }

    async fn end(self) {
        if let Some(host) = self.host {
            host.stop().await;
        }
        self.platform.stop().await;
    }
}

async fn check(test: &str, version: ProtocolVersion, door: Door, places: &[Place]) {
    let stand = Stand::set(places).await;
    join_all(places.iter().map(async |place| {
        let mut seen = Seen {
            test: test.to_owned(),
            client: version.to_string(),
            door,
            place: *place,
            features: Vec::new(),
        };
        let mut client = stand.open(door, *place, version, json!({})).await;
        plain(&client, version, &mut seen).await;
        on_the_way(&mut client, &stand.mark(door, *place), &mut seen).await;
        let asked = stand.open(door, *place, version, capabilities(version)).await;
        asking(&asked, version, &mut seen).await;
        // At a child of the legacy era this is a process of its own, and what changes there is told as well.
        changes(&asked, &mut seen).await;
        seen.write();
        for client in [client, asked] {
            client.end().await;
        }
    }))
    .await;
    stand.end().await;
}

async fn plain(dialogue: &Dialogue, version: ProtocolVersion, seen: &mut Seen) {
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
    let code = match version.era() {
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

async fn on_the_way(dialogue: &mut Dialogue, mark: &Path, seen: &mut Seen) {
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
    dialogue.give_up("test_hold", json!({ "file": mark })).await;
    eventually("the server drops the call", async || mark.exists()).await;
    seen.works("cancellation");
    dialogue.want_log("info").await;
    let exchange = dialogue.call("test_tool_with_logging", json!({})).await;
    assert_eq!(exchange.parts_of(method::MESSAGE).len(), 3, "{exchange:?}");
    seen.works("log lines");
}

async fn asking(dialogue: &Dialogue, version: ProtocolVersion, seen: &mut Seen) {
    let asked_for = |exchange: &tests::dialogue::Exchange| -> Vec<String> {
        exchange.asked.iter().map(|(method, _)| method.clone()).collect()
    };
    if version < ProtocolVersion::V2025_06_18 {
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

async fn changes(dialogue: &Dialogue, seen: &mut Seen) {
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

/// One test for each client at a door, with the servers behind it.
macro_rules! cells {
    ($($name:ident: $version:ident by $door:ident to $places:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let test = concat!("matrix::", stringify!($name));
                check(test, ProtocolVersion::$version, Door::$door, &$places).await;
            }
        )*
    };
}

cells! {
    a_2024_11_05_client_uses_a_server_on_the_bus: V2024_11_05 by Http to [Place::Bus];
    a_2025_03_26_client_uses_a_server_on_the_bus: V2025_03_26 by Http to [Place::Bus];
    a_2025_06_18_client_uses_a_server_on_the_bus: V2025_06_18 by Http to [Place::Bus];
    a_2025_11_25_client_uses_a_server_on_the_bus: V2025_11_25 by Http to [Place::Bus];
    a_2026_07_28_client_uses_a_server_on_the_bus: V2026_07_28 by Http to [Place::Bus];
    a_2024_11_05_client_uses_a_modern_child: V2024_11_05 by Http to [Place::ChildModern];
    a_2025_03_26_client_uses_a_modern_child: V2025_03_26 by Http to [Place::ChildModern];
    a_2025_06_18_client_uses_a_modern_child: V2025_06_18 by Http to [Place::ChildModern];
    a_2025_11_25_client_uses_a_modern_child: V2025_11_25 by Http to [Place::ChildModern];
    a_2026_07_28_client_uses_a_modern_child: V2026_07_28 by Http to [Place::ChildModern];
    a_2024_11_05_client_uses_a_legacy_child: V2024_11_05 by Http to [Place::ChildLegacy];
    a_2025_03_26_client_uses_a_legacy_child: V2025_03_26 by Http to [Place::ChildLegacy];
    a_2025_06_18_client_uses_a_legacy_child: V2025_06_18 by Http to [Place::ChildLegacy];
    a_2025_11_25_client_uses_a_legacy_child: V2025_11_25 by Http to [Place::ChildLegacy];
    a_2026_07_28_client_uses_a_legacy_child: V2026_07_28 by Http to [Place::ChildLegacy];
    a_2024_11_05_client_uses_a_modern_remote_server: V2024_11_05 by Http to [Place::RemoteModern];
    a_2025_03_26_client_uses_a_modern_remote_server: V2025_03_26 by Http to [Place::RemoteModern];
    a_2025_06_18_client_uses_a_modern_remote_server: V2025_06_18 by Http to [Place::RemoteModern];
    a_2025_11_25_client_uses_a_modern_remote_server: V2025_11_25 by Http to [Place::RemoteModern];
    a_2026_07_28_client_uses_a_modern_remote_server: V2026_07_28 by Http to [Place::RemoteModern];
    a_2024_11_05_client_uses_a_legacy_remote_server: V2024_11_05 by Http to [Place::RemoteLegacy];
    a_2025_03_26_client_uses_a_legacy_remote_server: V2025_03_26 by Http to [Place::RemoteLegacy];
    a_2025_06_18_client_uses_a_legacy_remote_server: V2025_06_18 by Http to [Place::RemoteLegacy];
    a_2025_11_25_client_uses_a_legacy_remote_server: V2025_11_25 by Http to [Place::RemoteLegacy];
    a_2026_07_28_client_uses_a_legacy_remote_server: V2026_07_28 by Http to [Place::RemoteLegacy];
    a_2024_11_05_client_uses_servers_of_both_eras_over_http_and_sse: V2024_11_05 by HttpSse to BOTH_ERAS;
    a_2024_11_05_client_uses_servers_of_both_eras_over_a_websocket: V2024_11_05 by WebSocket to BOTH_ERAS;
    a_2025_03_26_client_uses_servers_of_both_eras_over_a_websocket: V2025_03_26 by WebSocket to BOTH_ERAS;
    a_2025_06_18_client_uses_servers_of_both_eras_over_a_websocket: V2025_06_18 by WebSocket to BOTH_ERAS;
    a_2025_11_25_client_uses_servers_of_both_eras_over_a_websocket: V2025_11_25 by WebSocket to BOTH_ERAS;
    a_2026_07_28_client_uses_servers_of_both_eras_over_a_websocket: V2026_07_28 by WebSocket to BOTH_ERAS;
    a_2024_11_05_client_uses_servers_of_both_eras_over_stdio: V2024_11_05 by Stdio to BOTH_ERAS;
    a_2025_03_26_client_uses_servers_of_both_eras_over_stdio: V2025_03_26 by Stdio to BOTH_ERAS;
    a_2025_06_18_client_uses_servers_of_both_eras_over_stdio: V2025_06_18 by Stdio to BOTH_ERAS;
    a_2025_11_25_client_uses_servers_of_both_eras_over_stdio: V2025_11_25 by Stdio to BOTH_ERAS;
    a_2026_07_28_client_uses_servers_of_both_eras_over_stdio: V2026_07_28 by Stdio to BOTH_ERAS;
}
