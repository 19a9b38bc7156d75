//! What operators change is decided by the registry itself, whoever asks it and by whichever way.

use bus_schema::{
    Principal,
    audit::Kind,
    block::{Release, Stop},
    integrity::{Decide, Decision},
    kept::{Rollback, Set},
    registry::{Declaration, Over, Put, Refusal, Remove},
    subject::CallerClass,
    traffic::{self, Traffic},
    virtual_server::{Define, Undefine, VirtualServer},
};
use runtime::{
    Bus,
    audit::{Filter, Trail},
    guardrails::Rails,
    policies::Rules,
    registry::RegistryError,
};
use serde_json::{Value, json};
use tests::{
    keeper::{self, OPERATOR},
    nats::Nats,
    platform::Platform,
    program,
    recorded::Recorded,
    within,
};

/// What every wish is about, in the order of [`wishes`].
const WISHES: [&str; 12] = [
    "servers:write",
    "servers:write",
    "tools:write",
    "traffic:write",
    "traffic:write",
    "virtual-servers:write",
    "virtual-servers:write",
    "blocks:write",
    "blocks:write",
    "policy:write",
    "guardrails:write",
    "guardrails:write",
];

fn read<T: serde::de::DeserializeOwned>(json: &Value) -> T {
    serde_json::from_value(json.clone()).expect("it can be read")
}

fn set<D: serde::de::DeserializeOwned>(document: &Value) -> Set<D> {
    Set {
        document: read(document),
        over: None,
        comment: String::new(),
    }
}

fn of_issuer(subject: &str, roles: &[&str]) -> Principal {
    Principal {
        issuer: Some("https://id.example".to_owned()),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Principal::new(subject, "default")
    }
}

fn stop(subject: &str) -> Stop {
    Stop {
        subject: subject.to_owned(),
        issuer: None,
        for_secs: Some(60),
        reason: None,
    }
}

fn release(subject: &str) -> Release {
    Release {
        subject: subject.to_owned(),
        issuer: None,
    }
}

/// Wishes for everything that can be changed, one after the other; says how each has ended.
async fn wishes(bus: &Bus, by: &Principal) -> Vec<Result<(), RegistryError>> {
    let id: bus_schema::ServerId = "a".parse().expect("an id");
    let put = Put {
        declaration: Declaration::new(id.clone(), "https://a.example"),
        over: Over::Anything,
    };
    let remove = Remove {
        id: id.clone(),
        revision: None,
    };
    let decide = Decide {
        server: id.clone(),
        tool: None,
        digest: None,
    };
    let rule: Traffic = read(&json!({ "id": "a", "versions": { "1": 1 } }));
    let rule = traffic::Set {
        rule,
        over: Over::Anything,
    };
    let definition: VirtualServer = read(&json!({ "id": "v", "items": [{ "server": "a", "tools": ["*"] }] }));
    let define = Define {
        definition,
        over: Over::Anything,
    };
    let undefine = Undefine {
        id: "v".parse().expect("an id"),
        revision: None,
        version: None,
    };
    let back = Rollback {
        to: 1,
        over: None,
        comment: String::new(),
    };
    let open = json!({ "default": "allow", "scopes": { "x": ["x__*"] } });
    vec![
        bus.register(by, &put).await.map(drop),
        bus.unregister(by, &remove).await.map(drop),
        bus.decide(by, Decision::Approve, &decide).await.map(drop),
        bus.set_traffic(by, &rule).await.map(drop),
        bus.clear_traffic(by, &remove).await,
        bus.define(by, &define).await.map(drop),
        bus.undefine(by, &undefine).await,
        bus.block(by, &stop("mallory")).await.map(drop),
        bus.unblock(by, &release("mallory")).await,
        bus.set_document::<Rules>(by, &set(&open)).await.map(drop),
        bus.set_document::<Rails>(by, &set(&json!({ "steps": [] })))
            .await
            .map(drop),
        bus.roll_back::<Rails>(by, &back).await.map(drop),
    ]
}

fn rule_of(result: &Result<(), RegistryError>) -> Option<&str> {
    match result {
        Err(RegistryError::Refused {
            refusal: Some(Refusal::Forbidden { rule, .. }),
            ..
        }) => Some(rule),
        _ => None,
    }
}

#[tokio::test]
async fn every_wish_is_decided_by_the_registry_and_each_refusal_is_on_record() {
    let nats = Nats::start().await;
    let _registry = keeper::registry(&nats.bus_as(CallerClass::Registry).await, None).await;
    let reading = nats.bus_as(CallerClass::Cli).await;
    let mut trail = Trail::open(&reading, Filter::default())
        .await
        .expect("it may listen");
    let bus = nats.bus_as(CallerClass::Bridge).await;
    // A door that forgets to ask, or was broken into, gets no further than the caller that it names.
    let refused = within("answers", wishes(&bus, &of_issuer("eve", &["employee"]))).await;
    for (action, result) in WISHES.iter().zip(&refused) {
        assert_eq!(rule_of(result), Some("hidden"), "{action}: {result:?}");
    }
    let mut recorded = Vec::new();
    while recorded.len() < WISHES.len() {
        let record = within("a record", trail.next()).await.expect("a record");
        let who = record.principal.expect("who it was");
        assert_eq!(
            (record.kind, record.rule.as_str(), who.subject.as_str()),
            (Kind::Admin, "hidden", "eve")
        );
        recorded.push(record.method.expect("what it was about"));
    }
    assert_eq!(recorded, WISHES);
    // Those who are let do the very same.
    for by in [
        of_issuer("op", &[OPERATOR]),
        Principal::developer(),
        Principal::command_line("ann", "default"),
    ] {
        for (action, result) in WISHES.iter().zip(wishes(&bus, &by).await) {
            // Nothing was seen of tools that nobody serves.
            assert!(result.is_ok() || *action == "tools:write", "{action}: {result:?}");
            assert_eq!(rule_of(&result), None, "{action}");
        }
    }
}

