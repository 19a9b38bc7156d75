//! At every door: a server of the same id is each tenant's own, and the other tenant's servers are none.

use bus_schema::{mcp::meta, subject::CallerClass};
use serde_json::{Value, json};
use tests::{
    forger::Forger,
    nats,
    notes::{Notes, SHARED},
    session::Session,
    stream::Stream,
    within,
};
use trunkline::{
    args::Common,
    config::Config,
    node::{NatsChoice, Node},
};

use super::{NOWHERE, Sides, Stage, TENANTS, Way, by_nats, initialize, whole};

/// Everything that is asked of a server, with what it is told to be about there.
fn questions(mark: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("tools/call", json!({ "name": "read", "arguments": {} })),
        (
            "tools/call",
            json!({ "name": format!("{mark}-only"), "arguments": {} }),
        ),
        ("prompts/get", json!({ "name": "brief" })),
        ("prompts/get", json!({ "name": format!("{mark}-brief") })),
        ("resources/read", json!({ "uri": SHARED })),
        ("resources/read", json!({ "uri": format!("notes://{mark}") })),
        (
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "brief" }, "argument": { "name": "x", "value": "" } }),
        ),
    ]
}

/// The same question about things that nobody has.
fn about_nothing(sides: Sides, params: &Value) -> Value {
    let text = params.to_string().replace(sides.other_mark, "nobodys");
    serde_json::from_str(&text).expect("JSON")
}

/// Whether two answers are the same but for what they were asked about.
fn same(answer: &Value, other: &Value, names: &[(&str, &str)]) -> bool {
    let mut text = answer.to_string();
    for (name, nobodys) in names {
        text = text.replace(name, nobodys);
    }
    let other = other.to_string();
    text == other
}

#[tokio::test]
async fn a_server_of_the_same_id_is_each_tenants_own_at_every_door() {
    let stage = Stage::start("").await;
    for way in Way::ALL {
        for sides in TENANTS {
            for (called, params) in questions(sides.mark) {
                let answer = way
                    .ask(&stage, sides.tenant, "notes", called, params)
                    .await
                    .to_string();
                let place = format!("{way:?}, {}, {called}", sides.tenant);
                assert!(answer.contains(sides.mark), "{place}: {answer}");
                assert!(!answer.contains(sides.other_mark), "{place}: {answer}");
            }
        }
    }
    stage.stop().await;
}

#[tokio::test]
async fn what_only_the_other_tenant_has_is_answered_as_what_nobody_has() {
    let stage = Stage::start("").await;
    for way in Way::ALL {
        for sides in TENANTS {
            for (called, params) in questions(sides.other_mark) {
                let place = format!("{way:?}, {}, {called}", sides.tenant);
                // A server that is there, but not here.
                let foreign = way
                    .ask(&stage, sides.tenant, sides.other, called, params.clone())
                    .await;
                let nobodys = way
                    .ask(&stage, sides.tenant, NOWHERE, called, params.clone())
                    .await;
                assert!(
                    same(&foreign, &nobodys, &[(sides.other, NOWHERE)]),
                    "{place}: {foreign} and {nobodys}"
                );
                assert!(!foreign.to_string().contains("secret"), "{place}: {foreign}");
                // Things that a server of this id has there, and not here.
                if !params.to_string().contains(sides.other_mark) {
                    continue;
                }
                let foreign = way
                    .ask(&stage, sides.tenant, "notes", called, params.clone())
                    .await;
                let nothing = about_nothing(sides, &params);
                let nobodys = way.ask(&stage, sides.tenant, "notes", called, nothing).await;
                assert!(
                    same(&foreign, &nobodys, &[(sides.other_mark, "nobodys")]),
                    "{place}: {foreign} and {nobodys}"
                );
                assert!(foreign.to_string().contains("error"), "{place}: {foreign}");
            }
        }
    }
    stage.stop().await;
}

