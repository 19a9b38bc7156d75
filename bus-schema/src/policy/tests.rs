//! What policies promise, by examples and by properties.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn document(json: Value) -> Document {
    serde_json::from_value(json).expect("a document")
}

fn policy(json: Value) -> Policy {
    Policy::compile(&document(json))
        .expect("a policy")
        .with_operator("operator")
}

fn assistant() -> Policy {
    policy(json!({
        "default": "deny",
        "roles": {
            "employee": { "scopes": ["knowledge:read"] },
            "manager": { "includes": ["employee"], "scopes": ["actions:read"] },
            "admin": { "includes": ["manager"], "scopes": ["knowledge:write", "actions:write"] },
        },
        "scopes": {
            "knowledge:read": {
                "tools": ["knowledge__search_*", "knowledge__get"],
                "prompts": ["knowledge__summary"],
                "resources": ["knowledge__docs://open/*"],
            },
            "knowledge:write": ["knowledge__*"],
            "actions:read": ["actions__list_*"],
            "actions:write": ["actions__*"],
            "crm:refresh": { "methods": ["crm__acme/*"], "admin": ["servers:read"] },
        },
        "rules": [
            { "name": "no-drop", "effect": "deny", "tools": ["*__drop*"] },
            { "name": "secret", "effect": "hide", "tools": ["knowledge__secret_*"], "when": "!('admin' in principal.roles)" },
            { "name": "small-payments", "effect": "allow", "tools": ["pay__send"], "when": "arguments.amount <= 100" },
            { "name": "large-payments", "effect": "deny", "tools": ["pay__send"], "scopes": ["pay:large"], "when": "arguments.amount > 50" },
            { "name": "quiet-hours", "effect": "deny", "tools": ["actions__*"], "when": "time.hour < 6 && annotations.destructiveHint" },
        ],
    }))
}

fn who(roles: &[&str], scopes: &[&str]) -> Principal {
    let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    Principal {
        roles: texts(roles),
        scopes: texts(scopes),
        ..Principal::developer()
    }
}

fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_435_200)
}

fn needs(scopes: &[&str]) -> Decision {
    Decision::NeedsScopes(scopes.iter().map(|one| (*one).to_owned()).collect())
}

fn denied(rule: &str) -> Decision {
    Decision::Denied {
        rule: rule.to_owned(),
    }
}

#[test]
fn the_enterprise_assistant_has_what_its_roles_say() {
    let policy = assistant();
    let allow = || Decision::Allow;
    for (roles, server, tool, expected) in [
        (&["employee"][..], "knowledge", "search_text", allow()),
        (&["employee"], "knowledge", "get", allow()),
        (&["employee"], "knowledge", "put", needs(&["knowledge:write"])),
        (&["employee"], "actions", "list_all", needs(&["actions:read"])),
        (&["manager"], "actions", "list_all", allow()),
        (&["manager"], "knowledge", "get", allow()),
        (&["manager"], "actions", "create", needs(&["actions:write"])),
        (&["admin"], "actions", "create", allow()),
        (&["admin"], "knowledge", "drop_all", denied("no-drop")),
        (&["manager"], "knowledge", "secret_x", Decision::Hidden),
        (&["admin"], "knowledge", "secret_x", allow()),
        (&["admin"], "crm", "get", Decision::Hidden),
        (&[], "knowledge", "get", needs(&["knowledge:read"])),
        (&["Employee"], "knowledge", "get", needs(&["knowledge:read"])),
    ] {
        let action = Action::tool(server, tool).with_arguments("{}");
        let decision = decide(&policy, &who(roles, &[]), &action, noon());
        assert_eq!(decision, expected, "{roles:?} {server} {tool}");
    }
    let by_token = decide(
        &policy,
        &who(&[], &["knowledge:read"]),
        &Action::tool("knowledge", "get"),
        noon(),
    );
    assert_eq!(by_token, Decision::Allow);
}

