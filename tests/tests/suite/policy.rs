//! What a policy hides or denies is hidden and denied behind every door, from the moment that it is kept, and no bad one is ever in force.

mod commands;
mod roles;
mod standing;

use std::{sync::Arc, time::Duration};

use bridges::front::Endpoint;
use bus_schema::{
    Principal,
    kept::Rollback,
    mcp::{error, method},
    policy::{Action, Decision, Document, Set, Version},
    registry::Refusal,
};
use runtime::{
    Bus, Host, Retry,
    policies::Rules,
    registry::RegistryError,
    store::{Bucket, BucketOptions},
};
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    eventually,
    http::{Client, modern_body},
    nats::Nats,
    platform::Platform,
    session::{Session, messages},
    vault::{Vault, forged},
    within,
};

/// Of each kind only what is called `open` may be had; payments have a limit.
fn only_open() -> Value {
    json!({
        "default": "deny",
        "rules": [
            {
                "name": "open", "effect": "allow", "tools": ["vault__open"], "prompts": ["vault__open"],
                "resources": ["vault__vault://open/*", "vault__vault://{drawer}/{item}"], "methods": ["vault__acme/open"],
            },
            { "name": "small", "effect": "allow", "tools": ["vault__pay"], "when": "arguments.amount < 100" },
        ],
    })
}

fn document(json: &Value) -> Document {
    serde_json::from_value(json.clone()).expect("a document")
}

fn set(json: &Value, over: Option<u64>) -> Set {
    Set {
        document: document(json),
        over,
        comment: String::new(),
    }
}

/// A platform before a vault.
struct World {
    platform: Platform,
    vault: Arc<Vault>,
    _host: Host,
}

impl World {
    async fn start(file: &str) -> Self {
        let platform = Platform::start(file, &["registry"]).await;
        let vault = Arc::<Vault>::default();
        let host = vault.serve(platform.node.bus(), "vault").await;
        platform.knows("vault").await;
        Self {
            platform,
            vault,
            _host: host,
        }
    }

    /// Has a policy kept, and waits until it is in force in this process.
    async fn keep(&self, json: &Value) -> Version {
        let bus = self.platform.node.bus();
        let wish = set(json, None);
        let version = within(
            "the policy is taken",
            bus.set_document::<Rules>(&Principal::developer(), &wish),
        )
        .await;
        let version = version.expect("taken");
        self.is_in_force(version.version).await;
        version
    }

    async fn is_in_force(&self, version: u64) {
        let policies = self.platform.node.bus().policies();
        let mut changes = policies.changes();
        within("the policy is in force", async {
            while policies.of("default").version != Some(version) {
                changes.changed().await.expect("the policies live");
            }
        })
        .await;
    }

    fn client(&self, path: &str) -> Client {
        Client::new(self.platform.url(path))
    }

    async fn virtual_server(&self) {
        let chosen = json!({ "id": "v", "items": [{
            "server": "vault", "tools": ["*"], "prompts": ["*"], "resources": ["*"],
            "rename": { "shut": "first", "open": "second" },
        }] });
        self.platform.define(&chosen).await;
    }
}

async fn modern(client: &Client, called: &str, params: Value) -> Value {
    messages(client.modern(called, params))
        .await
        .pop()
        .expect("an answer")
}

fn names(answer: &Value, list: &str, key: &str) -> Vec<String> {
    let items = answer["result"][list]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    items
        .iter()
        .map(|item| item[key].as_str().expect("a name").to_owned())
        .collect()
}

/// Expects that what is shut and what is not there are answered alike, and that neither reaches the server.
fn alike(world: &World, what: &str, shut: &Value, nothing: &Value) {
    assert!(shut["error"].is_object(), "{what}: {shut}");
    assert_eq!(
        shut["error"]["code"], nothing["error"]["code"],
        "{what}: {shut} {nothing}"
    );
    let text = |answer: &Value, name: &str| answer["error"].to_string().replace(name, "NAME");
    assert_eq!(text(shut, "shut"), text(nothing, "nope"), "{what}");
    let asked = world.vault.take();
    assert!(
        !asked.iter().any(|(_, name)| name.contains("shut")),
        "{what}: {asked:?}"
    );
}

fn tool(name: &str) -> Value {
    json!({ "name": name, "arguments": {} })
}

