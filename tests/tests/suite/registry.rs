//! The registry as people and programs use it: over REST, on a platform that runs what is registered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bridges::{
    secrets::{Permitted, Secret, Source},
    upstream::{Upstream, remote::RemoteOptions},
};
use bus_schema::{
    Principal, ServerId, header,
    mcp::method,
    registry::{Auth, Declaration, Entry, Over, Put, Removed, Was},
};
use reqwest::{Method, StatusCode};
use runtime::registry::Registry;
use serde_json::{Value, json};
use tests::{
    eventually,
    http::text,
    keeper,
    nats::Nats,
    platform::Platform,
    scripted::{Scripted, message, status},
    within,
};

const EVERY: [&str; 2] = ["registry", "upstreams"];

async fn server(tool: &'static str) -> Scripted {
    Scripted::start(move |asked| async move {
        match asked.path.as_str() {
            "/health" => status(200),
            _ => asked.modern(&json!([{ "name": tool, "inputSchema": { "type": "object" } }])),
        }
    })
    .await
}

struct Rest<'a>(&'a Platform);

impl Rest<'_> {
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let (status, _, body) = self.ask_with(method, path, body, &[]).await;
        (status, body)
    }

    async fn ask_with(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String, Value) {
        let mut request = reqwest::Client::new().request(method, self.0.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = within("an answer", request.send()).await.expect("an answer");
        let etag = response
            .headers()
            .get("etag")
            .map(|etag| etag.to_str().expect("text").to_owned());
        let status = response.status();
        let body = response.bytes().await.expect("a body");
        (
            status,
            etag.unwrap_or_default(),
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }

    async fn is(&self, id: &str, wanted: &str) {
        eventually(&format!("{id} is {wanted}"), async || {
            self.ask(Method::GET, &format!("/servers/{id}"), None).await.1["status"] == wanted
        })
        .await;
    }
}

fn declared(id: &str, server: &Scripted) -> Value {
    json!({ "id": id, "url": server.url(), "allowPrivate": true, "tags": ["one", "two"], "owner": "team-a" })
}

#[tokio::test]
async fn a_server_is_registered_served_replaced_and_removed() {
    let (first, second) = (server("first").await, server("second").await);
    let platform = Platform::start("", &["products", "registry", "upstreams"]).await;
    let rest = Rest(&platform);
    let wish = declared("a", &first);
    let (status, etag, told) = rest.ask_with(Method::POST, "/servers", Some(&wish), &[]).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    assert!(told["registeredAt"].is_string() && !etag.is_empty(), "{told}");
    assert_eq!(told["registeredBy"], "developer", "{told}");
    // The same again is no second registration; something else under the id is refused.
    let (status, again, _) = rest.ask_with(Method::POST, "/servers", Some(&wish), &[]).await;
    assert_eq!((status, again), (StatusCode::OK, etag.clone()));
    let (status, refused) = rest
        .ask(Method::POST, "/servers", Some(&declared("a", &second)))
        .await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("exists"))
    );
    rest.is("a", "healthy").await;
    let (_, shown) = rest.ask(Method::GET, "/servers/a", None).await;
    assert_eq!(shown["tools"][0]["name"], "first", "{shown}");
    assert!(
        shown["tools"][0]["digest"]
            .as_str()
            .is_some_and(|digest| digest.starts_with("sha256:"))
    );
    assert_eq!(shown["replicas"][0]["inFlight"], 0, "{shown}");
    assert_eq!(shown["endpoint"], "/servers/a/mcp");
    assert_eq!(shown["subject"], "mcp.rpc.default.a.>");
    assert_eq!(
        shown["protocol"],
        json!({ "era": "modern", "version": "2026-07-28" })
    );
    let answer = platform.client("a").call("first", json!({ "x": 1 })).await;
    assert_eq!(text(&answer), r#"{"x":1}"#);
    // Lists are by tags and by status.
    for (query, ids) in [
        ("", vec!["a", "products"]),
        ("?tags=one,two", vec!["a"]),
        ("?tags=one&status=down", vec![]),
        ("?status=healthy&limit=1", vec!["a"]),
        ("?cursor=a", vec!["products"]),
    ] {
        let (_, list) = rest.ask(Method::GET, &format!("/servers{query}"), None).await;
        let found: Vec<_> = list["servers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|server| server["id"].as_str().expect("an id"))
            .collect();
        assert_eq!(found, ids, "{query}: {list}");
    }
    let (_, overview) = rest.ask(Method::GET, "/status", None).await;
    assert_eq!(
        (&overview["status"], &overview["summary"]["healthy"]),
        (&json!("operational"), &json!(2))
    );
    // A change is fenced by what was read.
    let late = [("if-match", "\"999\"")];
    let (status, _, _) = rest
        .ask_with(Method::PUT, "/servers/a", Some(&declared("a", &second)), &late)
        .await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let read = [("if-match", etag.as_str())];
    let (status, _, told) = rest
        .ask_with(Method::PUT, "/servers/a", Some(&declared("a", &second)), &read)
        .await;
    assert_eq!(status, StatusCode::OK, "{told}");
    eventually("the other server answers", async || {
        platform.client("a").call("second", json!({})).await["result"].is_object()
    })
    .await;
    let epochs = |server: &Scripted| -> Vec<u64> {
        let asked = server.asked(method::DISCOVER);
        asked
            .iter()
            .map(|asked| asked.header(header::EPOCH).parse().expect("a number"))
            .collect()
    };
    assert!(
        epochs(&first).iter().max() < epochs(&second).iter().min(),
        "each owner has a larger number"
    );
    let (status, _) = rest.ask(Method::DELETE, "/servers/a", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    eventually("it is gone", async || {
        rest.ask(Method::GET, "/servers/a", None).await.0 == StatusCode::NOT_FOUND
    })
    .await;
    let (status, _) = rest.ask(Method::DELETE, "/servers/a", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, refused) = rest.ask(Method::DELETE, "/servers/products", None).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("not_registered"))
    );
    platform.stop().await;
}