#[tokio::test]
async fn endpoints_of_all_servers_show_and_reach_those_of_the_callers_tenant_only() {
    let stage = Stage::start("").await;
    for sides in TENANTS {
        let ask = async |path: &str, called: &str, params: Value| {
            whole(stage.client(sides.tenant, path).modern(called, params)).await
        };
        for called in [
            "tools/list",
            "prompts/list",
            "resources/list",
            "resources/templates/list",
            "server/discover",
        ] {
            for path in ["/mcp", "/mcp/all", "/mcp/search"] {
                let told = ask(path, called, json!({})).await.to_string();
                assert!(!told.contains(sides.other_mark), "{path} {called}: {told}");
                assert!(!told.contains(sides.other), "{path} {called}: {told}");
            }
        }
        let tools = ask("/mcp", "tools/list", json!({})).await.to_string();
        for name in [
            format!("notes__{}-only", sides.mark),
            format!("{}__read", sides.own),
        ] {
            assert!(tools.contains(&name), "{tools}");
        }
        // By a prefix, by a URI, and by the tools that find and call others.
        let call = |server: &str| json!({ "name": format!("{server}__read"), "arguments": {} });
        let read = |name: &str| json!({ "uri": format!("notes://{name}") });
        let through = |server: &str| json!({ "name": "call_tool", "arguments": { "name": format!("{server}__read"), "arguments": {} } });
        for (path, called, foreign, nobodys) in [
            ("/mcp", "tools/call", call(sides.other), call(NOWHERE)),
            ("/mcp", "prompts/get", call(sides.other), call(NOWHERE)),
            ("/mcp", "resources/read", read(sides.other_mark), read(NOWHERE)),
        ] {
            let foreign = ask(path, called, foreign).await;
            let nobodys = ask(path, called, nobodys).await;
            let names = [(sides.other, NOWHERE), (sides.other_mark, NOWHERE)];
            assert!(
                same(&foreign, &nobodys, &names),
                "{path} {called}: {foreign} and {nobodys}"
            );
            assert!(!foreign.to_string().contains("secret"), "{foreign}");
        }
        // What is near to a name depends on it, and is of one's own servers.
        let foreign = ask("/mcp/search", "tools/call", through(sides.other)).await;
        let told = foreign["said"]["result"]["content"][0]["text"].as_str();
        let (unknown, near) = told.and_then(|told| told.split_once(';')).expect("words");
        assert_eq!(unknown, format!("there is no tool `{}__read`", sides.other));
        assert!(
            !near.contains(sides.other) && !near.contains(sides.other_mark),
            "{near}"
        );
        let own = ask("/mcp/search", "tools/call", through(sides.own))
            .await
            .to_string();
        assert!(own.contains(&format!("secret of {}", sides.mark)), "{own}");
        let find = json!({ "name": "search_tools", "arguments": { "query": format!("reads {}", sides.other_mark) } });
        let found = ask("/mcp/search", "tools/call", find).await.to_string();
        assert!(
            found.contains(sides.own) && !found.contains(sides.other),
            "{found}"
        );
        assert!(!found.contains(&format!("reads {}", sides.other_mark)), "{found}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_session_a_stream_and_an_address_of_the_other_tenant_are_none() {
    let stage = Stage::start("").await;
    for sides in TENANTS {
        // The same person by name, of the same issuer, at the same endpoint.
        let (own, foreign) = (
            stage.client(sides.tenant, "/servers/notes/mcp"),
            stage.client(sides.other_tenant, "/servers/notes/mcp"),
        );
        let session = Session::open(&own, "2025-11-25").await;
        let by = |client: &tests::http::Client, id: &str, method| {
            let request = match method {
                reqwest::Method::POST => client.raw(
                    json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": { "name": "read" } }).to_string(),
                ),
                method => client.request(method).header("accept", "text/event-stream"),
            };
            request.header(bus_schema::header::SESSION_ID, id)
        };
        let nobodys = "0".repeat(64);
        for method in [
            reqwest::Method::POST,
            reqwest::Method::GET,
            reqwest::Method::DELETE,
        ] {
            let told = whole(by(&foreign, session.id(), method.clone())).await;
            assert_eq!(told["status"], 404, "{told}");
            assert_eq!(told, whole(by(&foreign, &nobodys, method)).await);
        }
        // Its stream of events, taken up with a session of one's own.
        let mut stream = Stream::of(
            within("a stream", session.listening(&own).send())
                .await
                .expect("an answer"),
        );
        let event = stream.event().await.expect("an event").id.expect("an id");
        let theirs = Session::open(&foreign, "2025-11-25").await;
        let resumed = by(&foreign, session.id(), reqwest::Method::GET).header("last-event-id", &event);
        assert_eq!(whole(resumed).await["status"], 404);
        drop(theirs);
        // The address of an HTTP+SSE stream.
        let open = stage
            .client(sides.tenant, "/servers/notes/sse")
            .request(reqwest::Method::GET);
        let mut stream = Stream::of(within("a stream", open.send()).await.expect("an answer"));
        let address = stream.event().await.expect("an event").data.expect("an address");
        let post = async |tenant: &str, path: &str| {
            whole(stage.client(tenant, path).raw(initialize("2024-11-05"))).await
        };
        let told = post(sides.other_tenant, &address).await;
        assert_eq!(told["status"], 404, "{told}");
        let nobodys = "/servers/notes/messages/nobody.s";
        assert_eq!(told, post(sides.other_tenant, nobodys).await);
        assert_eq!(post(sides.tenant, &address).await["status"], 202);
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_task_of_the_other_tenant_is_none() {
    let stage = Stage::start("").await;
    let ask = async |tenant: &str, called: &str, mut params: Value| {
        params["_meta"][meta::CLIENT_CAPABILITIES] = json!({ "extensions": { (meta::TASKS_EXTENSION): {} } });
        whole(stage.client(tenant, "/servers/notes/mcp").modern(called, params)).await
    };
    for sides in TENANTS {
        let made = ask(
            sides.tenant,
            "tools/call",
            json!({ "name": "job", "arguments": {} }),
        )
        .await;
        assert_eq!(made["said"]["result"]["resultType"], "task", "{made}");
        let task = made["said"]["result"]["taskId"].clone();
        let own = ask(sides.tenant, "tasks/get", json!({ "taskId": task }))
            .await
            .to_string();
        assert!(own.contains(&format!("secret of {}", sides.mark)), "{own}");
        for called in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let about = |task: &Value| json!({ "taskId": task, "inputResponses": {} });
            let foreign = ask(sides.other_tenant, called, about(&task)).await;
            assert!(foreign["said"]["error"].is_object(), "{called}: {foreign}");
            let nobodys = ask(sides.other_tenant, called, about(&json!("nobodys"))).await;
            assert_eq!(foreign, nobodys, "{called}");
        }
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_plain_client_is_held_to_its_tenants_subjects_by_the_broker() {
    let stage = Stage::start("").await;
    for sides in TENANTS {
        let call = json!({ "name": "read", "arguments": {} });
        for server in ["notes", sides.other, NOWHERE] {
            let told = by_nats(
                &stage,
                sides.tenant,
                sides.other_tenant,
                server,
                "tools/call",
                call.clone(),
            )
            .await;
            assert_eq!(told, json!("the broker takes no such message"), "{server}");
        }
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_tenant_that_is_not_served_here_is_let_in_nowhere() {
    let stage = Stage::start("").await;
    for path in ["/mcp", "/servers/notes/mcp", "/sse"] {
        let told = whole(stage.client("elsewhere", path).modern("tools/list", json!({}))).await;
        assert!(
            [403, 405].contains(&told["status"].as_u64().expect("a status")),
            "{path}: {told}"
        );
        assert!(!told.to_string().contains("homely"), "{told}");
    }
    for path in ["/servers", "/status", "/v0.1/servers"] {
        let told = whole(stage.operator("elsewhere", path).request(reqwest::Method::GET)).await;
        assert_eq!(told["status"], 403, "{path}: {told}");
    }
    stage.stop().await;
}

/// On a NATS without our accounts nothing but the door itself stands between a caller and the other tenant.
#[tokio::test]
async fn the_nats_door_holds_its_callers_to_their_tenant_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, url) = nats::plain(folder.path()).await;
    let bus = nats::bus_of(&url).await;
    let mut hosts = Vec::new();
    for sides in TENANTS {
        let notes = Notes::new(sides.mark);
        hosts.push(notes.serve(&bus, sides.tenant, "notes").await);
    }
    let file = folder.path().join("door.toml");
    std::fs::write(&file, "tenants = [\"acme\"]").expect("a file");
    let common = Common {
        config: Some(file),
        data_dir: Some(folder.path().join("data")),
        ..Common::default()
    };
    let config = Config::load(&common).expect("the configuration is right");
    let choice = NatsChoice::Join(Some(url.clone()));
    let mut node = Node::connect(&config, CallerClass::Bridge, choice)
        .await
        .expect("connects");
    node.open_nats(&config).await.expect("the door opens");
    let mut client = Forger::enter(&url).await.expect("it comes in");
    assert!(client.subscribe("_INBOX.forger.>", None).await);
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"}}"#;
    let mut ask = async |tenant: &str| {
        let subject = format!("mcp.pub.{tenant}.notes.tools.call.read");
        let sent = client.publish(&subject, Some("_INBOX.forger.1"), request.as_bytes());
        assert!(sent.await, "this broker takes everything");
        client.heard("\"jsonrpc\"").await
    };
    let own = ask("default").await;
    assert!(own.contains("secret of homely"), "{own}");
    let said = |heard: String| heard[heard.find('{').expect("a message")..].to_owned();
    let foreign = said(ask("acme").await);
    assert!(foreign.contains("there is no tenant `acme`"), "{foreign}");
    let nobodys = said(ask("elsewhere").await);
    assert_eq!(foreign.replace("acme", "elsewhere"), nobodys);
    node.stop().await;
    for host in hosts {
        host.stop().await;
    }
}