#[tokio::test]
async fn what_is_hidden_is_on_no_list_and_answers_like_what_is_not_there() {
    let world = World::start("").await;
    world.virtual_server().await;
    world.keep(&only_open()).await;
    for (path, prefix) in [
        ("/servers/vault/mcp", ""),
        ("/mcp", "vault__"),
        ("/servers/v/mcp", ""),
    ] {
        let client = world.client(path);
        let renamed = |name: &str| match (path, name) {
            ("/servers/v/mcp", "open") => "second".to_owned(),
            ("/servers/v/mcp", "shut") => "first".to_owned(),
            _ => format!("{prefix}{name}"),
        };
        let lists = [
            (
                method::TOOLS_LIST,
                "tools",
                "name",
                vec![renamed("open"), format!("{prefix}pay")],
            ),
            (method::PROMPTS_LIST, "prompts", "name", vec![renamed("open")]),
            (
                method::RESOURCES_LIST,
                "resources",
                "uri",
                vec!["vault://open/a".to_owned()],
            ),
            (
                method::TEMPLATES_LIST,
                "resourceTemplates",
                "uriTemplate",
                vec!["vault://{drawer}/{item}".to_owned()],
            ),
        ];
        for (called, list, key, expected) in lists {
            let answer = modern(&client, called, json!({})).await;
            assert_eq!(names(&answer, list, key), expected, "{path} {called}: {answer}");
            // What is left out is not told of either.
            assert!(!answer.to_string().contains("shut"), "{path} {called}: {answer}");
        }
        for (called, shut, nothing) in [
            (
                method::TOOLS_CALL,
                tool(&renamed("shut")),
                tool(&format!("{prefix}nope")),
            ),
            (
                method::PROMPTS_GET,
                json!({ "name": renamed("shut") }),
                json!({ "name": format!("{prefix}nope") }),
            ),
            (
                method::RESOURCES_READ,
                json!({ "uri": "vault://shut/a" }),
                json!({ "uri": "vault://nope/a" }),
            ),
            (
                method::COMPLETE,
                json!({ "ref": { "type": "ref/prompt", "name": renamed("shut") }, "argument": { "name": "a", "value": "" } }),
                json!({ "ref": { "type": "ref/prompt", "name": format!("{prefix}nope") }, "argument": { "name": "a", "value": "" } }),
            ),
            (
                method::COMPLETE,
                json!({ "ref": { "type": "ref/resource", "uri": "vault://shut/{item}" }, "argument": { "name": "item", "value": "" } }),
                json!({ "ref": { "type": "ref/resource", "uri": "vault://nope/{item}" }, "argument": { "name": "item", "value": "" } }),
            ),
        ] {
            let what = format!("{path} {called} {shut}");
            let shut = modern(&client, called, shut).await;
            let nothing = modern(&client, called, nothing).await;
            alike(&world, &what, &shut, &nothing);
        }
        let open = modern(&client, method::TOOLS_CALL, tool(&renamed("open"))).await;
        assert!(open["result"].is_object(), "{path}: {open}");
        let read = modern(
            &client,
            method::RESOURCES_READ,
            json!({ "uri": "vault://open/a" }),
        )
        .await;
        assert!(read["result"].is_object(), "{path}: {read}");
    }
    world.platform.stop().await;
}