#[tokio::test]
async fn what_cannot_be_registered_is_named_with_what_would_be_right() {
    let platform = Platform::start("[registry]\nallow_private = false\n", &["products", "registry"]).await;
    let rest = Rest(&platform);
    for (body, status, field, words) in [
        (json!({ "id": "a" }), 422, None, "url"),
        (
            json!({ "id": "A!", "url": "https://a.example" }),
            422,
            None,
            "lower-case",
        ),
        (
            json!({ "id": "a", "url": "ftp://a.example" }),
            422,
            Some("url"),
            "https://host/path",
        ),
        (
            json!({ "id": "a", "url": "https://10.0.0.1/" }),
            422,
            Some("url"),
            "allow_private",
        ),
        (
            json!({ "id": "a", "url": "http://a.example/", "allowPrivate": true }),
            422,
            Some("allowPrivate"),
            "[registry]",
        ),
        (
            json!({ "id": "a", "url": "https://a.example", "version": "1" }),
            422,
            Some("version"),
            "1.2.0",
        ),
        (
            json!({ "id": "a", "url": "https://a.example", "auth": { "type": "bearer", "tokenEnv": "HOME" } }),
            422,
            Some("auth.tokenEnv"),
            "TRUNKLINE_SECRET_",
        ),
        (
            json!({ "id": "products", "url": "https://a.example" }),
            409,
            None,
            "on the bus",
        ),
        (json!([]), 422, None, "declaration"),
    ] {
        let (got, refused) = rest.ask(Method::POST, "/servers", Some(&body)).await;
        assert_eq!(got.as_u16(), status, "{body}: {refused}");
        assert_eq!(refused["error"]["field"].as_str(), field, "{body}: {refused}");
        assert!(
            refused["error"]["message"]
                .as_str()
                .is_some_and(|message| message.contains(words)),
            "{body}: {refused}"
        );
    }
    for (method, path, body, status, words) in [
        (
            Method::GET,
            "/servers?status=ill",
            None,
            400,
            "healthy, degraded, down",
        ),
        (Method::GET, "/servers?tag=a", None, 400, "tags, status"),
        (Method::GET, "/servers?limit=0", None, 400, "1 to 1000"),
        (Method::GET, "/servers/nobody", None, 404, "nobody"),
        (
            Method::PUT,
            "/servers/a",
            Some(json!({ "id": "b", "url": "https://a.example" })),
            422,
            "the path names `a`",
        ),
    ] {
        let (got, refused) = rest.ask(method, path, body.as_ref()).await;
        assert_eq!(got.as_u16(), status, "{path}: {refused}");
        assert!(
            refused["error"]["message"]
                .as_str()
                .is_some_and(|message| message.contains(words)),
            "{path}: {refused}"
        );
    }
    platform.stop().await;
}

