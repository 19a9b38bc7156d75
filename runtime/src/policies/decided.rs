//! What one version of a policy has decided, for calls that ask the same again: a table of fixed size, in which a newer decision takes the
//! place of an older one.
//!
//! Only what is the same at any time and with any arguments is remembered, for exactly this principal with exactly these roles and scopes. A
//! table belongs to one version, so nothing in it can be out of date.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use bus_schema::{
    Principal,
    policy::{Action, Annotations, Decision, What},
};

/// How many decisions are remembered at most; a power of two.
const MOST: usize = 1024;
/// How many bytes the texts of one may have, so that long ones do not add up.
const MAX_BYTES: usize = 2 * 1024;

/// Decisions that were made.
pub(super) struct Decided {
    /// Each has one place, by the hash of its question.
    places: Box<[ArcSwapOption<One>]>,
    /// Its keys are drawn by chance, so that nobody can choose whose decision is pushed out.
    hashing: RandomState,
}

/// One question and what came of it.
struct One {
    principal: Principal,
    server: String,
    method: String,
    kind: Kind,
    name: String,
    annotations: Annotations,
    decision: Decision,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tool,
    Prompt,
    Resource,
    Method,
    Admin,
}

impl Default for Decided {
    fn default() -> Self {
        Self {
            places: (0..MOST).map(|_| ArcSwapOption::empty()).collect(),
            hashing: RandomState::new(),
        }
    }
}

impl fmt::Debug for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decided").finish_non_exhaustive()
    }
}

impl Decided {
    /// What was decided of this, or else what `decide` says, which is remembered when it says so.
    pub(super) fn recall(
        &self,
        principal: &Principal,
        action: &Action<'_>,
        decide: impl FnOnce() -> (Decision, bool),
    ) -> Decision {
        let place = self.place(principal, action);
        if let Some(one) = &*place.load()
            && one.is_about(principal, action)
        {
            return one.decision.clone();
        }
        let (decision, is_settled) = decide();
        if is_settled && length(principal, action) <= MAX_BYTES {
            place.store(Some(Arc::new(One::new(principal, action, decision.clone()))));
        }
        decision
    }

    fn place(&self, principal: &Principal, action: &Action<'_>) -> &ArcSwapOption<One> {
        let mut hasher = self.hashing.build_hasher();
        principal.hash(&mut hasher);
        (action.server, action.method, action.what, action.annotations).hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % MOST as u64).unwrap_or_default();
        &self.places[at]
    }
}

impl One {
    fn new(principal: &Principal, action: &Action<'_>, decision: Decision) -> Self {
        let (kind, name) = named(action.what);
        Self {
            principal: principal.clone(),
            server: action.server.to_owned(),
            method: action.method.to_owned(),
            kind,
            name: name.to_owned(),
            annotations: action.annotations,
            decision,
        }
    }

    fn is_about(&self, principal: &Principal, action: &Action<'_>) -> bool {
        let Action {
            server,
            method,
            what,
            annotations,
            // What is remembered is the same with any.
            arguments: _,
        } = *action;
        (self.kind, self.name.as_str()) == named(what)
            && self.server == server
            && self.method == method
            && self.annotations == annotations
            && self.principal == *principal
    }
}

fn named(what: What<'_>) -> (Kind, &str) {
    match what {
        What::Tool(name) => (Kind::Tool, name),
        What::Prompt(name) => (Kind::Prompt, name),
        What::Resource(uri) => (Kind::Resource, uri),
        What::Method => (Kind::Method, ""),
        What::Admin(action) => (Kind::Admin, action),
    }
}