#[tokio::test]
async fn a_template_is_no_way_out_of_what_is_open() {
    let world = World::start("").await;
    world.keep(&only_open()).await;
    let (own, all) = (world.client("/servers/vault/mcp"), world.client("/mcp"));
    for client in [&own, &all] {
        for uri in [
            "vault://shut/a",
            "vault://open/../shut/a",
            "vault://open/%2e%2e/../shut/a",
            "vault://OPEN/a",
            "VAULT://shut/a",
        ] {
            let answer = modern(client, method::RESOURCES_READ, json!({ "uri": uri })).await;
            let allowed = uri.starts_with("vault://open/");
            // A path that leads nowhere else than into what is open is no way out.
            assert_eq!(answer["result"].is_object(), allowed, "{uri}: {answer}");
        }
    }
    let limited = json!({
        "default": "deny",
        "rules": [{ "name": "few", "effect": "allow", "resources": ["vault__vault://host/open/*"] }],
    });
    world.keep(&limited).await;
    for client in [&own, &all] {
        for uri in [
            "vault://host/open/../shut/a",
            "vault://host/open/%2e%2e/shut/a",
            "vault://host/open/..%2fshut/a",
            "vault://host/open/%252e%252e/shut/a",
            "vault://host/open/..\\shut",
        ] {
            let _ = world.vault.take();
            let answer = modern(client, method::RESOURCES_READ, json!({ "uri": uri })).await;
            assert_eq!(answer["error"]["code"], error::INVALID_PARAMS, "{uri}: {answer}");
            assert_eq!(world.vault.take(), [], "{uri}");
        }
        let answer = modern(
            client,
            method::RESOURCES_READ,
            json!({ "uri": "vault://host/open/a" }),
        )
        .await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    world.platform.stop().await;
}

#[tokio::test]
async fn a_search_finds_nothing_hidden_and_calls_nothing_hidden() {
    let world = World::start("").await;
    world.keep(&only_open()).await;
    let client = world.client("/mcp/search");
    let found = client
        .call("search_tools", json!({ "query": "shut drawer", "limit": 50 }))
        .await;
    let text = found["result"]["structuredContent"].to_string();
    assert!(text.contains("vault__open") && !text.contains("shut"), "{found}");
    let _ = world.vault.take();
    for name in ["shut", "vault__shut", "vault.shut"] {
        let shut = client.call("call_tool", json!({ "name": name })).await;
        let nothing = client
            .call("call_tool", json!({ "name": name.replace("shut", "nope") }))
            .await;
        assert_eq!(shut["result"]["isError"], true, "{shut}");
        let told = |answer: &Value| {
            answer["result"]["content"][0]["text"]
                .as_str()
                .expect("text")
                .to_owned()
        };
        let told = (told(&shut), told(&nothing));
        assert!(
            told.0.starts_with(&format!("there is no tool `{name}`")),
            "{told:?}"
        );
        assert!(told.1.starts_with("there is no tool `"), "{told:?}");
    }
    // Under its name as well, which the endpoint takes.
    let shut = client.call("vault__shut", json!({})).await;
    let nothing = client.call("vault__nope", json!({})).await;
    alike(&world, "by name", &shut, &nothing);
    let open = client
        .call("call_tool", json!({ "name": "vault__open", "arguments": {} }))
        .await;
    assert_eq!(open["result"]["content"][0]["text"], "done", "{open}");
    let large = client
        .call(
            "call_tool",
            json!({ "name": "vault__pay", "arguments": { "amount": 5000 } }),
        )
        .await;
    assert_eq!(
        large["error"]["data"],
        json!({ "reason": "denied", "rule": "small" }),
        "{large}"
    );
    let small = client
        .call(
            "call_tool",
            json!({ "name": "vault__pay", "arguments": { "amount": 5 } }),
        )
        .await;
    assert_eq!(small["result"]["content"][0]["text"], "done", "{small}");
    world.platform.stop().await;
}

#[tokio::test]
async fn legacy_sessions_and_their_batches_meet_the_same_policy() {
    let world = World::start("").await;
    world.keep(&only_open()).await;
    let client = world.client("/servers/vault/mcp");
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = Session::open(&client, version).await;
        let tools = session.ask(method::TOOLS_LIST, &json!({})).await;
        assert_eq!(names(&tools, "tools", "name"), ["open", "pay"], "{version}");
        let shut = session.ask(method::TOOLS_CALL, &tool("shut")).await;
        let nothing = session.ask(method::TOOLS_CALL, &tool("nope")).await;
        alike(&world, version, &shut, &nothing);
        for (called, params) in [
            (method::RESOURCES_READ, json!({ "uri": "vault://shut/a" })),
            (method::SUBSCRIBE, json!({ "uri": "vault://shut/a" })),
            (method::PROMPTS_GET, json!({ "name": "shut" })),
        ] {
            let answer = session.ask(called, &params).await;
            assert!(answer["error"].is_object(), "{version} {called}: {answer}");
        }
        assert_eq!(world.vault.take(), [], "{version}");
        let open = session.ask(method::TOOLS_CALL, &tool("open")).await;
        assert!(open["result"].is_object(), "{version}: {open}");
        let _ = world.vault.take();
    }
    let session = Session::open(&client, "2025-03-26").await;
    let message = |id: u64, name: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method::TOOLS_CALL, "params": tool(name) });
    let batch = json!([
        message(1, "open"),
        message(2, "shut"),
        message(3, "open"),
        message(4, "nope")
    ]);
    let request = client
        .raw(batch.to_string())
        .header(bus_schema::header::SESSION_ID, session.id());
    let text = within("an answer", request.send())
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    assert_eq!(text.matches("unknown tool").count(), 2, "{text}");
    let asked: Vec<_> = world.vault.take().into_iter().map(|(_, name)| name).collect();
    assert_eq!(asked, ["open", "open"]);
    world.platform.stop().await;
}

