//! Nobody hears what becomes of another tenant's servers, or sees its calls.

use reqwest::Method;
use runtime::{pins::ToolEvents, watch::CallWatch};
use serde_json::json;
use tests::{notes::SHARED, session::Session, stream::Stream, within};

use super::{Stage, TENANTS, whole};

#[tokio::test]
async fn changes_of_lists_and_resources_are_told_to_their_own_tenant_only() {
    let stage = Stage::start("").await;
    for (at, sides) in TENANTS.iter().enumerate() {
        let (own, foreign) = (&stage.notes[at], &stage.notes[1 - at]);
        let mut streams = Vec::new();
        for path in ["/mcp", "/servers/notes/mcp"] {
            let listen = stage.client(sides.tenant, path).modern(
                "subscriptions/listen",
                json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": [SHARED] } }),
            );
            let listen = within("a stream", listen.send()).await.expect("an answer");
            let mut stream = Stream::of(listen);
            let begun = stream.message().await;
            assert_eq!(
                begun["method"], "notifications/subscriptions/acknowledged",
                "{begun}"
            );
            streams.push(stream);
        }
        let client = stage.client(sides.tenant, "/servers/notes/mcp");
        let session = Session::open(&client, "2025-11-25").await;
        let subscribed = session
            .ask("resources/subscribe", &json!({ "uri": SHARED }))
            .await;
        assert!(subscribed["result"].is_object(), "{subscribed}");
        let legacy = within("a stream", session.listening(&client).send()).await;
        streams.push(Stream::of(legacy.expect("an answer")));
        // The other tenant's change comes first, and is a change of a list at once and of the same URI.
        foreign.touch(SHARED);
        foreign.add_tool();
        let seen = stage.client(sides.other_tenant, "/servers/notes/mcp");
        tests::eventually("the other tenant sees it", async || {
            let tools = whole(seen.modern("tools/list", json!({}))).await.to_string();
            tools.contains(&format!("{}-0", sides.other_mark))
        })
        .await;
        own.touch(SHARED);
        own.add_tool();
        for stream in &mut streams {
            let mut heard = Vec::new();
            while heard.len() < 2 {
                let message = stream.message().await;
                heard.push(message["method"].as_str().unwrap_or_default().to_owned());
            }
            heard.sort_unstable();
            assert_eq!(
                heard,
                [
                    "notifications/resources/updated",
                    "notifications/tools/list_changed"
                ],
                "once each, of its own tenant"
            );
        }
    }
    stage.stop().await;
}

#[tokio::test]
async fn calls_and_tools_are_watched_by_tenant() {
    let stage = Stage::start("").await;
    let bus = stage.platform.node.bus();
    for sides in TENANTS {
        let mut watch = CallWatch::start(bus, sides.tenant).await.expect("watches");
        let call = async |tenant: &str, tool: &str| {
            let client = stage.client(tenant, "/servers/notes/mcp");
            let params = json!({ "name": tool, "arguments": {} });
            whole(client.modern("tools/call", params)).await
        };
        call(sides.other_tenant, "read").await;
        call(sides.tenant, "read").await;
        let event = within("a call", watch.next()).await.expect("a call");
        assert_eq!(
            (event.tenant.as_str(), event.server.as_str()),
            (sides.tenant, "notes")
        );
    }
    let mut tools = ToolEvents::start(bus, "default").await.expect("listens");
    stage.notes[1].add_tool();
    let seen = stage.client("acme", "/servers/notes/mcp");
    tests::eventually("the other tenant has it", async || {
        let tools = whole(seen.modern("tools/list", json!({}))).await.to_string();
        tools.contains("foreign-0")
    })
    .await;
    tests::eventually("the registry has seen it", async || {
        let told = stage
            .operator("acme", "/servers/notes/tools")
            .request(Method::GET);
        let told = whole(told).await;
        let tools = told["said"]["tools"].as_array().cloned().unwrap_or_default();
        tools
            .iter()
            .any(|tool| tool["name"] == "foreign-0" && tool["approved"].is_object())
    })
    .await;
    stage.notes[0].add_tool();
    let event = within("an event", tools.next()).await.expect("an event");
    assert_eq!(event.tool, "homely-0", "{event:?}");
    stage.stop().await;
}
