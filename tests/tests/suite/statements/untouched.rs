//! What the platform carries without knowing it: metadata, extensions, and schemas that lead elsewhere.

use axum::http::StatusCode;
use bus_schema::{ProtocolVersion, mcp::method};
use serde_json::json;
use tests::{
    dialogue::Dialogue,
    scripted::{Asked, Scripted, status, typed},
    session::messages,
    within,
};

use super::{Era, before, scripted};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Gives back the metadata of a call.
fn echo(asked: &Asked) -> Option<axum::response::Response> {
    (asked.called() == method::TOOLS_CALL).then(|| {
        let seen = &asked.body["params"]["_meta"];
        let mut kept = json!({});
        for key in ["traceparent", "tracestate", "com.example/x", "unprefixed"] {
            kept[key] = seen[key].clone();
        }
        asked.result(&json!({ "resultType": "complete", "content": [], "_meta": kept }))
    })
}

#[tokio::test]
async fn a_trace_and_unknown_metadata_come_through_and_back_in_every_pair_of_eras() {
    let tools = json!([super::plain_tool("echo")]);
    let modern = scripted(Era::Modern, tools.clone(), echo).await;
    let legacy = scripted(Era::Legacy, tools, echo).await;
    let platform = before(&[("modern", &modern), ("legacy", &legacy)]).await;
    let sent = json!({
        "traceparent": TRACE, "tracestate": "a=1", "com.example/x": { "n": 1.5, "deep": [null, "ü"] }, "unprefixed": 7,
    });
    for (id, server) in [("modern", &modern), ("legacy", &legacy)] {
        for version in [
            ProtocolVersion::MODERN,
            ProtocolVersion::V2024_11_05,
            ProtocolVersion::V2025_11_25,
        ] {
            for (client, tool) in [
                (platform.client(id), "echo".to_owned()),
                (platform.client_of_all(), format!("{id}__echo")),
            ] {
                let caller = Dialogue::open(client, version, json!({})).await;
                let params = json!({ "name": tool, "arguments": {}, "_meta": sent });
                let answer = caller.ask(method::TOOLS_CALL, params).await.answer;
                for (key, value) in sent.as_object().expect("an object") {
                    assert_eq!(
                        answer["result"]["_meta"][key], *value,
                        "{version} {id} {key}: {answer}"
                    );
                }
            }
        }
        let seen = server.asked(method::TOOLS_CALL);
        assert_eq!(seen.len(), 6);
        if id == "legacy" {
            // A legacy server does not hear of the modern era's own keys.
            let meta = seen[0].body["params"]["_meta"].as_object().expect("metadata");
            assert!(
                meta.keys()
                    .all(|key| !key.starts_with("io.modelcontextprotocol/")),
                "{meta:?}"
            );
        }
    }
}

/// As a server of apps may spell it: odd spaces, numbers and key order stand for themselves.
const UI: &str =
    r#"{"ui":{ "csp":{"connectDomains":["https://a.example"]},"prefersBorder" :true,"x":1.10,"a":1e2}}"#;
const CONTENT: &str =
    r#"[{"mimeType":"text/html;profile=mcp-app","uri":"ui://app/view","text":"<p>\u00fc</p>","_meta":UI}]"#;