#[test]
fn prompts_resources_methods_and_what_operators_do_are_decided_alike() {
    let policy = assistant();
    let employee = who(&["employee"], &[]);
    let operator = who(&["operator"], &[]);
    for (principal, action, expected) in [
        (&employee, Action::prompt("knowledge", "summary"), Decision::Allow),
        (&employee, Action::prompt("knowledge", "other"), Decision::Hidden),
        (
            &employee,
            Action::resource("knowledge", "docs://open/a"),
            Decision::Allow,
        ),
        (
            &employee,
            Action::resource("knowledge", "docs://closed/a"),
            Decision::Hidden,
        ),
        // The path of a URI is resolved by servers, and so here.
        (
            &employee,
            Action::resource("knowledge", "docs://open/../closed/a"),
            Decision::Allow,
        ),
        (
            &employee,
            Action::resource("knowledge", "docs://open/%2e%2e/%2e%2e/a"),
            Decision::Allow,
        ),
        (
            &employee,
            Action::resource("knowledge", "docs://OPEN/a"),
            Decision::Hidden,
        ),
        (
            &employee,
            Action::method("crm", "acme/refresh"),
            Decision::NeedsScopes(vec!["crm:refresh".to_owned()]),
        ),
        (&employee, Action::method("crm", "tasks/get"), Decision::Allow),
        (&employee, Action::method("crm", "tools/list"), Decision::Allow),
        (&employee, Action::admin("servers:read"), needs(&["crm:refresh"])),
        (&employee, Action::admin("servers:write"), Decision::Hidden),
        (&operator, Action::admin("servers:write"), Decision::Allow),
    ] {
        assert_eq!(
            decide(&policy, principal, &action, noon()),
            expected,
            "{action:?}"
        );
    }
}

#[test]
fn a_way_out_of_what_a_pattern_opens_is_judged_by_where_it_leads() {
    let policy = policy(json!({
        "default": "deny",
        "scopes": { "read": { "resources": ["files__file:///open/*"] } },
        "rules": [{ "name": "keys", "effect": "deny", "resources": ["files__file:///open/keys/*"] }],
    }));
    let reader = who(&[], &["read"]);
    for (uri, expected) in [
        ("file:///open/a", Decision::Allow),
        ("file:///open/../etc/passwd", Decision::Hidden),
        ("file:///open/%2e%2e/etc/passwd", Decision::Hidden),
        ("file:///open/..%252fetc/passwd", Decision::Hidden),
        ("file:///open/a/../b", Decision::Allow),
        ("file:///open/keys/a", denied("keys")),
        ("file:///open/x/../keys/a", denied("keys")),
        ("file:///open//keys/a", denied("keys")),
        ("file:///open/%6beys/a", denied("keys")),
    ] {
        assert_eq!(
            decide(&policy, &reader, &Action::resource("files", uri), noon()),
            expected,
            "{uri}"
        );
    }
}

