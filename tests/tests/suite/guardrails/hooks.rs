//! A team's own actor says what becomes of a call, over plain NATS; and nobody says so in its place.

use serde_json::{Value, json};
use tests::{actor::Actor, forger::Forger, issuer::Issuer, within};

use super::{World, told};

const SUBJECT: &str = "mcp.hook.default.desk";

fn hook(more: Value) -> Value {
    let mut step = json!({ "name": "ask-desk", "check": "hook", "hook": "desk", "for": ["clerk__say"], "timeout_ms": 20_000 });
    step.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    json!([step])
}

impl World {
    /// The actor, as whoever comes from this machine.
    async fn actor(&self, answer: impl Fn(&Value) -> Option<String> + Send + 'static) -> Actor {
        let url = self.platform.node.nats_url().expect("a NATS of its own");
        Actor::on(url, json!({}), SUBJECT, answer).await
    }
}

#[tokio::test]
async fn an_actor_allows_changes_and_denies_calls() {
    let world = World::start("").await;
    world.keep(hook(json!({ "on": ["arguments", "results"] }))).await;
    let mut actor = world
        .actor(|asked| {
            let text = asked["arguments"]["text"].as_str().unwrap_or_default();
            let answer = match (asked["on"].as_str(), text) {
                (Some("arguments"), "no") => json!({ "decision": "deny", "reason": "not on Mondays" }),
                (Some("arguments"), "change") => json!({ "decision": "change", "arguments": { "text": "changed" } }),
                (Some("results"), "seal") => json!({ "decision": "change", "result": { "resultType": "complete", "content": [{ "type": "text", "text": "sealed" }] } }),
                (Some("results"), "keep") => json!({ "decision": "deny" }),
                _ => json!({ "decision": "allow" }),
            };
            Some(answer.to_string())
        })
        .await;
    let say = async |text: &str| world.client().call("say", json!({ "text": text })).await;
    assert_eq!(told(&say("hello").await), "hello");
    let asked = actor.question().await;
    assert_eq!(
        (
            &asked["server"],
            &asked["name"],
            &asked["method"],
            &asked["arguments"]
        ),
        (
            &json!("clerk"),
            &json!("say"),
            &json!("tools/call"),
            &json!({ "text": "hello" })
        ),
        "{asked}"
    );
    assert_eq!(
        (&asked["principal"]["subject"], &asked["principal"]["tenant"]),
        (&json!("developer"), &json!("default"))
    );
    let asked = actor.question().await;
    assert_eq!(
        (&asked["on"], &asked["result"]["content"][0]["text"]),
        (&json!("results"), &json!("hello")),
        "{asked}"
    );
    let _ = world.clerk.take();
    let denied = say("no").await;
    assert_eq!(denied["result"]["isError"], true);
    assert!(
        told(&denied).contains("`ask-desk` has denied this: not on Mondays"),
        "{denied}"
    );
    assert!(world.clerk.take().is_empty());
    assert_eq!(told(&say("change").await), "changed");
    assert_eq!(told(&say("seal").await), "sealed");
    let kept = say("keep").await;
    assert!(told(&kept).contains("its result is kept back"), "{kept}");
    // Nobody is asked about what the step is not for.
    while actor.asked.try_recv().is_ok() {}
    world.client().call("report", json!({ "n": 1 })).await;
    assert!(actor.asked.try_recv().is_err());
    world.platform.stop().await;
}

#[tokio::test]
async fn what_an_actor_changes_goes_through_the_other_steps_again() {
    let world = World::start("").await;
    let mut steps = hook(json!({}));
    let more = json!([
        { "name": "fit", "check": "schema" },
        { "name": "cards", "check": "sensitive", "find": ["card"], "on": ["arguments"] },
    ]);
    steps
        .as_array_mut()
        .expect("a list")
        .extend(more.as_array().expect("a list").clone());
    world.keep(steps).await;
    let mut actor = world
        .actor(|asked| {
            let changed = match asked["arguments"]["text"].as_str() {
                Some("wrong") => json!({ "text": 7 }),
                _ => json!({ "text": "4111 1111 1111 1111" }),
            };
            Some(json!({ "decision": "change", "arguments": changed }).to_string())
        })
        .await;
    let wrong = world.client().call("say", json!({ "text": "wrong" })).await;
    assert!(told(&wrong).contains("at `/text`"), "{wrong}");
    let card = world
        .client()
        .call("say", json!({ "text": "4111111111111111" }))
        .await;
    assert_eq!(told(&card), "[redacted card]");
    // Nor is an actor shown what the steps before it take out.
    let _ = actor.question().await;
    assert_eq!(actor.question().await["arguments"]["text"], "[redacted card]");
    world.platform.stop().await;
}

