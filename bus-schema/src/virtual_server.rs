//! What is said of a virtual server: an endpoint of chosen tools, prompts and resources of several servers.
//!
//! A definition names what is chosen; what it comes to depends on who is on the bus, and is worked out at the doors.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    ServerId,
    registry::{BadDeclaration, Over},
};

/// How many bytes a definition may have as JSON.
pub const MAX_DEFINITION_BYTES: usize = 64 * 1024;

/// The method by which the registry is asked to keep a definition; its parameters are a [`Define`], its result is a
/// [`Keeping`](crate::registry::Keeping) of a [`Defined`].
pub const DEFINE: &str = "virtual/define";
/// The method by which it is asked to forget one; its parameters are an [`Undefine`].
pub const UNDEFINE: &str = "virtual/undefine";

const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 4_000;
const MAX_ITEMS: usize = 100;
const MAX_PATTERNS: usize = 1_000;
const MAX_NAME: usize = 512;

/// An endpoint of chosen things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualServer {
    /// Its id, in the place of a server's.
    pub id: ServerId,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is good for, and how a model should use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is chosen. Its lists have the order of these.
    pub items: Vec<Choice>,
}

/// Things of one server, or of all that have some labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Choice {
    /// Whose things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerId>,
    /// Those of all servers that have these labels, in the place of one server's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Which tools: names, where `*` stands for any text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Which prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Which resources and resource templates, by URI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Other names for tools and prompts, by their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// What stands before the names of tools and prompts that are not renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A wish that a definition be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Define {
    /// What is defined.
    pub definition: VirtualServer,
    /// What it may replace.
    pub over: Over,
}

/// A wish that a definition be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undefine {
    /// Which.
    pub id: ServerId,
    /// Its revision, if only that one is to be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The version that doors told of it, as what it chose from had come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A definition as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Defined {
    /// What was defined.
    pub definition: VirtualServer,
    /// When it was first defined, as RFC 3339.
    pub registered_at: String,
    /// When it was last changed, as RFC 3339.
    pub updated_at: String,
    /// Who defined it last.
    pub registered_by: String,
}

impl Choice {
    /// The name under which a tool or prompt is shown.
    #[must_use]
    pub fn shown(&self, own: &str) -> String {
        match (self.rename.get(own), &self.prefix) {
            (Some(other), _) => other.clone(),
            (None, Some(prefix)) => format!("{prefix}{own}"),
            (None, None) => own.to_owned(),
        }
    }

    fn check(&self, at: usize, id: &ServerId) -> Result<(), BadDeclaration> {
        let bad = |why: String| Err(bad("items", format!("[{at}] {why}")));
        match (&self.server, self.tags.as_slice()) {
            (Some(server), []) if server == id => {
                return bad(format!("chooses from `{id}` itself; name another server"));
            }
            (Some(_), []) | (None, [_, ..]) => {}
            _ => return bad("must have either `server` or `tags`".to_owned()),
        }
        let patterns = [&self.tools, &self.prompts, &self.resources];
        let count: usize = patterns.iter().map(|patterns| patterns.len()).sum();
        if !(1..=MAX_PATTERNS).contains(&count) {
            return bad(format!(
                "has {count} patterns in `tools`, `prompts` and `resources`; use 1 to {MAX_PATTERNS}, such as \"*\""
            ));
        }
        let texts = patterns.into_iter().flatten().chain(self.tags.iter());
        let renamed = self.rename.iter().flat_map(|(own, other)| [own, other]);
        let mut texts = texts.chain(renamed).chain(self.prefix.iter());
        if let Some(text) = texts.find(|text| text.is_empty() || text.len() > MAX_NAME) {
            return bad(format!("has a text of {} bytes; use 1 to {MAX_NAME}", text.len()));
        }
        let mut others = BTreeSet::new();
        match self.rename.values().find(|other| !others.insert(other.as_str())) {
            Some(twice) => bad(format!("renames two things to `{twice}`; give each its own name")),
            None => Ok(()),
        }
    }
}

impl VirtualServer {
    /// Finds what cannot be used whoever is on the bus.
    ///
    /// # Errors
    /// [`BadDeclaration`] that names the member and what would be right.
    pub fn check(&self) -> Result<(), BadDeclaration> {
        for (field, text, most) in [
            ("title", &self.title, MAX_TITLE),
            ("description", &self.description, MAX_DESCRIPTION),
        ] {
            if let Some(text) = text.as_ref().filter(|text| text.len() > most) {
                return Err(bad(
                    field,
                    format!("has {} bytes; use at most {most}", text.len()),
                ));
            }
        }
        if !(1..=MAX_ITEMS).contains(&self.items.len()) {
            return Err(bad(
                "items",
                format!("has {} entries; use 1 to {MAX_ITEMS}", self.items.len()),
            ));
        }
        let mut items = self.items.iter().enumerate();
        items.try_for_each(|(at, item)| item.check(at, &self.id))
    }
}

fn bad(field: &'static str, why: String) -> BadDeclaration {
    BadDeclaration { field, why }
}

/// Whether a name fits one of some patterns, in which `*` stands for any text.
#[must_use]
pub fn fits_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, name))
}

fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return left.ends_with(piece);
        }
        let Some(at) = left.find(piece) else {
            return false;
        };
        left = &left[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("get", "get", true),
            ("get", "gets", false),
            ("*", "", true),
            ("*", "anything", true),
            ("get*", "get_user", true),
            ("get*", "forget", false),
            ("*_user", "get_user", true),
            ("*_user", "get_users", false),
            ("get_*_by_*", "get_user_by_id", true),
            ("get_*_by_*", "get_user_id", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("file:///docs/*", "file:///docs/a/b", true),
            ("[a]?", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, words) in [
            (r#"{"id":"v","items":[]}"#, ["`items`", "1 to 100"]),
            (
                r#"{"id":"v","items":[{"tools":["*"]}]}"#,
                ["[0]", "`server` or `tags`"],
            ),
            (
                r#"{"id":"v","items":[{"server":"a","tags":["t"],"tools":["*"]}]}"#,
                ["[0]", "either"],
            ),
            (
                r#"{"id":"v","items":[{"server":"v","tools":["*"]}]}"#,
                ["[0]", "itself"],
            ),
            (r#"{"id":"v","items":[{"server":"a"}]}"#, ["[0]", "1 to 1000"]),
            (
                r#"{"id":"v","items":[{"server":"a","tools":[""]}]}"#,
                ["[0]", "0 bytes"],
            ),
            (
                r#"{"id":"v","items":[{"server":"a","tools":["*"],"rename":{"x":"z","y":"z"}}]}"#,
                ["`z`", "its own name"],
            ),
        ] {
            let definition: VirtualServer = serde_json::from_str(text).expect(text);
            let error = definition.check().expect_err(text).to_string();
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }
}