#[test]
fn conditions_see_the_arguments_and_what_cannot_be_judged_is_refused() {
    let policy = assistant();
    let nobody = who(&[], &[]);
    let large = who(&[], &["pay:large"]);
    for (principal, arguments, expected) in [
        (&nobody, r#"{"amount":10}"#, Decision::Allow),
        (&nobody, r#"{"amount":10.5}"#, Decision::Allow),
        (&nobody, r#"{"amount":60}"#, needs(&["pay:large"])),
        (&large, r#"{"amount":60}"#, Decision::Allow),
        (&large, r#"{"amount":101}"#, denied("small-payments")),
        // One that reads the first and one that reads the last would differ.
        (
            &nobody,
            r#"{"amount":10,"amount":5000}"#,
            denied("small-payments"),
        ),
        (&nobody, r#"{"amount":"10"}"#, denied("small-payments")),
        (&nobody, r"{}", denied("small-payments")),
        (&nobody, r"[", denied("small-payments")),
    ] {
        let action = Action::tool("pay", "send").with_arguments(arguments);
        assert_eq!(
            decide(&policy, principal, &action, noon()),
            expected,
            "{arguments}"
        );
    }
    assert_eq!(
        decide(&policy, &nobody, &Action::tool("pay", "send"), noon()),
        Decision::Allow
    );
    let told = explain(
        &policy,
        &nobody,
        &Action::tool("pay", "send").with_arguments("{}"),
        noon(),
    );
    assert!(
        told.found
            .iter()
            .any(|one| one.contains("small-payments") && one.contains("cannot be evaluated")),
        "{told:?}"
    );
}

#[test]
fn a_rule_that_denies_and_cannot_be_evaluated_denies_and_says_why() {
    let policy = policy(json!({
        "default": "allow",
        "rules": [{ "name": "big", "effect": "deny", "tools": ["a__*"], "when": "arguments.size > 5" }],
    }));
    let action = |arguments| Action::tool("a", "t").with_arguments(arguments);
    assert_eq!(
        decide(&policy, &who(&[], &[]), &action(r#"{"size":1}"#), noon()),
        Decision::Allow
    );
    for arguments in ["{}", r#"{"size":"x"}"#, r#"{"size":1,"size":1}"#] {
        let told = explain(&policy, &who(&[], &[]), &action(arguments), noon());
        assert_eq!(told.decision, denied("big"), "{arguments}");
        assert!(
            told.found.iter().any(|one| one.contains("cannot be evaluated")),
            "{told:?}"
        );
    }
}

#[test]
fn time_and_annotations_count() {
    let policy = assistant();
    let manager = who(&["manager"], &[]);
    let night = UNIX_EPOCH + Duration::from_secs(1_795_402_800);
    let harmless = Annotations {
        destructive: false,
        ..Annotations::default()
    };
    let list = Action::tool("actions", "list_all").with_arguments("{}");
    assert_eq!(decide(&policy, &manager, &list, night), denied("quiet-hours"));
    assert_eq!(
        decide(&policy, &manager, &list.with_annotations(harmless), night),
        Decision::Allow
    );
    assert_eq!(decide(&policy, &manager, &list, noon()), Decision::Allow);
    let hints = Annotations::of_tool(r#"{"name":"a","annotations":{"readOnlyHint":true,"title":"A"}}"#);
    assert_eq!(
        hints,
        Annotations {
            read_only: true,
            ..Annotations::default()
        }
    );
    assert_eq!(
        Annotations::of_tool(r#"{"annotations":7}"#),
        Annotations::default()
    );
}

#[test]
fn only_what_a_rule_over_arguments_or_time_concerns_has_to_be_decided_anew() {
    let policy = assistant();
    for (server, tool, expected) in [
        ("knowledge", "get", true),
        ("knowledge", "secret_x", true),
        ("pay", "send", false),
        ("pay", "other", true),
        ("actions", "list_all", false),
    ] {
        let action = Action::tool(server, tool);
        assert_eq!(policy.is_settled(&action), expected, "{server} {tool}");
        assert_eq!(
            policy.is_settled(&action.with_arguments("{}")),
            expected,
            "{server} {tool}"
        );
    }
    let everywhere = policy_of_night();
    assert!(
        !everywhere.is_settled(&Action::tool("a", "b")),
        "a rule without targets concerns everything"
    );
    assert!(!everywhere.is_settled(&Action::admin("servers:read")));
}

/// At night nobody does anything.
fn policy_of_night() -> Policy {
    policy(json!({
        "default": "allow",
        "rules": [{ "name": "night", "effect": "deny", "when": "time.hour < 6" }],
    }))
}

#[test]
fn a_document_that_only_has_scopes_asks_for_them_and_leaves_the_rest_open() {
    let policy = policy(json!({
        "default": "allow",
        "scopes": { "a:all": ["a__*"], "a:read": ["a__get*"], "everything": ["a__*", "b__x"] },
    }));
    for (scopes, server, tool, expected) in [
        (&[][..], "a", "get", needs(&["a:read"])),
        (&[], "a", "put", needs(&["a:all"])),
        (&[], "b", "x", needs(&["everything"])),
        (&[], "b", "y", Decision::Allow),
        (&["a:all"], "a", "get", Decision::Allow),
        (&["other", "everything"], "a", "put", Decision::Allow),
    ] {
        let decision = decide(&policy, &who(&[], scopes), &Action::tool(server, tool), noon());
        assert_eq!(decision, expected, "{scopes:?} {server} {tool}");
    }
    assert!(!policy.may_hide());
    assert_eq!(
        decide(&policy, &who(&[], &[]), &Action::admin("servers:write"), noon()),
        Decision::Hidden
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "the table of cases is long")]
fn what_cannot_be_meant_is_named_with_its_place() {
    for (rest, words) in [
        (json!({ "scopes": { "a b": [] } }), ["scopes", "a b", "no scope"]),
        (
            json!({ "scopes": { "a": ["get"] } }),
            ["scopes.\"a\".tools", "get", "<server>__<name>"],
        ),
        (
            json!({ "roles": { "r": { "includes": ["x"] } } }),
            ["roles.\"r\"", "no role `x`", "include"],
        ),
        (
            json!({ "roles": { "r": { "includes": ["s"] }, "s": { "includes": ["r"] } } }),
            ["roles.\"r\"", "itself", "r → s → r"],
        ),
        (
            json!({ "roles": { "r": { "scopes": ["x"] } } }),
            ["roles.\"r\"", "`x`", "[scopes]"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny" }, { "name": "a", "effect": "deny" }] }),
            ["rules.\"a\"", "two rules", "another"],
        ),
        (
            json!({ "rules": [{ "name": " ", "effect": "deny" }] }),
            ["rules", "name", "bytes"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "allow" }] }),
            ["rules.\"a\"", "everything", "default"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "1 +" }] }),
            ["rules.\"a\".when", "", ""],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "user.name == 'x'" }] }),
            ["rules.\"a\".when", "`user`", "principal"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "principal.nam == 'x'" }] }),
            ["rules.\"a\".when", "evaluated", "nam"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "principal.subject" }] }),
            ["rules.\"a\".when", "string", "true or false"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "nothing(1)" }] }),
            ["rules.\"a\".when", "evaluated", "nothing"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "hide", "when": "arguments.x == 1" }] }),
            ["rules.\"a\".when", "arguments", "deny"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "arguments.a.all(x, x.all(y, y.all(z, z)))" }] }),
            ["rules.\"a\".when", "loops", "2"],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": "(".repeat(3000) }] }),
            ["rules.\"a\".when", "", ""],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "when": format!("{}true", "!".repeat(4000)) }] }),
            ["rules.\"a\".when", "", ""],
        ),
        (
            json!({ "rules": [{ "name": "a", "effect": "deny", "scopes": ["a b"] }] }),
            ["rules.\"a\".scopes", "a b", "no scope"],
        ),
    ] {
        let mut whole = json!({ "default": "deny" });
        whole
            .as_object_mut()
            .expect("an object")
            .extend(rest.as_object().expect("an object").clone());
        let error = Policy::compile(&document(whole))
            .expect_err("refused")
            .to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    for bad in [
        json!({}),
        json!({ "default": "maybe" }),
        json!({ "default": "deny", "rule": [] }),
    ] {
        assert!(serde_json::from_value::<Document>(bad.clone()).is_err(), "{bad}");
    }
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a__get", "a__put", "b__get", "b__put", "a__*", "*__get", "*", "b__p*",
    ])
    .prop_map(str::to_owned)
}