/// How many bytes a question has.
fn length(principal: &Principal, action: &Action<'_>) -> usize {
    let single = [&principal.subject, &principal.tenant].into_iter();
    let single = single.chain(&principal.issuer).chain(&principal.client);
    let texts = single.chain(&principal.roles).chain(&principal.scopes);
    let of_action = action.server.len() + action.method.len() + named(action.what).1.len();
    texts.map(|text| text.len() + size_of::<String>()).sum::<usize>() + of_action
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use bus_schema::policy::{self, Document, Policy};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CONDITIONS: [Option<&str>; 7] = [
        None,
        Some("arguments.n > 3"),
        Some("time.hour < 12"),
        Some("'r1' in principal.roles"),
        Some("principal.subject == 'mallory'"),
        Some("annotations.readOnlyHint"),
        Some("method == 'tools/call'"),
    ];
    const NAMES: [&str; 6] = ["a__get", "a__put", "a__*", "*__get", "b__p*", "*"];
    const ARGUMENTS: [&str; 3] = [r#"{"n":1}"#, r#"{"n":9}"#, "{}"];

    fn rules() -> impl Strategy<Value = serde_json::Value> {
        let effects = prop::sample::select(vec!["allow", "deny", "hide"]);
        let parts = (effects, 0..NAMES.len(), 0..CONDITIONS.len());
        parts.prop_map(|(effect, name, condition)| {
            let when = CONDITIONS[condition].filter(|text| effect != "hide" || !text.contains("arguments"));
            let mut rule = json!({ "effect": effect, "tools": [NAMES[name]] });
            if let Some(when) = when {
                rule["when"] = when.into();
            }
            rule
        })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let default = prop::sample::select(vec!["allow", "deny"]);
        (default, prop::collection::vec(rules(), 0..5)).prop_map(|(default, mut rules)| {
            for (at, rule) in rules.iter_mut().enumerate() {
                rule["name"] = format!("rule-{at}").into();
            }
            let document = json!({
                "default": default,
                "roles": { "r1": { "scopes": ["s1"] } },
                "scopes": { "s1": ["a__*"], "s2": ["b__put"] },
                "rules": rules,
            });
            let document: Document = serde_json::from_value(document).expect("a document");
            Policy::compile(&document).expect("a policy")
        })
    }

    fn principals() -> impl Strategy<Value = Principal> {
        let who = prop::sample::select(vec!["alice", "mallory"]);
        let roles = prop::sample::subsequence(vec!["r1", "r2"], 0..=2);
        let scopes = prop::sample::subsequence(vec!["s1", "s2"], 0..=2);
        (who, roles, scopes).prop_map(|(who, roles, scopes)| Principal {
            roles: roles.into_iter().map(str::to_owned).collect(),
            scopes: scopes.into_iter().map(str::to_owned).collect(),
            ..Principal::new(who, "default")
        })
    }

    fn recalled(
        decided: &Decided,
        policy: &Policy,
        principal: &Principal,
        action: &Action<'_>,
        now: SystemTime,
    ) -> Decision {
        decided.recall(principal, action, || {
            (
                policy::decide(policy, principal, action, now),
                policy.is_settled(action),
            )
        })
    }

    proptest! {
        #[test]
        fn what_is_recalled_is_what_would_be_decided(
            policy in policies(),
            asked in prop::collection::vec((principals(), 0..4usize, 0..ARGUMENTS.len(), 0..24u64, any::<bool>()), 1..60),
        ) {
            let decided = Decided::default();
            for (principal, tool, arguments, hour, read_only) in asked {
                let (server, tool) = [("a", "get"), ("a", "put"), ("b", "get"), ("b", "put")][tool];
                let annotations = Annotations { read_only, ..Annotations::default() };
                let action = Action::tool(server, tool).with_arguments(ARGUMENTS[arguments]).with_annotations(annotations);
                let now = UNIX_EPOCH + Duration::from_secs(3_600 * hour);
                let expected = policy::decide(&policy, &principal, &action, now);
                // Twice, so that what the first remembers is what the second hears.
                for _ in 0..2 {
                    prop_assert_eq!(&recalled(&decided, &policy, &principal, &action, now), &expected, "{:?}", action);
                }
            }
        }
    }

    #[test]
    fn each_question_is_remembered_apart_and_unsettled_or_long_ones_are_not() {
        let decided = Decided::default();
        let alice = Principal::new("alice", "default");
        let action = Action::tool("a", "get");
        let hears = |principal: &Principal, action: &Action<'_>, decision: Decision, is_settled| {
            decided.recall(principal, action, || (decision, is_settled))
        };
        let denied = || Decision::Denied { rule: "x".to_owned() };
        assert_eq!(hears(&alice, &action, Decision::Allow, false), Decision::Allow);
        assert_eq!(hears(&alice, &action, denied(), true), denied());
        assert_eq!(
            hears(&alice, &action, Decision::Allow, true),
            denied(),
            "it is remembered"
        );
        assert_eq!(
            hears(&alice, &action.with_arguments("{}"), Decision::Allow, true),
            denied()
        );
        let bob = Principal::new("bob", "default");
        let with_role = Principal {
            roles: vec!["r".to_owned()],
            ..alice.clone()
        };
        for (principal, action) in [
            (&bob, action),
            (&with_role, action),
            (&alice, Action::tool("a", "put")),
            (&alice, Action::prompt("a", "get")),
            (&alice, Action::tool("b", "get")),
            (
                &alice,
                action.with_annotations(Annotations {
                    read_only: true,
                    ..Annotations::default()
                }),
            ),
        ] {
            assert_eq!(
                hears(principal, &action, Decision::Hidden, false),
                Decision::Hidden,
                "{principal:?} {action:?}"
            );
        }
        let long = "x".repeat(MAX_BYTES);
        let long = Action::tool("a", &long);
        assert_eq!(hears(&alice, &long, denied(), true), denied());
        assert_eq!(hears(&alice, &long, Decision::Allow, true), Decision::Allow);
    }
}