fn app(asked: &Asked) -> Option<axum::response::Response> {
    let version = asked.body["params"]["protocolVersion"].to_string();
    let capabilities = r#"{"tools":{},"resources":{}}"#;
    let result = match asked.called() {
        method::DISCOVER if asked.path.contains("modern") => {
            format!(
                r#"{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{capabilities}}}"#
            )
        }
        method::INITIALIZE => format!(
            r#"{{"protocolVersion":{version},"capabilities":{capabilities},"serverInfo":{{"name":"app","version":"1"}}}}"#
        ),
        method::TOOLS_LIST => {
            format!(r#"{{"tools":[{{"name":"show","_meta":{UI},"inputSchema":{{"type":"object"}}}}]}}"#)
        }
        // The view itself is in no list.
        method::RESOURCES_LIST => r#"{"resources":[{"uri":"ui://app/other","name":"other"}]}"#.to_owned(),
        method::TEMPLATES_LIST => r#"{"resourceTemplates":[]}"#.to_owned(),
        method::RESOURCES_READ => format!(r#"{{"contents":{}}}"#, CONTENT.replace("UI", UI)),
        _ => return None,
    };
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#,
        asked.body["id"]
    );
    Some(typed(StatusCode::OK, "application/json", text))
}

#[tokio::test]
async fn what_belongs_to_apps_keeps_every_byte() {
    let start = async || {
        Scripted::start(|asked| async move {
            match app(&asked) {
                Some(answer) => answer,
                None if asked.path.contains("modern") => asked.modern(&json!([])),
                None => asked.legacy("", &json!([])),
            }
        })
        .await
    };
    let (modern, legacy) = (start().await, start().await);
    for (id, server) in [("modern", &modern), ("legacy", &legacy)] {
        let url = format!("{}/{id}", server.url());
        let file = tests::remote::local("app", &url, "");
        let platform = tests::platform::Platform::start(&file, &["app"]).await;
        platform.knows("app").await;
        for client in [platform.client("app"), platform.client_of_all()] {
            let session = tests::session::Session::open(&client, "2025-11-25").await;
            let read = json!({ "uri": "ui://app/view" });
            let text = async |request: reqwest::RequestBuilder| {
                let answer = within("an answer", request.send()).await.expect("an answer");
                answer.text().await.expect("text")
            };
            let contents = CONTENT.replace("UI", UI);
            for request in [
                client.modern(method::RESOURCES_READ, read.clone()),
                session.request(method::RESOURCES_READ, &read),
            ] {
                let answer = text(request).await;
                assert!(answer.contains(&contents), "{id}: {answer}");
            }
            for request in [
                client.modern(method::TOOLS_LIST, json!({})),
                session.request(method::TOOLS_LIST, &json!({})),
            ] {
                let answer = text(request).await;
                assert!(answer.contains(UI), "{id}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_schema_that_is_elsewhere_is_never_fetched_and_stays_as_it_is() {
    let elsewhere = Scripted::start(|_| async { status(200) }).await;
    let url = format!("http://{}/schema.json", elsewhere.addr);
    let schema = json!({
        "type": "object",
        "$schema": format!("{url}#dialect"),
        "properties": { "a": { "$ref": format!("{url}#/a") } },
        "allOf": [{ "$ref": url }],
    });
    let tool =
        json!({ "name": "far", "inputSchema": schema, "outputSchema": { "type": "object", "$ref": url } });
    let modern = scripted(Era::Modern, json!([tool]), |_| None).await;
    let legacy = scripted(Era::Legacy, json!([tool]), |_| None).await;
    let platform = before(&[("modern", &modern), ("legacy", &legacy)]).await;
    for id in ["modern", "legacy"] {
        for (client, name) in [
            (platform.client(id), "far".to_owned()),
            (platform.client_of_all(), format!("{id}__far")),
        ] {
            for version in [ProtocolVersion::MODERN, ProtocolVersion::V2025_11_25] {
                let caller = Dialogue::open(client.clone(), version, json!({})).await;
                let listed = caller.ask(method::TOOLS_LIST, json!({})).await.answer;
                let tools = listed["result"]["tools"].as_array().expect("tools");
                let listed = tools.iter().find(|tool| tool["name"] == *name).expect("listed");
                assert_eq!(listed["inputSchema"], schema);
                let called = caller.call(&name, json!({ "a": 7 })).await;
                assert_eq!(called.text(), r#"{"a":7}"#);
            }
            let listed = messages(client.modern(method::TOOLS_LIST, json!({}))).await;
            assert!(listed[0].to_string().contains(&url));
        }
    }
    for http in ["GET", "HEAD", "POST", "OPTIONS"] {
        assert!(elsewhere.asked(http).is_empty(), "{http}");
    }
    // It would have been seen.
    reqwest::get(&url).await.expect("an answer");
    assert_eq!(elsewhere.asked("GET").len(), 1);
}
