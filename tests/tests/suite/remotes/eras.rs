//! How the platform finds out which era and transport a server at a URL speaks.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bus_schema::{header, mcp::method};
use serde_json::{Value, json};
use tests::{
    http::text,
    platform::Platform,
    remote::local,
    scripted::{Asked, Scripted, event, message, status, typed},
};

use super::{failure, platform_that_knows};

/// A legacy server that answers the modern question in its own way.
fn legacy_after(asked: &Asked, refusal: impl FnOnce() -> Response) -> Response {
    match asked.called() {
        method::DISCOVER => refusal(),
        _ => asked.legacy(
            "s",
            &json!([{ "name": "t", "inputSchema": { "type": "object" } }]),
        ),
    }
}

#[tokio::test]
async fn a_refusal_that_says_nothing_of_the_modern_era_leads_to_initialize() {
    type Refusal = fn(&Asked) -> Response;
    let refusals: [(&str, Refusal); 10] = [
        ("empty", |_| status(400)),
        ("missing", |_| status(404)),
        ("get-only", |_| status(405)),
        ("choosy", |_| status(406)),
        ("old-code", |asked| asked.error(400, -32000, &Value::Null)),
        ("session", |asked| asked.error(400, -32600, &Value::Null)),
        ("unknown", |asked| asked.error(404, -32601, &Value::Null)),
        ("polite", |asked| asked.error(200, -32601, &Value::Null)),
        ("page", |_| {
            typed(StatusCode::OK, "text/html", "<html>hello</html>")
        }),
        ("older", |asked| {
            asked.error(
                400,
                -32022,
                &json!({ "supported": ["2025-06-18"], "requested": "2026-07-28" }),
            )
        }),
    ];
    let mut file = String::new();
    let mut servers = Vec::new();
    for (id, refusal) in refusals {
        let server =
            Scripted::start(move |asked: Asked| async move { legacy_after(&asked, || refusal(&asked)) })
                .await;
        file += &local(id, &server.url(), "");
        servers.push((id, server));
    }
    let ids: Vec<&str> = servers.iter().map(|(id, _)| *id).collect();
    let platform = platform_that_knows(&file, &ids).await;
    for (id, server) in &servers {
        assert_eq!(server.asked(method::INITIALIZE).len(), 1, "{id}");
        assert_eq!(server.asked(method::INITIALIZED).len(), 1, "{id}");
        let answer = platform.client(id).call("t", json!({ "a": 1 })).await;
        assert_eq!(text(&answer), r#"{"a":1}"#, "{id}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn what_says_nothing_of_eras_ends_the_attempt_and_is_told() {
    type Refusal = fn(&Asked) -> Response;
    let refusals: [(&str, Refusal, &str); 7] = [
        (
            "unknown",
            |_| status(401),
            "refuses this platform's credentials (HTTP 401",
        ),
        (
            "forbidden",
            |_| status(403),
            "refuses this platform's credentials (HTTP 403",
        ),
        ("broken", |_| status(500), "HTTP 500"),
        (
            "away",
            |_| typed(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "back soon"),
            "back soon",
        ),
        ("eager", |_| status(429), "HTTP 429"),
        (
            "moved",
            |_| {
                (
                    StatusCode::TEMPORARY_REDIRECT,
                    [("location", "https://elsewhere.example/mcp?token=x")],
                )
                    .into_response()
            },
            "redirects to `https://elsewhere.example/mcp`, and redirects are not followed",
        ),
        (
            "newer",
            |asked| asked.error(400, -32022, &json!({ "supported": ["2099-01-01"] })),
            "answered `server/discover` with an error",
        ),
    ];
    let mut file = String::new();
    let mut servers = Vec::new();
    for (id, refusal, words) in refusals {
        let server = Scripted::start(move |asked: Asked| async move { refusal(&asked) }).await;
        file += &local(id, &server.url(), "");
        servers.push((id, server, words));
    }
    let ids: Vec<&str> = servers.iter().map(|(id, _, _)| *id).collect();
    let platform = Platform::start(&file, &ids).await;
    for (id, server, words) in &servers {
        let why = failure(&platform, id).await;
        assert!(why.contains(words), "{id}: {why}");
        assert!(
            server.asked(method::INITIALIZE).is_empty(),
            "{id} was asked for a session"
        );
        assert!(server.asked("GET").is_empty(), "{id} was asked for a stream");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_modern_server_that_names_its_versions_is_asked_again_with_one_and_never_for_a_session() {
    let first = AtomicBool::new(true);
    let server = Scripted::start(move |asked: Asked| {
        let supported = json!({ "supported": ["2026-07-28", "2025-11-25"], "requested": "2026-07-28" });
        let answer = if first.swap(false, Ordering::SeqCst) {
            asked.error(400, -32022, &supported)
        } else {
            asked.modern(&json!([{ "name": "t", "inputSchema": { "type": "object" } }]))
        };
        async move { answer }
    })
    .await;
    let platform = platform_that_knows(&local("modern", &server.url(), ""), &["modern"]).await;
    assert!(server.asked(method::INITIALIZE).is_empty());
    let discovered = server.asked(method::DISCOVER);
    assert_eq!(discovered[0].header(header::PROTOCOL_VERSION), "2026-07-28");
    let ids = [&discovered[0].body["id"], &discovered[1].body["id"]];
    assert_ne!(ids[0], ids[1]);
    platform.stop().await;
}

#[tokio::test]
async fn a_known_era_is_not_asked_for() {
    let tools = json!([{ "name": "t", "inputSchema": { "type": "object" } }]);
    let old = tools.clone();
    let legacy = Scripted::start(move |asked: Asked| {
        let answer = asked.legacy("s", &old);
        async move { answer }
    })
    .await;
    let modern = Scripted::start(|_| async { status(400) }).await;
    let file = local("legacy", &legacy.url(), "era = \"legacy\"\ntransport = \"http\"")
        + &local("modern", &modern.url(), "era = \"modern\"");
    let platform = Platform::start(&file, &["legacy", "modern"]).await;
    platform.knows("legacy").await;
    assert!(legacy.asked(method::DISCOVER).is_empty());
    let why = failure(&platform, "modern").await;
    assert!(why.contains("no modern protocol version"), "{why}");
    assert!(modern.asked(method::INITIALIZE).is_empty());
    platform.stop().await;
}

/// What a server of the first transport says on its stream before anything else.
fn first_transport(endpoint: &'static str) -> impl Fn(Asked) -> std::future::Ready<Response> + Send + Sync {
    move |asked| {
        std::future::ready(match asked.called() {
            "GET" => typed(
                StatusCode::OK,
                "text/event-stream",
                format!("event: endpoint\ndata: {endpoint}\n\n"),
            ),
            _ => status(404),
        })
    }
}

#[tokio::test]
async fn a_stream_that_sends_the_platform_elsewhere_is_refused() {
    let target = Scripted::start(|_| async { status(202) }).await;
    let elsewhere: &'static str = Box::leak(target.url().into_boxed_str());
    let away = Scripted::start(first_transport(elsewhere)).await;
    let no_event = Scripted::start(|asked: Asked| async move {
        match asked.called() {
            "GET" => typed(StatusCode::OK, "text/event-stream", event(&json!({ "hello": 1 }))),
            _ => status(405),
        }
    })
    .await;
    let nothing =
        Scripted::start(|_| async { message(StatusCode::NOT_FOUND, &json!({ "detail": "no" })) }).await;
    let file = local("away", &away.url(), "")
        + &local("odd", &no_event.url(), "")
        + &local("nothing", &nothing.url(), "");
    let platform = Platform::start(&file, &["away", "odd", "nothing"]).await;
    for (id, words) in [
        ("away", "which is another origin"),
        ("odd", "does not begin with an `endpoint` event"),
        (
            "nothing",
            "neither Streamable HTTP (it answered HTTP 404 Not Found",
        ),
    ] {
        let why = failure(&platform, id).await;
        assert!(why.contains(words), "{id}: {why}");
    }
    assert!(
        target.asked(method::INITIALIZE).is_empty(),
        "the platform went elsewhere"
    );
    platform.stop().await;
}
