//! Our own roles: each does its work, and nothing of the others'. A process that was broken into is held to its role.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    ContentType, Principal, Request, Token,
    mcp::method,
    subject::{self, CallerClass, MethodPath, Subject},
};
use runtime::{Bus, BusError, BusOptions, Directory, registry::Registry};
use tests::{
    eventually,
    fixture::{self, Probe},
    forger::Forger,
    http::modern_body,
    nats::Nats,
    within,
};

/// What only listening in would be good for, or other people's mail.
const TAPS: [&str; 23] = [
    ">",
    "*.>",
    "mcp.>",
    "mcp.*.>",
    "mcp.rpc.>",
    "mcp.rpc.*.*.>",
    "mcp.rpc.default.fixture.>",
    "mcp.rpc.default.fixture.tools.call",
    "mcp.ver.>",
    "mcp.ver.*.*.*.>",
    "mcp.inst.>",
    "mcp.inst.*.*.*.>",
    "mcp.inst.*.*.*.*",
    "mcp.pub.>",
    "mcp.pub.*.*.>",
    "mcp.audit.>",
    "_R_.>",
    "_INBOX.>",
    "$SYS.>",
    "$SYS.REQ.USER.AUTH",
    "$JS.>",
    "$JS.API.>",
    "$KV.>",
];

/// What no process of ours has to do.
const NOBODYS: [&str; 24] = [
    "$JS.API.STREAM.DELETE.TASKS",
    "$JS.API.STREAM.PURGE.TASKS",
    "$JS.API.STREAM.MSG.DELETE.KV_tasks",
    "$JS.API.STREAM.DELETE.KV_tasks",
    "mcp.pub.default.fixture.tools.call.count",
    "$JS.API.STREAM.DELETE.KV_registry",
    "$JS.API.STREAM.DELETE.KV_sessions",
    "$JS.API.STREAM.DELETE.AUDIT",
    "$JS.API.STREAM.PURGE.AUDIT",
    "$JS.API.STREAM.UPDATE.AUDIT",
    "$JS.API.STREAM.MSG.DELETE.AUDIT",
    "$JS.API.STREAM.UPDATE.KV_registry",
    "$JS.API.STREAM.CREATE.EVERYTHING",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.MSG.DELETE.KV_pins",
    "$JS.API.STREAM.SNAPSHOT.KV_sessions",
    "$JS.API.CONSUMER.CREATE.EVERYTHING",
    "$JS.API.DIRECT.GET.KV_sessions.x",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.CORE.CONNZ",
    "$SYS.REQ.USER.AUTH",
    "$SYS.ACCOUNT.CORE.DISCONNECT",
    "anything.else",
];

