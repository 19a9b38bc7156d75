//! Calls are spread as an operator says: shares of versions, copies for one on trial, the nearest first; and what has begun somewhere
//! stays there.

use std::sync::{Arc, atomic::Ordering};

use actors::registry::RunningRegistry;
use bus_schema::{ProtocolVersion, mcp::meta, upstream::BreakerKnob};
use reqwest::{Method, StatusCode};
use runtime::{Breaker, Bus, Directory, Host};
use serde_json::{Value, json};
use tests::{
    eventually,
    http::{Client, text},
    session::Session,
    versioned::{ID, Versioned},
    within,
};

use crate::processes::{Cluster, HttpBridge, meter};

const OLD: &str = "1.4.2";
const NEW: &str = "2.0.0";
/// So many in a row do not go to one of two by chance.
const MANY: usize = 30;

/// Two versions of a server, each in a process of its own, and a bridge.
struct Stage {
    bridge: HttpBridge,
    old: Arc<Versioned>,
    new: Arc<Versioned>,
    hosts: Vec<Host>,
    _registry: RunningRegistry,
    cluster: Cluster,
}

impl Stage {
    async fn set() -> Self {
        let cluster = Cluster::start().await;
        let registry = cluster.registry().await;
        let (old, new) = (Versioned::new(OLD), Versioned::new(NEW));
        let (one, other) = tokio::join!(cluster.nats.bus(), cluster.nats.bus());
        let hosts = vec![old.serve(&one, |_| {}).await, new.serve(&other, |_| {}).await];
        let bridge = cluster.bridge().await;
        let stage = Self {
            bridge,
            old,
            new,
            hosts,
            _registry: registry,
            cluster,
        };
        knows(&stage.bridge, 2).await;
        stage
    }

    fn client(&self) -> Client {
        self.bridge.client(ID)
    }

    /// Sets a rule, and waits until a bridge follows it.
    async fn rule(&self, rule: &Value) {
        set(&self.bridge, rule).await;
    }
}

fn path() -> String {
    format!("/servers/{ID}/traffic")
}

async fn rest(
    bridge: &HttpBridge,
    method: Method,
    path: &str,
    body: Option<&Value>,
    if_match: Option<&str>,
) -> (StatusCode, Option<String>, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", bridge.base));
    if let Some(body) = body {
        request = request.json(body);
    }
    if let Some(etag) = if_match {
        request = request.header("if-match", etag);
    }
    let answer = within("an answer", request.send()).await.expect("an answer");
    let etag = answer.headers().get("etag");
    let etag = etag.map(|etag| etag.to_str().expect("text").to_owned());
    (answer.status(), etag, answer.json().await.unwrap_or_default())
}

async fn knows(bridge: &HttpBridge, replicas: usize) {
    eventually("a bridge knows the replicas", async || {
        let (_, _, told) = rest(bridge, Method::GET, &format!("/servers/{ID}"), None, None).await;
        told["replicas"]
            .as_array()
            .is_some_and(|known| known.len() == replicas)
    })
    .await;
}

/// Sets a rule, and waits until the bridge follows it.
async fn set(bridge: &HttpBridge, rule: &Value) {
    let (status, _, told) = rest(bridge, Method::PUT, &path(), Some(rule), None).await;
    assert!(status.is_success(), "{told}");
    follows(bridge, told["revision"].as_u64().expect("a revision")).await;
}

/// Waits until a bridge follows the rule of a revision.
async fn follows(bridge: &HttpBridge, revision: u64) {
    eventually("a bridge follows a rule", async || {
        let (_, _, told) = rest(bridge, Method::GET, &format!("/servers/{ID}"), None, None).await;
        told["traffic"]["revision"] == revision
    })
    .await;
}

async fn ask(client: &Client, called: &str, params: Value) -> Value {
    let answer = within("an answer", client.modern(called, params).send()).await;
    answer.expect("an answer").json().await.expect("JSON")
}

async fn which(client: &Client) -> String {
    text(&client.call("which", json!({})).await).to_owned()
}