#[tokio::test]
async fn conversations_meet_the_same_policy() {
    let mut world = World::start("").await;
    world.keep(&only_open()).await;
    let all = Channel::pipe(&mut world.platform, Endpoint::All).await;
    let search = Channel::pipe(&mut world.platform, Endpoint::Search).await;
    let own = Channel::pipe(
        &mut world.platform,
        Endpoint::Server("vault".parse().expect("an id")),
    )
    .await;
    let socket = Channel::socket(&world.platform, "/servers/vault/ws").await;
    for (what, mut channel, prefix) in [
        ("stdio, all", all, "vault__"),
        ("stdio, search", search, "vault__"),
        ("stdio", own, ""),
        ("a WebSocket", socket, ""),
    ] {
        let shut = channel
            .ask(&modern_body(method::TOOLS_CALL, tool(&format!("{prefix}shut"))))
            .await;
        let nothing = channel
            .ask(&modern_body(method::TOOLS_CALL, tool(&format!("{prefix}nope"))))
            .await;
        alike(&world, what, &shut, &nothing);
        let open = channel
            .ask(&modern_body(method::TOOLS_CALL, tool(&format!("{prefix}open"))))
            .await;
        assert!(open["result"].is_object(), "{what}: {open}");
        let _ = world.vault.take();
        channel.end().await;
    }
    world.platform.stop().await;
}

#[tokio::test]
async fn a_method_of_a_servers_own_is_open_only_when_it_is_named() {
    let world = World::start("").await;
    world.keep(&only_open()).await;
    let (own, all) = (world.client("/servers/vault/mcp"), world.client("/mcp"));
    for (client, prefix) in [(&own, ""), (&all, "vault__")] {
        let open = modern(client, &format!("{prefix}acme/open"), json!({})).await;
        assert!(open["result"].is_object(), "{open}");
        let _ = world.vault.take();
        let shut = modern(client, &format!("{prefix}acme/shut"), json!({})).await;
        let nothing = modern(client, &format!("{prefix}acme/nope"), json!({})).await;
        alike(&world, prefix, &shut, &nothing);
    }
    world.platform.stop().await;
}

#[tokio::test]
async fn a_host_refuses_what_a_door_should_have_refused() {
    let world = World::start("").await;
    world.keep(&only_open()).await;
    for (called, in_envelope, params) in [
        (method::TOOLS_CALL, method::TOOLS_CALL, tool("shut")),
        // What the envelope says is not what the server reads.
        (method::TOOLS_CALL, method::TOOLS_LIST, tool("shut")),
        (
            method::TOOLS_CALL,
            method::TOOLS_CALL,
            json!({ "name": "pay", "arguments": { "amount": 1000 } }),
        ),
        (method::TOOLS_CALL, method::TOOLS_CALL, json!({ "name": "pay" })),
        (
            method::TOOLS_CALL,
            method::TOOLS_CALL,
            json!({ "name": ["shut"] }),
        ),
        (
            method::PROMPTS_GET,
            method::PROMPTS_GET,
            json!({ "name": "shut" }),
        ),
        (
            method::RESOURCES_READ,
            method::RESOURCES_READ,
            json!({ "uri": "vault://shut/a" }),
        ),
        (
            method::COMPLETE,
            method::COMPLETE,
            json!({ "ref": { "type": "ref/prompt", "name": "shut" } }),
        ),
        (
            method::COMPLETE,
            method::COMPLETE,
            json!({ "ref": { "type": "ref/resource", "uri": "vault://shut/a" } }),
        ),
        (
            method::COMPLETE,
            method::COMPLETE,
            json!({ "ref": { "type": "both", "name": "shut", "uri": "vault://shut/a" } }),
        ),
        (
            method::LISTEN,
            method::LISTEN,
            json!({ "notifications": { "resourceSubscriptions": ["vault://shut/a"] } }),
        ),
        ("acme/shut", "acme/shut", json!({})),
    ] {
        let request = forged(called, in_envelope, &params);
        let (code, body) = within("an answer", world.platform.node.bus().ask(request, Retry::Never))
            .await
            .expect("an answer");
        assert!(
            code.is_some(),
            "{called} {params}: {}",
            String::from_utf8_lossy(&body)
        );
        assert_eq!(world.vault.take(), [], "{called} {params}");
    }
    let twice = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"open","name":"shut"}}"#;
    let mut request = forged(method::TOOLS_CALL, method::TOOLS_CALL, &tool("open"));
    request.body = twice.to_vec().into();
    let (code, _) = within("an answer", world.platform.node.bus().ask(request, Retry::Never))
        .await
        .expect("an answer");
    assert!(code.is_some());
    assert_eq!(world.vault.take(), []);
    let (code, body) = within(
        "an answer",
        world.platform.node.bus().ask(
            forged(method::TOOLS_LIST, method::TOOLS_LIST, &json!({})),
            Retry::Never,
        ),
    )
    .await
    .expect("an answer");
    let list: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        (code, names(&list, "tools", "name")),
        (None, vec!["open".to_owned(), "pay".to_owned()])
    );
    world.platform.stop().await;
}

