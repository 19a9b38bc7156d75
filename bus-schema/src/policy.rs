//! What a caller may do: a pure decision over what its door has verified, with nothing looked up and nothing remembered.
//!
//! Today a table of scopes says which tools need one. Whoever asks [`decide`] need not know that.

mod servers;

use std::{collections::BTreeMap, str::FromStr};

use crate::{card::NAME_SEPARATOR, mcp::method, principal::Principal};

/// What matches any run of characters in a pattern.
const ANY: char = '*';

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// The MCP method.
    pub method: &'a str,
    /// The id of the server that is asked.
    pub server: &'a str,
    /// What the method names there, such as the tool, without the server's prefix.
    pub name: Option<&'a str>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Allow,
    /// It may go on once the caller has all of these as well.
    NeedsScopes(Vec<String>),
}

/// Which tools need a scope. A tool that no scope names needs none; one that several name needs any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeTable(BTreeMap<Scope, Vec<Pattern>>);

/// A scope as OAuth spells it: visible ASCII without spaces, quotes and backslashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

/// Tools by name, as `<server>__<tool>` with `*` for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Says that a text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no scope: visible ASCII without spaces, quotes and backslashes is expected, such as products:read"
)]
pub struct BadScope(String);

/// Says that a text names no tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no tools: `<server>__<tool>` is expected, in which `*` stands for any characters, such as products__get_*"
)]
pub struct BadPattern(String);

impl Scope {
    /// The scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = BadScope;

    fn from_str(text: &str) -> Result<Self, BadScope> {
        // RFC 6749, section 3.3.
        let is_scope = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if !text.is_empty() && text.bytes().all(is_scope) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadScope(text.to_owned()))
        }
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let names_a_server = text
            .split_once(NAME_SEPARATOR)
            .is_some_and(|(server, tool)| !server.is_empty() && !tool.is_empty());
        if text == "*" || names_a_server {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadPattern(text.to_owned()))
        }
    }
}

impl Pattern {
    /// Whether a tool's name with its server's prefix is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split(ANY);
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return rest.is_empty();
        };
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }

    /// How much of a name it fixes.
    fn precision(&self) -> usize {
        self.0.len() - self.0.matches(ANY).count()
    }
}

impl ScopeTable {
    /// A table from scopes, each with the tools that it opens.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (Scope, Vec<Pattern>)>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// Whether no tool needs a scope.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes that open a tool, with how closely each names it.
    fn opening<'a>(&'a self, tool: &str) -> impl Iterator<Item = (&'a Scope, usize)> {
        self.0.iter().filter_map(move |(scope, patterns)| {
            let matching = patterns.iter().filter(|pattern| pattern.matches(tool));
            matching
                .map(Pattern::precision)
                .max()
                .map(|precision| (scope, precision))
        })
    }
}

/// Decides whether a caller may do something. Where several scopes would do, the one is asked for that names the tool most closely,
/// as it allows the least beside.
#[must_use]
pub fn decide(table: &ScopeTable, principal: &Principal, action: &Action<'_>) -> Decision {
    let (method::TOOLS_CALL, Some(tool)) = (action.method, action.name) else {
        return Decision::Allow;
    };
    let tool = format!("{}{NAME_SEPARATOR}{tool}", action.server);
    let mut closest: Option<(&Scope, usize)> = None;
    for (scope, precision) in table.opening(&tool) {
        if principal.scopes.iter().any(|granted| granted == scope.as_str()) {
            return Decision::Allow;
        }
        if closest.is_none_or(|(_, best)| precision > best) {
            closest = Some((scope, precision));
        }
    }
    match closest {
        Some((scope, _)) => Decision::NeedsScopes(vec![scope.as_str().to_owned()]),
        None => Decision::Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &[(&str, &[&str])]) -> ScopeTable {
        ScopeTable::new(rules.iter().map(|(scope, patterns)| {
            let patterns = patterns.iter().map(|pattern| pattern.parse().expect("a pattern"));
            (scope.parse().expect("a scope"), patterns.collect())
        }))
    }

    fn decision(table: &ScopeTable, scopes: &[&str], server: &str, tool: &str) -> Decision {
        let principal = Principal {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..Principal::developer()
        };
        let action = Action {
            method: method::TOOLS_CALL,
            server,
            name: Some(tool),
        };
        decide(table, &principal, &action)
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("a__get", "a__get", true),
            ("a__get", "a__get_all", false),
            ("a__get*", "a__get", true),
            ("a__get_*", "a__get_all", true),
            ("a__*", "b__get", false),
            ("*__get", "b__get", true),
            ("*__get", "b__get_all", false),
            ("*", "anything__at_all", true),
            ("a__*_x_*", "a__1_x_2", true),
            ("a__*_x_*", "a__1_y_2", false),
            ("a__ab*ba", "a__aba", false),
            ("a__ab*ba", "a__abba", true),
        ] {
            let pattern: Pattern = pattern.parse().expect("a pattern");
            assert_eq!(pattern.matches(name), expected, "{pattern:?} {name}");
        }
        for bad in ["", "get", "__get", "a__", "a_b"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tool_that_a_scope_names_needs_one_of_the_scopes_that_do() {
        let table = table(&[
            ("knowledge:admin", &["knowledge__*"]),
            ("knowledge:read", &["knowledge__search_*", "knowledge__get"]),
            ("everything", &["*"]),
        ]);
        let needs = |scope: &str| Decision::NeedsScopes(vec![scope.to_owned()]);
        for (scopes, server, tool, expected) in [
            (&[][..], "knowledge", "search_text", needs("knowledge:read")),
            (&[], "knowledge", "drop", needs("knowledge:admin")),
            (&[], "crm", "get", needs("everything")),
            (&["knowledge:read"], "knowledge", "search_text", Decision::Allow),
            (&["knowledge:admin"], "knowledge", "search_text", Decision::Allow),
            (&["other", "everything"], "knowledge", "drop", Decision::Allow),
            (&["knowledge:read"], "knowledge", "drop", needs("knowledge:admin")),
            (&["KNOWLEDGE:READ"], "knowledge", "get", needs("knowledge:read")),
        ] {
            assert_eq!(
                decision(&table, scopes, server, tool),
                expected,
                "{scopes:?} {server} {tool}"
            );
        }
    }

    #[test]
    fn what_no_scope_names_needs_none_and_only_calls_of_tools_do() {
        let table = table(&[("a", &["a__*"])]);
        assert_eq!(decision(&table, &[], "b", "get"), Decision::Allow);
        assert_eq!(decision(&ScopeTable::default(), &[], "a", "get"), Decision::Allow);
        let list = Action {
            method: method::TOOLS_LIST,
            server: "a",
            name: None,
        };
        assert_eq!(decide(&table, &Principal::developer(), &list), Decision::Allow);
    }

    #[test]
    fn a_scope_fits_into_a_header_between_quotes() {
        for bad in ["", "a b", "a\"b", "a\\b", "ä", "a\n"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        assert!("https://example.com/mcp:read".parse::<Scope>().is_ok());
    }
}
