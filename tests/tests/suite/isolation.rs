//! A server that fails costs its own callers an error, is named, is left alone, and comes back; others do not notice.

mod crowd;
mod replicas;
mod retrying;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bus_schema::mcp::method;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    children::scripted,
    eventually,
    fault::{Fault, garbage, one_tool},
    http::text,
    platform::Platform,
    remote::local,
    scripted::{Asked, Scripted},
    within,
};
use tokio::time::{Duration, Instant};

/// A breaker that opens soon and does not stay open for long.
const QUICK: &str = "call_timeout_secs = 1\nbreaker = { failures = 3, within_secs = 30, open_secs = 1 }\n";
/// Calls take no longer than this which wait for nothing, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(5);

/// A call that is answered, whoever else fails.
async fn works(platform: &Platform, server: &str) -> bool {
    let answer = platform.client(server).call("work", json!({ "x": 1 })).await;
    text(&answer) == r#"{"x":1}"#
}

async fn told_of(platform: &Platform, server: &str) -> Value {
    let url = platform.url(&format!("/servers/{server}"));
    let response = within("an answer", reqwest::get(url)).await.expect("an answer");
    response.json().await.expect("JSON")
}

/// Whether the list of all servers has tools of one; it says so when it has not.
async fn is_listed(platform: &Platform, server: &str) -> bool {
    let answer = platform.client_of_all().list_tools().await;
    let tools = answer["result"]["tools"].as_array().expect("a list");
    let prefix = format!("{server}__");
    let is_of_it = |tool: &Value| {
        tool["name"]
            .as_str()
            .is_some_and(|name| name.starts_with(&prefix))
    };
    let listed = tools.iter().any(is_of_it);
    let missing = answer["result"]["_meta"]["io.trunkline/missing"].as_array();
    let says_so = missing.is_some_and(|missing| missing.contains(&json!(server)));
    assert_ne!(listed, says_so, "{answer}");
    listed
}

/// Calls until the calls are refused without being made, and gives that refusal.
async fn refusal(platform: &Platform, server: &str, tool: &str) -> Value {
    let mut found = Value::Null;
    eventually("calls are refused", async || {
        let client = platform.client(server);
        let answers = join_all((0..3).map(|_| client.call(tool, json!({ "x": 1 })))).await;
        for answer in answers {
            assert!(answer["error"].is_object(), "{answer}");
            if answer["error"]["data"]["reason"] == "circuit_open" {
                found = answer["error"].clone();
            }
        }
        found.is_object()
    })
    .await;
    found
}