/// How many of so many calls each version answers.
async fn answered(client: &Client, calls: usize) -> [usize; 2] {
    let mut counted = [0, 0];
    for _ in 0..calls {
        match which(client).await.as_str() {
            OLD => counted[0] += 1,
            NEW => counted[1] += 1,
            other => panic!("`{other}` answers"),
        }
    }
    counted
}

async fn own_tools(client: &Client) -> Vec<String> {
    let mut names = client.tool_names().await;
    names.retain(|name| name.contains("only-in-"));
    names
}

#[tokio::test]
async fn a_canary_gets_just_its_share_and_shares_change_while_calls_go_on() {
    let stage = Stage::set().await;
    let (client, all) = (stage.client(), Client::new(format!("{}/mcp", stage.bridge.base)));
    stage.rule(&json!({ "versions": { OLD: 90, NEW: 10 } })).await;
    assert_eq!(answered(&client, 100).await, [90, 10]);
    // What a server has is told by the version that most calls go to, also where servers are shown together.
    for _ in 0..MANY {
        assert_eq!(own_tools(&client).await, [format!("only-in-{OLD}")]);
    }
    assert_eq!(own_tools(&all).await, [format!("{ID}__only-in-{OLD}")]);
    let called = all.call(&format!("{ID}__which"), json!({})).await;
    assert!([OLD, NEW].contains(&text(&called)), "{called}");

    stage.rule(&json!({ "versions": { OLD: 1, NEW: 3 } })).await;
    assert_eq!(answered(&client, 40).await, [10, 30]);
    eventually("the list is that of the new version", async || {
        own_tools(&all).await == [format!("{ID}__only-in-{NEW}")]
    })
    .await;
    let metrics = format!("{}/metrics", stage.bridge.base);
    let counted = meter(&metrics, "trunkline_calls_by_version_total", NEW).await;
    assert!(counted >= 40, "{counted} calls were counted");

    // With equal shares the newest stands for the server.
    stage.rule(&json!({ "versions": { OLD: 1, NEW: 1 } })).await;
    for _ in 0..MANY {
        assert_eq!(own_tools(&client).await, [format!("only-in-{NEW}")]);
    }
    assert_eq!(own_tools(&all).await, [format!("{ID}__only-in-{NEW}")]);

    // Taken back, both have their share by chance.
    let (status, _, _) = rest(&stage.bridge, Method::DELETE, &path(), None, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    eventually("both are called", async || {
        let [old, new] = answered(&client, 20).await;
        old > 0 && new > 0
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_gone_costs_no_call_and_one_that_is_off_gets_none() {
    let mut stage = Stage::set().await;
    let client = stage.client();
    stage.rule(&json!({ "versions": { OLD: 1, NEW: 1 } })).await;
    stage.hosts.pop().expect("the new one").stop().await;
    assert_eq!(answered(&client, MANY).await, [MANY, 0]);
    // The one that is there has no share: nobody is called.
    stage.rule(&json!({ "versions": { OLD: 0, NEW: 1 } })).await;
    let refused = client.call("which", json!({})).await;
    assert_eq!(refused["error"]["data"]["reason"], "no_replica", "{refused}");
    // What the rule does not name is better than nothing.
    stage.rule(&json!({ "versions": { "3.0.0": 1 } })).await;
    assert_eq!(answered(&client, MANY).await, [MANY, 0]);
}

#[tokio::test]
async fn a_session_stays_with_the_version_that_it_began_on_at_every_bridge() {
    let stage = Stage::set().await;
    let other = stage.cluster.bridge().await;
    knows(&other, 2).await;
    let latest = ProtocolVersion::V2025_11_25.as_str();
    let which = async |session: &Session| {
        let answer = session
            .ask("tools/call", &json!({ "name": "which", "arguments": {} }))
            .await;
        text(&answer).to_owned()
    };
    // It is there before any rule, and on whichever version it has found.
    let earlier = Session::open(&stage.client(), latest).await;
    let earlier_on = which(&earlier).await;
    stage.rule(&json!({ "versions": { OLD: 99, NEW: 1 } })).await;
    assert_eq!(which(&earlier).await, earlier_on);
    let began = Session::open(&stage.client(), latest).await;
    let on = which(&began).await;

    let other_one = if on == OLD { NEW } else { OLD };
    let rule = json!({ "versions": { on.as_str(): 0, other_one: 1 } });
    stage.rule(&rule).await;
    let (_, _, told) = rest(&other, Method::GET, &path(), None, None).await;
    follows(&other, told["revision"].as_u64().expect("a revision")).await;
    for bridge in [&stage.bridge, &other] {
        let (began, earlier) = (began.at(&bridge.client(ID)), earlier.at(&bridge.client(ID)));
        for _ in 0..MANY {
            assert_eq!(which(&began).await, on);
            assert_eq!(which(&earlier).await, earlier_on);
        }
        // So does what it is shown.
        let listed = began.ask("tools/list", &json!({})).await;
        let own = format!("only-in-{on}");
        assert!(listed.to_string().contains(&own), "{listed}");
        let fresh = Session::open(&bridge.client(ID), latest).await;
        assert_eq!(which(&fresh).await, other_one);
    }
}

#[tokio::test]
async fn sessions_are_shared_out_as_calls_are() {
    let stage = Stage::set().await;
    stage.rule(&json!({ "versions": { OLD: 3, NEW: 1 } })).await;
    let mut on_new = 0;
    for _ in 0..8 {
        let session = Session::open(&stage.client(), ProtocolVersion::V2025_11_25.as_str()).await;
        let call = json!({ "name": "which", "arguments": {} });
        let first = session.ask("tools/call", &call).await;
        on_new += u32::from(text(&first) == NEW);
        assert_eq!(text(&session.ask("tools/call", &call).await), text(&first));
    }
    assert_eq!(on_new, 2);
}

#[tokio::test]
async fn without_a_rule_what_has_begun_on_one_of_two_versions_stays_there_too() {
    let stage = Stage::set().await;
    let client = stage.client();
    let declares = json!({ meta::CLIENT_CAPABILITIES: { "extensions": { meta::TASKS_EXTENSION: {} } } });
    let begun = ask(
        &client,
        "tools/call",
        json!({ "name": "begin", "arguments": {}, "_meta": declares }),
    )
    .await;
    let task = begun["result"]["taskId"].as_str().expect("a task").to_owned();
    let session = Session::open(&client, ProtocolVersion::V2025_11_25.as_str()).await;
    let call = json!({ "name": "which", "arguments": {} });
    let first = session.ask("tools/call", &call).await;
    for _ in 0..MANY {
        let told = ask(&client, "tasks/get", json!({ "taskId": task, "_meta": declares })).await;
        assert_eq!(told["result"]["status"], "completed", "{told}");
        assert_eq!(text(&session.ask("tools/call", &call).await), text(&first));
    }
}

#[tokio::test]
async fn a_task_and_a_servers_own_state_come_back_to_the_version_that_made_them() {
    let stage = Stage::set().await;
    let client = stage.client();
    stage.rule(&json!({ "versions": { NEW: 1, OLD: 0 } })).await;
    let asks = json!({ "name": "ask", "arguments": {},
        "_meta": { meta::CLIENT_CAPABILITIES: { "elicitation": {} } } });
    let declares = json!({ meta::CLIENT_CAPABILITIES: { "extensions": { meta::TASKS_EXTENSION: {} } } });
    let asked = ask(&client, "tools/call", asks.clone()).await;
    let state = asked["result"]["requestState"].as_str().expect("a state");
    let begun = ask(
        &client,
        "tools/call",
        json!({ "name": "begin", "arguments": {}, "_meta": declares }),
    )
    .await;
    let task = begun["result"]["taskId"].as_str().expect("a task").to_owned();
    assert!(task.starts_with(NEW), "{begun}");

    stage.rule(&json!({ "versions": { NEW: 0, OLD: 1 } })).await;
    assert_eq!(which(&client).await, OLD);
    let mut again = asks;
    again["requestState"] = state.into();
    again["inputResponses"] = json!({ "q": { "action": "accept", "content": {} } });
    for _ in 0..MANY {
        let done = ask(&client, "tools/call", again.clone()).await;
        assert_eq!(text(&done), format!("{NEW} has of {NEW}"));
        let told = ask(&client, "tasks/get", json!({ "taskId": task, "_meta": declares })).await;
        assert_eq!(told["result"]["status"], "completed", "{told}");
    }
    // Without a rule it is known as well, as long as both are there.
    let (status, _, _) = rest(&stage.bridge, Method::DELETE, &path(), None, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let done = ask(&client, "tools/call", again.clone()).await;
    assert_eq!(text(&done), format!("{NEW} has of {NEW}"));
}

#[tokio::test]
async fn all_calls_of_a_principal_go_to_one_version_at_every_bridge() {
    let stage = Stage::set().await;
    let other = stage.cluster.bridge().await;
    let rule = json!({ "versions": { OLD: 1, NEW: 1 }, "shareBy": "principal" });
    stage.rule(&rule).await;
    knows(&other, 2).await;
    let counted = answered(&stage.client(), MANY).await;
    assert!(counted.contains(&MANY), "{counted:?}");
    assert_eq!(answered(&other.client(ID), MANY).await, counted);
}

#[tokio::test]
async fn a_canary_whose_circuit_is_open_costs_no_call_and_its_copies_try_no_other_version() {
    let cluster = Cluster::start().await;
    let _registry = cluster.registry().await;
    let (one, two, looking) = tokio::join!(cluster.nats.bus(), cluster.nats.bus(), cluster.nats.bus());
    let directory = Directory::start(&looking, "default").await.expect("starts");
    let (old, new) = (Versioned::new(OLD), Versioned::new(NEW));
    let _old = old.serve(&one, |_| {}).await;
    let _new = new
        .serve(&two, |options| {
            options.breaker = Breaker::new(BreakerKnob {
                failures: 1,
                ..BreakerKnob::default()
            });
            options.peers = Some(directory.clone());
        })
        .await;
    let bridge = cluster.bridge().await;
    knows(&bridge, 2).await;
    let client = bridge.client(ID);
    set(&bridge, &json!({ "versions": { NEW: 1, OLD: 0 } })).await;
    new.is_failing.store(true, Ordering::SeqCst);
    let failed = client.call("which", json!({})).await;
    assert!(failed["error"].is_object(), "{failed}");
    eventually("its calls are kept away", async || {
        let answer = client.call("which", json!({})).await;
        answer["error"]["data"]["reason"] == "circuit_open"
    })
    .await;
    // One that has a share takes its calls.
    set(&bridge, &json!({ "versions": { NEW: 1, OLD: 1 } })).await;
    assert_eq!(answered(&client, MANY).await, [MANY, 0]);
    // Copies for it are not made of another.
    let before = old.which.load(Ordering::SeqCst);
    let rule = json!({ "versions": { NEW: 0, OLD: 1 }, "mirror": { "version": NEW } });
    set(&bridge, &rule).await;
    assert_eq!(answered(&client, MANY).await, [MANY, 0]);
    let metrics = format!("{}/metrics", bridge.base);
    eventually("all copies have ended", async || {
        meter(&metrics, "trunkline_calls_mirrored_total", NEW).await == MANY as u64
    })
    .await;
    let asked = old.which.load(Ordering::SeqCst) - before;
    assert_eq!(asked, u32::try_from(MANY).expect("few"));
    // So is what is near: it hands on what it cannot take.
    set(
        &bridge,
        &json!({ "versions": { NEW: 1, OLD: 1 }, "locality": "nearest" }),
    )
    .await;
    assert_eq!(answered(&client, MANY).await, [MANY, 0]);
}

#[tokio::test]
async fn copies_of_what_reads_go_to_a_version_on_trial_and_hold_nobody_up() {
    let stage = Stage::set().await;
    let client = stage.client();
    let rule = json!({ "versions": { OLD: 1, NEW: 0 }, "mirror": { "version": NEW } });
    stage.rule(&rule).await;
    let metrics = format!("{}/metrics", stage.bridge.base);
    let went = async |how: &str| {
        let word = format!("went=\"{how}\"");
        meter(&metrics, "trunkline_calls_mirrored_total", &word).await
    };
    for _ in 0..10 {
        assert_eq!(which(&client).await, OLD);
        let same = client.call("same", json!({})).await;
        assert_eq!(text(&same), "the same in all");
        assert_eq!(text(&client.call("write", json!({})).await), OLD);
        // It reads in the version that answers, and not in the one on trial.
        assert_eq!(text(&client.call("turns", json!({})).await), OLD);
    }
    eventually("all copies were compared", async || {
        went("different").await == 10 && went("same").await == 10
    })
    .await;
    assert_eq!(stage.new.which.load(Ordering::SeqCst), 10);
    // What may have an effect is never done twice.
    assert_eq!(stage.new.written.load(Ordering::SeqCst), 0);
    assert_eq!(stage.old.written.load(Ordering::SeqCst), 20);

    // A version that hangs costs copies and no calls: beyond those on their way, copies are left out.
    stage.new.is_stuck.store(true, Ordering::SeqCst);
    for _ in 0..80 {
        assert_eq!(which(&client).await, OLD);
    }
    eventually("copies are left out", async || went("left_out").await > 0).await;
}

#[tokio::test]
async fn the_nearest_replica_that_has_room_is_called_first() {
    let cluster = Cluster::start().await;
    let _registry = cluster.registry().await;
    let nats = &cluster.nats;
    let (far, region, node) = tokio::join!(
        nats.bus_in("n3", "r2"),
        nats.bus_in("n2", "r1"),
        nats.bus_in("n1", "r1")
    );
    let serve = async |bus: &Bus, version: &str| Versioned::new(version).serve(bus, |_| {}).await;
    let _far = serve(&far, "far").await;
    let in_region = serve(&region, "region").await;
    let busy = Versioned::new("node");
    let on_node = busy.serve(&node, |options| options.max_in_flight = 1).await;
    let bridge = cluster.bridge_with(&["--node", "n1", "--region", "r1"]).await;
    knows(&bridge, 3).await;
    set(&bridge, &json!({ "locality": "nearest" })).await;
    let client = bridge.client(ID);
    for _ in 0..MANY {
        assert_eq!(which(&client).await, "node");
    }
    // One that has no room is passed over.
    busy.is_stuck.store(true, Ordering::SeqCst);
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { which(&client).await }
    });
    eventually("the replica is busy", async || {
        busy.which.load(Ordering::SeqCst) > u32::try_from(MANY).expect("few")
    })
    .await;
    for _ in 0..MANY {
        assert_eq!(which(&client).await, "region");
    }
    stuck.abort();
    node.close().await;
    drop(on_node);
    for _ in 0..MANY {
        assert_eq!(which(&client).await, "region");
    }
    in_region.stop().await;
    for _ in 0..MANY {
        assert_eq!(which(&client).await, "far");
    }
}

#[tokio::test]
async fn a_server_that_is_upgraded_where_it_runs_takes_the_calls_to_its_new_version_only() {
    let cluster = Cluster::start().await;
    let _registry = cluster.registry().await;
    let (one, two, looking) = tokio::join!(cluster.nats.bus(), cluster.nats.bus(), cluster.nats.bus());
    let directory = Directory::start(&looking, "default").await.expect("starts");
    let (upgraded, stays) = (Versioned::new(OLD), Versioned::new(OLD));
    let _one = upgraded
        .serve(&one, |options| options.peers = Some(directory.clone()))
        .await;
    let _two = stays.serve(&two, |_| {}).await;
    let bridge = cluster.bridge().await;
    knows(&bridge, 2).await;
    let client = bridge.client(ID);
    // Back and forth, as an upstream that is reached by turns.
    for version in [NEW, OLD, NEW] {
        upgraded.upgrade(version);
        eventually("the bridge knows the version", async || {
            let (_, _, told) = rest(&bridge, Method::GET, &format!("/servers/{ID}"), None, None).await;
            let replicas = told["replicas"].as_array().expect("replicas");
            let new = replicas.iter().filter(|replica| replica["version"] == NEW);
            new.count() == usize::from(version == NEW)
        })
        .await;
    }
    let has_new = |told: &Value| told["replicas"][NEW] == 1;
    set(&bridge, &json!({ "versions": { NEW: 1, OLD: 0 } })).await;
    eventually("the bridge knows the new version", async || {
        let (_, _, told) = rest(&bridge, Method::GET, &path(), None, None).await;
        has_new(&told)
    })
    .await;
    assert_eq!(answered(&client, MANY).await, [0, MANY]);
    // It still hears calls to the version that it was, and passes them on to who has it.
    set(&bridge, &json!({ "versions": { NEW: 0, OLD: 1 } })).await;
    assert_eq!(answered(&client, MANY).await, [MANY, 0]);
}

#[tokio::test]
async fn rules_are_judged_fenced_and_shown() {
    let stage = Stage::set().await;
    let bridge = &stage.bridge;
    let put = async |body: &Value, if_match: Option<&str>| {
        rest(bridge, Method::PUT, &path(), Some(body), if_match).await
    };
    let (status, _, told) = rest(bridge, Method::GET, &path(), None, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{told}");
    for (rule, field) in [
        (json!({}), "versions"),
        (json!({ "versions": { OLD: 0 } }), "versions"),
        (
            json!({ "versions": { OLD: 1 }, "mirror": { "version": NEW, "percent": 101 } }),
            "mirror",
        ),
        (json!({ "mirror": { "version": NEW } }), "mirror"),
        (json!({ "id": "other", "locality": "nearest" }), "id"),
    ] {
        let (status, _, told) = put(&rule, None).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{told}");
        assert_eq!(told["error"]["field"], field, "{told}");
    }
    let rule = json!({ "versions": { OLD: 9, NEW: 1 } });
    let (status, etag, told) = put(&rule, None).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    assert_eq!(told["replicas"], json!({ OLD: 1, NEW: 1 }), "{told}");
    let (status, _, _) = put(&rule, None).await;
    assert_eq!(status, StatusCode::OK);
    let (status, newer, _) = put(&json!({ "versions": { OLD: 8, NEW: 2 } }), etag.as_deref()).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, told) = put(&rule, etag.as_deref()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{told}");
    let (_, shown, told) = rest(bridge, Method::GET, &path(), None, None).await;
    assert_eq!((&shown, &told["versions"][NEW]), (&newer, &json!(2)), "{told}");

    // The command line says the same.
    let cluster = &stage.cluster;
    let listed = cluster.json(&["traffic", "list", "--json"]).await;
    assert_eq!(
        listed[0]["rule"]["versions"],
        json!({ OLD: 8, NEW: 2 }),
        "{listed}"
    );
    let share = format!("{NEW}=1");
    let (code, out, err) = cluster
        .run(&["traffic", "set", ID, "--share", &share, "--share", "7.7.7=1"])
        .await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(ID) && err.contains("7.7.7"), "{out} {err}");
    let shown = cluster.json(&["traffic", "show", ID]).await;
    assert_eq!(
        shown["rule"]["versions"],
        json!({ NEW: 1, "7.7.7": 1 }),
        "{shown}"
    );
    let stale = ["traffic", "set", ID, "--share", &share, "--revision", "1"];
    let (code, _, err) = cluster.run(&stale).await;
    assert!(code != 0 && err.contains("revision"), "{err}");
    let (code, _, err) = cluster.run(&["traffic", "set", ID, "--share", "2"]).await;
    assert!(code != 0 && err.contains("<version>=<share>"), "{err}");
    let (code, _, err) = cluster.run(&["traffic", "clear", ID, "--revision", "1"]).await;
    assert!(code != 0 && err.contains("revision"), "{err}");
    let revision = shown["revision"].to_string();
    let (code, _, err) = cluster
        .run(&["traffic", "clear", ID, "--revision", &revision])
        .await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = cluster.run(&["traffic", "show", ID]).await;
    assert!(code != 0 && err.contains("no traffic rule"), "{err}");
}