/// What is others' work, by role.
fn not_of(role: CallerClass) -> &'static [&'static str] {
    match role {
        CallerClass::Node => &[],
        CallerClass::Bridge => &[
            "$JS.API.STREAM.MSG.GET.AUDIT",
            "mcp.evt.default.fixture.replica.down",
            "mcp.evt.default.fixture.tool",
            "mcp.watch.default",
            "$KV.registry.default.x",
            "$KV.pins.policies",
            "$KV.definitions.x",
            "$KV.owners.default.x.0",
            "$KV.nodes.x",
            "$KV.virtual.default.x",
            "$KV.traffic.default.x",
            "$KV.blocks.default._.x",
            "$KV.policy.default",
            "$KV.guardrails.default",
            "$JS.API.STREAM.PURGE.KV_pins",
            "_INBOX_cli.x.call.1",
            "_INBOX_host.x.call.1",
            "$KV.results.p.default.x.x.0",
        ],
        CallerClass::Host => &[
            "$JS.API.STREAM.MSG.GET.AUDIT",
            "mcp.rpc.default.other.tools.call",
            "mcp.ver.default.other.1_2E0.tools.call",
            "mcp.evt.default.fixture.tool",
            "mcp.gw.default.cancel",
            "mcp.watch.default",
            "_R_.abc",
            "$KV.registry.default.x",
            "$KV.pins.policies",
            "$KV.virtual.default.x",
            "$KV.sessions.default.x",
            "$KV.legacy_tasks.default.x",
            "$KV.task_owners.default.x",
            "$JS.API.STREAM.MSG.GET.KV_sessions",
            "$JS.API.STREAM.CREATE.KV_sessions",
            "$JS.API.CONSUMER.CREATE.KV_sessions",
        ],
        CallerClass::Worker => &[
            "$JS.API.STREAM.MSG.GET.AUDIT",
            "mcp.evt.default.fixture.replica.down",
            "mcp.evt.default.fixture.tool",
            "mcp.gw.default.cancel",
            "mcp.watch.default",
            "_R_.abc",
            "_INBOX_bridge.x.call.1",
            "_INBOX_host.x.call.1",
            "$KV.registry.default.x",
            "$KV.pins.policies",
            "$KV.virtual.default.x",
            "$KV.sessions.default.x",
            "$KV.task_owners.default.x",
            "$JS.API.STREAM.MSG.GET.KV_sessions",
            "$JS.API.CONSUMER.CREATE.KV_sessions",
            "$JS.API.CONSUMER.MSG.NEXT.TASKS.exports-normal",
        ],
        CallerClass::Registry => &[
            "mcp.task.default.shop.normal.o.t.run",
            "$KV.tasks.default.o.t",
            "$JS.API.STREAM.MSG.GET.AUDIT",
            "mcp.rpc.default.fixture.tools.call",
            "mcp.evt.default.fixture.replica.down",
            "mcp.gw.default.cancel",
            "_R_.abc",
            "_INBOX_host.x.call.1",
            "$KV.owners.default.x.0",
            "$KV.nodes.x",
            "$KV.sessions.default.x",
            "$JS.API.STREAM.MSG.GET.KV_sessions",
            "$JS.API.CONSUMER.CREATE.KV_sessions",
            "$KV.results.p.default.x.x.0",
            "$JS.API.STREAM.MSG.GET.KV_results",
        ],
        CallerClass::Cli => &[
            // It speaks to the registry as nobody but the command line.
            "mcp.rpc.default._5Fregistry.registry.put",
            "mcp.ver.default._5Fregistry.1.registry.put",
            "mcp.inst.default._5Fregistry.x.call",
            "$KV.virtual.default.x",
            "$KV.traffic.default.x",
            "$KV.blocks.default._.x",
            "$KV.policy.default",
            "$KV.guardrails.default",
            "mcp.evt.default.fixture.replica.down",
            "mcp.evt.default.fixture.call",
            "mcp.gw.default.cancel",
            "_R_.abc",
            "_INBOX_node.x.call.1",
            "_INBOX_bridge.x.call.1",
            "_INBOX_host.x.call.1",
            "$KV.registry.default.x",
            "$KV.pins.policies",
            "$KV.owners.default.x.0",
            "$KV.sessions.default.x",
            "$JS.API.STREAM.MSG.GET.KV_sessions",
            "$KV.results.p.default.x.x.0",
            "$JS.API.STREAM.MSG.GET.KV_results",
        ],
    }
}

#[tokio::test]
async fn no_role_listens_in_on_calls_or_reads_others_answers() {
    let nats = Nats::start().await.expecting_refusals();
    for role in CallerClass::ALL {
        let mut forger = Forger::enter(&nats.url_of(role)).await.expect("it comes in");
        let others = CallerClass::ALL.into_iter().filter(|other| *other != role);
        let inboxes = others.map(|other| format!("_INBOX_{}.>", other.as_str()));
        for tap in TAPS.into_iter().map(str::to_owned).chain(inboxes) {
            assert!(
                !forger.subscribe(&tap, None).await,
                "{role:?} listens in on {tap}"
            );
            let other_group = forger.subscribe(&tap, Some("other")).await;
            assert!(!other_group, "{role:?} makes a group of its own for {tap}");
        }
        assert_eq!(forger.everything().await, "");
    }
    let mut callout = Forger::enter(&nats.callout_url()).await.expect("it comes in");
    for tap in TAPS.into_iter().chain(["_INBOX_node.>"]) {
        assert!(
            !callout.subscribe(tap, None).await,
            "the callout listens in on {tap}"
        );
    }
}

