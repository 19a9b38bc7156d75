//! The HTTP door in both eras: what it takes, what it refuses and how, and what it carries.

use std::sync::Arc;

use bus_schema::{header, mcp::error};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{
    fixture::{self, Probe},
    http::{Client, events, modern_body, text},
    platform::Platform,
    within,
};

/// A platform with the fixture on its bus.
async fn with_fixture(probe: Arc<Probe>) -> (Platform, runtime::Host) {
    let platform = Platform::start("", &[]).await;
    let host = fixture::serve(platform.node.bus(), probe, |_| {}).await;
    platform.knows("fixture").await;
    (platform, host)
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = within("an answer", request.send()).await.expect("an answer");
    let status = response.status();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_modern_call_is_answered_as_json_without_a_session() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let request = platform.client("fixture").modern(
        "tools/call",
        json!({ "name": "echo", "arguments": { "text": "hi" } }),
    );
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(response.headers().get(header::SESSION_ID).is_none());
    assert_eq!(response.headers()["content-type"], "application/json");
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(
        (text(&answer), answer["result"]["resultType"].as_str()),
        ("hi", Some("complete"))
    );
}

#[tokio::test]
async fn the_ladder_refuses_each_fault_with_its_status_and_code() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let client = platform.client("fixture");
    let call = || json!({ "name": "echo", "arguments": { "text": "x" } });
    let without = |name: &'static str| {
        let mut request = client.modern("tools/call", call()).build().expect("a request");
        request.headers_mut().remove(name);
        request
    };
    let with = |name: &'static str, value: &'static str| {
        let mut request = client.modern("tools/call", call()).build().expect("a request");
        request
            .headers_mut()
            .insert(name, value.parse().expect("a value"));
        request
    };
    let with_body = |change: fn(&mut Value)| {
        let mut body = modern_body("tools/call", call());
        change(&mut body);
        let mut request = client.modern("tools/call", call()).build().expect("a request");
        *request.body_mut() = Some(body.to_string().into());
        request
    };
    let meta = "io.modelcontextprotocol/protocolVersion";
    assert_eq!(meta, bus_schema::mcp::meta::PROTOCOL_VERSION);
    let cases = [
        (
            "foreign origin",
            with("origin", "https://evil.example"),
            403,
            None,
        ),
        ("foreign host", with("host", "evil.example"), 403, None),
        (
            "no version header",
            without(header::PROTOCOL_VERSION),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "no method header",
            without(header::METHOD),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "no name header",
            without(header::NAME),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "other method header",
            with(header::METHOD, "TOOLS/CALL"),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "other name header",
            with(header::NAME, "other"),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "undecodable name header",
            with(header::NAME, "=?base64?@?="),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "other version header",
            with(header::PROTOCOL_VERSION, "2026-07-29"),
            400,
            Some(error::HEADER_MISMATCH),
        ),
        (
            "wrong content type",
            with("content-type", "text/plain"),
            415,
            Some(error::INVALID_REQUEST),
        ),
        (
            "nothing acceptable",
            with("accept", "text/html"),
            406,
            Some(error::INVALID_REQUEST),
        ),
        (
            "no version in the body",
            with_body(|b| {
                b["params"]["_meta"]
                    .as_object_mut()
                    .expect("meta")
                    .remove("io.modelcontextprotocol/protocolVersion");
            }),
            400,
            Some(error::INVALID_PARAMS),
        ),
        (
            "no capabilities",
            with_body(|b| {
                b["params"]["_meta"]
                    .as_object_mut()
                    .expect("meta")
                    .remove("io.modelcontextprotocol/clientCapabilities");
            }),
            400,
            Some(error::INVALID_PARAMS),
        ),
        (
            "no name",
            with_body(|b| b["params"]["name"] = Value::Null),
            400,
            Some(error::INVALID_PARAMS),
        ),
        (
            "null id",
            with_body(|b| b["id"] = Value::Null),
            400,
            Some(error::INVALID_REQUEST),
        ),
        (
            "no JSON-RPC",
            with_body(|b| b["jsonrpc"] = json!("1.0")),
            400,
            Some(error::INVALID_REQUEST),
        ),
        (
            "a batch",
            with_body(|b| *b = json!([b.clone()])),
            400,
            Some(error::INVALID_REQUEST),
        ),
        (
            "a response",
            with_body(|b| *b = json!({ "jsonrpc": "2.0", "id": 1, "result": {} })),
            400,
            Some(error::INVALID_REQUEST),
        ),
    ];
    for (what, request, status, code) in cases {
        let response = within(what, reqwest::Client::new().execute(request))
            .await
            .expect("an answer");
        assert_eq!(response.status(), status, "{what}");
        if let Some(code) = code {
            let body: Value = response.json().await.expect("JSON");
            assert_eq!(body["error"]["code"], code, "{what}: {body}");
        }
    }
    for (what, body, code) in [
        ("no JSON", "{", error::PARSE),
        ("no UTF-8", "\u{0}", error::PARSE),
    ] {
        let (status, body) = answer(client.raw(body)).await;
        assert_eq!(
            (status.as_u16(), &body["error"]["code"]),
            (400, &json!(code)),
            "{what}"
        );
    }
}

