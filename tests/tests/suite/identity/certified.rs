//! Tokens of a certified provider, which knows nothing of this platform: what it issues, rotates, revokes and lets run out.

use runtime::Host;
use serde_json::{Value, json};
use tests::{
    eventually,
    http::Client,
    parts,
    platform::Platform,
    provider::{PLATFORM, Provider, ROBOT, USER},
    whoami::WhoAmI,
};

use super::{challenge, seen, send, status, whoami};

const SCOPES: [&str; 2] = ["mcp", "who:other"];
const POLICY: &str = "[policy.scopes]\n\"who:other\" = [\"whoami__other\"]\n";

/// A platform that takes tokens of the provider, with a server that tells callers who they are.
struct Certified {
    provider: Provider,
    platform: Platform,
    _host: Host,
}

impl Certified {
    /// `more` are further lines about the issuer.
    async fn start(more: &str) -> Self {
        Self::with(Provider::start(&SCOPES).await, more).await
    }

    async fn with(provider: Provider, more: &str) -> Self {
        // Some ask until something holds, which takes as many calls as it takes.
        let file = format!("limits = []\n{}{POLICY}", provider.section(more));
        let platform = Platform::start(&file, &[]).await;
        let host = WhoAmI::serve(platform.node.bus()).await;
        platform.knows("whoami").await;
        Self {
            provider,
            platform,
            _host: host,
        }
    }

    fn client(&self) -> Client {
        self.platform.client("whoami")
    }

    /// A token for the endpoint that is called.
    async fn token(&self, scope: &str) -> String {
        let resource = self.platform.url("/servers/whoami/mcp");
        self.provider.token(&resource, scope).await
    }

    /// The challenge to a call of `whoami` that is refused with this status.
    async fn refused(&self, token: &str, status: u16) -> String {
        let refused = send(whoami(&self.client().with_token(token))).await;
        let challenge = challenge(&refused);
        assert_eq!(refused.status(), status, "{challenge}");
        challenge
    }
}