#[tokio::test]
async fn reading_goes_on_without_the_registry_and_writing_says_that_it_is_gone() {
    let platform = Platform::start("", &["products"]).await;
    let rest = Rest(&platform);
    let (status, list) = rest.ask(Method::GET, "/servers", None).await;
    assert_eq!(
        (status, &list["servers"][0]["id"]),
        (StatusCode::OK, &json!("products"))
    );
    let wish = json!({ "id": "a", "url": "https://a.example" });
    let (status, refused) = rest.ask(Method::POST, "/servers", Some(&wish)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("trunkline serve registry"))
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_down_and_says_why() {
    let platform = Platform::start("", &EVERY).await;
    let rest = Rest(&platform);
    let wish = json!({ "id": "away", "url": "http://127.0.0.1:1/mcp", "allowPrivate": true });
    assert_eq!(
        rest.ask(Method::POST, "/servers", Some(&wish)).await.0,
        StatusCode::CREATED
    );
    let secret = json!({ "id": "locked", "url": "https://a.example", "auth": { "type": "bearer", "tokenEnv": "TRUNKLINE_SECRET_NONE" } });
    assert_eq!(
        rest.ask(Method::POST, "/servers", Some(&secret)).await.0,
        StatusCode::CREATED
    );
    for (id, words) in [("away", "cannot connect to"), ("locked", "TRUNKLINE_SECRET_NONE")] {
        eventually(&format!("{id} says why"), async || {
            let (_, shown) = rest.ask(Method::GET, &format!("/servers/{id}"), None).await;
            shown["status"] == "down"
                && shown["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains(words))
        })
        .await;
    }
    let (_, overview) = rest.ask(Method::GET, "/status", None).await;
    assert_eq!(
        (&overview["status"], &overview["summary"]["down"]),
        (&json!("degraded"), &json!(2))
    );
    platform.stop().await;
}

#[tokio::test]
async fn a_server_whose_health_page_complains_leaves_the_list_of_all_and_comes_back() {
    let well = Arc::new(AtomicBool::new(true));
    let page = Arc::clone(&well);
    let sick = Scripted::start(move |asked| {
        let is_well = page.load(Ordering::SeqCst);
        async move {
            match asked.path.as_str() {
                "/health" if is_well => status(204),
                "/health" => status(500),
                _ => asked.modern(&json!([{ "name": "work", "inputSchema": { "type": "object" } }])),
            }
        }
    })
    .await;
    let platform = Platform::start("[registry]\nhealth_every_secs = 1\n", &EVERY).await;
    let rest = Rest(&platform);
    let mut wish = declared("sick", &sick);
    wish["healthUrl"] = json!(format!("http://{}/health", sick.addr));
    assert_eq!(
        rest.ask(Method::POST, "/servers", Some(&wish)).await.0,
        StatusCode::CREATED
    );
    let is_listed = async || {
        let names = platform.client_of_all().tool_names().await;
        names.contains(&"sick__work".to_owned())
    };
    eventually("it is listed", is_listed).await;
    well.store(false, Ordering::SeqCst);
    rest.is("sick", "degraded").await;
    assert!(!is_listed().await);
    // Who names it still reaches it.
    assert!(platform.client("sick").call("work", json!({})).await["result"].is_object());
    let (_, shown) = rest.ask(Method::GET, "/servers/sick", None).await;
    assert!(
        shown["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("500")),
        "{shown}"
    );
    well.store(true, Ordering::SeqCst);
    rest.is("sick", "healthy").await;
    assert!(is_listed().await);
    platform.stop().await;
}

#[tokio::test]
async fn a_token_is_got_from_the_issuer_and_once_more_when_it_is_refused() {
    let issued = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = Arc::clone(&issued);
    let guarded = Scripted::start(move |asked| {
        let counting = Arc::clone(&counting);
        async move {
            if asked.path == "/token" {
                let number = counting.fetch_add(1, Ordering::SeqCst) + 1;
                let token = json!({ "access_token": format!("t{number}"), "token_type": "Bearer", "expires_in": 3600 });
                return message(axum::http::StatusCode::OK, &token);
            }
            // The first token is one that was taken back.
            match asked.header("authorization") {
                "Bearer t2" => asked.modern(&json!([{ "name": "work", "inputSchema": { "type": "object" } }])),
                _ => status(401),
            }
        }
    })
    .await;
    let platform = Platform::start("", &["products"]).await;
    let bus = platform.node.bus().clone();
    let mut declaration = Declaration::new("guarded".parse().expect("an id"), guarded.url());
    declaration.allow_private = true;
    declaration.auth = Auth::Oauth2 {
        token_endpoint: Some(format!("http://{}/token", guarded.addr)),
        issuer: None,
        client_id: "me:too".to_owned(),
        client_secret_env: Some("TRUNKLINE_SECRET_X".to_owned()),
        client_secret_name: None,
        scopes: vec!["read".to_owned(), "write".to_owned()],
    };
    let secret = Source::Fixed {
        name: "a test".to_owned(),
        secret: Secret::new("s3cret"),
    };
    let options =
        RemoteOptions::declared(&declaration, |_| Some(Permitted::anywhere(secret.clone()))).expect("usable");
    let upstream = Upstream::remote(bus.clone(), options).expect("usable");
    let kept = runtime::supervise::keep(Arc::new(upstream), bus.metrics().clone())
        .await
        .expect("kept");
    platform.knows("guarded").await;
    assert!(platform.client("guarded").call("work", json!({})).await["result"].is_object());
    assert_eq!(
        issued.load(Ordering::SeqCst),
        2,
        "one for the start, one after the refusal"
    );
    let asked = guarded.asked("POST");
    let token = asked
        .iter()
        .find(|asked| asked.path == "/token")
        .expect("it was asked");
    // RFC 6749, section 2.3.1: both are form-encoded before they are joined.
    assert_eq!(token.header("authorization"), "Basic bWUlM0F0b286czNjcmV0");
    kept.stop().await;
    platform.stop().await;
}

#[tokio::test]
async fn two_registries_that_are_asked_at_once_lose_nothing_and_let_one_win() {
    let nats = Nats::start().await;
    let asking = nats.bus().await;
    let mut hosts = Vec::new();
    for _ in 0..2 {
        hosts.push(keeper::registry(&nats.bus().await, None).await);
    }
    let principal = Principal::developer();
    let put = |owner: String, over| {
        let (asking, principal) = (asking.clone(), principal.clone());
        async move {
            let mut declaration = Declaration::new("a".parse().expect("an id"), "https://a.example");
            declaration.owner = Some(owner);
            asking.register(&principal, &Put { declaration, over }).await
        }
    };
    // Of those that would be first, one is.
    let firsts = futures::future::join_all((0..20).map(|n| put(format!("first {n}"), Over::Nothing))).await;
    let mut won: Vec<_> = firsts.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    let mut current = won.remove(0);
    assert_eq!(current.was, Was::New);
    // Of those that replace what they have read, one does; and no write is lost.
    for round in 0..10 {
        let puts = (0..6).map(|n| put(format!("round {round}, {n}"), Over::Revision(current.revision)));
        let mut won: Vec<_> = futures::future::join_all(puts)
            .await
            .into_iter()
            .filter_map(Result::ok)
            .collect();
        assert_eq!(won.len(), 1, "round {round}");
        let next = won.remove(0);
        assert!(next.revision > current.revision);
        assert_eq!(next.entry.registered_at, current.entry.registered_at);
        current = next;
    }
    let registry = Registry::open(&asking).await.expect("opens");
    let (kept, revision) = registry
        .read("default", &"a".parse().expect("an id"))
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!((kept.entry(), revision), (Some(&current.entry), current.revision));
    for host in hosts {
        host.stop().await;
    }
}

#[tokio::test]
async fn what_was_removed_long_ago_is_forgotten_for_good_and_the_rest_is_not() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let kept = Registry::open(&bus).await.expect("opens");
    let declare = async |id: &str, removed_at: Option<&str>| {
        let id: ServerId = id.parse().expect("an id");
        let entry = Entry {
            declaration: Declaration::new(id.clone(), "https://a.example"),
            registered_at: "2020-01-01T00:00:00Z".to_owned(),
            updated_at: "2020-01-01T00:00:00Z".to_owned(),
            registered_by: "a test".to_owned(),
            gone: Vec::new(),
        };
        let revision = kept.write("default", &entry, None).await.expect("writes");
        if let Some(at) = removed_at {
            let left = Removed {
                removed_at: at.to_owned(),
                gone: vec![entry.going(None, at)],
            };
            let removed = kept.remove("default", &id, &left, revision).await;
            removed.expect("removes");
        }
    };
    let now = runtime::moment::now();
    declare("old", Some("2020-02-01T00:00:00Z")).await;
    declare("new", Some(&now)).await;
    declare("there", None).await;
    let running = keeper::registry(&bus, None).await;
    let is_there = async |id: &str| {
        let record = kept.read("default", &id.parse().expect("an id")).await;
        record.expect("reads").is_some()
    };
    eventually("it is forgotten", async || !is_there("old").await).await;
    assert!(is_there("new").await && is_there("there").await);
    eventually("what is gone is known", async || {
        let gone = kept.gone("default");
        gone.len() == 1 && gone[0].0.as_str() == "new"
    })
    .await;
    assert_eq!(kept.all("default").len(), 1);
    // An id is free again when its server was removed.
    let declaration = Declaration::new("new".parse().expect("an id"), "https://b.example");
    let put = Put {
        declaration,
        over: Over::Nothing,
    };
    let written = bus.register(&Principal::developer(), &put).await;
    let written = written.expect("it is registered");
    assert_eq!((written.was, written.entry.gone.len()), (Was::New, 1));
    running.stop().await;
}