#[tokio::test]
async fn an_unknown_version_is_refused_by_name_with_what_is_supported() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let mut body = modern_body("tools/list", json!({}));
    body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("v999");
    let request = platform
        .client("fixture")
        .raw(body.to_string())
        .header(header::PROTOCOL_VERSION, "v999")
        .header(header::METHOD, "tools/list");
    let (status, body) = answer(request).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (400, &json!(error::UNSUPPORTED_VERSION))
    );
    assert_eq!(
        body["error"]["data"],
        json!({ "supported": ["2026-07-28"], "requested": "v999" })
    );
}

#[tokio::test]
async fn removed_and_unknown_methods_are_not_found() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    for called in [
        "ping",
        "initialize",
        "logging/setLevel",
        "resources/subscribe",
        "nonsense",
        "prompts/list",
    ] {
        let (status, body) = answer(platform.client("fixture").modern(called, json!({}))).await;
        assert_eq!(
            (status.as_u16(), &body["error"]["code"]),
            (404, &json!(error::METHOD_NOT_FOUND)),
            "{called}"
        );
        assert_eq!(body["id"], 1, "{called}");
    }
}

#[tokio::test]
async fn servers_that_are_not_there_are_not_found() {
    let platform = Platform::start("", &[]).await;
    for server in ["nobody", "No-Id"] {
        let client = Client::new(platform.url(&format!("/servers/{server}/mcp")));
        assert_eq!(
            answer(client.modern("tools/list", json!({}))).await.0,
            404,
            "{server}"
        );
        assert_eq!(
            answer(client.raw(initialize("2025-11-25").to_string())).await.0,
            404,
            "{server}"
        );
    }
}

#[tokio::test]
async fn progress_comes_as_events_in_order_before_the_answer() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let params = json!({ "name": "progress", "arguments": { "n": 100 }, "_meta": { "progressToken": "p" } });
    let response = platform
        .client("fixture")
        .modern("tools/call", params)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let events = within("the stream", events(response)).await;
    let (last, parts) = events.split_last().expect("events");
    let seen: Vec<_> = parts
        .iter()
        .map(|part| part["params"]["progress"].as_f64().unwrap_or_default())
        .collect();
    assert_eq!(seen, (1..=100).map(f64::from).collect::<Vec<_>>());
    assert_eq!(text(last), "done");
}

#[tokio::test]
async fn a_client_that_takes_json_only_gets_the_answer_alone() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let params = json!({ "name": "progress", "arguments": { "n": 3 }, "_meta": { "progressToken": "p" } });
    let mut request = platform
        .client("fixture")
        .modern("tools/call", params)
        .build()
        .expect("a request");
    request
        .headers_mut()
        .insert("accept", "application/json".parse().expect("a value"));
    let response = reqwest::Client::new().execute(request).await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(text(&response.json().await.expect("JSON")), "done");
}

#[tokio::test]
async fn a_modern_client_that_goes_away_cancels_its_call() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = with_fixture(Arc::clone(&probe)).await;
    let request = platform
        .client("fixture")
        .modern("tools/call", json!({ "name": "hold" }));
    let waiting = tokio::spawn(request.send());
    probe.held.begun.next("the call").await;
    waiting.abort();
    probe.held.dropped.next("the drop of the handler").await;
}