#[tokio::test]
async fn an_actor_that_is_dead_late_or_mad_closes_or_opens_as_configured() {
    let world = World::start("").await;
    let say = async || world.client().call("say", json!({ "text": "x" })).await;
    for (on_failure, goes) in [("deny", false), ("allow", true)] {
        world.keep(hook(json!({ "on_failure": on_failure }))).await;
        let expect = |what: &str, answer: &Value| {
            assert_eq!(told(answer) == "x", goes, "{what}: {answer}");
            assert!(
                goes || told(answer).contains("hook does not answer"),
                "{what}: {answer}"
            );
        };
        expect("nobody is there", &say().await);
        for answer in [
            "",
            "allow",
            r#"{"decision":"perhaps"}"#,
            r#"{"decision":"change","arguments":7}"#,
        ] {
            let actor = world.actor(move |_| Some(answer.to_owned())).await;
            expect(answer, &say().await);
            drop(actor);
        }
        world
            .keep(hook(json!({ "on_failure": on_failure, "timeout_ms": 50 })))
            .await;
        let _silent = world.actor(|_| None).await;
        expect("it says nothing", &say().await);
    }
    world.platform.stop().await;
}

/// Whoever could answer in an actor's place would allow what it denies.
#[tokio::test]
async fn nobody_else_asks_hears_or_answers() {
    let world = World::start("").await;
    world.keep(hook(json!({}))).await;
    let url = world
        .platform
        .node
        .nats_url()
        .expect("a NATS of its own")
        .to_owned();
    let mut actor = world
        .actor(|_| Some(json!({ "decision": "deny" }).to_string()))
        .await;
    let mut plain = Forger::enter(&url).await.expect("it comes in");
    for subject in [
        SUBJECT,
        "mcp.hook.default.other",
        "_R_.x",
        "_INBOX_node.x",
        "_INBOX_node.0.call.0",
    ] {
        assert!(
            !plain.publish(subject, Some("_INBOX.me"), b"{}").await,
            "{subject}"
        );
    }
    for subject in ["_R_.>", "mcp.hook.>", "mcp.hook.acme.>", "_INBOX_node.>"] {
        assert!(!plain.subscribe(subject, None).await, "{subject}");
    }
    let denied = world.client().call("say", json!({ "text": "x" })).await;
    assert!(told(&denied).contains("denied"), "{denied}");
    let _ = actor.question().await;
    assert!(actor.asked.try_recv().is_err(), "somebody else has asked");
    world.platform.stop().await;
}

/// With authentication an actor comes in with a token like everybody, and hears of calls only if a policy says so.
#[tokio::test]
async fn only_those_listen_whom_a_policy_opens_the_hook() {
    let issuer = Issuer::start().await;
    let policy = "[policy]\ndefault = \"allow\"\n[[policy.rules]]\nname = \"desk\"\neffect = \"allow\"\nadmin = [\"hooks:desk\"]\nscopes = [\"desk:answer\"]\n";
    let guardrails = "[[guardrails.steps]]\nname = \"ask-desk\"\ncheck = \"hook\"\nhook = \"desk\"\nfor = [\"clerk__say\"]\ntimeout_ms = 20000\n";
    let world = World::start(&(issuer.section("") + policy + guardrails)).await;
    let url = world
        .platform
        .node
        .nats_url()
        .expect("a NATS of its own")
        .to_owned();
    let token = |scope: &str| issuer.token("ann", &world.platform.url(""), json!({ "scope": scope }));
    let mut other = Forger::enter_by(&url, &token("products:read"))
        .await
        .expect("it comes in");
    assert!(!other.subscribe(SUBJECT, None).await);
    let mut team = Forger::enter_by(&url, &token("desk:answer"))
        .await
        .expect("it comes in");
    assert!(!team.subscribe("mcp.hook.default.other", None).await);
    assert!(!team.publish(SUBJECT, Some("_INBOX.x"), b"{}").await);
    let options = json!({ "auth_token": token("desk:answer") });
    let mut actor = Actor::on(&url, options, SUBJECT, |_| {
        Some(json!({ "decision": "deny", "reason": "closed" }).to_string())
    })
    .await;
    let client = world
        .client()
        .with_token(&issuer.token("bob", &world.platform.url(""), json!({})));
    let denied = within("an answer", client.call("say", json!({ "text": "x" }))).await;
    assert!(told(&denied).contains("closed"), "{denied}");
    assert_eq!(actor.question().await["principal"]["subject"], "bob");
    world.platform.stop().await;
}
