//! The clients of the official SDKs in the matrix: TypeScript v1 and v2, and Python, at every door that they have a transport for.
//!
//! They run in processes of their own; what they print (see `tests/npm/clients/matrix/` and `tests/python/matrix.py`) says what each
//! feature came to.

use bus_schema::{
    ProtocolVersion,
    mcp::{Era, error},
};
use futures::future::join_all;
use serde_json::{Value, json};
use tests::{
    parts::{node, npm, printed, python, script},
    program,
};
use tokio::process::Command;

use super::{BOTH_ERAS, Door, Place, Seen, Stand, WATCHED};

/// A server of each era.
const ONE_OF_EACH_ERA: [Place; 2] = [Place::Bus, Place::ChildLegacy];

/// The servers behind a door. How a server is reached is the same behind all of them, so one door is enough for every way.
fn places(door: Door) -> &'static [Place] {
    match door {
        Door::Http => &BOTH_ERAS,
        Door::HttpSse | Door::WebSocket | Door::Stdio => &ONE_OF_EACH_ERA,
    }
}

/// A client of an SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sdk {
    TypeScript1,
    TypeScript2,
    Python,
}

impl Sdk {
    fn name(self) -> &'static str {
        match self {
            Self::TypeScript1 => "TypeScript SDK v1",
            Self::TypeScript2 => "TypeScript SDK v2",
            Self::Python => "Python SDK",
        }
    }

    fn command(self) -> Command {
        match self {
            Self::TypeScript1 => node(&npm().join("clients/matrix/v1.mjs")),
            Self::TypeScript2 => node(&npm().join("clients/matrix/v2.mjs")),
            Self::Python => python(&script("matrix.py")),
        }
    }

    /// The code by which it knows a resource that does not exist. The newer TypeScript one shows the modern code in both eras.
    fn not_found(self, version: ProtocolVersion) -> i64 {
        if version.era() == Era::Legacy && self != Self::TypeScript2 {
            error::LEGACY_RESOURCE_NOT_FOUND
        } else {
            error::INVALID_PARAMS
        }
    }
}

/// What a client has to see, feature by feature in the order of the page.
fn expected(sdk: Sdk, version: ProtocolVersion) -> Vec<(&'static str, Value)> {
    let text = "This is a simple text response for testing.";
    vec![
        (
            "tools",
            json!({ "many": true, "text": text, "unknown": error::INVALID_PARAMS }),
        ),
        ("prompts", json!({ "listed": true, "messages": 1 })),
        (
            "resources",
            json!({ "text": "string", "missing": sdk.not_found(version) }),
        ),
        ("completion", json!(true)),
        ("progress", json!([0, 50, 100])),
        ("cancellation", json!({ "isRejected": true })),
        ("log lines", json!(3)),
        (
            "elicitation",
            json!({
                "once": "User response: action=accept, content={\"email\":\"blue\",\"username\":\"blue\"}",
                "twice": "blue likes blue",
            }),
        ),
        ("sampling", json!("LLM response: four")),
        ("roots", json!("The first folder is file:///home/test")),
        (
            "resource subscriptions",
            json!({ "uri": WATCHED, "again": WATCHED, "ended": "local", "after": text }),
        ),
        ("list changes", json!({ "changed": true })),
    ]
}

/// The TypeScript SDKs forget who wants to know of progress as soon as they see the answer, and look at notifications only after all
/// that one read has brought. Over a pipe that may be both: then the SDK complains of the notification, which was there in time.
fn take_late_progress(told: &mut Value) {
    const COMPLAINT: &str = "Error: Received a progress notification for an unknown token: ";
    let late = |complaint: &Value| -> Option<Value> {
        let notification = complaint.as_str()?.strip_prefix(COMPLAINT)?;
        let notification: Value = serde_json::from_str(notification).ok()?;
        Some(notification["params"]["progress"].clone())
    };
    let complaints = told["complaints"].as_array().cloned().unwrap_or_default();
    let (came_late, others): (Vec<_>, Vec<_>) = complaints
        .into_iter()
        .partition(|complaint| late(complaint).is_some());
    let progress = told["progress"]
        .as_array_mut()
        .expect("what was told of progress");
    progress.extend(came_late.iter().filter_map(late));
    told["complaints"] = others.into();
}