fn scopes() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["s1", "s2", "s3"]).prop_map(str::to_owned)
}

fn conditions() -> impl Strategy<Value = Option<String>> {
    let all = [
        "true",
        "false",
        "arguments.n > 3",
        "'r1' in principal.roles",
        "annotations.readOnlyHint",
        "time.hour < 12",
        "server == 'a'",
    ];
    prop::option::of(prop::sample::select(all.to_vec()).prop_map(str::to_owned))
}

fn rules(effects: Vec<Effect>) -> impl Strategy<Value = Rule> {
    let parts = (
        prop::sample::select(effects),
        prop::collection::vec(names(), 1..3),
        prop::collection::vec(scopes(), 0..2),
        conditions(),
    );
    parts.prop_map(|(effect, tools, scopes, when)| Rule {
        name: String::new(),
        effect,
        tools,
        prompts: Vec::new(),
        resources: Vec::new(),
        methods: Vec::new(),
        admin: Vec::new(),
        scopes,
        when: when.filter(|text| effect != Effect::Hide || !text.contains("arguments")),
    })
}

fn documents() -> impl Strategy<Value = Document> {
    let all = vec![Effect::Allow, Effect::Deny, Effect::Hide];
    let parts = (
        prop::sample::select(vec![Otherwise::Deny, Otherwise::Allow]),
        prop::collection::btree_map(scopes(), prop::collection::vec(names(), 0..3), 0..3),
        prop::collection::vec(rules(all), 0..5),
        prop::collection::vec(scopes(), 0..3),
    );
    parts.prop_map(|(default, scopes, rules, of_role)| {
        let of_role = of_role
            .into_iter()
            .filter(|scope| scopes.contains_key(scope))
            .collect();
        let mut document = Document {
            default,
            roles: [(
                "r1".to_owned(),
                Role {
                    includes: Vec::new(),
                    scopes: of_role,
                },
            )]
            .into(),
            scopes: scopes
                .into_iter()
                .map(|(scope, tools)| (scope, Opens::Tools(tools)))
                .collect(),
            rules,
        };
        number(&mut document);
        document
    })
}

