//! The stream of notices that GET opens: it follows the session wherever that is changed, and loses nothing when its bridge dies.

use bus_schema::{header, mcp::method};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{eventually, stream::Stream};

use super::{Bridge, Opened, Stage, sent, stream};

/// Opens the stream, and gives the id of its first event.
async fn listen(session: &Opened, at: &Bridge, last: Option<&str>) -> (Stream, String) {
    let mut notices = stream(session.get(at, last)).await;
    let first = notices.event().await.expect("an event");
    assert_eq!(first.data.as_deref(), Some(""));
    (notices, first.id.expect("an id"))
}

async fn subscribe(session: &Opened, at: &Bridge, called: &str, uri: &str) {
    let (status, answer) = session.ask(at, called, json!({ "uri": uri })).await;
    assert_eq!((status, &answer["result"]), (200, &json!({})), "{answer}");
}

/// The next notice, as its method and the resource that it names, with its id.
async fn notice(notices: &mut Stream) -> (String, String, Option<String>) {
    let event = notices.event().await.expect("a notice");
    let message: Value = serde_json::from_str(event.data.as_deref().unwrap_or_default()).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&message["method"]),
        text(&message["params"]["uri"]),
        event.id,
    )
}

#[tokio::test]
async fn changes_are_told_without_being_asked_for_and_resources_once_subscribed_at_any_bridge() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(b, "changing", "2025-11-25").await;
    let capabilities = &session.answer["result"]["capabilities"];
    assert_eq!(
        capabilities["resources"],
        json!({ "listChanged": true, "subscribe": true })
    );
    // Subscribed before there is a stream, and by a bridge that does not hold it.
    subscribe(&session, b, method::SUBSCRIBE, "test://a").await;
    let (mut notices, _) = listen(&session, a, None).await;
    stage.changing.touch("test://a/part");
    let (called, uri, id) = notice(&mut notices).await;
    assert_eq!(
        (called.as_str(), uri.as_str()),
        (method::UPDATED, "test://a/part")
    );
    assert!(id.is_some_and(|id| id.starts_with("g.")));
    stage.changing.add_tool();
    assert_eq!(notice(&mut notices).await.0, method::TOOLS_CHANGED);
    stage.changing.add_prompt();
    assert_eq!(notice(&mut notices).await.0, method::PROMPTS_CHANGED);
    for bridge in [b, a] {
        subscribe(&session, bridge, method::SUBSCRIBE, "test://b").await;
        stage.changing.touch("test://b");
        assert_eq!(notice(&mut notices).await.1, "test://b");
        subscribe(&session, bridge, method::UNSUBSCRIBE, "test://b").await;
        stage.changing.touch("test://b");
        stage.changing.touch("test://a");
        assert_eq!(
            notice(&mut notices).await.1,
            "test://a",
            "the other was not told of"
        );
    }
    let (_, answer) = session.ask(b, method::SUBSCRIBE, json!({})).await;
    assert_eq!(answer["error"]["code"], -32602);
    stage.end().await;
}

#[tokio::test]
async fn what_an_endpoint_does_not_offer_cannot_be_subscribed_to() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let (status, answer) = session
        .ask(&stage.a, method::SUBSCRIBE, json!({ "uri": "test://a" }))
        .await;
    assert_eq!((status, answer["error"]["code"].as_i64()), (200, Some(-32601)));
    stage.end().await;
}

