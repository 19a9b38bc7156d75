//! Roles of tokens open what the policy says, at the doors of a platform that asks who comes, and for what operators do.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tests::{http::Client, issuer::Issuer, within};

use super::World;

fn policy() -> Value {
    json!({
        "default": "deny",
        "roles": {
            "employee": { "scopes": ["vault:read"] },
            "manager": { "includes": ["employee"], "scopes": ["vault:pay"] },
            "auditor": { "scopes": ["audit"] },
        },
        "scopes": {
            "vault:read": ["vault__open"],
            "vault:pay": ["vault__pay"],
            "audit": { "admin": ["policy:read", "servers:read"] },
        },
        "rules": [
            { "name": "large", "effect": "deny", "tools": ["vault__pay"], "scopes": ["vault:large"], "when": "arguments.amount > 100" },
            { "name": "four eyes", "effect": "deny", "admin": ["virtual-servers:write"], "when": "principal.subject == 'eve'" },
        ],
    })
}

async fn send(request: RequestBuilder) -> Response {
    within("an answer", request.send()).await.expect("an answer")
}

fn challenge(answer: &Response) -> String {
    let value = answer.headers().get("www-authenticate");
    value
        .map(|value| value.to_str().expect("text").to_owned())
        .unwrap_or_default()
}

fn pay(client: &Client, amount: u32) -> RequestBuilder {
    client.modern(
        "tools/call",
        json!({ "name": "pay", "arguments": { "amount": amount } }),
    )
}

#[tokio::test]
async fn a_role_opens_what_its_scopes_open_and_a_step_up_names_all_that_is_missing() {
    let issuer = Issuer::start().await;
    let world = World::start(&issuer.section("")).await;
    world.keep(&policy()).await;
    let client = |claims: Value| {
        let token = issuer.token("ann", &world.platform.url(""), claims);
        world.client("/servers/vault/mcp").with_token(&token)
    };
    let employee = client(json!({ "roles": ["employee"] }));
    let manager = client(json!({ "roles": ["manager"] }));
    // What a scope would open is shown, so that somebody can ask for it; the rest is not.
    assert_eq!(employee.tool_names().await, ["open", "pay"]);
    let read = send(employee.modern("tools/call", json!({ "name": "open" }))).await;
    assert_eq!(read.status(), 200);
    let refused = send(pay(&employee, 5)).await;
    assert_eq!(refused.status(), 403);
    assert!(
        challenge(&refused).contains("scope=\"vault:pay\""),
        "{}",
        challenge(&refused)
    );
    let refused = send(pay(&employee, 500)).await;
    assert!(
        challenge(&refused).contains("scope=\"vault:large vault:pay\"")
            || challenge(&refused).contains("scope=\"vault:pay vault:large\""),
        "{}",
        challenge(&refused)
    );
    let both = client(json!({ "roles": ["employee"], "scope": "vault:pay vault:large" }));
    assert_eq!(send(pay(&both, 500)).await.status(), 200);
    let paid: Value = send(pay(&manager, 5)).await.json().await.expect("JSON");
    assert!(paid["result"].is_object(), "{paid}");
    assert_eq!(send(pay(&manager, 500)).await.status(), 403);
    let hidden: Value = send(manager.modern("tools/call", json!({ "name": "shut" })))
        .await
        .json()
        .await
        .expect("JSON");
    let nothing: Value = send(manager.modern("tools/call", json!({ "name": "nope" })))
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(hidden["error"], nothing["error"]);
    let asked = world.vault.take();
    assert!(
        asked.iter().all(|(_, name)| name == "open" || name == "pay"),
        "{asked:?}"
    );
    world.platform.stop().await;
}

#[tokio::test]
async fn what_operators_do_is_decided_as_well() {
    let issuer = Issuer::start().await;
    let world = World::start(&issuer.section("")).await;
    world.keep(&policy()).await;
    let http = reqwest::Client::new();
    let ask = async |who: &str, role: &str, method: Method, path: &str| {
        let token = issuer.token(who, &world.platform.url(""), json!({ "roles": [role] }));
        let body = json!({ "document": policy() }).to_string();
        let request = http
            .request(method, world.platform.url(path))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body);
        send(request).await
    };
    for (who, role, method, path, expected) in [
        ("ann", "operator", Method::GET, "/policy", 200),
        ("ann", "operator", Method::PUT, "/policy", 200),
        ("ann", "operator", Method::GET, "/servers", 200),
        ("ann", "auditor", Method::GET, "/policy", 200),
        ("ann", "auditor", Method::GET, "/policy/versions", 200),
        ("ann", "auditor", Method::GET, "/servers", 200),
        ("ann", "auditor", Method::PUT, "/policy", 403),
        ("ann", "auditor", Method::GET, "/virtual-servers", 403),
        ("ann", "manager", Method::GET, "/policy", 403),
        ("ann", "manager", Method::PUT, "/policy", 403),
        // A rule is stronger than the role.
        ("eve", "operator", Method::GET, "/virtual-servers", 200),
        ("eve", "operator", Method::POST, "/virtual-servers", 403),
        ("ann", "operator", Method::POST, "/virtual-servers", 422),
    ] {
        let answer = ask(who, role, method.clone(), path).await;
        assert_eq!(answer.status(), expected, "{who} {role} {method} {path}");
    }
    let refused = ask("ann", "manager", Method::GET, "/policy").await;
    assert!(
        challenge(&refused).contains("scope=\"audit\""),
        "{}",
        challenge(&refused)
    );
    world.platform.stop().await;
}