fn number(document: &mut Document) {
    for (at, rule) in document.rules.iter_mut().enumerate() {
        rule.name = format!("rule-{at}");
    }
}

fn principals() -> impl Strategy<Value = Principal> {
    let parts = (
        prop::collection::vec(scopes(), 0..3),
        prop::collection::vec(prop::sample::select(vec!["r1", "r2"]), 0..2),
    );
    parts.prop_map(|(scopes, roles)| Principal {
        scopes,
        roles: roles.into_iter().map(str::to_owned).collect(),
        ..Principal::developer()
    })
}

const ARGUMENTS: [&str; 4] = [r#"{"n":1}"#, r#"{"n":9}"#, "{}", r#"{"n":1,"n":9}"#];
const TOOLS: [(&str, &str); 5] = [
    ("a", "get"),
    ("a", "put"),
    ("b", "get"),
    ("b", "put"),
    ("c", "get"),
];

fn calls() -> impl Iterator<Item = Action<'static>> {
    TOOLS.into_iter().flat_map(|(server, tool)| {
        let each = ARGUMENTS.into_iter();
        each.map(move |arguments| Action::tool(server, tool).with_arguments(arguments))
    })
}

proptest! {
    #[test]
    fn whoever_denies_is_stronger_than_whoever_allows(
        document in documents(), principal in principals(), more in prop::collection::vec(rules(vec![Effect::Allow]), 1..4),
        of_scope in prop::collection::vec(names(), 1..3),
    ) {
        let before = Policy::compile(&document).expect("a policy");
        let mut after = document.clone();
        after.default = Otherwise::Allow;
        after.rules.extend(more);
        number(&mut after);
        after.scopes.insert("s4".to_owned(), Opens::Tools(of_scope));
        let granted = Principal { scopes: [principal.scopes.clone(), vec!["s4".to_owned()]].concat(), ..principal.clone() };
        let after = Policy::compile(&after).expect("a policy");
        let refusing = |rule: &str| document.rules.iter().any(|one| one.name == rule && one.effect == Effect::Deny);
        for action in calls() {
            if let Decision::Denied { rule } = decide(&before, &principal, &action, noon()) && refusing(&rule) {
                let decision = decide(&after, &granted, &action, noon());
                prop_assert!(decision != Decision::Allow, "{:?} {:?}", action, decision);
            }
        }
    }

    #[test]
    fn a_rule_that_denies_a_call_leaves_no_way_to_it(document in documents(), principal in principals(), of in names()) {
        let mut document = document;
        document.rules.push(Rule {
            name: "never".to_owned(), effect: Effect::Deny, tools: vec![of.clone()], prompts: Vec::new(), resources: Vec::new(),
            methods: Vec::new(), admin: Vec::new(), scopes: Vec::new(), when: None,
        });
        let policy = Policy::compile(&document).expect("a policy");
        let pattern: Pattern = of.parse().expect("a pattern");
        for action in calls() {
            if pattern.matches(&format!("{}__{}", action.server, action.name())) {
                let decision = decide(&policy, &principal, &action, noon());
                prop_assert!(matches!(decision, Decision::Denied { .. } | Decision::Hidden), "{:?} {:?}", action, decision);
            }
        }
    }

    #[test]
    fn a_grant_takes_nothing_away_elsewhere(document in documents(), principal in principals(), scope in scopes(), rule in rules(vec![Effect::Allow])) {
        let policy = Policy::compile(&document).expect("a policy");
        let more = Principal { scopes: [principal.scopes.clone(), vec![scope.clone()]].concat(), ..principal.clone() };
        let in_role = Principal { roles: [principal.roles.clone(), vec!["r1".to_owned()]].concat(), ..principal.clone() };
        let mut wider = document.clone();
        wider.rules.push(rule);
        number(&mut wider);
        if wider.scopes.contains_key(&scope) {
            wider.roles.get_mut("r1").expect("a role").scopes.push(scope);
        }
        let wider = Policy::compile(&wider).expect("a policy");
        // A rule may deny those who are in a role; that is no grant.
        let is_about_roles = document.rules.iter().any(|rule| rule.when.as_deref().is_some_and(|when| when.contains("roles")));
        for action in calls() {
            if decide(&policy, &principal, &action, noon()) == Decision::Allow {
                prop_assert_eq!(decide(&policy, &more, &action, noon()), Decision::Allow);
                prop_assert_eq!(decide(&wider, &principal, &action, noon()), Decision::Allow);
                if !is_about_roles {
                    prop_assert_eq!(decide(&policy, &in_role, &action, noon()), Decision::Allow);
                }
            }
        }
    }

    #[test]
    fn what_a_list_hides_no_call_reaches_and_what_a_call_hides_no_list_shows(document in documents(), principal in principals()) {
        let policy = Policy::compile(&document).expect("a policy");
        for (server, tool) in TOOLS {
            let shown = decide(&policy, &principal, &Action::tool(server, tool), noon());
            for arguments in ARGUMENTS {
                let called = decide(&policy, &principal, &Action::tool(server, tool).with_arguments(arguments), noon());
                prop_assert_eq!(shown.is_shown(), called.is_shown(), "{} {} {}: {:?} {:?}", server, tool, arguments, shown, called);
            }
        }
    }

    #[test]
    fn an_explanation_decides_as_the_decision_does(document in documents(), principal in principals()) {
        let policy = Policy::compile(&document).expect("a policy");
        for action in calls() {
            let told = explain(&policy, &principal, &action, noon());
            prop_assert_eq!(&told.decision, &decide(&policy, &principal, &action, noon()));
            prop_assert!(!told.found.is_empty(), "{:?}", action);
        }
    }

    #[test]
    fn what_is_settled_is_decided_alike_at_any_time_and_with_any_arguments(
        document in documents(), principal in principals(), hours in prop::collection::vec(0u64..48, 1..4),
    ) {
        let policy = Policy::compile(&document).expect("a policy");
        for (server, tool) in TOOLS {
            let open = Action::tool(server, tool);
            if !policy.is_settled(&open) {
                continue;
            }
            let first = decide(&policy, &principal, &open, noon());
            for arguments in ARGUMENTS {
                for hour in &hours {
                    let now = noon() + Duration::from_secs(3_600 * hour);
                    let later = decide(&policy, &principal, &open.with_arguments(arguments), now);
                    prop_assert_eq!(&later, &first, "{} {} {} {}", server, tool, arguments, hour);
                }
            }
        }
    }

    #[test]
    fn a_document_survives_being_kept(document in documents()) {
        let text = serde_json::to_string(&document).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Document>(&text).expect("a document"), document);
    }
}
