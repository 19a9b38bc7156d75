//! Which tokens are taken, and what of them reaches a server.

use serde_json::{Value, json};
use tests::{
    bad_tokens::bad_tokens,
    issuer::{Issuer, now},
    platform::Platform,
    remote,
    scripted::Scripted,
};

use super::{Stage, challenge, seen, send, status, whoami};

#[tokio::test]
async fn whoever_shows_nothing_hears_where_a_token_is_to_be_had() {
    let stage = Stage::start("").await;
    for (path, endpoint) in [
        ("/mcp", "/mcp"),
        ("/servers/whoami/mcp", "/servers/whoami/mcp"),
        ("/sse", "/sse"),
    ] {
        let client = tests::http::Client::new(stage.platform.url(path));
        let request = if path == "/sse" {
            client.request(reqwest::Method::GET)
        } else {
            whoami(&client)
        };
        let refused = send(request).await;
        assert_eq!(refused.status(), 401, "{path}");
        let challenge = challenge(&refused);
        let at = stage
            .platform
            .url(&format!("/.well-known/oauth-protected-resource{endpoint}"));
        assert_eq!(challenge, format!("Bearer resource_metadata=\"{at}\""), "{path}");
        // The document is there for everybody, and names the endpoint and the issuer.
        let document: Value = send(reqwest::Client::new().get(at))
            .await
            .json()
            .await
            .expect("JSON");
        assert_eq!(document["resource"], stage.platform.url(endpoint), "{document}");
        assert_eq!(document["authorization_servers"], json!([stage.issuer.url()]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    }
    let root = stage.platform.url("/.well-known/oauth-protected-resource");
    let document: Value = send(reqwest::Client::new().get(root))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(document["resource"], stage.platform.url(""));
    // Operators need no token, and a path that is no endpoint has no document.
    for (path, expected) in [
        ("/healthz", 200),
        ("/metrics", 200),
        ("/.well-known/oauth-protected-resource/other", 404),
        ("/servers/Bad/mcp", 404),
    ] {
        let status = send(reqwest::Client::new().get(stage.platform.url(path)))
            .await
            .status();
        assert_eq!(status, expected, "{path}");
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_becomes_the_principal_that_its_issuer_vouches_for() {
    let stage = Stage::start("roles_claim = \"realm_access.roles\"").await;
    let more = json!({ "scope": "a b", "client_id": "inspector", "realm_access": { "roles": ["buyer"] } });
    for audience in ["", "/servers/whoami/mcp"] {
        let token = stage
            .issuer
            .token("ann", &stage.platform.url(audience), more.clone());
        let who = seen(&stage.client().with_token(&token)).await;
        assert_eq!(
            who,
            json!({
                "subject": "ann", "tenant": "default", "issuer": stage.issuer.url(), "client": "inspector",
                "roles": ["buyer"], "scopes": ["a", "b"]
            })
        );
    }
    // No word of a message changes who it is from.
    let client = stage.client_of("bob");
    let params = json!({
        "name": "whoami", "arguments": { "principal": { "subject": "ann" } }, "principal": { "subject": "ann" },
        "_meta": { "principal": { "subject": "ann" }, "subject": "ann", "io.trunkline/principal": { "subject": "ann" } }
    });
    let answer: Value = send(client.modern("tools/call", params))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(
        answer["result"]["structuredContent"]["subject"], "bob",
        "{answer}"
    );
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_that_is_not_genuine_not_for_here_or_not_for_now_is_refused() {
    let stage = Stage::start("clock_skew_secs = 10").await;
    let (issuer, client) = (&stage.issuer, stage.client());
    let own = stage.platform.url("/servers/whoami/mcp");
    let claims = issuer.claims("ann", &own);
    let with = |key: &str, value: Value| {
        let mut claims = claims.clone();
        claims[key] = value;
        issuer.sign(json!({}), &claims)
    };
    let good = issuer.sign(json!({}), &claims);
    let elsewhere = Issuer::start().await;
    let other = stage.platform.url("/mcp");
    for (what, token) in bad_tokens(issuer, &elsewhere, &own, &other) {
        let refused = send(whoami(&client.with_token(&token))).await;
        assert_eq!(refused.status(), 401, "{what}");
        let challenge = challenge(&refused);
        assert!(
            challenge.starts_with("Bearer error=\"invalid_token\", "),
            "{what}: {challenge}"
        );
        assert!(
            challenge.contains("resource_metadata=\"http"),
            "{what}: {challenge}"
        );
        let body = refused.text().await.expect("a body");
        assert!(
            !body.contains(&token) && !challenge.contains(&token),
            "{what} is repeated: {body}"
        );
    }
    for (what, token) in [
        ("as it is", good.clone()),
        (
            "expired by less than the clocks may differ",
            with("exp", json!(now() - 3)),
        ),
        ("too early by less", with("nbf", json!(now() + 3))),
        ("several audiences", with("aud", json!(["account", own]))),
        (
            "another spelling of it",
            with("aud", json!(own.replace("http:", "HTTP:") + "/")),
        ),
        ("RS256", issuer.sign_rsa("RS256", &claims)),
        ("PS256", issuer.sign_rsa("PS256", &claims)),
        ("without a type", issuer.sign(json!({ "typ": null }), &claims)),
        ("the old type", issuer.sign(json!({ "typ": "JWT" }), &claims)),
        (
            "without naming the key",
            issuer.sign(json!({ "kid": null }), &claims),
        ),
    ] {
        assert_eq!(status(&client, &token).await, 200, "{what}");
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn only_the_algorithms_of_the_operator_count() {
    let stage = Stage::start("algorithms = [\"RS256\"]").await;
    let claims = stage.issuer.claims("ann", &stage.platform.url(""));
    for (token, expected) in [
        (stage.issuer.sign_rsa("RS256", &claims), 200),
        (stage.issuer.sign_rsa("PS256", &claims), 401),
        (stage.issuer.sign(json!({}), &claims), 401),
    ] {
        assert_eq!(status(&stage.client(), &token).await, expected);
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_in_a_url_or_in_an_odd_header_is_refused_before_the_body() {
    let stage = Stage::start("").await;
    let token = stage.token("ann");
    for key in ["access_token", "token", "api_key"] {
        let client = tests::http::Client::new(stage.platform.url(&format!("/mcp?{key}={token}")));
        for client in [client.clone(), client.with_token(&token)] {
            let refused = send(client.raw("no JSON")).await;
            assert_eq!(refused.status(), 400, "{key}");
            let challenge = challenge(&refused);
            assert!(challenge.contains("error=\"invalid_request\""), "{challenge}");
            let body: Value = refused.json().await.expect("JSON");
            assert_eq!(body["error"], "invalid_request", "{body}");
        }
    }
    let client = stage.client();
    for (value, expected) in [
        ("Basic YTpi".to_owned(), 401),
        ("Bearer".to_owned(), 400),
        (format!("Bearer {token} {token}"), 400),
        (format!("bearer {token}"), 200),
    ] {
        let answer = send(whoami(&client).header("authorization", &value)).await;
        assert_eq!(answer.status(), expected, "{}", &value[..7.min(value.len())]);
    }
    // The origin comes first: a foreign page learns nothing of tokens. Then the token: without one the body is not looked at.
    let foreign = send(client.raw("no JSON").header("origin", "https://evil.example")).await;
    assert_eq!(
        (foreign.status().as_u16(), challenge(&foreign)),
        (403, String::new())
    );
    assert_eq!(send(client.raw("no JSON")).await.status(), 401);
    assert_eq!(send(client.with_token(&token).raw("no JSON")).await.status(), 400);
    stage.platform.stop().await;
}

#[tokio::test]
async fn no_server_ever_sees_what_a_client_has_shown() {
    let issuer = Issuer::start().await;
    let tools = json!([{ "name": "a", "inputSchema": { "type": "object" } }]);
    let (modern_tools, legacy_tools) = (tools.clone(), tools);
    let modern = Scripted::start(move |asked| {
        let tools = modern_tools.clone();
        async move { asked.modern(&tools) }
    })
    .await;
    let legacy = Scripted::start(move |asked| {
        let tools = legacy_tools.clone();
        async move { asked.legacy("a-session", &tools) }
    })
    .await;
    let file = issuer.section("")
        + &remote::local("modern", &modern.url(), "")
        + &remote::local("legacy", &legacy.url(), "");
    let platform = Platform::start(&file, &["modern", "legacy"]).await;
    let token = issuer.token("ann", &platform.url(""), json!({}));
    let stray = issuer.token("ann", "https://other.example", json!({}));
    for (id, server) in [("modern", &modern), ("legacy", &legacy)] {
        platform.knows(id).await;
        let before = server.asked("tools/call").len();
        let refused = platform
            .client(id)
            .with_token(&stray)
            .modern("tools/call", json!({ "name": "a" }));
        assert_eq!(send(refused).await.status(), 401);
        assert_eq!(
            server.asked("tools/call").len(),
            before,
            "a refused call goes nowhere"
        );
        let answer = platform.client(id).with_token(&token).call("a", json!({})).await;
        assert!(answer["result"].is_object(), "{answer}");
        let session =
            tests::session::Session::open(&platform.client(id).with_token(&token), "2025-06-18").await;
        let answer = session
            .ask("tools/call", &json!({ "name": "a", "arguments": {} }))
            .await;
        assert!(answer["result"].is_object(), "{answer}");
        let calls = server.asked("tools/call");
        assert_eq!(calls.len(), before + 2);
        for call in calls {
            let told = format!("{:?} {} {}", call.headers, call.path, call.body);
            assert!(call.headers.get("authorization").is_none(), "{told}");
            assert!(!told.contains(&token), "{told}");
        }
    }
    platform.stop().await;
}

#[tokio::test]
async fn what_is_for_one_token_is_never_told_to_another() {
    let stage = Stage::start("").await;
    for round in 0..2 {
        for who in ["ann", "bob"] {
            for (client, prefix) in [
                (stage.client_of(who), ""),
                (
                    stage.platform.client_of_all().with_token(&stage.token(who)),
                    "whoami__",
                ),
            ] {
                let uri = json!({ "uri": tests::whoami::RESOURCE });
                let read: Value = send(client.modern("resources/read", uri))
                    .await
                    .json()
                    .await
                    .expect("JSON");
                assert_eq!(read["result"]["contents"][0]["text"], who, "{round}: {read}");
                assert_eq!(read["result"]["cacheScope"], "private");
                let call = client.modern("tools/call", json!({ "name": format!("{prefix}whoami") }));
                let called: Value = send(call).await.json().await.expect("JSON");
                assert_eq!(called["result"]["content"][0]["text"], who, "{round}: {called}");
                for list in ["tools/list", "server/discover", "resources/list"] {
                    let listed: Value = send(client.modern(list, json!({})))
                        .await
                        .json()
                        .await
                        .expect("JSON");
                    assert_eq!(listed["result"]["cacheScope"], "private", "{list}: {listed}");
                }
            }
        }
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn behind_a_proxy_everything_is_called_by_its_public_name() {
    let issuer = Issuer::start().await;
    let public = "https://mcp.example.com/gateway";
    let section = issuer.section("");
    let section = section.replacen("[auth]\n", &format!("[auth]\npublic_url = \"{public}/\"\n"), 1);
    let platform = Platform::start(&section, &[]).await;
    let local = platform.url("/servers/whoami/mcp");
    let stage = Stage::with(issuer, platform).await;
    let named = |request: reqwest::RequestBuilder| request.header("host", "mcp.example.com");
    let refused = send(named(whoami(&stage.client()))).await;
    let at = "https://mcp.example.com/.well-known/oauth-protected-resource/gateway/servers/whoami/mcp";
    assert_eq!(
        (refused.status().as_u16(), challenge(&refused)),
        (401, format!("Bearer resource_metadata=\"{at}\""))
    );
    // Whether or not the proxy takes the prefix away.
    for path in ["/gateway/servers/whoami/mcp", "/servers/whoami/mcp"] {
        let url = stage
            .platform
            .url(&format!("/.well-known/oauth-protected-resource{path}"));
        let document: Value = send(named(reqwest::Client::new().get(url)))
            .await
            .json()
            .await
            .expect("JSON");
        assert_eq!(document["resource"], format!("{public}/servers/whoami/mcp"));
    }
    for (audience, expected) in [
        (format!("{public}/servers/whoami/mcp"), 200),
        (public.to_owned(), 200),
        ("https://mcp.example.com".to_owned(), 401),
        ("https://mcp.example.com/servers/whoami/mcp".to_owned(), 401),
        (local, 401),
    ] {
        let token = stage.issuer.token("ann", &audience, json!({}));
        assert_eq!(status(&stage.client(), &token).await, expected, "{audience}");
    }
    stage.platform.stop().await;
}