#[tokio::test]
async fn each_role_publishes_what_is_its_own_work_only() {
    let nats = Nats::start().await.expecting_refusals();
    for role in CallerClass::ALL {
        let mut forger = Forger::enter(&nats.url_of(role)).await.expect("it comes in");
        for subject in NOBODYS.iter().chain(not_of(role)) {
            assert!(
                !forger.publish(subject, None, b"{}").await,
                "{role:?} publishes {subject}"
            );
        }
        // And it may do what it has to: so what was refused was not refused for another reason.
        for subject in subject::probes(role) {
            assert!(
                forger.publish(&subject, None, b"").await,
                "{role:?} cannot publish {subject}"
            );
        }
    }
    let mut callout = Forger::enter(&nats.callout_url()).await.expect("it comes in");
    for subject in NOBODYS.iter().chain(not_of(CallerClass::Host)) {
        assert!(
            !callout.publish(subject, None, b"{}").await,
            "the callout publishes {subject}"
        );
    }
    // What refusals are told by, so that every other test here fails of one.
    eventually("the broker's log tells of them", async || {
        !nats.refused().is_empty()
    })
    .await;
}

/// A request of the internal plane by the tool that counts.
fn forged(caller: &str, call: u64) -> Request {
    Request {
        caller: caller.to_owned(),
        call,
        server: "fixture".to_owned(),
        method: method::TOOLS_CALL.to_owned(),
        name: Some("count".to_owned()),
        principal: Principal::developer(),
        protocol_version: "2026-07-28".to_owned(),
        door: "forged".to_owned(),
        timeout_ms: 10_000,
        trace: None,
        chunked_bytes: 0,
        body: modern_body(
            method::TOOLS_CALL,
            serde_json::json!({ "name": "count", "arguments": {} }),
        )
        .to_string()
        .into_bytes()
        .into(),
    }
}

/// A bridge that was broken into asks for answers where it could not write itself.
#[tokio::test]
async fn a_host_answers_to_nothing_but_the_inbox_of_who_asks() {
    let nats = Nats::start().await.expecting_refusals();
    let probe = Arc::<Probe>::default();
    let serving = connect(&nats, CallerClass::Host).await.expect("connects");
    let _host = fixture::serve(&serving, Arc::clone(&probe), |_| {}).await;
    let victim = nats.bus().await;
    let victims_inbox = |call| Subject::Inbox {
        class: CallerClass::Node,
        instance: Token::encode(victim.instance()),
        call,
    };
    let mut forger = Forger::enter(&nats.url_of(CallerClass::Bridge))
        .await
        .expect("it comes in");
    let subject = subject::call("default", "fixture", method::TOOLS_CALL);
    let encode = |request: &Request| ContentType::MessagePack.encode(request).expect("encodes");
    let own = |call| format!("_INBOX_bridge.forger.call.{call:x}");
    for reply in [
        "$JS.API.STREAM.DELETE.KV_registry",
        "$KV.registry.default.evil",
        "mcp.rpc.default.fixture.tools.call",
        "mcp.ver.default.fixture.1_2E0.tools.call",
        "mcp.inst.default.fixture.x.cancel",
        "mcp.evt.default.fixture.replica.down",
        "mcp.gw.default.cancel",
        "mcp.pub.default.fixture.tools.call.count",
        "$SYS.REQ.USER.AUTH",
        "$SYS._INBOX.x.y",
        "$SRV.PING",
        "_R_.abcdef",
        "_INBOX.x.call.1",
        "_INBOX_bridge.forger.lib.1",
        // Others' inboxes: of the victim's first call, and of whom the forger may only name.
        &victims_inbox(1).to_string(),
        "_INBOX_registry.other.call.1",
        // Its own, of another call than it says.
        &own(2),
    ] {
        forger
            .publish(&subject, Some(reply), &encode(&forged("forger", 1)))
            .await;
    }
    // The host takes its calls in the order of the broker: this one is honest, and counts those before.
    assert!(forger.subscribe("_INBOX_bridge.forger.>", None).await);
    assert!(
        forger
            .publish(&subject, Some(&own(1)), &encode(&forged("forger", 1)))
            .await
    );
    forger.heard("MSG _INBOX_bridge.forger.call.1").await;
    assert_eq!(probe.counted.load(Ordering::SeqCst), 1);
    assert_eq!(serving.refused(), [""; 0], "nothing was even tried");
}

