//! Servers that other people made, used by clients of both eras.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::mcp::method;
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use runtime::supervise::Status;
use serde_json::{Value, json};
use tests::{
    caller::Caller,
    eventually,
    fixture::Probe,
    http::text,
    remote::{self, Process, Tls, local},
    within,
};

use super::{failure, platform_that_knows, status};

/// Calls a tool that reports progress n times, and checks what is told before the answer.
async fn expect_progress(caller: &Caller, tool: &str, arguments: Value, n: u64) {
    let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "mine" } });
    let mut told = caller.messages(method::TOOLS_CALL, params).await;
    let answer = told.pop().expect("an answer");
    assert!(answer["result"].is_object(), "{answer}");
    let steps: Vec<_> = told
        .iter()
        .map(|part| {
            assert_eq!(part["params"]["progressToken"], "mine", "{part}");
            part["params"]["progress"].as_f64().expect("a number") as u64
        })
        .collect();
    assert_eq!(steps, (1..=n).collect::<Vec<_>>());
}

async fn use_everything(caller: &Caller) {
    let sum = caller.call("get-sum", json!({ "a": 2, "b": 40 })).await;
    assert_eq!(sum["content"][0]["text"], "The sum of 2 and 40 is 42.");
    let uri = "demo://resource/static/document/features.md";
    let read = caller.result(method::RESOURCES_READ, json!({ "uri": uri })).await;
    assert_eq!(read["contents"][0]["uri"], uri);
    let prompt = json!({ "name": "args-prompt", "arguments": { "city": "Oslo" } });
    let prompt = caller.result(method::PROMPTS_GET, prompt).await;
    let said = prompt["messages"][0]["content"]["text"].as_str();
    assert!(said.is_some_and(|text| text.contains("Oslo")), "{prompt}");
    let slow = json!({ "duration": 0.1, "steps": 4 });
    expect_progress(caller, "trigger-long-running-operation", slow, 4).await;
    let refused = caller
        .messages(
            method::TOOLS_CALL,
            json!({ "name": "get-sum", "arguments": { "a": "two" } }),
        )
        .await;
    assert_eq!(refused[0]["result"]["isError"], true, "{refused:?}");
}