#[tokio::test]
async fn the_command_line_is_nobody_else_to_the_registry() {
    let nats = Nats::start().await;
    let _registry = keeper::registry(&nats.bus_as(CallerClass::Registry).await, None).await;
    let bus = nats.bus_as(CallerClass::Cli).await;
    let mut trail = Trail::open(&bus, Filter::default()).await.expect("it may listen");
    let claimed = bus.block(&of_issuer("op", &[OPERATOR]), &stop("mallory")).await;
    let Err(RegistryError::Refused { message, .. }) = claimed else {
        panic!("it was believed: {claimed:?}");
    };
    assert!(message.contains("cli:<user>"), "{message}");
    let record = within("a record", trail.next()).await.expect("a record");
    assert_eq!(
        (record.kind, record.rule.as_str(), record.principal),
        (Kind::Forgery, "not_the_command_line", None)
    );
    let me = Principal::command_line("ann", "default");
    let block = bus.block(&me, &stop("mallory")).await.expect("blocked");
    assert_eq!(block.by, "cli:ann");
}

#[tokio::test]
async fn a_policy_under_which_its_author_is_locked_out_is_not_taken() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let _registry = keeper::registry(&bus, None).await;
    let shut = json!({ "default": "allow", "rules": [
        { "name": "hands off", "effect": "deny", "admin": ["policy:*"], "when": "'cli' in principal.roles" },
    ] });
    let me = Principal::command_line("ann", "default");
    let refused = bus.set_document::<Rules>(&me, &set(&shut)).await;
    let Err(RegistryError::Refused { message, refusal }) = refused else {
        panic!("it was taken: {refused:?}");
    };
    assert!(
        message.contains("could not write the next one") && message.contains("hands off"),
        "{message}"
    );
    assert!(matches!(refusal, Some(Refusal::Bad { .. })), "{refusal:?}");
    // Somebody whom it leaves a way back may write it.
    bus.set_document::<Rules>(&of_issuer("op", &[OPERATOR]), &set(&shut))
        .await
        .expect("taken");
}

#[tokio::test]
async fn a_policy_says_what_the_command_line_may_do() {
    let platform = Platform::start("", &["registry"]).await;
    let recorded = Recorded::start(&platform).await;
    let (url, folder) = (
        platform.node.nats_url().expect("a NATS of its own").to_owned(),
        platform.folder().join("data").display().to_string(),
    );
    let run = async |words: &[&str]| {
        let joining = ["--nats", &url, "--data-dir", &folder];
        let words: Vec<&str> = words.iter().chain(&joining).copied().collect();
        within("it ends", program::run(&words)).await
    };
    // What it did before, it still does.
    let block = ["block", "mallory", "--for", "1h"];
    let share = ["traffic", "set", "a", "--share", "1=1"];
    let define = ["virtual", "add", "--id", "v", "--tool", "a.*"];
    let add = ["servers", "add", "a", "--url", "https://a.example"];
    for words in [&block[..], &share, &define] {
        let (code, _, log) = run(words).await;
        assert_eq!(code, 0, "{words:?}: {log}");
    }
    let rules = json!({ "default": "allow", "rules": [
        { "name": "by the page only", "effect": "deny", "when": "'cli' in principal.roles",
          "admin": ["blocks:*", "traffic:*", "virtual-servers:*", "guardrails:*"] },
    ] });
    let bus = platform.node.bus();
    bus.set_document::<Rules>(&Principal::developer(), &set(&rules))
        .await
        .expect("taken");
    for words in [
        &["unblock", "mallory"][..],
        &block,
        &["traffic", "clear", "a"],
        &["virtual", "remove", "v"],
        &["guardrails", "rollback", "1"],
    ] {
        let (code, _, log) = run(words).await;
        assert!(
            code == 1 && log.contains("the policy does not allow this") && log.contains("by the page only"),
            "{words:?}: {code} {log}"
        );
    }
    recorded
        .comes("a record of what was refused", |record| {
            let who = record.principal.as_ref().map(|who| who.subject.as_str());
            record.kind == Kind::Admin
                && record.rule == "by the page only"
                && record.method.as_deref() == Some("virtual-servers:write")
                && who.is_some_and(|who| who.starts_with("cli:"))
        })
        .await;
    // What the policy leaves to it, it may; and the platform's own page goes on.
    let (_, _, log) = run(&add).await;
    assert!(!log.contains("policy"), "{log}");
    let page = reqwest::Client::new()
        .delete(platform.url("/blocks?subject=mallory"))
        .send();
    assert_eq!(within("an answer", page).await.expect("an answer").status(), 204);
    recorded.stop().await;
    platform.stop().await;
}