#[tokio::test]
async fn a_stream_whose_bridge_was_killed_goes_on_at_the_other_without_loss() {
    let mut stage = Stage::set().await;
    let session = Opened::at(&stage.a, "changing", "2025-11-25").await;
    subscribe(&session, &stage.b, method::SUBSCRIBE, "test://a").await;
    let (mut notices, _) = listen(&session, &stage.a, None).await;
    stage.changing.add_tool();
    let (called, _, id) = notice(&mut notices).await;
    assert_eq!(called, method::TOOLS_CHANGED);
    let id = id.expect("an id");
    stage.a.kill().await;
    assert!(notices.event().await.is_none());
    // Nobody listens while these happen.
    stage.changing.add_prompt();
    stage.changing.touch("test://a");
    let before = stage.b.client("changing");
    eventually("the other bridge knows the prompt", async || {
        let listed = before
            .modern(method::PROMPTS_LIST, json!({}))
            .send()
            .await
            .expect("an answer");
        let listed: Value = listed.json().await.expect("JSON");
        listed["result"]["prompts"]
            .as_array()
            .is_some_and(|prompts| prompts.len() == 2)
    })
    .await;
    let (mut notices, _) = listen(&session, &stage.b, Some(&id)).await;
    let (prompts, resource) = (notice(&mut notices).await, notice(&mut notices).await);
    assert_eq!(
        (prompts.0.as_str(), resource.1.as_str()),
        (method::PROMPTS_CHANGED, "test://a")
    );
    // Only the last of those that belong together has an id, so that who misses it is told all again.
    assert!(prompts.2.is_none() && resource.2.is_some());
    // It follows the session from now on, and tells of the present only.
    subscribe(&session, &stage.b, method::SUBSCRIBE, "test://b").await;
    stage.changing.touch("test://b");
    assert_eq!(notice(&mut notices).await.1, "test://b");
    stage.end().await;
}

#[tokio::test]
async fn a_stream_that_told_nothing_yet_is_resumed_by_its_first_event() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "changing", "2025-11-25").await;
    let (notices, first) = listen(&session, &stage.a, None).await;
    drop(notices);
    stage.changing.add_tool();
    let (mut notices, again) = listen(&session, &stage.b, Some(&first)).await;
    assert_eq!(again, first, "nothing was told meanwhile");
    assert_eq!(notice(&mut notices).await.0, method::TOOLS_CHANGED);
    stage.end().await;
}

#[tokio::test]
async fn a_newer_stream_of_a_session_ends_the_older_at_whichever_bridge() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "changing", "2025-11-25").await;
    let (mut first, _) = listen(&session, a, None).await;
    let (mut second, _) = listen(&session, a, None).await;
    assert!(first.event().await.is_none());
    let (mut third, _) = listen(&session, b, None).await;
    assert!(second.event().await.is_none());
    stage.changing.add_tool();
    assert_eq!(notice(&mut third).await.0, method::TOOLS_CHANGED);
    stage.end().await;
}

#[tokio::test]
async fn get_without_a_session_never_hangs() {
    let stage = Stage::set().await;
    let get = |url: String| {
        reqwest::Client::new()
            .request(Method::GET, url)
            .header("accept", "text/event-stream")
    };
    for path in ["/mcp", "/servers/changing/mcp"] {
        let url = format!("{}{path}", stage.a.base);
        assert_eq!(sent(get(url.clone())).await.status(), 405);
        assert_eq!(
            sent(get(url.clone()).header(header::LAST_EVENT_ID, "g.a.b.c.1"))
                .await
                .status(),
            405
        );
        let unknown = get(url.clone()).header(header::SESSION_ID, "unknown");
        assert_eq!(sent(unknown).await.status(), 404);
        let modern = get(url)
            .header(header::SESSION_ID, "unknown")
            .header(header::PROTOCOL_VERSION, "2026-07-28");
        assert_eq!(sent(modern).await.status(), 405);
    }
    let session = Opened::at(&stage.a, "changing", "2025-11-25").await;
    let json_only = stage
        .a
        .client("changing")
        .request(Method::GET)
        .header("accept", "application/json")
        .header(header::SESSION_ID, &session.id);
    assert_eq!(sent(json_only).await.status(), 406);
    stage.end().await;
}

#[tokio::test]
async fn a_bridge_that_stops_ends_its_streams_and_goes() {
    let stage = Stage::set().await;
    let session = Opened::at(&stage.a, "changing", "2025-11-25").await;
    let (mut notices, _) = listen(&session, &stage.a, None).await;
    stage.a.program.signal(rustix::process::Signal::TERM);
    assert!(notices.event().await.is_none());
    let mut bridge = stage.a;
    let ended = tests::within("the end of the bridge", bridge.program.child.wait()).await;
    assert!(ended.expect("it ends").success());
}
