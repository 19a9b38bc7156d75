//! What operators are told and do by REST stays in their tenant.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{eventually, http::Client, scripted::Scripted, within};

use super::{NOWHERE, Stage, TENANTS, whole};

async fn read(client: Client) -> Value {
    whole(client.request(Method::GET)).await
}

#[tokio::test]
async fn what_is_told_of_servers_is_of_the_operators_own_tenant() {
    let stage = Stage::start("").await;
    for sides in TENANTS {
        for path in [
            "/servers",
            "/status",
            "/v0.1/servers",
            "/servers/notes",
            "/servers/notes/tools",
            "/virtual-servers",
            "/blocks",
            "/policy/versions",
        ] {
            for client in [
                stage.operator(sides.tenant, path),
                stage.client(sides.tenant, path),
            ] {
                let told = read(client).await.to_string();
                assert!(!told.contains(sides.other), "{path}: {told}");
                assert!(!told.contains(sides.other_mark), "{path}: {told}");
            }
        }
        let listed = read(stage.operator(sides.tenant, "/servers")).await;
        let servers = listed["said"]["servers"].as_array().expect("servers");
        let ids: Vec<_> = servers.iter().map(|server| server["id"].as_str()).collect();
        assert_eq!(ids.len(), 2, "{listed}");
        assert!(
            ids.contains(&Some("notes")) && ids.contains(&Some(sides.own)),
            "{listed}"
        );
        assert!(
            servers.iter().all(|server| {
                let subject = server["subject"].as_str().unwrap_or_default();
                subject.starts_with(&format!("mcp.rpc.{}.", sides.tenant))
            }),
            "{listed}"
        );
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_server_of_the_other_tenant_is_to_operators_as_one_that_nobody_has() {
    let stage = Stage::start("").await;
    for sides in TENANTS {
        let asked = [
            (Method::GET, "/servers/{}", None),
            (Method::DELETE, "/servers/{}", None),
            (Method::GET, "/servers/{}/tools", None),
            (
                Method::POST,
                "/servers/{}/tools/approve",
                Some(json!({ "digest": "x" }).to_string()),
            ),
            (Method::GET, "/servers/{}/traffic", None),
            (Method::DELETE, "/servers/{}/traffic", None),
            (Method::GET, "/virtual-servers/{}", None),
            (Method::DELETE, "/virtual-servers/{}", None),
            (Method::GET, "/v0.1/servers/local.trunkline%2F{}/versions", None),
            (
                Method::GET,
                "/v0.1/servers/local.trunkline%2F{}/versions/latest",
                None,
            ),
        ];
        for (method, path, body) in asked {
            let ask = async |id: &str| {
                let client = stage.operator(sides.tenant, &path.replace("{}", id));
                let request = match &body {
                    Some(body) => client.raw(body.clone()),
                    None => client.request(method.clone()),
                };
                whole(request).await
            };
            let foreign = ask(sides.other).await;
            let nobodys = ask(NOWHERE).await;
            assert!(
                foreign["status"].as_u64().is_some_and(|status| status >= 400),
                "{method} {path}: {foreign}"
            );
            assert_eq!(
                foreign.to_string().replace(sides.other, NOWHERE),
                nobodys.to_string(),
                "{method} {path}"
            );
        }
        // The same is there for its own operator.
        let own = read(stage.operator(sides.tenant, &format!("/servers/{}", sides.own))).await;
        assert_eq!(own["status"], 200, "{own}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn the_same_id_is_registered_replaced_and_removed_in_each_tenant_apart() {
    let stage = Stage::start_with("", &["registry", "upstreams"]).await;
    let serve = async |name: &'static str| {
        Scripted::start(move |asked| async move {
            asked.modern(&json!([{ "name": name, "inputSchema": { "type": "object" } }]))
        })
        .await
    };
    let servers = [serve("at-home").await, serve("abroad").await];
    let tools = async |tenant: &str| {
        whole(
            stage
                .client(tenant, "/servers/weather/mcp")
                .modern("tools/list", json!({})),
        )
        .await
        .to_string()
    };
    for (sides, server) in TENANTS.iter().zip(&servers) {
        let declaration = json!({ "id": "weather", "url": server.url(), "allowPrivate": true });
        let client = stage.operator(sides.tenant, "/servers");
        let made = whole(client.raw(declaration.to_string())).await;
        assert_eq!(made["status"], 201, "{made}");
    }
    let shown = [("default", "at-home", "abroad"), ("acme", "abroad", "at-home")];
    for (tenant, own, other) in shown {
        eventually("it runs", async || tools(tenant).await.contains(own)).await;
        assert!(!tools(tenant).await.contains(other));
        let told = read(stage.operator(tenant, "/servers/weather")).await;
        assert_eq!(
            told["said"]["replicas"].as_array().map(Vec::len),
            Some(1),
            "{told}"
        );
        // The calls of the replica that is asked how it does are its own.
        let calls = told["said"]["replicas"][0]["calls"].as_u64().expect("a count");
        assert!(calls > 0, "{told}");
    }
    let gone = whole(stage.operator("acme", "/servers/weather").request(Method::DELETE)).await;
    assert_eq!(gone["status"], 204, "{gone}");
    eventually("it is gone", async || !tools("acme").await.contains("abroad")).await;
    assert!(tools("default").await.contains("at-home"));
    let told = read(stage.operator("acme", "/servers/weather")).await;
    assert_eq!(told["status"], 404, "{told}");
    stage.stop().await;
}

#[tokio::test]
async fn a_virtual_server_is_its_tenants_and_chooses_of_its_servers() {
    let stage = Stage::start("").await;
    let define = |server: &str| json!({ "id": "desk", "items": [{ "server": server, "tools": ["*"] }, { "tags": ["any"], "tools": ["*"] }, { "server": "notes", "resources": ["*"] }] });
    // It names a server that the other tenant has, and gets nothing of that.
    let made = whole(
        stage
            .operator("acme", "/virtual-servers")
            .raw(define("atlas").to_string()),
    )
    .await;
    assert_eq!(made["status"], 201, "{made}");
    eventually("it has nothing of the other tenant's", async || {
        let client = stage.client("acme", "/servers/desk/mcp");
        let tools = whole(client.modern("tools/list", json!({}))).await;
        tools["said"]["result"]["tools"] == json!([])
    })
    .await;
    let foreign = whole(
        stage
            .client("default", "/servers/desk/mcp")
            .modern("tools/list", json!({})),
    )
    .await;
    let nobodys = whole(
        stage
            .client("default", "/servers/nowhere/mcp")
            .modern("tools/list", json!({})),
    )
    .await;
    assert_eq!(foreign.to_string().replace("desk", NOWHERE), nobodys.to_string());
    // The other tenant has the same id for something else.
    let made = whole(
        stage
            .operator("default", "/virtual-servers")
            .raw(define("atlas").to_string()),
    )
    .await;
    assert_eq!(made["status"], 201, "{made}");
    eventually("it has the tools of its own tenant", async || {
        let client = stage.client("default", "/servers/desk/mcp");
        let answer = whole(client.modern("tools/list", json!({}))).await;
        answer.to_string().contains("homely-only")
    })
    .await;
    let gone = whole(
        stage
            .operator("default", "/virtual-servers/desk")
            .request(Method::DELETE),
    )
    .await;
    assert_eq!(gone["status"], 204, "{gone}");
    let told = read(stage.operator("acme", "/virtual-servers/desk")).await;
    assert_eq!(told["status"], 200, "{told}");
    stage.stop().await;
}

/// Meters and the state of the process are of all tenants together.
#[tokio::test]
async fn what_is_told_of_all_tenants_is_for_the_platforms_own_operators() {
    let stage = Stage::start("").await;
    for sides in TENANTS {
        let call = json!({ "name": "read", "arguments": {} });
        let client = stage.client(sides.tenant, "/servers/notes/mcp");
        assert_eq!(whole(client.modern("tools/call", call)).await["status"], 200);
    }
    let get = async |client: Client| {
        let answer = within("an answer", client.request(Method::GET).send()).await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    };
    let nobody = Client::new(stage.platform.url("/metrics"));
    assert_eq!(get(nobody).await.0, 401);
    for client in [
        stage.client("default", "/metrics"),
        stage.client("acme", "/metrics"),
        stage.operator("acme", "/metrics"),
    ] {
        let (status, text) = get(client).await;
        assert_eq!((status, text.contains("notes")), (403, false), "{text}");
    }
    let (status, text) = get(stage.operator("default", "/metrics")).await;
    assert_eq!(status, 200);
    let of_calls = |line: &&str| {
        line.starts_with("mcp_server_operation_duration_seconds_count")
            && line.contains("server_id=\"notes\"")
            && line.contains("tools/call")
    };
    let lines: Vec<&str> = text.lines().filter(of_calls).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let of_acme = lines.iter().filter(|line| line.contains("tenant=\"acme\""));
    assert_eq!(of_acme.count(), 1, "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with(" 1")), "{lines:?}");
    let (status, text) = get(Client::new(stage.platform.url("/readyz"))).await;
    assert_eq!((status, text.contains("servers")), (200, false), "{text}");
    stage.stop().await;
}
