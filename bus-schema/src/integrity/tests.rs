//! Tests of pins: what becomes of tools that come, change, go and are decided on.

use super::*;

const NOW: &str = "2026-08-01T00:00:00Z";

fn tool(name: &str, description: &str) -> Tool {
    let raw = serde_json::json!({ "name": name, "description": description }).to_string();
    Tool::read(serde_json::from_str(&raw).unwrap()).unwrap()
}

fn offered(tools: &[(&str, &str)]) -> Offered {
    Offered {
        tools: tools.iter().map(|(name, says)| tool(name, says)).collect(),
    }
}

fn take(pins: &mut Pins, tools: &[(&str, &str)], policy: Policy) -> Vec<(String, What)> {
    let known = if pins.tools.is_empty() {
        Known::No
    } else {
        Known::Yes
    };
    pins.take(known, &[offered(tools)], policy, NOW)
}

fn decide(
    pins: &mut Pins,
    name: Option<&str>,
    digest: Option<String>,
    decision: Decision,
) -> Result<Vec<String>, Undecided> {
    let wish = Decide {
        server: "a".parse().unwrap(),
        tool: name.map(str::to_owned),
        digest,
    };
    pins.decide(&wish, decision, "ann", NOW)
}

#[test]
fn a_digest_is_of_what_is_said_and_not_of_its_spelling() {
    let of = |text: &str| Tool::read(serde_json::from_str(text).unwrap()).unwrap().digest;
    let one = of(r#"{"name":"a","inputSchema":{"type":"object","maximum":10}}"#);
    assert_eq!(
        one,
        of("{ \"inputSchema\" : {\"maximum\":1.0e1,\n\"type\":\"\\u006fbject\"},\"name\":\"\\u0061\"}")
    );
    assert_ne!(
        one,
        of(r#"{"name":"a","inputSchema":{"type":"object","maximum":11}}"#)
    );
    assert_ne!(
        one,
        of(r#"{"name":"a","inputSchema":{"type":"object","maximum":"10"}}"#)
    );
    assert!(one.starts_with("sha256:") && one.len() == 71);
    assert_eq!(Tool::read(serde_json::from_str("{}").unwrap()), None);
    assert_eq!(Tool::read(serde_json::from_str("7").unwrap()), None);
}

#[test]
fn the_first_tools_of_a_server_are_approved_and_a_change_waits() {
    for policy in [Policy::Warn, Policy::Quarantine] {
        let mut pins = Pins::default();
        let all = [("a", "Adds."), ("b", "")];
        assert_eq!(
            take(&mut pins, &all, policy),
            [("a".to_owned(), What::Pinned), ("b".to_owned(), What::Pinned)]
        );
        assert_eq!(take(&mut pins, &all, policy), []);
        let changed = [("a", "Adds, and sends."), ("b", "")];
        assert_eq!(
            take(&mut pins, &changed, policy),
            [("a".to_owned(), What::Changed)]
        );
        assert_eq!(take(&mut pins, &changed, policy), []);
        let now = tool("a", "Adds, and sends.").digest;
        let standing = pins.standing("a", &now);
        assert_eq!(
            (standing, pins.tools["a"].now()),
            (Standing::Changed, Standing::Changed)
        );
        assert_eq!(standing.is_withheld(policy), policy == Policy::Quarantine);
        // It is as it was again.
        assert_eq!(take(&mut pins, &all, policy), [("a".to_owned(), What::Restored)]);
        assert_eq!(pins.tools["a"].now(), Standing::Approved);
    }
    assert_eq!(take(&mut Pins::default(), &[("a", "")], Policy::Off), []);
}

#[test]
fn a_new_tool_is_approved_where_changes_are_only_told() {
    let mut pins = Pins::default();
    take(&mut pins, &[("a", "")], Policy::Quarantine);
    let both = [("a", ""), ("b", "New.")];
    assert_eq!(
        take(&mut pins, &both, Policy::Quarantine),
        [("b".to_owned(), What::New)]
    );
    assert_eq!(pins.tools["b"].now(), Standing::New);
    assert!(Standing::New.is_withheld(Policy::Quarantine) && !Standing::New.is_withheld(Policy::Warn));
    assert_eq!(
        take(&mut pins, &both, Policy::Warn),
        [("b".to_owned(), What::Pinned)]
    );
    assert_eq!(pins.standing("c", "sha256:0"), Standing::New);
}

#[test]
fn a_tool_that_goes_and_comes_back_otherwise_has_changed() {
    let mut pins = Pins::default();
    take(&mut pins, &[("a", "Adds."), ("b", "")], Policy::Quarantine);
    assert_eq!(take(&mut pins, &[("b", "")], Policy::Quarantine), []);
    assert_eq!(
        take(&mut pins, &[("a", "Sends."), ("b", "")], Policy::Quarantine),
        [("a".to_owned(), What::Changed)]
    );
    // A tool that was never approved leaves nothing behind.
    take(&mut pins, &[("x", "")], Policy::Quarantine);
    take(&mut pins, &[("b", "")], Policy::Quarantine);
    assert!(!pins.tools.contains_key("x") && pins.tools["a"].pending.is_none());
}

#[test]
fn an_operator_decides_over_what_was_seen() {
    let mut pins = Pins::default();
    take(&mut pins, &[("a", "1"), ("b", "1")], Policy::Quarantine);
    take(&mut pins, &[("a", "2"), ("b", "2")], Policy::Quarantine);
    let seen = Some(tool("a", "2").digest);
    take(&mut pins, &[("a", "3"), ("b", "2")], Policy::Quarantine);
    assert_eq!(
        decide(&mut pins, Some("a"), seen, Decision::Approve),
        Err(Undecided::Otherwise)
    );
    let seen = Some(tool("a", "3").digest);
    assert_eq!(
        decide(&mut pins, Some("a"), seen.clone(), Decision::Approve),
        Ok(vec!["a".to_owned()])
    );
    assert_eq!(pins.tools["a"].now(), Standing::Approved);
    assert_eq!(
        pins.tools["a"].approved.as_ref().unwrap().by.as_deref(),
        Some("ann")
    );
    assert_eq!(
        decide(&mut pins, Some("a"), seen.clone(), Decision::Approve),
        Ok(Vec::new())
    );
    assert_eq!(
        decide(&mut pins, Some("a"), seen, Decision::Reject),
        Err(Undecided::NothingPending)
    );
    assert_eq!(
        decide(&mut pins, Some("c"), None, Decision::Approve),
        Err(Undecided::Unknown)
    );
    assert_eq!(
        decide(&mut pins, None, None, Decision::Reject),
        Ok(vec!["b".to_owned()])
    );
    assert_eq!(pins.tools["b"].now(), Standing::Rejected);
    assert!(Standing::Rejected.is_withheld(Policy::Warn));
    // Approved later, it is rejected no more.
    assert_eq!(
        decide(&mut pins, None, None, Decision::Approve),
        Ok(vec!["b".to_owned()])
    );
    assert_eq!(pins.tools["b"].now(), Standing::Approved);
    assert!(pins.tools["b"].rejected.is_empty());
}

#[test]
fn a_rejected_definition_stays_rejected_when_others_come_in_between() {
    let mut pins = Pins::default();
    take(&mut pins, &[("a", "1")], Policy::Warn);
    take(&mut pins, &[("a", "2")], Policy::Warn);
    decide(&mut pins, Some("a"), None, Decision::Reject).unwrap();
    take(&mut pins, &[("a", "3")], Policy::Warn);
    assert_eq!(pins.tools["a"].now(), Standing::Changed);
    take(&mut pins, &[("a", "2")], Policy::Warn);
    assert_eq!(pins.tools["a"].now(), Standing::Rejected);
}

#[test]
fn replicas_that_disagree_are_judged_together() {
    let (old, new) = (offered(&[("a", "1")]), offered(&[("a", "2")]));
    let mut pins = Pins::default();
    pins.take(Known::No, std::slice::from_ref(&old), Policy::Quarantine, NOW);
    let both = [old.clone(), new.clone()];
    assert_eq!(
        pins.take(Known::Yes, &both, Policy::Quarantine, NOW),
        [("a".to_owned(), What::Changed)]
    );
    assert_eq!(pins.take(Known::Yes, &both, Policy::Quarantine, NOW), []);
    decide(&mut pins, Some("a"), None, Decision::Approve).unwrap();
    // Now the older replica is the one that is not as approved.
    assert_eq!(
        pins.take(Known::Yes, &both, Policy::Quarantine, NOW),
        [("a".to_owned(), What::Changed)]
    );
    assert_eq!(
        pins.take(Known::Yes, &[new], Policy::Quarantine, NOW),
        [("a".to_owned(), What::Restored)]
    );
}

#[test]
fn a_tool_that_is_defined_twice_is_approved_once() {
    let mut pins = Pins::default();
    take(
        &mut pins,
        &[("a", "harmless"), ("a", "poison")],
        Policy::Quarantine,
    );
    assert_eq!(
        pins.standing("a", &tool("a", "harmless").digest),
        Standing::Approved
    );
    assert_eq!(pins.standing("a", &tool("a", "poison").digest), Standing::Changed);
    assert_eq!(pins.tools["a"].now(), Standing::Changed);
}

#[test]
fn a_record_has_a_bound_and_what_comes_beyond_is_not_approved() {
    let hidden = "\u{1}\u{200B}\u{202E}".repeat(300);
    for (name, says) in [("t", String::new()), ("\u{1}\u{1}\u{1}\u{1}\u{1}", hidden)] {
        let mut pins = Pins::default();
        let names: Vec<String> = (0..2_000).map(|n| format!("{name}{n}")).collect();
        let mut before = String::new();
        // The worst that can be: every tool has changed, every flag is set, and as much is rejected as is remembered.
        for round in 0..6 {
            let says = format!("{round}{says}");
            let all: Vec<_> = names.iter().map(|name| (name.as_str(), says.as_str())).collect();
            take(&mut pins, &all, Policy::Quarantine);
            decide(&mut pins, None, None, Decision::Reject).unwrap();
            before = says;
        }
        let record = serde_json::to_vec(&Record::Pins(pins.clone())).unwrap();
        assert!(record.len() < 480 * 1024, "{}", record.len());
        assert_eq!(pins.tools[&names[0]].now(), Standing::Rejected);
        let last = &names[1_999];
        assert_eq!(pins.standing(last, &tool(last, &before).digest), Standing::New);
        assert!(pins.tools.len() > 600, "{}", pins.tools.len());
    }
}

#[test]
fn a_record_reads_as_it_was_written() {
    let mut pins = Pins::default();
    take(&mut pins, &[("a", "x\u{200B}")], Policy::Warn);
    take(&mut pins, &[("a", "y\u{200B}")], Policy::Warn);
    let policies = Policies {
        policy: Policy::Quarantine,
        servers: BTreeMap::from([("a".parse().unwrap(), Policy::Off)]),
        tenants: BTreeMap::from([("acme".to_owned(), PoliciesOfTenant::default())]),
    };
    for record in [Record::Pins(pins), Record::Policies(policies)] {
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}

#[test]
fn a_tenants_own_policies_come_before_the_platforms_and_hold_for_nobody_else() {
    let (a, b): (ServerId, ServerId) = ("a".parse().unwrap(), "b".parse().unwrap());
    let only = |server: &ServerId, policy| BTreeMap::from([(server.clone(), policy)]);
    let policies = Policies {
        policy: Policy::Warn,
        servers: only(&a, Policy::Off),
        tenants: BTreeMap::from([
            (
                "acme".to_owned(),
                PoliciesOfTenant {
                    policy: Some(Policy::Quarantine),
                    servers: only(&b, Policy::Warn),
                },
            ),
            (
                "other".to_owned(),
                PoliciesOfTenant {
                    policy: None,
                    servers: only(&b, Policy::Quarantine),
                },
            ),
        ]),
    };
    for (tenant, of_a, of_b) in [
        ("default", Policy::Off, Policy::Warn),
        ("acme", Policy::Quarantine, Policy::Warn),
        ("other", Policy::Warn, Policy::Quarantine),
        ("unheard-of", Policy::Warn, Policy::Warn),
    ] {
        let found = (policies.of(tenant, &a), policies.of(tenant, &b));
        assert_eq!(found, (of_a, of_b), "{tenant}");
    }
}