#[tokio::test]
async fn a_policy_is_in_force_everywhere_as_soon_as_it_is_kept_and_lists_tell_of_it() {
    let world = World::start("").await;
    let client = world.client("/servers/vault/mcp");
    let of_all = world.client("/mcp");
    assert!(client.call("shut", json!({})).await["result"].is_object());
    assert!(client.tool_names().await.contains(&"shut".to_owned()));
    let version = world.keep(&only_open()).await;
    assert_eq!((version.version, version.by.as_str()), (1, "developer"));
    assert!(client.call("shut", json!({})).await["error"].is_object());
    assert_eq!(client.tool_names().await, ["open", "pay"]);
    assert_eq!(of_all.tool_names().await, ["vault__open", "vault__pay"]);
    let open_all = json!({ "default": "allow" });
    assert_eq!(world.keep(&open_all).await.version, 2);
    assert!(client.call("shut", json!({})).await["result"].is_object());
    assert_eq!(of_all.tool_names().await.len(), 3);
    world.platform.stop().await;
}

#[tokio::test]
async fn a_bad_policy_never_takes_the_place_of_a_good_one_and_an_earlier_one_comes_back() {
    let world = World::start("").await;
    let bus = world.platform.node.bus();
    let me = Principal::new("ann", "default");
    world.keep(&only_open()).await;
    for bad in [
        json!({ "default": "deny", "rules": [{ "name": "a", "effect": "deny", "when": "principal.nam == 'x'" }] }),
        json!({ "default": "deny", "scopes": { "a": ["get"] } }),
        json!({ "default": "deny", "roles": { "r": { "includes": ["r"] } } }),
    ] {
        let refused = within("an answer", bus.set_document::<Rules>(&me, &set(&bad, None))).await;
        assert!(
            matches!(
                &refused,
                Err(RegistryError::Refused {
                    refusal: Some(Refusal::Bad { .. }),
                    ..
                })
            ),
            "{bad}: {refused:?}"
        );
    }
    assert_eq!(
        world.client("/servers/vault/mcp").tool_names().await,
        ["open", "pay"]
    );
    world.keep(&json!({ "default": "allow" })).await;
    let wish = Rollback {
        to: 1,
        over: Some(2),
        comment: String::new(),
    };
    let back = within("an answer", bus.roll_back::<Rules>(&me, &wish))
        .await
        .expect("taken");
    assert_eq!(
        (back.version, back.comment.as_str(), back.by.as_str()),
        (3, "version 1 again", "ann")
    );
    world.is_in_force(3).await;
    assert_eq!(
        world.client("/servers/vault/mcp").tool_names().await,
        ["open", "pay"]
    );
    let policies = bus.policies();
    let versions = policies
        .store()
        .expect("a store")
        .versions("default", 10)
        .await
        .expect("versions");
    let numbers: Vec<_> = versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, [3, 2, 1]);
    assert_eq!(versions[0].document, versions[2].document);
    let unknown = Rollback { to: 9, ..wish };
    let refused = within("an answer", bus.roll_back::<Rules>(&me, &unknown)).await;
    assert!(
        matches!(
            refused,
            Err(RegistryError::Refused {
                refusal: Some(Refusal::Unknown),
                ..
            })
        ),
        "{refused:?}"
    );
    world.platform.stop().await;
}