#[tokio::test]
async fn a_token_for_this_platform_is_let_in_and_one_for_another_is_not() {
    let stage = Certified::start("clock_skew_secs = 0").await;
    let (client, provider) = (stage.client(), &stage.provider);
    for resource in ["", "/servers/whoami/mcp"] {
        let token = provider.token(&stage.platform.url(resource), "mcp").await;
        let who = seen(&client.with_token(&token)).await;
        assert_eq!(
            (&who["subject"], &who["client"], &who["issuer"], &who["scopes"]),
            (
                &json!(ROBOT.0),
                &json!(ROBOT.0),
                &json!(provider.url()),
                &json!(["mcp"])
            ),
            "{who}"
        );
    }
    let elsewhere = [
        "https://other.example/mcp".to_owned(),
        stage.platform.url("/servers/other/mcp"),
    ];
    for resource in elsewhere {
        let told = stage.refused(&provider.token(&resource, "mcp").await, 401).await;
        assert!(
            told.contains("error=\"invalid_token\"") && told.contains("audience"),
            "{told}"
        );
    }
    // Another provider of the same make, for the right audience.
    let foreign = Provider::start(&SCOPES).await;
    let token = foreign.token(&stage.platform.url(""), "mcp").await;
    let told = stage.refused(&token, 401).await;
    assert!(told.contains("error=\"invalid_token\""), "{told}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_with_too_few_scopes_hears_which_it_needs() {
    let stage = Certified::start("").await;
    let told = stage.refused(&stage.token("who:other").await, 403).await;
    assert!(
        told.contains("error=\"insufficient_scope\"") && told.contains("scope=\"mcp\""),
        "{told}"
    );
    let other = |token: &str| {
        let client = stage.client().with_token(token);
        client.modern("tools/call", json!({ "name": "other", "arguments": {} }))
    };
    let refused = send(other(&stage.token("mcp").await)).await;
    assert_eq!(refused.status(), 403);
    let told = challenge(&refused);
    assert!(
        told.contains("error=\"insufficient_scope\"") && told.contains("scope=\"mcp who:other\""),
        "{told}"
    );
    let both = stage.token("mcp who:other").await;
    assert_eq!(send(other(&both)).await.status(), 200);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_that_has_run_out_is_refused() {
    let stage = Certified::start("clock_skew_secs = 0").await;
    stage.provider.set_life(2).await;
    let token = stage.token("mcp").await;
    let client = stage.client();
    eventually("it runs out", async || status(&client, &token).await == 401).await;
    let told = stage.refused(&token, 401).await;
    assert!(
        told.contains("error=\"invalid_token\"") && told.contains("the token has expired"),
        "{told}"
    );
    stage.provider.set_life(600).await;
    assert_eq!(status(&client, &stage.token("mcp").await).await, 200);
    stage.platform.stop().await;
}

#[tokio::test]
async fn keys_that_the_provider_rotates_are_found_without_a_restart() {
    let stage = Certified::start("jwks_floor_secs = 1").await;
    let client = stage.client();
    let first = stage.token("mcp").await;
    assert_eq!(status(&client, &first).await, 200);
    stage.provider.rotate().await;
    let second = stage.token("mcp").await;
    eventually("the second key is known", async || {
        status(&client, &second).await == 200
    })
    .await;
    assert_eq!(status(&client, &first).await, 200, "both keys are shown");
    stage.provider.rotate().await;
    stage.provider.forget_old_keys().await;
    let third = stage.token("mcp").await;
    eventually("the third key is known", async || {
        status(&client, &third).await == 200
    })
    .await;
    for old in [&first, &second] {
        assert_eq!(status(&client, old).await, 401, "its key is shown no more");
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_opaque_token_is_let_in_until_the_provider_takes_it_back() {
    let provider = Provider::start(&SCOPES).await;
    provider.set_opaque().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, PLATFORM.1).expect("a file");
    // This provider names no subject where a client has a token for itself.
    let more = format!(
        "introspection_url = {}\nclient_id = {}\nclient_secret_file = {}\nintrospection_cache_secs = 1\nsubject_claim = \"client_id\"",
        json!(provider.endpoint("introspection_endpoint")),
        json!(PLATFORM.0),
        json!(secret)
    );
    let stage = Certified::with(provider, &more).await;
    let client = stage.client();
    let token = stage.token("mcp who:other").await;
    assert!(!token.contains('.'), "it is no signed one");
    let who = seen(&client.with_token(&token)).await;
    assert_eq!(
        (&who["subject"], &who["scopes"]),
        (&json!(ROBOT.0), &json!(SCOPES)),
        "{who}"
    );
    let elsewhere = stage.provider.token("https://other.example/mcp", "mcp").await;
    let told = stage.refused(&elsewhere, 401).await;
    assert!(told.contains("audience"), "{told}");
    stage.refused(&stage.token("who:other").await, 403).await;
    let kept = stage.token("mcp").await;
    stage.provider.revoke(&token).await;
    eventually("it was taken back", async || status(&client, &token).await == 401).await;
    assert_eq!(status(&client, &kept).await, 200, "only that one");
    stage.platform.stop().await;
}

#[tokio::test]
async fn the_typescript_clients_register_themselves_and_get_tokens_by_pkce() {
    let stage = Certified::start("").await;
    for (sdk, era) in [("v1", "legacy"), ("v2", "legacy"), ("v2", "modern")] {
        for (path, prefix) in [("/servers/whoami/mcp", ""), ("/mcp", "whoami__")] {
            let url = stage.platform.url(path);
            let mut client = parts::node(&parts::npm().join("clients/pkce.mjs"));
            let tools = [format!("{prefix}whoami"), format!("{prefix}other")];
            client.arg(json!({ "url": url, "sdk": sdk, "era": era, "tools": tools }).to_string());
            let told: Value = serde_json::from_str(&parts::printed(client).await).expect("JSON");
            // The second tool needs one more scope, for which the user is led to the issuer once more.
            for (at, scopes) in [(0, &SCOPES[..1]), (1, &SCOPES[..])] {
                let (asked, who) = (&told["asked"][at], &told["who"][at]);
                let way =
                    ["response_type", "code_challenge_method", "resource", "scope"].map(|key| &asked[key]);
                assert_eq!(
                    way,
                    ["code", "S256", &url, &scopes.join(" ")],
                    "{sdk} {era}: {told}"
                );
                assert_eq!(
                    (&who["subject"], &who["issuer"], &who["scopes"]),
                    (&json!(USER), &json!(stage.provider.url()), &json!(scopes)),
                    "{sdk} {era}: {told}"
                );
                // It has registered itself.
                assert!(![ROBOT.0, PLATFORM.0].contains(&who["client"].as_str().unwrap_or_default()));
                assert!(who["client"].is_string(), "{sdk} {era}: {told}");
                assert_eq!(who["client"], asked["client_id"], "{sdk} {era}: {told}");
            }
        }
    }
    stage.platform.stop().await;
}
