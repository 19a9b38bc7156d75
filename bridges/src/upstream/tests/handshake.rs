//! Which era a child is found to speak, and what a child is told that speaks none.

use std::time::Duration;

use bus_schema::ProtocolVersion;
use serde_json::{Value, json};

use super::scripted::{command, limits, request, script, start, start_with};
use crate::upstream::{EraKnob, UpstreamError, options::Limits};

#[tokio::test]
async fn the_era_is_found_out() {
    let named = r#"{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}"#;
    for (text, expected) in [
        ("modern; cat", ProtocolVersion::V2026_07_28),
        ("legacy; cat", ProtocolVersion::V2025_06_18),
        // It names a version that it takes all the same.
        (
            &format!("next; error '{named}'; modern; cat"),
            ProtocolVersion::V2026_07_28,
        ),
        // It answers the modern question with legacy versions only.
        (
            r#"next; result '{"supportedVersions":["2025-11-25"]}'; next; initialized; cat"#,
            ProtocolVersion::V2025_06_18,
        ),
        // It takes no `initialize` of a version that it does not know.
        (
            r#"next; error '{"code":-32601,"message":"no"}'; next
               error '{"code":-32602,"message":"no","data":{"supported":["2024-11-05"]}}'
               next; case "$line" in *2024-11-05*) initialized;; esac; cat"#,
            ProtocolVersion::V2025_06_18,
        ),
        // It asks back and says this and that before it answers.
        (
            r#"next; say 'starting up'; say '{"jsonrpc":"2.0","id":"a","method":"ping"}'
               error '{"code":-32601,"message":"no"}'; next; next; initialized; cat"#,
            ProtocolVersion::V2025_06_18,
        ),
    ] {
        let ready = start(&script(text)).await.unwrap();
        assert_eq!(ready.session.version, expected, "{text}");
    }
}

#[tokio::test]
async fn a_child_that_is_silent_at_a_modern_question_is_asked_the_legacy_one() {
    let soon = Limits {
        probe: Duration::from_millis(300),
        ..limits()
    };
    let modern = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}"#;
    for (text, expected) in [
        // It drops what comes before `initialize`.
        ("next; next; initialized; cat", ProtocolVersion::V2025_06_18),
        // It was slow to start, and knows both.
        (
            &format!(
                "next; probe=$id; next; say '{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{modern}}}'; initialized; cat"
            ),
            ProtocolVersion::V2025_06_18,
        ),
        // It was slow to start, and is modern only.
        (
            &format!(
                "next; next; say '{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{modern}}}'; error '{{\"code\":-32601,\"message\":\"no\"}}'; cat"
            ),
            ProtocolVersion::V2026_07_28,
        ),
    ] {
        let ready = start_with(&script(text), soon).await.unwrap();
        assert_eq!(ready.session.version, expected, "{text}");
    }
}

#[tokio::test]
async fn a_child_that_ends_on_a_modern_question_is_started_again_with_a_legacy_one() {
    let text = r#"next; case "$line" in *discover*) exit 3;; esac; initialized; cat"#;
    let ready = start(&script(text)).await.unwrap();
    assert_eq!(ready.session.version, ProtocolVersion::V2025_06_18);
}

#[tokio::test]
async fn a_known_era_is_not_asked_for() {
    let legacy = r#"next; case "$line" in *initialize*) initialized; cat;; esac"#;
    let mut options = script(legacy);
    options.era = EraKnob::Legacy;
    assert_eq!(
        start(&options).await.unwrap().session.version,
        ProtocolVersion::V2025_06_18
    );
    let mut options = script(r#"next; error '{"code":-32601,"message":"unknown"}'; cat"#);
    options.era = EraKnob::Modern;
    let error = start(&options).await.err().unwrap();
    assert!(
        matches!(
            error,
            UpstreamError::Refused {
                method: "server/discover",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_spoken_with_is_told_by_name() {
    for (options, expected) in [
        (
            script(
                r#"next; error '{"code":-32601,"message":"no"}'; next; result '{"protocolVersion":"1999-01-01"}'; cat"#,
            ),
            "it answered `initialize` with protocol version `1999-01-01`, which is not spoken here with a handshake",
        ),
        (
            script(
                r#"next; error '{"code":1,"message":"no"}'; next; error '{"code":1,"message":"no"}'; cat"#,
            ),
            "it answered `initialize` with an error",
        ),
        (script("exit 7"), "its process ended (exit status: 7)"),
        (script("kill -9 $$"), "its process ended (signal: 9 (SIGKILL))"),
        (
            command(&["yes", "this is no MCP"]),
            "it speaks no MCP on its stdout: it writes lines that are no messages, and nothing else",
        ),
        (command(&["/does/not/exist"]), "cannot start `/does/not/exist`"),
        (command(&[]), "its command line is empty; name the program to run"),
    ] {
        let error = start(&options).await.err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn a_child_that_never_comes_to_the_point_is_given_up() {
    let soon = Limits {
        handshake: Duration::from_secs(1),
        ..limits()
    };
    let error = start_with(&script("say one; say two; cat > /dev/null"), soon)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, UpstreamError::Silent { garbage: 2, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_legacy_child_is_discovered_from_its_handshake() {
    let ready = start(&script("legacy; cat")).await.unwrap();
    let discovered: Value = serde_json::from_str(&ready.session.discovered.unwrap()).unwrap();
    assert_eq!(
        discovered,
        json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
            "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "s", "version": "1" } },
            "ttlMs": 0, "cacheScope": "private",
        })
    );
}

#[tokio::test]
async fn a_modern_child_is_asked_to_tell_of_changed_lists() {
    let text = r#"next
        result '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true}}}'
        next; case "$line" in *subscriptions/listen*toolsListChanged*)
            say '{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}}';; esac
        next; result '{}'; cat"#;
    let ready = start(&script(text)).await.unwrap();
    let mut changes = ready.child.link().list_changes.subscribe();
    super::scripted::within(changes.wait_for(|count| *count > 0))
        .await
        .unwrap();
    let (_, answer) = ready.call(&request("tools/list", "1", "", "")).await;
    assert_eq!(answer["result"]["resultType"], "complete");
}
