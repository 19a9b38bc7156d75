//! Which servers somebody can use anything of, as far as the table of scopes tells: what is worth being shown to them.

use crate::{card::NAME_SEPARATOR, principal::Principal};

use super::{ANY, Pattern, Scope, ScopeTable};

impl ScopeTable {
    /// Whether somebody may call any tool of a server, whichever tools that has. `false` only when all of them need scopes and none of
    /// the caller's opens one.
    #[must_use]
    pub fn opens_server(&self, principal: &Principal, server: &str) -> bool {
        let tools = format!("{server}{NAME_SEPARATOR}");
        let is_closed = self.0.values().flatten().any(|pattern| pattern.is_all_of(&tools));
        let granted = |scope: &Scope| principal.scopes.iter().any(|granted| granted == scope.as_str());
        let opening = self.0.iter().filter(|(scope, _)| granted(scope));
        !is_closed
            || opening
                .flat_map(|(_, patterns)| patterns)
                .any(|pattern| pattern.is_some_of(&tools))
    }
}

impl Pattern {
    /// Whether every name is meant that begins so.
    fn is_all_of(&self, beginning: &str) -> bool {
        self.0.ends_with(ANY) && self.matches(beginning)
    }

    /// Whether some name may be meant that begins so.
    fn is_some_of(&self, beginning: &str) -> bool {
        match self.0.split_once(ANY) {
            // Whatever follows the first of these can stand behind the beginning.
            Some((fixed, _)) => fixed.starts_with(beginning) || beginning.starts_with(fixed),
            None => self.0.starts_with(beginning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &[(&str, &str)]) -> ScopeTable {
        ScopeTable::new(rules.iter().map(|(scope, pattern)| {
            (
                scope.parse().expect("a scope"),
                vec![pattern.parse().expect("a pattern")],
            )
        }))
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
            let principal = Principal {
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                ..Principal::developer()
            };
            assert_eq!(
                table(rules).opens_server(&principal, server),
                expected,
                "{rules:?} {scopes:?} {server}"
            );
        }
    }
}
