//! How a document names scopes, and what they open: patterns over names, and the spellings of a URI that servers take for the same.

use std::{borrow::Cow, str::FromStr};

use percent_encoding::percent_decode_str;

use crate::card::NAME_SEPARATOR;

/// What matches any run of characters in a pattern.
pub(super) const ANY: char = '*';
/// How often a URI is decoded before what is still encoded counts as it is.
const DECODED: usize = 4;

/// A scope as OAuth spells it: visible ASCII without spaces, quotes and backslashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

/// Names of one kind, such as tools, as `<server>__<name>` with `*` for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Says that a text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no scope: visible ASCII without spaces, quotes and backslashes is expected, such as products:read"
)]
pub struct BadScope(String);

/// Says that a text names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names nothing: `<server>__<name>` is expected, in which `*` stands for any characters, such as products__get_* for tools"
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
    /// A pattern over names that have no server before them, such as what operators do.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one server whose names it can match; `None` when it may be any.
    pub(super) fn server(&self) -> Option<&str> {
        let (server, _) = self.0.split_once(NAME_SEPARATOR)?;
        (!server.contains(ANY)).then_some(server)
    }

    /// Whether a name with its server's prefix is meant.
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

    /// Whether it can name anything of a server.
    #[must_use]
    pub fn may_name_of(&self, server: &str) -> bool {
        let fixed = self.0.split(ANY).next().unwrap_or_default();
        let all = format!("{server}{NAME_SEPARATOR}");
        all.starts_with(fixed) || fixed.starts_with(&all)
    }

    /// How much of a name it fixes.
    pub(super) fn precision(&self) -> usize {
        self.0.len() - self.0.matches(ANY).count()
    }
}

/// A URI as a server may understand it that resolves paths and escapes; `None` when it is spelled so already.
///
/// What is allowed must be allowed in either spelling, and what is denied in one is denied: or else `docs://open/../secret` is a way in.
pub(crate) fn resolved(uri: &str) -> Option<String> {
    let mut text = Cow::Borrowed(uri);
    for _ in 0..DECODED {
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == *text {
            break;
        }
        text = Cow::Owned(decoded);
    }
    let text = text.replace('\\', "/");
    let (scheme, rest) = text.split_once(':').unwrap_or(("", &text));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let mut out = scheme.to_ascii_lowercase();
    if text.contains(':') {
        out.push(':');
    }
    if rest.starts_with("//") {
        out.push_str("//");
        out.push_str(&authority.to_ascii_lowercase());
    }
    out.push_str(&without_dots(path));
    out.push_str(query);
    (out != uri).then_some(out)
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for piece in path.split('/') {
        match piece {
            "" | "." => {}
            ".." => drop(kept.pop()),
            piece => kept.push(piece),
        }
    }
    let lead = if path.starts_with('/') { "/" } else { "" };
    let tail = if path.len() > 1 && path.ends_with('/') && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("{lead}{}{tail}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_uri_is_also_judged_as_a_server_may_resolve_it() {
        for plain in [
            "docs://open/a",
            "file:///a/b",
            "docs://open/a/",
            "mem:x",
            "docs://open",
            "x",
            "docs://a?b/../c",
        ] {
            assert_eq!(resolved(plain), None, "{plain}");
        }
        for (uri, same) in [
            ("docs://open/../secret/x", "docs://open/secret/x"),
            ("docs://host/open/../secret/x", "docs://host/secret/x"),
            ("docs://host/%2e%2e/secret", "docs://host/secret"),
            ("docs://host/open/%252e%252E/secret", "docs://host/secret"),
            ("file:///a//b/./c", "file:///a/b/c"),
            ("FILE:///a", "file:///a"),
            ("docs://HOST/a", "docs://host/a"),
            ("docs://host/a\\..\\b", "docs://host/b"),
            ("docs://host/s%65cret", "docs://host/secret"),
            ("file:../../etc", "file:etc"),
        ] {
            assert_eq!(resolved(uri).as_deref(), Some(same), "{uri}");
        }
    }

    #[test]
    fn a_scope_fits_into_a_header_between_quotes() {
        for bad in ["", "a b", "a\"b", "a\\b", "ä", "a\n"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        assert!("https://example.com/mcp:read".parse::<Scope>().is_ok());
    }
}
