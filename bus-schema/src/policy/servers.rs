//! Which servers somebody can use anything of, as far as a policy tells without a look at what they have: what is worth being shown to them.

use super::{Effect, Openings, Otherwise, Pattern, Policy, action::Kind, pattern::ANY};
use crate::{card::NAME_SEPARATOR, principal::Principal};

impl Policy {
    /// Whether somebody may use anything of a server, whatever that has. Conditions of rules are not looked at: `false` only when nothing is open to
    /// them with any.
    #[must_use]
    pub fn opens_server(&self, principal: &Principal, server: &str) -> bool {
        let names = format!("{server}{NAME_SEPARATOR}");
        if self.hides_all_of(principal, &names) {
            return false;
        }
        let tools = &self.openings[Kind::Tool as usize];
        let is_closed = tools.of(server).any(|(_, pattern)| pattern.is_all_of(&names));
        let by_scope = |openings: &Openings| {
            let mut of_server = openings.of(server);
            of_server.any(|(scope, pattern)| self.grants(principal, scope) && pattern.is_some_of(&names))
        };
        let by_rule = || {
            self.rules
                .iter()
                .filter(|rule| rule.effect == Effect::Allow)
                .any(|rule| {
                    let has_scopes = rule.scopes.iter().all(|scope| self.grants(principal, scope));
                    let concerns = rule.targets.as_ref().is_none_or(|kinds| {
                        kinds[..Kind::Admin as usize]
                            .iter()
                            .flatten()
                            .any(|pattern| pattern.is_some_of(&names))
                    });
                    has_scopes && concerns
                })
        };
        let is_open = self.otherwise == Otherwise::Allow && !is_closed;
        // What operators do is nothing of a server's own.
        let of_servers = &self.openings[..Kind::Admin as usize];
        is_open || of_servers.iter().any(by_scope) || by_rule()
    }

    /// Whether one rule hides all that a server has, whatever the hour.
    fn hides_all_of(&self, principal: &Principal, names: &str) -> bool {
        let mut hiding = self.rules.iter().filter(|rule| rule.effect == Effect::Hide);
        hiding.any(|rule| {
            let is_spared =
                !rule.scopes.is_empty() && rule.scopes.iter().all(|scope| self.grants(principal, scope));
            let concerns_all = rule.targets.as_ref().is_none_or(|kinds| {
                let mut of_servers = kinds[..Kind::Admin as usize].iter();
                of_servers.all(|patterns| patterns.iter().any(|pattern| pattern.is_all_of(names)))
            });
            rule.condition.is_none() && !is_spared && concerns_all
        })
    }
}

impl Pattern {
    /// Whether every name is meant that begins so.
    fn is_all_of(&self, beginning: &str) -> bool {
        self.as_str().ends_with(ANY) && self.matches(beginning)
    }

    /// Whether some name may be meant that begins so.
    fn is_some_of(&self, beginning: &str) -> bool {
        match self.as_str().split_once(ANY) {
            // Whatever follows the first of these can stand behind the beginning.
            Some((fixed, _)) => fixed.starts_with(beginning) || beginning.starts_with(fixed),
            None => self.as_str().starts_with(beginning),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::Document;

    fn opens(document: serde_json::Value, scopes: &[&str], server: &str) -> bool {
        let document: Document = serde_json::from_value(document).expect("a document");
        let principal = Principal {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..Principal::developer()
        };
        let policy = Policy::compile(&document).expect("a policy");
        policy.opens_server(&principal, server)
    }

    #[test]
    fn a_server_is_closed_to_who_may_call_none_of_its_tools() {
        let all = [("k:read", "know__search_*"), ("k:write", "know__*")];
        for (rules, scopes, server, expected) in [
            (&all[..], &[][..], "know", false),
            (&all, &["k:read"], "know", true),
            (&all, &["k:write"], "know", true),
            (&all, &["other"], "know", false),
            (&all, &[], "knowing", true),
            (&all, &[], "other", true),
            // Some tools need no scope.
            (&all[..1], &[], "know", true),
            (&[("x", "*")], &[], "know", false),
            (&[("x", "*")], &["x"], "know", true),
            (&[("x", "k*__*")], &[], "know", false),
            (&[("x", "k*__*"), ("y", "know__one")], &["y"], "know", true),
            (&[("x", "k*__*"), ("y", "know__one")], &["y"], "kit", false),
            (&[("x", "know__*_get")], &[], "know", true),
        ] {
            let table: serde_json::Map<_, _> = rules
                .iter()
                .map(|(scope, pattern)| ((*scope).to_owned(), json!([pattern])))
                .collect();
            let document = json!({ "default": "allow", "scopes": table });
            assert_eq!(
                opens(document, scopes, server),
                expected,
                "{rules:?} {scopes:?} {server}"
            );
        }
    }

    #[test]
    fn what_one_rule_hides_altogether_is_open_to_those_only_whom_it_spares() {
        let all = json!(["know__*"]);
        let rule = |more: serde_json::Value| {
            let mut rule = json!({
                "name": "shut", "effect": "hide", "tools": all, "prompts": all, "resources": all, "methods": all,
            });
            for (key, value) in more.as_object().expect("members") {
                rule[key] = value.clone();
            }
            json!({ "default": "allow", "rules": [rule] })
        };
        for (more, scopes, server, expected) in [
            (json!({}), &[][..], "know", false),
            (json!({}), &[], "other", true),
            (json!({ "prompts": ["know__some"] }), &[], "know", true),
            (json!({ "scopes": ["k"] }), &["k"], "know", true),
            (json!({ "scopes": ["k"] }), &[], "know", false),
            (json!({ "when": "time.hour > 25" }), &[], "know", true),
        ] {
            assert_eq!(
                opens(rule(more.clone()), scopes, server),
                expected,
                "{more} {scopes:?}"
            );
        }
    }

    #[test]
    fn where_nothing_is_open_by_itself_a_scope_or_a_rule_opens() {
        let document = json!({
            "default": "deny",
            "scopes": { "k": ["know__*"] },
            "rules": [{ "name": "open", "effect": "allow", "tools": ["free__*"] }],
        });
        for (scopes, server, expected) in [
            (&[][..], "know", false),
            (&["k"], "know", true),
            (&[], "free", true),
            (&["k"], "other", false),
        ] {
            assert_eq!(
                opens(document.clone(), scopes, server),
                expected,
                "{scopes:?} {server}"
            );
        }
    }
}