#[tokio::test]
async fn the_endpoint_of_all_servers_prefixes_names_and_routes_by_them() {
    let platform = Platform::start("", &["products"]).await;
    let _host = fixture::serve(platform.node.bus(), Arc::default(), |_| {}).await;
    platform.knows("fixture").await;
    let all = platform.client_of_all();
    let (_, listed) = answer(all.modern("tools/list", json!({}))).await;
    let names: Vec<&str> = listed["result"]["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert!(
        names.contains(&"fixture__echo") && names.contains(&"products__search"),
        "{names:?}"
    );
    assert!(listed["result"]["ttlMs"].is_u64() && listed["result"]["cacheScope"] == "private");
    assert_eq!(
        listed,
        answer(all.modern("tools/list", json!({ "cursor": "" }))).await.1
    );
    let (_, bad) = answer(all.modern("tools/list", json!({ "cursor": "garbage" }))).await;
    assert_eq!(bad["error"]["code"], error::INVALID_PARAMS);
    assert_eq!(
        text(&all.call("fixture__echo", json!({ "text": "hi" })).await),
        "hi"
    );
    for unknown in ["echo", "nobody__echo", "fixture__nothing"] {
        let answer = all.call(unknown, json!({})).await;
        assert_eq!(
            answer["error"]["code"],
            error::INVALID_PARAMS,
            "{unknown}: {answer}"
        );
    }
    let (_, read) = answer(all.modern("resources/read", json!({ "uri": "product://OFF-0001" }))).await;
    assert_eq!(read["result"]["contents"][0]["uri"], "product://OFF-0001");
    let (_, missing) = answer(all.modern("resources/read", json!({ "uri": "nothing://x" }))).await;
    assert_eq!(
        (&missing["error"]["code"], &missing["error"]["data"]["uri"]),
        (&json!(error::INVALID_PARAMS), &json!("nothing://x"))
    );
    let completion = json!({
        "ref": { "type": "ref/prompt", "name": "products__find_in_category" },
        "argument": { "name": "category", "value": "o" },
    });
    let (_, completed) = answer(all.modern("completion/complete", completion)).await;
    let values = completed["result"]["completion"]["values"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(values.contains(&json!("Office")), "{completed}");
    let (_, prompt) = answer(all.modern(
        "prompts/get",
        json!({ "name": "products__describe_product", "arguments": { "sku": "OFF-0001" } }),
    ))
    .await;
    assert!(prompt["result"]["messages"].is_array(), "{prompt}");
}

#[tokio::test]
async fn bytes_that_nobody_needs_to_change_are_not_changed() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let answer = platform
        .client("fixture")
        .call("echo", json!({ "text": "ü \u{1F600} \\ \" \u{7f}" }))
        .await;
    assert_eq!(text(&answer), "ü \u{1F600} \\ \" \u{7f}");
    // An id beyond 64 bits comes back as it was spelled.
    let body = modern_body(
        "tools/call",
        json!({ "name": "echo", "arguments": { "text": "x" } }),
    )
    .to_string();
    let body = body.replace("\"id\":1", "\"id\":12345678901234567890123");
    let request = platform
        .client("fixture")
        .raw(body)
        .header(header::PROTOCOL_VERSION, "2026-07-28")
        .header(header::METHOD, "tools/call")
        .header(header::NAME, "echo");
    let response = request
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    assert!(response.contains("\"id\":12345678901234567890123"), "{response}");
}

#[tokio::test]
async fn large_messages_pass_and_too_large_ones_are_refused_by_size() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let client = platform.client("fixture");
    let ten_mib = 10 * 1024 * 1024;
    let answer_of_ten = client.call("big", json!({ "n": ten_mib })).await;
    assert_eq!(text(&answer_of_ten).len(), ten_mib);
    let argument = client
        .call("measure", json!({ "text": "y".repeat(ten_mib) }))
        .await;
    assert_eq!(text(&argument), ten_mib.to_string());
    let too_large = client.call("big", json!({ "n": 100 * 1024 * 1024 })).await;
    assert!(
        too_large["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .contains("larger than"),
        "{too_large}"
    );
    let (status, body) = answer(client.raw("y".repeat(100 * 1024 * 1024))).await;
    assert_eq!(status, 413, "{body}");
}

