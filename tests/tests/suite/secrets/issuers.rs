//! Tokens that the platform gets for itself: where, how often, and what happens when nobody gives any.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{http::StatusCode, response::Response};
use bus_schema::mcp::method;
use serde_json::{Value, json};
use tests::{
    eventually,
    http::text,
    issuer::{self, Issuer},
    platform::Platform,
    remote::local,
    scripted::{Asked, Scripted, message, status},
};

const TOOLS: &str = r#"[{ "name": "t", "inputSchema": { "type": "object" } }]"#;

fn modern(asked: &Asked) -> Response {
    asked.modern(&serde_json::from_str(TOOLS).expect("JSON"))
}

/// A server that takes tokens for itself of an issuer, and says so as RFC 9728 wants it.
async fn resource(issuer: Arc<Mutex<String>>) -> Scripted {
    Scripted::start(move |asked: Asked| {
        let issuer = issuer.lock().expect("no panic").clone();
        async move {
            let own = format!("http://{}", asked.header("host"));
            if asked.path == "/.well-known/about-mcp" {
                let document = json!({ "resource": format!("{own}/mcp"), "authorization_servers": [issuer] });
                return message(StatusCode::OK, &document);
            }
            if issued_for(&asked) == format!("{own}/mcp") {
                return modern(&asked);
            }
            let mut refused = status(401);
            let challenge = format!("Bearer realm=\"x\", resource_metadata=\"{own}/.well-known/about-mcp\"");
            let challenge = challenge.parse().expect("visible");
            refused.headers_mut().insert("www-authenticate", challenge);
            refused
        }
    })
    .await
}

/// Whom a token is for; empty when there is none.
fn issued_for(asked: &Asked) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = asked
        .header("authorization")
        .strip_prefix("Bearer ")
        .and_then(|token| token.split('.').nth(1))
        .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
        .and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
    let audience = claims.as_ref().and_then(|claims| claims["aud"].as_str());
    audience.unwrap_or_default().to_owned()
}

fn oauth(folder: &tempfile::TempDir, more: &str) -> String {
    let file = folder.path().join("client");
    std::fs::write(&file, issuer::CLIENT.1).expect("written");
    format!(
        "oauth = {{ {more}client_id = {}, client_secret = {{ file = {} }}, scopes = [\"read\"] }}\n",
        json!(issuer::CLIENT.0),
        json!(file)
    )
}

#[tokio::test]
async fn a_server_says_who_gives_tokens_for_it_and_the_issuer_says_where() {
    let issuer = Issuer::start().await;
    let named = Arc::new(Mutex::new(issuer.url().to_owned()));
    let server = resource(Arc::clone(&named)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let by_issuer = oauth(&folder, &format!("issuer = {}, ", json!(issuer.url())));
    let file = local("told", &server.url(), &oauth(&folder, "")) + &local("named", &server.url(), &by_issuer);
    let platform = Platform::start(&file, &["told", "named"]).await;
    for id in ["told", "named"] {
        platform.knows(id).await;
        let answer = platform.client(id).call("t", json!({ "n": 1 })).await;
        assert_eq!(text(&answer), r#"{"n":1}"#, "{answer}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_document_about_somebody_else_is_not_believed() {
    let issuer = Issuer::start().await;
    let other = Scripted::start({
        let issuer = issuer.url().to_owned();
        move |asked: Asked| {
            let document =
                json!({ "resource": "https://other.example/mcp", "authorization_servers": [issuer] });
            async move {
                match asked.path.starts_with("/.well-known/oauth-protected-resource") {
                    true => message(StatusCode::OK, &document),
                    false => status(401),
                }
            }
        }
    })
    .await;
    // It says that it is the issuer, and is not.
    let posing = Scripted::start({
        let issuer = issuer.url().to_owned();
        move |asked: Asked| {
            let at = format!("http://{}/token", asked.header("host"));
            let document = json!({ "issuer": issuer, "token_endpoint": at });
            async move { message(StatusCode::OK, &document) }
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let poses = format!("http://{}/realm", posing.addr);
    let file = local("other", &other.url(), &oauth(&folder, ""))
        + &local(
            "posing",
            &other.url(),
            &oauth(&folder, &format!("issuer = {}, ", json!(poses))),
        );
    let platform = Platform::start(&file, &["other", "posing"]).await;
    for (id, words) in [("other", "of another resource"), ("posing", "of another issuer")] {
        let why = crate::remotes::failure(&platform, id).await;
        assert!(why.contains(words), "{why}");
    }
    for stranger in [&other, &posing] {
        let shown = stranger.asked("POST");
        assert!(
            shown.iter().all(|asked| asked.header("authorization").is_empty()),
            "{shown:?}"
        );
    }
    platform.stop().await;
}

#[tokio::test]
async fn one_token_serves_all_calls_and_is_exchanged_once_for_all_that_are_refused() {
    let (issued, current) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
    let (counting, now) = (Arc::clone(&issued), Arc::clone(&current));
    let server = Scripted::start(move |asked: Asked| {
        let answer = if asked.path == "/token" {
            let number = counting.fetch_add(1, Ordering::SeqCst) + 1;
            let token =
                json!({ "access_token": format!("t{number}"), "token_type": "Bearer", "expires_in": 3600 });
            message(StatusCode::OK, &token)
        } else if asked.header("authorization") == format!("Bearer t{}", now.load(Ordering::SeqCst)) {
            modern(&asked)
        } else {
            status(401)
        };
        async move { answer }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = format!("token_endpoint = \"http://{}/token\", ", server.addr);
    let file = local("there", &server.url(), &oauth(&folder, &at));
    let platform = Platform::start(&file, &["there"]).await;
    platform.knows("there").await;
    let client = platform.client("there");
    let calls = async || {
        let calls = (0..16).map(|n| client.call("t", json!({ "n": n })));
        for answer in futures::future::join_all(calls).await {
            assert!(answer["result"].is_object(), "{answer}");
        }
    };
    calls().await;
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    // All sixteen are refused with the first, and together they need one other.
    current.store(2, Ordering::SeqCst);
    calls().await;
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    platform.stop().await;
}

#[tokio::test]
async fn an_issuer_that_gives_nothing_is_named_and_opens_the_breaker() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let server = Scripted::start(move |asked: Asked| {
        let down = is_down.load(Ordering::SeqCst);
        let answer = match (asked.path.as_str(), down) {
            ("/token", false) => message(
                StatusCode::OK,
                // It is over as soon as it is there, so each request needs another.
                &json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 0 }),
            ),
            ("/token", true) => status(503),
            _ => modern(&asked),
        };
        async move { answer }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = format!("token_endpoint = \"http://{}/token\", ", server.addr);
    let more = oauth(&folder, &at) + "breaker = { failures = 3, open_secs = 60 }\n";
    let platform = Platform::start(&local("there", &server.url(), &more), &["there"]).await;
    platform.knows("there").await;
    let client = platform.client("there");
    assert!(client.call("t", json!({})).await["result"].is_object());
    let before = server.asked(method::TOOLS_CALL).len();
    down.store(true, Ordering::SeqCst);
    let refused = client.call("t", json!({})).await;
    let words = refused["error"]["message"].as_str().expect("a message");
    assert!(
        words.contains("no token for it from its issuer") && words.contains("not begun"),
        "{words}"
    );
    eventually("the breaker opens", async || {
        let refused = client.call("t", json!({})).await;
        refused["error"]["data"]["reason"] == "circuit_open"
    })
    .await;
    assert_eq!(
        server.asked(method::TOOLS_CALL).len(),
        before,
        "nothing was sent without a token"
    );
    platform.stop().await;
}
