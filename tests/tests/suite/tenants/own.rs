//! Servers of the same id have rules of their own in each tenant: limits, policies, approvals, traffic, blocks.

use bus_schema::{
    ContentType, Principal, Request,
    mcp::method,
    subject::{self, CallerClass},
};
use reqwest::Method;
use runtime::Retry;
use serde_json::{Value, json};
use tests::{eventually, notes::Notes, within};

use super::{Stage, whole};

async fn call(stage: &Stage, tenant: &str, tool: &str) -> Value {
    let client = stage.client(tenant, "/servers/notes/mcp");
    let params = json!({ "name": tool, "arguments": {} });
    whole(client.modern("tools/call", params)).await
}

#[tokio::test]
async fn a_limit_that_one_tenant_has_used_up_is_whole_for_the_other() {
    let limits = "[[limits]]\nname = \"all\"\nby = \"tenant\"\ncalls = 2\n[[limits]]\nname = \"theirs\"\nby = \"server\"\ntenant = \"acme\"\ndaily = 1\n";
    let stage = Stage::start(limits).await;
    assert_eq!(call(&stage, "acme", "read").await["status"], 200);
    let refused = call(&stage, "acme", "read").await;
    assert_eq!(refused["status"], 429, "{refused}");
    assert!(refused.to_string().contains("theirs"), "{refused}");
    for expected in [200, 200, 429] {
        let told = call(&stage, "default", "read").await;
        assert_eq!(told["status"], expected, "{told}");
        assert!(!told.to_string().contains("theirs"), "{told}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_policy_holds_in_its_tenant_only() {
    let stage = Stage::start("").await;
    let rule = json!({ "name": "no reading", "effect": "deny", "tools": ["notes__read"] });
    let document = json!({ "document": { "default": "allow", "rules": [rule] } });
    let put = stage.operator("acme", "/policy").request(Method::PUT);
    let put = whole(
        put.header("content-type", "application/json")
            .body(document.to_string()),
    )
    .await;
    assert_eq!(put["status"], 200, "{put}");
    eventually("the policy is in force", async || {
        call(&stage, "acme", "read").await.to_string().contains("error")
    })
    .await;
    assert!(
        call(&stage, "default", "read")
            .await
            .to_string()
            .contains("secret of homely")
    );
    let told = whole(stage.operator("default", "/policy").request(Method::GET)).await;
    assert_eq!(told["status"], 404, "{told}");
    let told = whole(
        stage
            .operator("default", "/policy/versions/1")
            .request(Method::GET),
    )
    .await;
    assert_eq!(told["status"], 404, "{told}");
    stage.stop().await;
}

/// The second wall is made of the same policies: the broker grants a tenant's plain clients what that tenant's policy opens to them.
#[tokio::test]
async fn the_broker_grants_by_the_policy_of_the_clients_own_tenant() {
    let stage = Stage::start("").await;
    let document = json!({ "document": { "default": "deny", "scopes": { "notes:read": ["notes__read"] } } });
    let put = stage.operator("acme", "/policy").request(Method::PUT);
    let put = whole(
        put.header("content-type", "application/json")
            .body(document.to_string()),
    )
    .await;
    assert_eq!(put["status"], 200, "{put}");
    let policies = stage.platform.node.bus().policies();
    eventually("the policy is in force", async || {
        policies.of("acme").version.is_some()
    })
    .await;
    let url = stage.platform.node.nats_url().expect("a NATS of its own");
    let taken = async |tenant: &str, tool: &str| {
        let token = stage.token(tenant, json!({ "scope": "notes:read" }));
        let mut client = tests::forger::Forger::enter_by(url, &token)
            .await
            .expect("it comes in");
        let subject = format!("mcp.pub.{tenant}.notes.tools.call.{tool}");
        client.publish(&subject, None, b"{}").await
    };
    for (tenant, tool, expected) in [
        ("acme", "read", true),
        ("acme", "foreign-only", false),
        ("acme", "job", false),
        // Without a policy its clients have all that is their tenant's, and nothing more.
        ("default", "read", true),
        ("default", "job", true),
    ] {
        assert_eq!(taken(tenant, tool).await, expected, "{tenant}: {tool}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn tools_are_approved_in_each_tenant_apart() {
    let integrity = "[integrity.tenants.acme]\npolicy = \"quarantine\"\n";
    let stage = Stage::start(integrity).await;
    let pending = async |tenant: &str| {
        let told = whole(
            stage
                .operator(tenant, "/servers/notes/tools")
                .request(Method::GET),
        )
        .await;
        let tools = told["said"]["tools"].as_array().cloned().unwrap_or_default();
        let waiting = tools.iter().filter(|tool| tool["quarantined"] == true);
        (told["said"]["policy"].clone(), waiting.count())
    };
    eventually("the first tools are approved", async || {
        pending("acme").await == (json!("quarantine"), 0) && pending("default").await == (json!("warn"), 0)
    })
    .await;
    eventually("both are pinned", async || {
        let pinned = stage.platform.node.bus().pins();
        let id = "notes".parse().expect("an id");
        ["default", "acme"]
            .iter()
            .all(|tenant| pinned.of(tenant, &id).pins().is_some())
    })
    .await;
    for notes in &stage.notes {
        notes.add_tool();
    }
    eventually("the new tool waits in one", async || pending("acme").await.1 == 1).await;
    eventually("and is shown in the other", async || {
        let client = stage.client("default", "/servers/notes/mcp");
        let tools = whole(client.modern("tools/list", json!({}))).await;
        tools.to_string().contains("homely-0")
    })
    .await;
    assert_eq!(pending("default").await.1, 0);
    assert!(
        call(&stage, "acme", "foreign-0")
            .await
            .to_string()
            .contains("error")
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_block_and_a_traffic_rule_hold_in_their_tenant_only() {
    let stage = Stage::start("").await;
    let block = json!({ "subject": "ann" }).to_string();
    let made = whole(stage.operator("acme", "/blocks").raw(block)).await;
    assert!(
        made["status"].as_u64().is_some_and(|status| status < 300),
        "{made}"
    );
    eventually("it holds", async || {
        call(&stage, "acme", "read").await["status"] == 403
    })
    .await;
    assert_eq!(call(&stage, "default", "read").await["status"], 200);
    let told = whole(stage.operator("default", "/blocks").request(Method::GET)).await;
    assert_eq!(told["said"]["blocks"], json!([]), "{told}");
    let rule = json!({ "id": "notes", "versions": { "9.9.9": 1 } }).to_string();
    let put = stage
        .operator("default", "/servers/notes/traffic")
        .request(Method::PUT);
    let put = whole(put.header("content-type", "application/json").body(rule)).await;
    assert_eq!(put["status"], 201, "{put}");
    let front = &stage.platform;
    let pins = front.node.bus().clone();
    let other = runtime::Directory::start(&pins, "acme").await.expect("starts");
    let own = runtime::Directory::start(&pins, "default").await.expect("starts");
    let id = "notes".parse().expect("an id");
    assert!(own.snapshot().rule(&id).is_some() && other.snapshot().rule(&id).is_none());
    stage.stop().await;
}

/// What a broken door would do: ask a host in the name of somebody whom it does not serve.
#[tokio::test]
async fn a_host_answers_nobody_of_another_tenant() {
    let stage = Stage::start("").await;
    let bus = stage.platform.node.bus();
    let request = |tenant: &str| Request {
        caller: "forger".to_owned(),
        call: 1,
        server: "ledger".to_owned(),
        method: method::TOOLS_CALL.to_owned(),
        name: Some("read".to_owned()),
        principal: Principal::new("ann", tenant),
        protocol_version: "2026-07-28".to_owned(),
        door: "http".to_owned(),
        timeout_ms: 30_000,
        trace: None,
        chunked_bytes: 0,
        body: br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"}}"#
            .to_vec()
            .into(),
    };
    let nats = stage.platform.folder().join("data");
    let local = runtime::nats_server::LocalNats::find(&nats).expect("its secrets");
    let password = local.secrets.password(CallerClass::Node);
    let url = local
        .url
        .replacen("nats://", &format!("nats://node:{password}@"), 1);
    let mut forger = tests::forger::Forger::enter(&url).await.expect("it comes in");
    assert!(forger.subscribe("_INBOX_node.forger.>", None).await);
    let subject = subject::call("acme", "ledger", method::TOOLS_CALL);
    for (tenant, number) in [("default", 1), ("acme", 2)] {
        let request = Request {
            call: number,
            ..request(tenant)
        };
        let payload = ContentType::MessagePack.encode(&request).expect("encodes");
        let reply = format!("_INBOX_node.forger.call.{number:x}");
        assert!(forger.publish(&subject, Some(&reply), &payload).await);
    }
    // The host takes its calls in order, so the first has had no answer when the second has one.
    let heard = forger.heard("secret of foreign").await;
    assert!(!heard.contains("call.1 "), "{heard}");
    let asked = bus.ask(
        Request {
            server: "atlas".to_owned(),
            ..request("acme")
        },
        Retry::Never,
    );
    let asked = within("an answer", asked).await;
    assert!(asked.is_err(), "nobody serves it there: {asked:?}");
    stage.stop().await;
}

/// Two servers of one id in one process have the instance in common, and still nothing else.
#[tokio::test]
async fn a_server_that_leaves_takes_none_of_the_same_id_with_it() {
    let mut stage = Stage::start("").await;
    let bus = stage.platform.node.bus().clone();
    let again = Notes::new("foreign").serve(&bus, "acme", "passing").await;
    let at_home = Notes::new("homely").serve(&bus, "default", "passing").await;
    let ask = async |tenant: &str| {
        let client = stage.client(tenant, "/servers/passing/mcp");
        let params = json!({ "name": "read", "arguments": {} });
        whole(client.modern("tools/call", params)).await.to_string()
    };
    for (tenant, mark) in [("default", "homely"), ("acme", "foreign")] {
        eventually("it is there", async || ask(tenant).await.contains(mark)).await;
    }
    again.stop().await;
    eventually("it has gone", async || !ask("acme").await.contains("foreign")).await;
    assert!(ask("default").await.contains("secret of homely"));
    stage.hosts.push(at_home);
    stage.stop().await;
}

/// Programs on the bus, such as agents, find tools and call them in somebody's name.
#[tokio::test]
async fn a_program_on_the_bus_calls_the_tools_of_its_callers_tenant() {
    let stage = Stage::start("").await;
    let tools = runtime::Discovery::connect(stage.platform.node.bus(), "default")
        .await
        .expect("connects");
    let call = async |name: &str, tenant: &str| {
        let principal = Principal::new("ann", tenant);
        within(
            "an answer",
            Box::pin(tools.call(name, serde_json::Map::new(), principal)),
        )
        .await
    };
    let own = call("atlas__read", "default").await.expect("a result");
    assert!(own.get().contains("secret of homely"), "{own}");
    for (name, tenant) in [
        ("ledger__read", "default"),
        ("notes__read", "acme"),
        ("ledger__read", "acme"),
    ] {
        let refused = call(name, tenant).await.expect_err("no such tool").to_string();
        assert!(refused.contains(name), "{refused}");
    }
    stage.stop().await;
}