/// How a client comes to a server.
fn settings(stand: &Stand, door: Door, place: Place, version: ProtocolVersion) -> Value {
    let server = place.id();
    let mut settings = match door {
        Door::Http => json!({ "http": stand.platform.url(&format!("/servers/{server}/mcp")) }),
        Door::HttpSse => json!({ "sse": stand.platform.url(&format!("/servers/{server}/sse")) }),
        Door::WebSocket => {
            let url = stand.platform.url(&format!("/servers/{server}/ws"));
            json!({ "ws": url.replacen("http", "ws", 1) })
        }
        Door::Stdio => {
            let mut command = vec![program::path().to_string_lossy().into_owned()];
            command.extend(stand.platform.stdio_bridge(server));
            json!({ "command": command })
        }
    };
    settings["era"] = match version.era() {
        Era::Modern => "modern".into(),
        Era::Legacy => "legacy".into(),
    };
    settings
}

async fn check(test: &str, sdk: Sdk, version: ProtocolVersion, doors: &[Door]) {
    let stand = Stand::set(&BOTH_ERAS).await;
    for door in doors {
        join_all(places(*door).iter().map(async |place| {
            let mut settings = settings(&stand, *door, *place, version);
            settings["mark"] = json!(stand.mark(*door, *place));
            let mut command = sdk.command();
            command.arg(settings.to_string());
            let mut told: Value = serde_json::from_str(&printed(command).await).expect("one line of JSON");
            if *door == Door::Stdio {
                take_late_progress(&mut told);
            }
            let context = format!("{} {settings}: {told}", sdk.name());
            assert_eq!(told["version"], version.as_str(), "{context}");
            let mut seen = Seen {
                test: test.to_owned(),
                client: format!("{} ({version})", sdk.name()),
                door: *door,
                place: *place,
                features: Vec::new(),
            };
            for (feature, expected) in expected(sdk, version) {
                assert_eq!(told[feature], expected, "{feature} as seen by {context}");
                seen.works(feature);
            }
            assert_eq!(told["complaints"], json!([]), "{context}");
            seen.write();
        }))
        .await;
    }
    stand.end().await;
}

/// One test for each client, at all its doors.
macro_rules! clients {
    ($($name:ident: $sdk:ident $version:ident by $doors:expr;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let test = concat!("matrix::sdks::", stringify!($name));
                check(test, Sdk::$sdk, ProtocolVersion::$version, &$doors).await;
            }
        )*
    };
}

const EVERY_DOOR: [Door; 4] = [Door::Http, Door::HttpSse, Door::WebSocket, Door::Stdio];
/// The newer SDK has no client for the oldest transport.
const WITHOUT_SSE: [Door; 3] = [Door::Http, Door::WebSocket, Door::Stdio];
/// The Python SDK has no transport for it.
const WITHOUT_WEBSOCKET: [Door; 2] = [Door::Http, Door::Stdio];

clients! {
    the_typescript_sdk_v1_uses_servers_of_both_eras: TypeScript1 V2025_11_25 by EVERY_DOOR;
    the_typescript_sdk_v2_uses_servers_of_both_eras_in_the_legacy_era: TypeScript2 V2025_11_25 by WITHOUT_SSE;
    the_typescript_sdk_v2_uses_servers_of_both_eras_in_the_modern_era: TypeScript2 V2026_07_28 by WITHOUT_SSE;
    the_python_sdk_uses_servers_of_both_eras_in_the_legacy_era: Python V2025_11_25 by WITHOUT_WEBSOCKET;
    the_python_sdk_uses_servers_of_both_eras_in_the_modern_era: Python V2026_07_28 by WITHOUT_WEBSOCKET;
}