#[tokio::test]
async fn a_server_at_which_calls_fail_is_named_left_alone_and_used_again_when_it_answers() {
    let mut file = String::new();
    let mut servers = Vec::new();
    let well = Scripted::start(|asked: Asked| async move { asked.modern(&one_tool()) }).await;
    file.push_str(&local("well", &well.url(), QUICK));
    for fault in Fault::ALL {
        let (ill, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (is_ill, counted) = (Arc::clone(&ill), Arc::clone(&calls));
        let server = Scripted::start(move |asked| {
            let is_ill = is_ill.load(Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            async move {
                if asked.called() != method::TOOLS_CALL {
                    return asked.modern(&one_tool());
                }
                counted.fetch_add(1, Ordering::SeqCst);
                if is_ill {
                    fault.answer(&asked).await
                } else {
                    asked.modern(&one_tool())
                }
            }
        })
        .await;
        let id = format!("{fault:?}").to_lowercase();
        file.push_str(&local(&id, &server.url(), QUICK));
        servers.push((id, server, ill, calls));
    }
    let names: Vec<_> = std::iter::once("well")
        .chain(servers.iter().map(|(id, ..)| id.as_str()))
        .collect();
    let platform = Platform::start(&file, &names).await;
    for name in &names {
        platform.knows(name).await;
    }
    let platform = &platform;
    join_all(servers.iter().map(|(id, _, ill, calls)| async move {
        let refused = refusal(platform, id, "work").await;
        let data = &refused["data"];
        assert_eq!(data["server"], id.as_str(), "{refused}");
        assert_eq!(data["retryable"], true, "{refused}");
        assert!(
            data["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0),
            "{refused}"
        );
        // It says so of itself, and lists of all servers do without it. The next time that it is asked, calls fail again, and so on.
        eventually(&format!("{id} is degraded"), async || {
            let told = told_of(platform, id).await;
            refusal(platform, id, "work").await;
            let why = told["reason"].as_str().unwrap_or_default();
            let is_open = told["replicas"][0]["breaker"] == "open";
            is_open && told["status"] == "degraded" && why.contains("its calls fail")
        })
        .await;
        eventually(&format!("{id} is not listed"), async || {
            refusal(platform, id, "work").await;
            !is_listed(platform, id).await
        })
        .await;
        assert_eq!(
            told_of(platform, id).await["limits"],
            json!({
                "maxInFlight": 64, "callTimeoutMs": 1_000,
                "breaker": { "failures": 3, "withinSecs": 30, "openSecs": 1 },
                "retry": { "attempts": 2, "backoffMs": 100 }
            })
        );
        // What is refused does not come to it.
        let begun = Instant::now();
        assert!(works(platform, "well").await);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        ill.store(false, Ordering::SeqCst);
        let before = calls.load(Ordering::SeqCst);
        eventually(&format!("{id} works again"), async || works(platform, id).await).await;
        assert!(calls.load(Ordering::SeqCst) > before);
        eventually(&format!("{id} is healthy"), async || {
            told_of(platform, id).await["status"] == "healthy"
        })
        .await;
        assert!(is_listed(platform, id).await, "{id}");
    }))
    .await;
    let metrics = reqwest::get(platform.url("/metrics")).await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    assert!(
        metrics.contains("trunkline_calls_circuit_open")
            && !metrics.contains("circuit_open_total{server_id=\"well\""),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_child_that_dies_at_each_call_is_not_started_for_each_and_comes_back() {
    let more = "breaker = { failures = 2, within_secs = 60, open_secs = 2 }";
    let file = scripted("dying", "none", more) + &scripted("well", "none", more);
    let platform = Platform::start(&file, &["dying", "well"]).await;
    let (dying, well) = (platform.client("dying"), platform.client("well"));
    let pid = |answer: &Value| text(answer).to_owned();
    let first = pid(&dying.call("pid", json!({})).await);
    // It answers one of two calls, and so less than half of those that matter.
    let refused = refusal_of_crash(&platform).await;
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|words| words.contains("dying") && words.contains("try again")),
        "{refused}"
    );
    assert_eq!(
        text(&well.call("echo", json!({ "text": "hello" })).await),
        "hello"
    );
    // Left alone, it runs on, and is used again.
    let mut again = String::new();
    eventually("it is used again", async || {
        let answer = dying.call("pid", json!({})).await;
        again = pid(&answer);
        answer["result"].is_object()
    })
    .await;
    assert_ne!(first, again);
    assert_eq!(pid(&dying.call("pid", json!({})).await), again);
    platform.stop().await;
}

async fn refusal_of_crash(platform: &Platform) -> Value {
    let dying = platform.client("dying");
    let mut found = Value::Null;
    eventually("calls are refused", async || {
        let answer = dying.call("crash", json!({})).await;
        assert!(answer["error"].is_object(), "{answer}");
        found = answer["error"].clone();
        found["data"]["reason"] == "circuit_open"
    })
    .await;
    found
}

#[tokio::test]
async fn errors_of_the_server_and_callers_that_go_open_nothing() {
    let held = Arc::new(AtomicBool::new(true));
    let holding = Arc::clone(&held);
    let server = Scripted::start(move |asked| {
        let hold = holding.load(Ordering::SeqCst);
        async move {
            match asked.body["params"]["arguments"]["case"].as_str() {
                Some("error") => asked.error(200, -32602, &Value::Null),
                Some("refused") => asked.error(400, -32603, &Value::Null),
                Some("hold") if hold => std::future::pending().await,
                _ => asked.modern(&one_tool()),
            }
        }
    })
    .await;
    let more = "breaker = { failures = 2, within_secs = 60, open_secs = 30 }";
    let platform = Platform::start(&local("there", &server.url(), more), &["there"]).await;
    platform.knows("there").await;
    let client = platform.client("there");
    for case in ["error", "refused"] {
        for _ in 0..6 {
            let answer = client.call("work", json!({ "case": case })).await;
            assert_eq!(answer["error"]["message"], "scripted", "{answer}");
        }
    }
    for number in 1..=6 {
        let params = json!({ "name": "work", "arguments": { "case": "hold" } });
        let request = client.modern(method::TOOLS_CALL, params).send();
        let waiting = tokio::spawn(request);
        eventually("it holds the call", async || {
            let asked = server.asked(method::TOOLS_CALL);
            let holds = |asked: &&Asked| asked.body["params"]["arguments"]["case"] == "hold";
            asked.iter().filter(holds).count() == number
        })
        .await;
        waiting.abort();
    }
    held.store(false, Ordering::SeqCst);
    let answer = client.call("work", json!({ "case": "hold" })).await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(told_of(&platform, "there").await["status"], "healthy");
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_says_why_and_costs_others_nothing() {
    let well = Scripted::start(|asked: Asked| async move { asked.modern(&one_tool()) }).await;
    let (port, serving) = garbage().await;
    let platform = Platform::start("", &["registry", "upstreams"]).await;
    for (id, url) in [
        ("well", well.url()),
        ("garbage", format!("https://127.0.0.1:{port}/mcp")),
        ("refusing", "http://127.0.0.1:1/mcp".to_owned()),
    ] {
        let wish = json!({
            "id": id, "url": url, "allowPrivate": true,
            "callTimeoutMs": 1_000, "breaker": { "failures": 3, "openSecs": 1 }
        });
        let request = reqwest::Client::new().request(Method::POST, platform.url("/servers"));
        let answer = request
            .header("content-type", "application/json")
            .body(wish.to_string())
            .send();
        let answer = within("an answer", answer).await.expect("an answer");
        assert_eq!(answer.status(), 201, "{id}");
    }
    platform.knows("well").await;
    for (id, words) in [("garbage", "TLS"), ("refusing", "cannot connect")] {
        eventually(&format!("{id} says why"), async || {
            let told = told_of(&platform, id).await;
            told["status"] == "down" && told["reason"].as_str().is_some_and(|why| why.contains(words))
        })
        .await;
        let begun = Instant::now();
        let answer = platform.client(id).call("work", json!({})).await;
        assert!(answer["error"].is_object(), "{answer}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(works(&platform, "well").await);
    }
    assert!(is_listed(&platform, "well").await);
    serving.abort();
    platform.stop().await;
}