/// The same at the broker: a host that answers wherever it is told to gets nothing through.
#[tokio::test]
async fn a_careless_host_cannot_publish_where_a_forged_reply_leads() {
    let nats = Nats::start().await.expecting_refusals();
    let mut host = Forger::enter(&nats.url_of(CallerClass::Host))
        .await
        .expect("it comes in");
    let mut bridge = Forger::enter(&nats.url_of(CallerClass::Bridge))
        .await
        .expect("it comes in");
    let calls = "mcp.rpc.default.careless.>";
    assert!(host.subscribe(calls, Some(subject::QUEUE_GROUP)).await);
    let mut led = 0;
    for reply in [
        "$JS.API.STREAM.DELETE.KV_registry",
        "$KV.registry.default.evil",
        "$KV.sessions.default.evil",
        "mcp.rpc.default.other.tools.call",
        "mcp.gw.default.cancel",
        "mcp.pub.default.other.tools.call.x",
        "$SYS.REQ.USER.AUTH",
        "$SYS._INBOX.x.y",
        "_R_.abcdef",
        "_INBOX.x.1",
    ] {
        let call = Subject::Rpc {
            tenant: Token::encode("default"),
            server: Token::encode("careless"),
            method: MethodPath::encode(method::TOOLS_CALL),
        };
        // The broker knows some of them for replies that nobody asks for, and refuses those at once.
        if bridge.publish(&call.to_string(), Some(reply), b"x").await {
            host.heard("MSG ").await;
            led += 1;
        }
        assert!(
            !host.publish(reply, None, b"answer").await,
            "a host answers to {reply}"
        );
    }
    assert!(led > 0, "no reply was even forged");
}

