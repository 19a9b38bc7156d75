//! The official clients find their own way: from a refusal to the issuer, to a token, and to a better one.

use serde_json::{Value, json};
use tests::{
    issuer::{CLIENT, Issuer},
    parts,
    platform::Platform,
};

use super::Stage;

#[tokio::test]
async fn the_typescript_clients_get_a_token_and_then_one_with_more_scopes() {
    let issuer = Issuer::start().await;
    let section = issuer
        .section("")
        .replacen("[auth]\n", "[auth]\nrequired_scopes = [\"mcp\"]\n", 1);
    let policy = "[policy.scopes]\n\"who:other\" = [\"whoami__other\"]\n";
    let platform = Platform::start(&(section + policy), &[]).await;
    let stage = Stage::with(issuer, platform).await;
    for (sdk, era) in [("v1", "legacy"), ("v2", "legacy"), ("v2", "modern")] {
        for (path, prefix) in [("/servers/whoami/mcp", ""), ("/mcp", "whoami__")] {
            let mut client = parts::node(&parts::npm().join("clients/oauth.mjs"));
            let tools = [format!("{prefix}whoami"), format!("{prefix}other")];
            let arguments = json!({
                "url": stage.platform.url(path), "sdk": sdk, "era": era, "issuer": stage.issuer.url(),
                "id": CLIENT.0, "secret": CLIENT.1, "scope": "mcp who:other", "tools": tools
            });
            client.arg(arguments.to_string());
            let seen: Value = serde_json::from_str(&parts::printed(client).await).expect("JSON");
            let scopes = |at: usize| -> Vec<&str> {
                let all = seen[at]["scopes"].as_array().into_iter().flatten();
                all.filter_map(Value::as_str).collect()
            };
            assert_eq!(seen[0]["subject"], CLIENT.0, "{sdk} {era}: {seen}");
            if sdk == "v2" {
                assert_eq!(scopes(0), ["mcp"], "{sdk} {era}: {seen}");
            }
            assert!(
                scopes(1).contains(&"mcp") && scopes(1).contains(&"who:other"),
                "{sdk} {era}: {seen}"
            );
        }
    }
    stage.platform.stop().await;
}
