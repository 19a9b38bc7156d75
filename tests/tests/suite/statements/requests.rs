//! What a request needs to be served: where it comes from, its metadata, and the headers that repeat its body.

use bus_schema::{
    header,
    mcp::{error, meta, method},
};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    http::{Client, modern_body},
    raw::{self, Raw},
    session::Session,
    within,
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest as _},
};

use super::{Era, answer, before, result, scripted, with_fixture};

const FOREIGN: &str = "https://evil.example";

#[tokio::test]
async fn a_foreign_origin_is_refused_by_every_way_in_before_anything_is_read() {
    let (platform, _host) = with_fixture().await;
    let paths = ["/mcp", "/servers/fixture/mcp", "/servers/nobody/mcp"];
    let posts = paths.map(|path| (Method::POST, path));
    let gets = paths.into_iter().chain(["/sse", "/servers/fixture/sse"]);
    let others = gets
        .map(|path| (Method::GET, path))
        .chain(paths.map(|path| (Method::DELETE, path)))
        .chain([(Method::POST, "/messages/guessed"), (Method::GET, "/ws")]);
    for (method, path) in posts.into_iter().chain(others) {
        // No part of this would pass any later check.
        let request = reqwest::Client::new()
            .request(method.clone(), platform.url(path))
            .header("origin", FOREIGN)
            .header("authorization", "nonsense")
            .header("accept", "text/event-stream")
            .header(header::SESSION_ID, "nobody's")
            .body("{");
        let response = within("an answer", request.send()).await.expect("an answer");
        assert_eq!(response.status(), 403, "{method} {path}");
    }
    for path in ["/ws", "/servers/fixture/ws"] {
        let url = platform.url(path).replacen("http", "ws", 1);
        let mut request = url.into_client_request().expect("a request");
        request
            .headers_mut()
            .insert("origin", FOREIGN.parse().expect("a value"));
        let refused = within("the refusal", connect_async(request)).await.err();
        assert!(
            matches!(&refused, Some(Error::Http(response)) if response.status() == 403),
            "{path}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_request_needs_a_version_under_its_own_id_and_no_name_of_its_client() {
    let (platform, _host) = with_fixture().await;
    for client in [platform.client("fixture"), platform.client_of_all()] {
        for id in [json!(7), json!("seven")] {
            for (missing, status, code) in [
                (meta::PROTOCOL_VERSION, 400, json!(error::INVALID_PARAMS)),
                (meta::CLIENT_CAPABILITIES, 400, json!(error::INVALID_PARAMS)),
                (meta::CLIENT_INFO, 200, Value::Null),
            ] {
                let mut body = modern_body(method::TOOLS_LIST, json!({}));
                body["id"] = id.clone();
                let keys = body["params"]["_meta"].as_object_mut().expect("metadata");
                assert!(keys.remove(missing).is_some());
                let request = client
                    .raw(body.to_string())
                    .header(header::PROTOCOL_VERSION, "2026-07-28")
                    .header(header::METHOD, method::TOOLS_LIST);
                let (was, answer) = answer(request).await;
                assert_eq!(
                    (was, &answer["error"]["code"], &answer["id"]),
                    (status, &code, &id),
                    "{missing}: {answer}"
                );
            }
        }
    }
}

#[tokio::test]
async fn versions_must_agree_and_an_unknown_one_is_answered_with_those_that_discovery_tells() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let discovered = result(&client, method::DISCOVER, json!({})).await;
    let known = discovered["supportedVersions"].as_array().expect("versions");
    for (in_header, in_body, code) in [
        ("2026-07-28", "v999", error::HEADER_MISMATCH),
        ("v999", "2026-07-28", error::HEADER_MISMATCH),
        ("v998", "v999", error::HEADER_MISMATCH),
        ("v999", "v999", error::UNSUPPORTED_VERSION),
        // A legacy version is not for requests that stand for themselves.
        ("2025-11-25", "2025-11-25", error::UNSUPPORTED_VERSION),
    ] {
        let mut body = modern_body(method::TOOLS_LIST, json!({}));
        body["params"]["_meta"][meta::PROTOCOL_VERSION] = in_body.into();
        let request = client
            .raw(body.to_string())
            .header(header::PROTOCOL_VERSION, in_header)
            .header(header::METHOD, method::TOOLS_LIST);
        let (status, answer) = answer(request).await;
        let failed = &answer["error"];
        assert_eq!(
            (status, &failed["code"]),
            (400, &json!(code)),
            "{in_header} {in_body}: {answer}"
        );
        if code == error::UNSUPPORTED_VERSION {
            assert_eq!(failed["data"]["requested"], in_body);
            let supported = failed["data"]["supported"].as_array().expect("versions");
            assert!(!supported.is_empty() && supported.iter().all(|version| known.contains(version)));
        }
    }
}

#[tokio::test]
async fn the_names_of_headers_come_in_any_case_and_their_values_in_one() {
    let (platform, _host) = with_fixture().await;
    let params = json!({ "name": "test_simple_text", "arguments": {} });
    let body = modern_body(method::TOOLS_CALL, params).to_string();
    for (names, version, called, name, status) in [
        (
            ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"],
            "2026-07-28",
            "tools/call",
            "test_simple_text",
            200,
        ),
        (
            ["mcp-protocol-version", "mcp-method", "mcp-name"],
            "2026-07-28",
            "tools/call",
            "test_simple_text",
            200,
        ),
        (
            ["MCP-PROTOCOL-VERSION", "MCP-METHOD", "MCP-NAME"],
            "2026-07-28",
            "tools/call",
            "test_simple_text",
            200,
        ),
        (
            ["Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name"],
            "  2026-07-28 ",
            " tools/call\t",
            "\t test_simple_text  ",
            200,
        ),
        (
            ["Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name"],
            "2026-07-28",
            "TOOLS/CALL",
            "test_simple_text",
            400,
        ),
        (
            ["Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name"],
            "2026-07-28",
            "tools/list",
            "test_simple_text",
            400,
        ),
        (
            ["Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name"],
            "2026-07-28",
            "tools/call",
            "Test_Simple_Text",
            400,
        ),
        (
            ["Mcp-Protocol-Version", "Mcp-Method", "X-Other"],
            "2026-07-28",
            "tools/call",
            "test_simple_text",
            400,
        ),
        (
            ["Mcp-Protocol-Version", "X-Other", "Mcp-Name"],
            "2026-07-28",
            "tools/call",
            "test_simple_text",
            400,
        ),
    ] {
        let headers = [(names[0], version), (names[1], called), (names[2], name)];
        let mut raw = Raw::connect(platform.node.http().expect("HTTP is open")).await;
        assert!(raw.send(raw::post("/servers/fixture/mcp", &headers, &body)).await);
        let reply = raw.reply().await.expect("an answer");
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.body);
        let answer: Value = serde_json::from_str(&reply.body).expect("JSON");
        let code = &answer["error"]["code"];
        assert!(
            if status == 200 {
                code.is_null()
            } else {
                *code == error::HEADER_MISMATCH
            },
            "{headers:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_argument_that_has_a_header_is_compared_with_it_decoded() {
    let region = json!({ "type": "string", "x-mcp-header": "Region" });
    let many = json!({ "type": "integer", "x-mcp-header": "Many" });
    let schema = json!({ "type": "object", "properties": { "region": region, "many": many } });
    let tools = json!([{ "name": "where", "inputSchema": schema }]);
    // Annotations count at the doors whatever the server behind them speaks.
    let modern = scripted(Era::Modern, tools.clone(), |_| None).await;
    let legacy = scripted(Era::Legacy, tools, |_| None).await;
    let platform = before(&[("modern", &modern), ("legacy", &legacy)]).await;
    let all = platform.client_of_all();
    let endpoints = [
        (platform.client("modern"), "where"),
        (platform.client("legacy"), "where"),
        (all.clone(), "modern__where"),
        (all, "legacy__where"),
    ];
    let accepted = Value::Null;
    let refused = json!(error::HEADER_MISMATCH);
    for (client, name) in endpoints {
        for (sent, arguments, code) in [
            (None, json!({ "region": "eu" }), &refused),
            (Some("us"), json!({ "region": "eu" }), &refused),
            (Some("EU"), json!({ "region": "eu" }), &refused),
            (Some("=?base64?@?="), json!({ "region": "eu" }), &refused),
            (Some("=?base64?ZXU?="), json!({ "region": "eu" }), &refused),
            (Some("eu"), json!({}), &refused),
            (Some("eu"), json!({ "region": "eu" }), &accepted),
            (Some("=?base64?ZXU=?="), json!({ "region": "eu" }), &accepted),
            (Some("=?base64?w7w=?="), json!({ "region": "ü" }), &accepted),
            // Only the exact marker means that something is encoded.
            (
                Some("=?BASE64?ZXU=?="),
                json!({ "region": "=?BASE64?ZXU=?=" }),
                &accepted,
            ),
            (None, json!({ "region": null }), &accepted),
            (None, json!({}), &accepted),
        ] {
            let params = json!({ "name": name, "arguments": arguments });
            let mut request = client.modern(method::TOOLS_CALL, params);
            if let Some(sent) = sent {
                request = request.header("Mcp-Param-Region", sent);
            }
            let (status, answer) = answer(request).await;
            let expected = if code.is_null() { 200 } else { 400 };
            assert_eq!(
                (status, &answer["error"]["code"]),
                (expected, code),
                "{name} {sent:?} {arguments}: {answer}"
            );
        }
        let params = json!({ "name": name, "arguments": { "many": 42 } });
        for (sent, status) in [("42", 200), ("42.0", 200), ("43", 400)] {
            let request = client.modern(method::TOOLS_CALL, params.clone());
            assert_eq!(
                answer(request.header("Mcp-Param-Many", sent)).await.0,
                status,
                "{sent}"
            );
        }
    }
    // What was refused did not go on.
    for server in [modern, legacy] {
        assert_eq!(server.asked(method::TOOLS_CALL).len(), 2 * 8);
    }
}

#[tokio::test]
async fn what_belongs_to_sessions_means_nothing_on_a_modern_request() {
    let (platform, _host) = with_fixture().await;
    let client = platform.client("fixture");
    let session = Session::open(&client, "2025-11-25").await;
    let held = session
        .request(method::PING, &json!({}))
        .build()
        .expect("a request");
    let held = held.headers()[header::SESSION_ID]
        .to_str()
        .expect("text")
        .to_owned();
    for id in ["unknown", &held] {
        let params = json!({ "name": "test_simple_text", "arguments": {} });
        let request = client
            .modern(method::TOOLS_CALL, params)
            .header(header::SESSION_ID, id)
            .header(header::LAST_EVENT_ID, "c.a.1.1");
        let response = within("an answer", request.send()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert!(response.headers().get(header::SESSION_ID).is_none());
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    }
    assert_eq!(session.ask(method::PING, &json!({})).await["result"], json!({}));
    expect_no_stream(&client, &held).await;
}

/// GET with a session that is not there, and without any, ends at once.
async fn expect_no_stream(client: &Client, held: &str) {
    for (id, statuses) in [(None, [405, 400]), (Some("unknown"), [404, 400])] {
        let mut request = client
            .request(Method::GET)
            .header("accept", "text/event-stream")
            .header(header::LAST_EVENT_ID, "c.a.1.1");
        if let Some(id) = id {
            assert_ne!(id, held);
            request = request.header(header::SESSION_ID, id);
        }
        let response = within("an answer", request.send()).await.expect("an answer");
        assert!(
            statuses.contains(&response.status().as_u16()),
            "{id:?}: {response:?}"
        );
        within("its end", response.bytes())
            .await
            .expect("a body that ends");
    }
}
