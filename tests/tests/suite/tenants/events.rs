//! Nobody hears what becomes of another tenant's servers, or sees its calls.

use std::collections::BTreeSet;

use bus_schema::{
    integrity,
    registry::{Status, StatusEvent},
};
use reqwest::Method;
use runtime::{events::Events, status::Statuses, watch::CallWatch};
use serde_json::json;
use tests::{notes::SHARED, session::Session, stream::Stream, within};

use super::{Sides, Stage, TENANTS, whole};

/// Streams of notices of somebody of a tenant, in both eras.
async fn listening(stage: &Stage, tenant: &str) -> [Stream; 2] {
    let client = stage.client(tenant, "/servers/notes/mcp");
    let wanted = json!({ "toolsListChanged": true, "resourceSubscriptions": [SHARED] });
    let listen = client.modern("subscriptions/listen", json!({ "notifications": wanted }));
    let mut modern = Stream::of(within("a stream", listen.send()).await.expect("an answer"));
    let begun = modern.message().await;
    assert_eq!(begun["params"]["notifications"], wanted, "{begun}");
    let session = Session::open(&client, "2025-11-25").await;
    let subscribed = session
        .ask("resources/subscribe", &json!({ "uri": SHARED }))
        .await;
    assert!(subscribed["result"].is_object(), "{subscribed}");
    let legacy = within("a stream", session.listening(&client).send()).await;
    [modern, Stream::of(legacy.expect("an answer"))]
}

async fn hears(streams: &mut [Stream], notice: &str) {
    for stream in streams {
        let message = stream.message().await;
        assert_eq!(message["method"], format!("notifications/{notice}"), "{message}");
    }
}

#[tokio::test]
async fn changes_of_lists_and_resources_are_told_to_their_own_tenant_only() {
    let stage = Stage::start("").await;
    for (at, sides) in TENANTS.iter().enumerate() {
        let (own, foreign) = (&stage.notes[at], &stage.notes[1 - at]);
        let mut ours = listening(&stage, sides.tenant).await;
        let mut theirs = listening(&stage, sides.other_tenant).await;
        // The other tenant's changes are of the same server id, the same list and the same URI.
        foreign.touch(SHARED);
        hears(&mut theirs, "resources/updated").await;
        foreign.add_tool();
        hears(&mut theirs, "tools/list_changed").await;
        // Whatever of them was told here as well would come first, or once too often.
        own.add_tool();
        hears(&mut ours, "tools/list_changed").await;
        own.touch(SHARED);
        hears(&mut ours, "resources/updated").await;
        foreign.touch(SHARED);
        hears(&mut theirs, "resources/updated").await;
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
        within("the call of its own tenant", async {
            loop {
                let event = watch.next().await.expect("a call");
                assert_eq!(event.tenant, sides.tenant, "{event:?}");
                if event.method == "tools/call" {
                    return;
                }
            }
        })
        .await;
    }
    let mut tools = Events::<integrity::Event>::start(bus, "default")
        .await
        .expect("listens");
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
    within("the event of its own tool", async {
        loop {
            let event = tools.next().await.expect("an event");
            assert!(!event.tool.contains("foreign"), "{event:?}");
            if event.tool == "homely-0" {
                return;
            }
        }
    })
    .await;
    stage.stop().await;
}

#[tokio::test]
async fn how_servers_are_is_told_by_tenant() {
    let mut stage = Stage::start("").await;
    let is_its = |sides: Sides, id: &str| id == "notes" || id == sides.own;
    let bus = stage.platform.node.bus().clone();
    let mut statuses = [
        Events::<StatusEvent>::start(&bus, "default")
            .await
            .expect("listens"),
        Events::<StatusEvent>::start(&bus, "acme").await.expect("listens"),
    ];
    // How they have come is told as well, if it is not told already.
    for sides in TENANTS {
        let told = Statuses::open(&bus, sides.tenant).await.expect("opens");
        tests::eventually("it is told that they have come", async || told.all().len() == 2).await;
        assert!(told.all().keys().all(|id| is_its(sides, id.as_str())));
    }
    for host in stage.hosts.drain(..) {
        host.stop().await;
    }
    for (events, sides) in statuses.iter_mut().zip(TENANTS) {
        within("it is told that they have gone", async {
            let mut gone = BTreeSet::new();
            while gone.len() < 2 {
                let event = events.next().await.expect("an event");
                assert!(is_its(sides, event.server.as_str()), "{event:?}");
                if event.now.status == Status::Down {
                    gone.insert(event.server);
                }
            }
        })
        .await;
    }
    stage.stop().await;
}
