//! Who may read what is told of servers, and who may change it.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{http::Client, scripted::Scripted};

use super::{Stage, send};

/// What everybody may read who is let in.
const READ: [&str; 5] = [
    "/servers",
    "/servers/whoami",
    "/status",
    "/v0.1/servers",
    "/v0.1/servers/local.trunkline%2Fwhoami/versions/latest",
];
/// What is shown to operators alone.
const OPERATED: [&str; 3] = [
    "/servers/whoami/tools",
    "/virtual-servers",
    "/virtual-servers/nobody",
];

impl Stage {
    fn at(&self, path: &str, token: Option<&str>) -> Client {
        let client = Client::new(self.platform.url(path));
        token.map_or(client.clone(), |token| client.with_token(token))
    }

    async fn status(&self, method: Method, path: &str, token: Option<&str>) -> u16 {
        send(self.at(path, token).request(method)).await.status().as_u16()
    }

    async fn read(&self, path: &str, token: Option<&str>) -> Value {
        let answer = send(self.at(path, token).request(Method::GET)).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    fn operator(&self) -> String {
        let audience = self.platform.url("");
        self.issuer
            .token("ann", &audience, json!({ "roles": ["operator"] }))
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let servers = list["servers"].as_array().expect("a list");
    servers
        .iter()
        .map(|server| server["id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test]
async fn servers_are_shown_to_whoever_is_let_in_and_changed_by_operators_only() {
    let stage = Stage::start("").await;
    let (operator, reader) = (stage.operator(), stage.token("bob"));
    let for_mcp = stage.platform.url("/mcp");
    let narrow = stage
        .issuer
        .token("ann", &for_mcp, json!({ "roles": ["operator"] }));
    for (token, read, operated) in [
        (None, 401, 401),
        (Some(narrow.as_str()), 401, 401),
        (Some(reader.as_str()), 200, 403),
        (Some(operator.as_str()), 200, 200),
    ] {
        for path in READ {
            assert_eq!(stage.status(Method::GET, path, token).await, read, "GET {path}");
        }
        for path in OPERATED {
            let status = stage.status(Method::GET, path, token).await;
            let status = if path.ends_with("nobody") && status == 404 {
                200
            } else {
                status
            };
            assert_eq!(status, operated, "GET {path}");
        }
        if operated == 200 {
            continue;
        }
        let declaration = json!({ "id": "evil", "url": "https://evil.example/mcp" }).to_string();
        let made = send(stage.at("/servers", token).raw(declaration)).await;
        assert_eq!(made.status(), operated, "POST");
        for method in [Method::PUT, Method::DELETE] {
            assert_eq!(stage.status(method, "/servers/whoami", token).await, operated);
        }
        for decision in ["approve", "reject", "whoami/approve", "whoami/reject"] {
            let path = format!("/servers/whoami/tools/{decision}");
            assert_eq!(stage.status(Method::POST, &path, token).await, operated, "{path}");
        }
    }
    // A page asks beforehand whether it may ask, and shows nothing yet.
    let asked = stage.status(Method::OPTIONS, "/v0.1/servers", None).await;
    assert_eq!(asked, 204);
    stage.platform.stop().await;
}

#[tokio::test]
async fn readers_see_the_servers_that_they_may_use_and_not_what_stands_behind_them() {
    let issuer = tests::issuer::Issuer::start().await;
    let closed = Scripted::start(|asked| async move {
        asked.modern(&json!([{ "name": "work", "inputSchema": { "type": "object" } }]))
    })
    .await;
    let file = issuer.section("") + "[policy.scopes]\n\"closed:use\" = [\"closed__*\"]\n";
    let platform = tests::platform::Platform::start(&file, &["registry", "upstreams"]).await;
    let stage = Stage::with(issuer, platform).await;
    let operator = stage.operator();
    let declaration = json!({ "id": "closed", "url": closed.url(), "allowPrivate": true, "owner": "team-a" });
    let made = send(stage.at("/servers", Some(&operator)).raw(declaration.to_string())).await;
    assert_eq!(made.status(), 201);
    stage.platform.knows("closed").await;
    let audience = stage.platform.url("");
    let may = stage
        .issuer
        .token("eve", &audience, json!({ "scope": "closed:use" }));
    let may_not = stage.token("bob");
    for (token, expected) in [
        (&operator, &["closed", "whoami"][..]),
        (&may, &["closed", "whoami"]),
        (&may_not, &["whoami"]),
    ] {
        let is_seen = expected.contains(&"closed");
        let list = stage.read("/servers", Some(token)).await;
        assert_eq!(ids(&list), expected);
        let overview = stage.read("/status", Some(token)).await;
        assert_eq!(ids(&overview), expected);
        assert_eq!(overview["summary"]["total"], expected.len());
        let catalogue = stage.read("/v0.1/servers", Some(token)).await;
        assert_eq!(catalogue["metadata"]["count"], expected.len(), "{catalogue}");
        let one = if is_seen { 200 } else { 404 };
        for path in [
            "/servers/closed",
            "/v0.1/servers/local.trunkline%2Fclosed/versions",
        ] {
            assert_eq!(stage.status(Method::GET, path, Some(token)).await, one, "{path}");
        }
    }
    let all = stage.read("/servers/closed", Some(&operator)).await;
    let some = stage.read("/servers/closed", Some(&may)).await;
    for member in ["url", "subject", "auth", "registeredBy", "declaration"] {
        assert!(!all[member].is_null(), "{member}: {all}");
        assert!(some[member].is_null(), "{member}: {some}");
    }
    assert_eq!(some["owner"], "team-a");
    assert_eq!(some["tools"], all["tools"]);
    assert!(!some.to_string().contains(&closed.addr.to_string()), "{some}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_public_catalogue_needs_no_token_and_shows_what_needs_no_scope() {
    let issuer = tests::issuer::Issuer::start().await;
    let file = issuer.section("")
        + "[registry]\npublic_catalogue = true\n[policy.scopes]\n\"products:use\" = [\"products__*\"]\n";
    let platform = tests::platform::Platform::start(&file, &["products"]).await;
    let stage = Stage::with(issuer, platform).await;
    let names = |catalogue: &Value| -> Vec<String> {
        let servers = catalogue["servers"].as_array().expect("servers");
        let name = |entry: &Value| entry["server"]["name"].as_str().expect("a name").to_owned();
        servers.iter().map(name).collect()
    };
    let seen = stage.read("/v0.1/servers", None).await;
    assert_eq!(names(&seen), ["local.trunkline/whoami"]);
    let scoped = json!({ "scope": "products:use" });
    let token = stage.issuer.token("ann", &stage.platform.url(""), scoped);
    let seen = stage.read("/v0.1/servers", Some(&token)).await;
    assert_eq!(
        names(&seen),
        ["local.trunkline/products", "local.trunkline/whoami"]
    );
    // A token that is no good is no reason to guess.
    let bad = stage.status(Method::GET, "/v0.1/servers", Some("nonsense")).await;
    assert_eq!(bad, 401);
    assert_eq!(stage.status(Method::GET, "/servers", None).await, 401);
    stage.platform.stop().await;
}