#[tokio::test]
async fn a_trace_is_carried_on_and_answered() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    let request = platform
        .client("fixture")
        .modern(
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "x" } }),
        )
        .header(
            header::TRACEPARENT,
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    let response = request.send().await.expect("an answer");
    let trace = response.headers()[header::TRACEPARENT].to_str().expect("text");
    assert!(
        trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace.ends_with("-01"),
        "{trace}"
    );
    assert!(
        !trace.contains("b7ad6b7169203331"),
        "the door has a span of its own: {trace}"
    );
}

fn initialize(version: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": { "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } },
    })
}

async fn open_session(client: &Client, version: &str) -> (String, Value) {
    let response = client
        .raw(initialize(version).to_string())
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    let session = response.headers()[header::SESSION_ID]
        .to_str()
        .expect("visible ASCII")
        .to_owned();
    (session, response.json().await.expect("JSON"))
}

fn legacy(client: &Client, session: &str, method: &str, params: Value) -> reqwest::RequestBuilder {
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": params });
    client.raw(body.to_string()).header(header::SESSION_ID, session)
}

#[tokio::test]
async fn each_legacy_version_gets_a_session_and_the_same_methods() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    for (asked, settled) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let (session, opened) = open_session(&client, asked).await;
        assert_eq!(opened["result"]["protocolVersion"], settled);
        assert_eq!(opened["result"]["serverInfo"]["name"], "products");
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let (status, _) = answer(
            client
                .raw(initialized.to_string())
                .header(header::SESSION_ID, &session),
        )
        .await;
        assert_eq!(status, 202);
        for (method, params, key) in [
            ("ping", json!({}), ""),
            ("tools/list", json!({}), "tools"),
            (
                "tools/call",
                json!({ "name": "get", "arguments": { "sku": "OFF-0001" } }),
                "content",
            ),
            (
                "resources/read",
                json!({ "uri": "product://OFF-0001" }),
                "contents",
            ),
            ("resources/templates/list", json!({}), "resourceTemplates"),
            (
                "prompts/get",
                json!({ "name": "describe_product", "arguments": { "sku": "OFF-0001" } }),
                "messages",
            ),
        ] {
            let (status, body) = answer(legacy(&client, &session, method, params)).await;
            assert_eq!(status, 200, "{method}");
            assert!(
                body["result"].is_object() && (key.is_empty() || !body["result"][key].is_null()),
                "{method}: {body}"
            );
        }
    }
}

#[tokio::test]
async fn a_legacy_session_never_sees_a_modern_status() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    let (session, _) = open_session(&client, "2025-11-25").await;
    let (status, body) = answer(legacy(&client, &session, "nonsense", json!({}))).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (200, &json!(error::METHOD_NOT_FOUND))
    );
    let (status, body) = answer(legacy(
        &client,
        &session,
        "resources/read",
        json!({ "uri": "product://NO-1" }),
    ))
    .await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (200, &json!(error::LEGACY_RESOURCE_NOT_FOUND))
    );
    assert_eq!(
        answer(legacy(&client, &session, "ping", json!({}))).await.0,
        200,
        "the session lives"
    );
}

#[tokio::test]
async fn a_closed_session_answers_404_and_a_foreign_endpoint_knows_it_not() {
    let platform = Platform::start("", &["products"]).await;
    let client = platform.client("products");
    let (session, _) = open_session(&client, "2025-11-25").await;
    assert_eq!(
        answer(legacy(&platform.client_of_all(), &session, "ping", json!({})))
            .await
            .0,
        404
    );
    let delete = || {
        client
            .request(Method::DELETE)
            .header(header::SESSION_ID, &session)
    };
    assert_eq!(answer(delete()).await.0, 204);
    assert_eq!(answer(delete()).await.0, 404);
    assert_eq!(answer(legacy(&client, &session, "ping", json!({}))).await.0, 404);
    let nameless = client.raw(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string());
    assert_eq!(answer(nameless).await.0, 400);
    let unknown_version = legacy(
        &client,
        &open_session(&client, "2025-11-25").await.0,
        "ping",
        json!({}),
    )
    .header(header::PROTOCOL_VERSION, "1999-01-01");
    assert_eq!(answer(unknown_version).await.0, 400);
}