#[tokio::test]
async fn the_reference_server_is_used_over_both_legacy_transports() {
    let streamable = Process::everything("streamableHttp").await;
    let sse = Process::everything("sse").await;
    let file = local("streamable", &streamable.url("/mcp"), "")
        + &local("sse", &sse.url("/sse"), "")
        + &local("told", &sse.url("/sse"), "transport = \"sse\"");
    let servers = ["streamable", "sse", "told"];
    let platform = platform_that_knows(&file, &servers).await;
    for server in servers {
        for caller in Caller::both(platform.client(server)).await {
            use_everything(&caller).await;
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_server_of_the_python_sdk_is_used_in_each_of_its_eras() {
    let streamable = Process::python("streamable-http").await;
    let sse = Process::python("sse").await;
    let url = streamable.url("/mcp");
    let file = local("modern", &url, "")
        + &local("legacy", &url, "era = \"legacy\"")
        + &local("sse", &sse.url("/sse"), "");
    let servers = ["modern", "legacy", "sse"];
    let platform = platform_that_knows(&file, &servers).await;
    for server in servers {
        for caller in Caller::both(platform.client(server)).await {
            let sum = caller.call("add", json!({ "a": 2, "b": 40 })).await;
            assert_eq!(sum["structuredContent"]["result"], 42, "{sum}");
            expect_progress(&caller, "count", json!({ "n": 5 }), 5).await;
            let read = caller
                .result(method::RESOURCES_READ, json!({ "uri": "note://a" }))
                .await;
            assert_eq!(read["contents"][0]["text"], "the note a");
            let prompt = json!({ "name": "greet", "arguments": { "who": "Ada" } });
            let prompt = caller.result(method::PROMPTS_GET, prompt).await;
            assert_eq!(prompt["messages"][0]["content"]["text"], "Say hello to Ada.");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_server_of_the_rust_sdk_is_used_in_each_of_its_eras() {
    let probe = Arc::new(Probe::default());
    let addr = remote::rmcp(Arc::clone(&probe), StreamableHttpServerConfig::default()).await;
    let url = format!("http://{addr}/mcp");
    let file = local("modern", &url, "") + &local("legacy", &url, "era = \"legacy\"");
    let platform = platform_that_knows(&file, &["modern", "legacy"]).await;
    for server in ["modern", "legacy"] {
        for caller in Caller::both(platform.client(server)).await {
            let said = caller.call("echo", json!({ "text": "größe" })).await;
            assert_eq!(said["content"][0]["text"], "größe");
            expect_progress(&caller, "progress", json!({ "n": 20 }), 20).await;
            let large = caller.call("big", json!({ "n": 3_000_000 })).await;
            assert_eq!(
                large["content"][0]["text"].as_str().map(str::len),
                Some(3_000_000)
            );
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn another_platform_is_used_over_web_sockets_in_each_era() {
    let far = platform_that_knows("", &["products"]).await;
    let url = far.url("/servers/products/ws").replace("http://", "ws://");
    let file = local("modern", &url, "")
        + &local("legacy", &url, "era = \"legacy\"")
        + &local("told", &url, "transport = \"ws\"\nera = \"modern\"");
    let servers = ["modern", "legacy", "told"];
    let platform = platform_that_knows(&file, &servers).await;
    for server in servers {
        for caller in Caller::both(platform.client(server)).await {
            let found = caller
                .call("search", json!({ "query": "desk", "limit": 1 }))
                .await;
            assert!(found["isError"] != true, "{found}");
        }
    }
    // A far end that closes is connected to again, and the server is off the bus until then.
    far.stop().await;
    for server in servers {
        failure(&platform, server).await;
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_server_with_tls_is_checked_against_the_authority_that_its_line_names() {
    let router = remote::rmcp_router(Arc::default(), StreamableHttpServerConfig::default());
    let tls = Tls::serve(router).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &tls.ca).expect("the file is written");
    let url = format!("https://localhost:{}/mcp", tls.addr.port());
    let wrong_name = format!("https://127.0.0.1:{}/mcp", tls.addr.port());
    let ca = format!("ca_file = {}", json!(ca));
    let file =
        local("trusted", &url, &ca) + &local("unknown", &url, "") + &local("misnamed", &wrong_name, &ca);
    let platform = tests::platform::Platform::start(&file, &["trusted", "unknown", "misnamed"]).await;
    platform.knows("trusted").await;
    let client = platform.client("trusted");
    assert_eq!(
        text(&client.call("echo", json!({ "text": "sealed" })).await),
        "sealed"
    );
    for (id, reason) in [("unknown", "UnknownIssuer"), ("misnamed", "not valid for name")] {
        let why = failure(&platform, id).await;
        assert!(
            why.contains("cannot agree on TLS") && why.contains(reason),
            "{why}"
        );
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_is_down_leaves_the_bus_and_comes_back_with_it() {
    let everything = Process::everything("streamableHttp").await;
    let addr = everything.addr;
    let file = local("everything", &everything.url("/mcp"), "");
    let platform = platform_that_knows(&file, &["everything", "products"]).await;
    let client = platform.client("everything");
    everything.kill().await;
    // The server's own stream breaks with it, so that nobody has to call to find out.
    let why = failure(&platform, "everything").await;
    assert!(
        why.contains("it is gone") || why.contains("cannot connect"),
        "{why}"
    );
    let called = within("an error", client.call("get-sum", json!({ "a": 1, "b": 1 }))).await;
    assert!(called["error"].is_object(), "{called}");
    let products = platform.client("products");
    let found = products
        .call("search", json!({ "query": "desk", "limit": 1 }))
        .await;
    assert!(found["result"].is_object(), "{found}");
    let _again = Process::everything_at(addr, "streamableHttp").await;
    eventually("the server is back", async || {
        status(&platform, "everything") == Status::Up
    })
    .await;
    eventually("it answers", async || {
        let sum = client.call("get-sum", json!({ "a": 1, "b": 1 })).await;
        text(&sum) == "The sum of 1 and 1 is 2."
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn a_server_that_has_lost_its_sessions_gets_a_new_one_and_callers_see_nothing() {
    let probe = Arc::new(Probe::default());
    // Both stand behind one address in turn, and know nothing of each other's sessions.
    let turn = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let config = StreamableHttpServerConfig::default;
    let routers = [
        remote::rmcp_router(Arc::clone(&probe), config()),
        remote::rmcp_router(Arc::clone(&probe), config()),
    ];
    let switch = Arc::clone(&turn);
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let mut router = routers[switch.load(Ordering::SeqCst)].clone();
        async move {
            let Ok(answer) = tower_service::Service::call(&mut router, request).await;
            answer
        }
    });
    let addr = remote::serve(router).await;
    let file = local("legacy", &format!("http://{addr}/mcp"), "era = \"legacy\"");
    let platform = platform_that_knows(&file, &["legacy"]).await;
    let client = platform.client("legacy");
    for instance in [1, 0, 1] {
        turn.store(instance, Ordering::SeqCst);
        assert_eq!(
            text(&client.call("echo", json!({ "text": "still" })).await),
            "still"
        );
        assert!(client.tool_names().await.contains(&"echo".to_owned()));
    }
    // What may change something is not made twice, and the next one goes well.
    turn.store(0, Ordering::SeqCst);
    let counted = client.call("count", json!({})).await;
    let words = counted["error"]["message"].as_str().expect("an error");
    assert!(words.contains("ended the session"), "{words}");
    assert_eq!(probe.counted.load(Ordering::SeqCst), 0);
    assert_eq!(text(&client.call("count", json!({})).await), "1");
    platform.stop().await;
}