#[tokio::test]
async fn of_two_who_write_at_once_over_the_same_version_one_is_told() {
    let world = World::start("").await;
    let bus = world.platform.node.bus();
    let me = Principal::developer();
    world.keep(&only_open()).await;
    let wishes: Vec<_> = (0..4)
        .map(|n| set(&json!({ "default": "allow", "rules": [{ "name": format!("r{n}"), "effect": "deny", "tools": ["x__y"] }] }), Some(1)))
        .collect();
    let written =
        futures::future::join_all(wishes.iter().map(|wish| bus.set_document::<Rules>(&me, wish))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = written.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (1, 3));
    for refused in refused {
        assert!(
            matches!(
                refused,
                Err(RegistryError::Refused {
                    refusal: Some(Refusal::Changed),
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    // Whoever writes over whatever is there is not refused, and no version is lost.
    let wishes: Vec<_> = wishes
        .into_iter()
        .map(|wish| Set { over: None, ..wish })
        .collect();
    let written =
        futures::future::join_all(wishes.iter().map(|wish| bus.set_document::<Rules>(&me, wish))).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    let policies = bus.policies();
    let versions = policies
        .store()
        .expect("a store")
        .versions("default", 50)
        .await
        .expect("versions");
    let newest = versions[0].version;
    let numbers: Vec<_> = versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, (1..=newest).rev().collect::<Vec<_>>());
    world.platform.stop().await;
}

/// Where policies are kept, for whoever writes there what no registry writes.
async fn bucket(bus: &Bus) -> Bucket {
    let options = BucketOptions {
        name: "policy",
        max_age: Duration::ZERO,
        max_bytes: 1024 * 1024,
        max_record_bytes: 64 * 1024,
    };
    Bucket::open(bus, options).await.expect("a bucket")
}

#[tokio::test]
async fn a_process_that_cannot_read_a_newer_policy_goes_on_with_the_one_that_it_has() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let bucket = bucket(&bus).await;
    let first = json!({ "version": 1, "at": "2026-01-01T00:00:00Z", "by": "ann", "document": only_open() });
    let revision = bucket.write("default", &first, None).await.expect("written");
    let policies = bus.policies();
    assert!(policies.ready().await);
    assert_eq!(policies.of("default").version, Some(1));
    let newer = json!({ "version": 2, "at": "2030-01-01T00:00:00Z", "by": "ann", "document": { "default": "allow", "budgets": [] } });
    bucket
        .write("default", &newer, Some(revision))
        .await
        .expect("written");
    eventually("it says so", async || policies.of("default").behind.is_some()).await;
    let (nobody, shut) = (Principal::developer(), Action::tool("vault", "shut"));
    assert_eq!(policies.of("default").version, Some(1));
    assert_eq!(policies.of("default").decide(&nobody, &shut), Decision::Hidden);
    // One that starts now has nothing to go on with, and lets nobody do anything. Other tenants are no worse for it.
    let young = nats.bus().await.policies();
    assert!(young.ready().await);
    let decided = young
        .of("default")
        .decide(&nobody, &Action::tool("vault", "open"));
    assert!(matches!(decided, Decision::Denied { .. }), "{decided:?}");
    assert_eq!(young.of("other").decide(&nobody, &shut), Decision::Allow);
}

#[tokio::test]
async fn every_process_hears_of_a_policy() {
    let nats = Nats::start().await;
    let all = [nats.bus().await, nats.bus().await, nats.bus().await];
    for bus in &all {
        assert!(bus.policies().ready().await);
        assert_eq!(bus.policies().of("default").version, None);
    }
    let first = json!({ "version": 1, "at": "2026-01-01T00:00:00Z", "by": "ann", "document": only_open() });
    bucket(&all[0])
        .await
        .write("default", &first, None)
        .await
        .expect("written");
    for bus in &all {
        let policies = bus.policies();
        let mut changes = policies.changes();
        within("it is in force", async {
            while policies.of("default").version != Some(1) {
                changes.changed().await.expect("the policies live");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn until_one_is_kept_the_policy_of_the_configuration_counts() {
    let file = "[policy]\ndefault = \"deny\"\n[[policy.rules]]\nname = \"o\"\neffect = \"allow\"\ntools = [\"vault__open\"]\n";
    let world = World::start(file).await;
    assert_eq!(world.client("/servers/vault/mcp").tool_names().await, ["open"]);
    assert!(world.client("/mcp").call("vault__shut", json!({})).await["error"].is_object());
    world.keep(&json!({ "default": "allow" })).await;
    assert_eq!(world.client("/servers/vault/mcp").tool_names().await.len(), 3);
    world.platform.stop().await;
}