#[tokio::test]
async fn legacy_progress_comes_as_events_and_cancellation_by_message() {
    let probe = Arc::<Probe>::default();
    let (platform, _host) = with_fixture(Arc::clone(&probe)).await;
    let client = platform.client("fixture");
    let (session, _) = open_session(&client, "2025-06-18").await;
    let params = json!({ "name": "progress", "arguments": { "n": 5 }, "_meta": { "progressToken": 9 } });
    let response = legacy(&client, &session, "tools/call", params)
        .send()
        .await
        .expect("an answer");
    let events = events(response).await;
    assert_eq!(events.len(), 6);
    assert!(
        events[..5]
            .iter()
            .all(|event| event["params"]["progressToken"] == 9)
    );
    let waiting = tokio::spawn(legacy(&client, &session, "tools/call", json!({ "name": "hold" })).send());
    probe.held.begun.next("the call").await;
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } });
    assert_eq!(
        answer(
            client
                .raw(cancel.to_string())
                .header(header::SESSION_ID, &session)
        )
        .await
        .0,
        202
    );
    probe.held.dropped.next("the drop of the handler").await;
    within("the end of the request", waiting)
        .await
        .expect("no panic")
        .expect("an answer");
}

#[tokio::test]
async fn a_legacy_session_runs_256_calls_and_no_more_until_one_ends() {
    let probe = Arc::<Probe>::default();
    let platform = Platform::start("", &[]).await;
    let more = |options: &mut runtime::HostOptions| options.max_in_flight = 1000;
    let _host = fixture::serve(platform.node.bus(), Arc::clone(&probe), more).await;
    platform.knows("fixture").await;
    let client = platform.client("fixture");
    let (session, _) = open_session(&client, "2025-03-26").await;
    let calls = |ids: std::ops::Range<u32>, tool: &str| {
        let call = |id| {
            json!({
                "jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": { "name": tool, "arguments": if tool == "echo" { json!({ "text": "still" }) } else { json!({}) } },
            })
        };
        let batch: Vec<Value> = ids.map(call).collect();
        client
            .raw(json!(batch).to_string())
            .header(header::SESSION_ID, &session)
    };
    let mut waiting = tokio::task::JoinSet::new();
    for ids in [0..100, 100..200, 200..256] {
        waiting.spawn(calls(ids, "hold").send());
    }
    probe.held.begun.many("the calls", 256).await;
    let echo = || {
        legacy(
            &client,
            &session,
            "tools/call",
            json!({ "name": "echo", "arguments": { "text": "still" } }),
        )
    };
    let refused = within("an answer", echo().send()).await.expect("an answer");
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let refused: Value = refused.json().await.expect("JSON");
    let why = refused["error"]["message"].as_str().expect("a message");
    assert!(refused["id"] == 5 && why.contains("256 calls"), "{refused}");
    let (status, answers) = answer(calls(300..302, "echo")).await;
    assert_eq!(status, 200);
    for (answer, id) in answers.as_array().expect("answers").iter().zip([300, 301]) {
        assert!(
            answer["id"] == id && answer["error"]["message"] == why,
            "{answer}"
        );
    }
    let (other, _) = open_session(&client, "2025-03-26").await;
    let params = json!({ "name": "echo", "arguments": { "text": "still" } });
    assert_eq!(answer(legacy(&client, &other, "tools/call", params)).await.0, 200);
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    let cancel = client
        .raw(cancel.to_string())
        .header(header::SESSION_ID, &session);
    assert_eq!(answer(cancel).await.0, 202);
    tests::eventually("there is room for one more call", async || {
        let (status, answer) = answer(echo()).await;
        status == 200 && text(&answer) == "still"
    })
    .await;
}

#[tokio::test]
async fn what_is_no_post_is_not_allowed() {
    let platform = Platform::start("", &[]).await;
    for method in [Method::GET, Method::PUT, Method::PATCH] {
        let response = platform
            .client_of_all()
            .request(method.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "GET, POST, DELETE", "{method}");
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_are_served() {
    let (platform, _host) = with_fixture(Arc::default()).await;
    platform
        .client("fixture")
        .call("echo", json!({ "text": "x" }))
        .await;
    let get = async |path: &str| {
        let response = reqwest::get(platform.url(path)).await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    };
    assert_eq!(get("/healthz").await, (200, "ok".to_owned()));
    assert_eq!(get("/readyz").await.0, 200);
    let metrics = get("/metrics").await.1;
    for name in [
        "mcp_server_operation_duration_seconds",
        "mcp_client_operation_duration_seconds",
        "trunkline_calls_in_flight",
    ] {
        assert!(metrics.contains(name), "{name} is not in:\n{metrics}");
    }
}