/// A consumer delivers to any subject, whoever has made it: what a role writes into its own bucket must not become somebody's word.
#[tokio::test]
async fn what_a_consumer_delivers_elsewhere_is_nobodys_word() {
    let nats = Nats::start().await.expecting_refusals();
    let (bus, hosting) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&hosting, Arc::default(), |_| {}).await;
    let directory = Directory::start(&bus, "default").await.expect("a directory");
    let id = "fixture".parse().expect("an id");
    eventually("it is known", async || directory.snapshot().server(&id).is_some()).await;
    let _registry = Registry::open(&bus).await.expect("the bucket of declarations");
    let mut host = Forger::enter(&nats.url_of(CallerClass::Host))
        .await
        .expect("it comes in");
    assert!(host.subscribe("_INBOX_host.forger.>", None).await);
    let mut ask = async |subject: &str, body: String| {
        assert!(
            host.publish(subject, Some("_INBOX_host.forger.x"), body.as_bytes())
                .await,
            "{subject}"
        );
        host.heard("MSG _INBOX_host.forger.x").await
    };
    let stream = r#"{"name":"KV_nodes","subjects":["$KV.nodes.>"]}"#;
    ask("$JS.API.STREAM.CREATE.KV_nodes", stream.to_owned()).await;
    let lost = format!(r#"{{"client":{{"name":"{}"}}}}"#, hosting.instance());
    ask("$KV.nodes.evil", lost).await;
    let mut tapped = Forger::enter(&nats.url_of(CallerClass::Node))
        .await
        .expect("it comes in");
    assert!(
        tapped
            .subscribe("mcp.rpc.default.other.>", Some(subject::QUEUE_GROUP))
            .await
    );
    for (deliver, group) in [
        ("$SYS.ACCOUNT.CORE.DISCONNECT", ""),
        ("$KV.registry.default.evil", ""),
        ("mcp.gw.default.cancel", ""),
        ("mcp.rpc.default.other.tools.call", r#","deliver_group":"mcp""#),
    ] {
        let config = format!(
            r#"{{"stream_name":"KV_nodes","config":{{"deliver_subject":"{deliver}"{group},"ack_policy":"none","deliver_policy":"all"}}}}"#
        );
        let made = ask("$JS.API.CONSUMER.CREATE.KV_nodes", config).await;
        assert!(made.contains("\"deliver_subject\""), "{made}");
    }
    // The broker has delivered what it delivers; and the end of a connection that is true is still heard.
    bus.round_trip().await.expect("the broker answers");
    assert!(
        directory.snapshot().server(&id).is_some(),
        "a forged end was believed"
    );
    let info = ask_of(&nats, "$JS.API.STREAM.INFO.KV_registry").await;
    assert!(info.contains("\"messages\":0"), "{info}");
    assert_eq!(tapped.everything().await, "");
}

/// What JetStream says to the registry.
async fn ask_of(nats: &Nats, subject: &str) -> String {
    let mut registry = Forger::enter(&nats.url_of(CallerClass::Registry))
        .await
        .expect("it comes in");
    assert!(registry.subscribe("_INBOX_registry.forger.>", None).await);
    assert!(
        registry
            .publish(subject, Some("_INBOX_registry.forger.x"), b"")
            .await
    );
    registry.heard("\"messages\"").await
}

async fn connect(nats: &Nats, role: CallerClass) -> Result<Bus, BusError> {
    let options = BusOptions {
        url: nats.url_of(role),
        credentials: None,
        class: role,
        place: bus_schema::card::Place::default(),
    };
    Bus::connect(options).await
}

#[tokio::test]
async fn every_role_connects_and_is_told_apart() {
    let nats = Nats::start().await;
    for role in CallerClass::ALL {
        let bus = connect(&nats, role).await.expect("connects");
        assert_eq!((bus.role(), bus.refused()), (Some(role), Vec::new()), "{role:?}");
    }
}

#[tokio::test]
async fn a_process_in_the_wrong_role_says_so_when_it_starts() {
    let nats = Nats::start().await;
    for (user, does) in [
        (CallerClass::Host, CallerClass::Bridge),
        (CallerClass::Bridge, CallerClass::Host),
        (CallerClass::Cli, CallerClass::Registry),
        (CallerClass::Host, CallerClass::Node),
    ] {
        let options = BusOptions {
            url: nats.url_of(user),
            credentials: None,
            class: does,
            place: bus_schema::card::Place::default(),
        };
        let error = Bus::connect(options)
            .await
            .err()
            .expect("it is the wrong one")
            .to_string();
        for word in [user.as_str(), does.as_str(), "--data-dir"] {
            assert!(error.contains(word), "no {word}: {error}");
        }
        assert!(!error.contains(nats.password_of(user)), "{error}");
    }
}

/// An operator's own configuration may forget a grant.
#[tokio::test]
async fn a_process_whose_user_lacks_a_grant_says_which_when_it_starts() {
    let nats = Nats::start().await;
    // The developer is a user as anybody's: nothing of ours is in its account.
    let options = BusOptions {
        url: nats.url().to_owned(),
        credentials: None,
        class: CallerClass::Bridge,
        place: bus_schema::card::Place::default(),
    };
    let error = within("a refusal", Bus::connect(options))
        .await
        .err()
        .expect("refused")
        .to_string();
    assert!(
        error.contains("refuses the credentials") && error.contains("mcp."),
        "{error}"
    );
}
