//! Keys that change, issuers that cannot be reached, tokens that only their issuer understands, and API keys.

use bus_schema::mcp::method;
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    eventually,
    http::modern_body,
    issuer::{CLIENT, Issuer},
    platform::Platform,
    program,
};

use super::{Stage, challenge, seen, send, status, whoami};

#[tokio::test]
async fn a_new_key_is_found_without_a_restart_and_an_old_one_forgotten() {
    // Everything that is older than nothing is fetched again, but not more than once a second.
    let stage = Stage::start("jwks_floor_secs = 1\njwks_refresh_secs = 0").await;
    let client = stage.client();
    let old = stage.token("ann");
    assert_eq!(status(&client, &old).await, 200);
    stage.issuer.rotate();
    let new = stage.token("ann");
    eventually("the new key is known", async || {
        status(&client, &new).await == 200
    })
    .await;
    assert_eq!(status(&client, &old).await, 200, "both are shown");
    stage.issuer.forget_old_keys();
    eventually("the old key is forgotten", async || {
        status(&client, &old).await == 401
    })
    .await;
    assert_eq!(status(&client, &new).await, 200);
    stage.platform.stop().await;
}

#[tokio::test]
async fn invented_keys_do_not_make_the_platform_fetch_again_and_again() {
    let stage = Stage::start("jwks_floor_secs = 3600").await;
    let (client, claims) = (
        stage.client(),
        stage.issuer.claims("eve", &stage.platform.url("")),
    );
    for n in 0..20 {
        let token = stage
            .issuer
            .sign(json!({ "kid": format!("invented-{n}") }), &claims);
        assert_eq!(status(&client, &token).await, 401);
    }
    assert_eq!(stage.issuer.fetched(), 1);
    // Neither do many at once.
    let invented = |n| stage.issuer.sign(json!({ "kid": format!("other-{n}") }), &claims);
    let tokens: Vec<String> = (0..20).map(invented).collect();
    let all = tokens.iter().map(|token| status(&client, token));
    assert!(
        futures::future::join_all(all)
            .await
            .iter()
            .all(|status| *status == 401)
    );
    assert_eq!(stage.issuer.fetched(), 1);
    assert_eq!(status(&client, &stage.token("ann")).await, 200);
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_issuer_that_is_away_keeps_its_known_keys_and_no_others() {
    let stage = Stage::start("jwks_floor_secs = 1\njwks_refresh_secs = 0").await;
    let (client, token) = (stage.client(), stage.token("ann"));
    stage.issuer.set_down(true);
    let unknown = send(whoami(&client.with_token(&token))).await;
    // The client is right, and told to come again: another token would not help.
    assert_eq!(
        (unknown.status().as_u16(), challenge(&unknown)),
        (503, String::new())
    );
    assert!(unknown.headers().contains_key("retry-after"));
    stage.issuer.set_down(false);
    eventually("the keys are fetched", async || {
        status(&client, &token).await == 200
    })
    .await;
    stage.issuer.set_down(true);
    let claims = stage.issuer.claims("ann", &stage.platform.url(""));
    let stray = stage.issuer.sign(json!({ "kid": "new" }), &claims);
    eventually("it was tried again in vain", async || {
        assert_eq!(
            status(&client, &token).await,
            200,
            "what is known goes on to count"
        );
        status(&client, &stray).await == 503
    })
    .await;
    assert_eq!(status(&client, &token).await, 200);
    stage.platform.stop().await;
}

#[tokio::test]
async fn keys_that_could_not_be_fetched_for_too_long_count_no_more() {
    let stage = Stage::start("jwks_keep_secs = 1\njwks_floor_secs = 1").await;
    let (client, token) = (stage.client(), stage.token("ann"));
    assert_eq!(status(&client, &token).await, 200);
    stage.issuer.set_down(true);
    eventually("the keys are too old", async || {
        status(&client, &token).await == 503
    })
    .await;
    stage.issuer.set_down(false);
    eventually("the issuer is back", async || {
        status(&client, &token).await == 200
    })
    .await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn two_issuers_have_subjects_of_one_name_that_are_not_the_same() {
    let (first, second) = (Issuer::start().await, Issuer::start().await);
    let file = first.section("") + &second.line("tenant = \"default\"\njwks_url = \"JWKS\"");
    let file = file.replace("JWKS", &second.at("/keys"));
    let platform = Platform::start(&file, &[]).await;
    let audience = platform.url("");
    let stage = Stage::with(first, platform).await;
    for issuer in [&stage.issuer, &second] {
        let token = issuer.token("ann", &audience, json!({}));
        let who = seen(&stage.client().with_token(&token)).await;
        assert_eq!(
            (who["subject"].as_str(), &who["issuer"]),
            (Some("ann"), &json!(issuer.url()))
        );
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_caller_of_another_tenant_is_not_let_in() {
    let stage = Stage::start("tenant_claim = \"org\"").await;
    let audience = stage.platform.url("");
    for (org, expected) in [(json!("default"), 200), (json!("acme"), 403), (json!(null), 401)] {
        let token = stage.issuer.token("ann", &audience, json!({ "org": org }));
        assert_eq!(status(&stage.client(), &token).await, expected, "{org}");
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_opaque_token_means_what_its_issuer_says_for_a_while() {
    let issuer = Issuer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{}\n", CLIENT.1)).expect("a file");
    let more = format!(
        "introspection_url = {}\nclient_id = {}\nclient_secret_file = {}\nintrospection_cache_secs = 1",
        json!(issuer.at("/introspect")),
        json!(CLIENT.0),
        json!(secret)
    );
    let platform = Platform::start(&issuer.section(&more), &[]).await;
    let stage = Stage::with(issuer, platform).await;
    let (client, audience) = (stage.client(), stage.platform.url(""));
    let mut claims = stage.issuer.claims("ann", &audience);
    claims["scope"] = json!("a b");
    let token = stage.issuer.opaque(&claims);
    let who = seen(&client.with_token(&token)).await;
    assert_eq!(
        (&who["subject"], &who["scopes"]),
        (&json!("ann"), &json!(["a", "b"])),
        "{who}"
    );
    for (key, value) in [
        ("aud", json!("https://other.example")),
        ("iss", json!("https://other.example")),
        ("exp", json!(1)),
        ("nbf", json!(u32::MAX)),
        ("sub", json!(null)),
    ] {
        let mut other = claims.clone();
        other[key] = value;
        let token = stage.issuer.opaque(&other);
        assert_eq!(status(&client, &token).await, 401, "{key}");
    }
    assert_eq!(status(&client, "unknown").await, 401);
    // A signed one is not asked about.
    let asked = stage.issuer.asked();
    assert_eq!(status(&client, &stage.token("ann")).await, 200);
    assert_eq!(stage.issuer.asked(), asked);
    let mut socket = Channel::socket_with(&stage.platform, "/servers/whoami/ws", &token).await;
    let staying = stage.issuer.opaque(&stage.issuer.claims("bob", &audience));
    let mut stays = Channel::socket_with(&stage.platform, "/servers/whoami/ws", &staying).await;
    let list = modern_body(method::TOOLS_LIST, json!({}));
    assert!(socket.ask(&list).await["result"].is_object());
    stage.issuer.revoke(&token);
    eventually("it was taken back", async || status(&client, &token).await == 401).await;
    // Who stays on it is let go as well, and nobody else.
    assert!(socket.next().await.is_none(), "the socket is closed");
    stage.issuer.set_down(true);
    assert!(stays.ask(&list).await["result"].is_object());
    assert_eq!(status(&client, "another").await, 503);
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_api_key_lets_in_whoever_the_operator_gave_it_to() {
    let arguments = [
        "keys",
        "new",
        "--subject",
        "ci",
        "--role",
        "robot",
        "--scope",
        "a",
        "--scope",
        "b",
        "--json",
    ];
    let (code, printed, log) = program::run(&arguments).await;
    assert_eq!(code, 0, "{log}");
    let made: Value = serde_json::from_str(&printed).expect("JSON");
    let (key, lines) = (
        made["key"].as_str().expect("a key"),
        made["config"].as_str().expect("lines"),
    );
    assert!(!lines.contains(key), "a key is written down nowhere: {lines}");
    let issuer = Issuer::start().await;
    for (file, is_oauth) in [
        (format!("[auth]\nmode = \"api_keys\"\n{lines}"), false),
        (issuer.section("") + lines, true),
    ] {
        let platform = Platform::start(&file, &[]).await;
        let stage = Stage::with(Issuer::start().await, platform).await;
        let who = seen(&stage.client().with_token(key)).await;
        assert_eq!(
            who,
            json!({
                "subject": "ci", "tenant": "default", "issuer": "urn:trunkline:api-key",
                "roles": ["robot"], "scopes": ["a", "b"]
            })
        );
        for other in ["tlk_unknown", &key[..key.len() - 1], &key.to_uppercase()] {
            let refused = send(whoami(&stage.client().with_token(other))).await;
            assert_eq!(refused.status(), 401);
            let challenge = challenge(&refused);
            assert_eq!(challenge.contains("resource_metadata="), is_oauth, "{challenge}");
        }
        let document = stage.platform.url("/.well-known/oauth-protected-resource/mcp");
        let found = send(reqwest::Client::new().get(document)).await.status();
        assert_eq!(found, if is_oauth { 200 } else { 404 });
        stage.platform.stop().await;
    }
    // Printed for people, it has the same lines.
    let (code, printed, _) = program::run(&["keys", "new", "--subject", "a \"b\""]).await;
    assert!(
        code == 0 && printed.contains("tlk_") && printed.contains("subject = \"a \\\"b\\\"\""),
        "{printed}"
    );
    let (code, _, log) = program::run(&["keys", "new", "--subject", "ci", "--scope", "a b"]).await;
    assert!(code != 0 && log.contains("`a b` is no scope"), "{log}");
}
