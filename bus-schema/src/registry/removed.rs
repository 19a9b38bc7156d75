//! What the registry keeps of servers that it has forgotten, so that whoever mirrors the catalogue learns that they are gone.
//!
//! It stands in the same record as what is declared: a server is there and not gone, or gone and not there, by one write.

use serde::{Deserialize, Serialize};

use super::Entry;

/// For how many days is told what is gone.
pub const GONE_FOR_DAYS: u16 = 30;
/// How much of one server that is; what went first is forgotten first.
pub const MOST_GONE: usize = 32;
/// How many characters of a text are kept; catalogues show no more.
const MAX_TEXT: usize = 100;
const MAX_VERSION: usize = 255;

/// What is kept under an id, of servers or of virtual ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record<T = Entry> {
    /// Nothing is declared any more.
    Removed(Removed),
    /// A server.
    Declared(Box<T>),
}

/// What is left of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// When it was removed, as RFC 3339.
    pub removed_at: String,
    /// What it was told of as, the last of which is the newest.
    pub gone: Vec<Gone>,
}

/// A name and a version that a server was told of as, and is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// Its declared name, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version, as it was declared or as the server told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The beginning of its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The beginning of what it was good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was first declared, as RFC 3339.
    pub published_at: String,
    /// Since when it is gone, as RFC 3339.
    pub gone_at: String,
}

impl<T> Record<T> {
    /// What is declared.
    #[must_use]
    pub fn entry(&self) -> Option<&T> {
        match self {
            Self::Declared(entry) => Some(entry),
            Self::Removed(_) => None,
        }
    }

    /// What is left of what was declared.
    #[must_use]
    pub fn removed(&self) -> Option<&Removed> {
        match self {
            Self::Removed(removed) => Some(removed),
            Self::Declared(_) => None,
        }
    }
}

impl Record {
    /// What is gone.
    #[must_use]
    pub fn gone(&self) -> &[Gone] {
        match self {
            Self::Declared(entry) => &entry.gone,
            Self::Removed(removed) => &removed.gone,
        }
    }
}

impl Entry {
    /// What stays of it when it goes. `told` is the version that the server itself told, which counts when none is declared.
    #[must_use]
    pub fn going(&self, told: Option<&str>, at: &str) -> Gone {
        let declared = &self.declaration;
        let cut = |text: &str, most| text.chars().take(most).collect();
        let version = declared.version.as_deref().or(told);
        Gone {
            name: declared.name.clone(),
            version: version.map(|version| cut(version, MAX_VERSION)),
            title: declared.title.as_deref().map(|text| cut(text, MAX_TEXT)),
            description: declared.description.as_deref().map(|text| cut(text, MAX_TEXT)),
            published_at: self.registered_at.clone(),
            gone_at: at.to_owned(),
        }
    }

    /// What goes when another declaration takes its place: what it was told of as, if that is something else then.
    #[must_use]
    pub fn replaced(&self, by: &super::Declaration, told: Option<&str>, at: &str) -> Option<Gone> {
        let declared = &self.declaration;
        let is_same = declared.name == by.name && declared.version == by.version;
        (!is_same).then(|| self.going(told, at))
    }
}

/// Adds what goes now to what is gone, and forgets what went before a moment or is too much.
#[must_use]
pub fn with_gone(gone: &[Gone], now: Option<Gone>, before: &str) -> Vec<Gone> {
    let is_again = |known: &Gone| {
        let now = now.as_ref();
        now.is_some_and(|now| now.name == known.name && now.version == known.version)
    };
    let mut kept: Vec<_> = gone
        .iter()
        .filter(|known| known.gone_at.as_str() >= before && !is_again(known))
        .cloned()
        .collect();
    kept.extend(now);
    kept.drain(..kept.len().saturating_sub(MOST_GONE));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Declaration;

    fn entry(version: Option<&str>) -> Entry {
        let mut declaration = Declaration::new("a".parse().expect("an id"), "https://a.example");
        declaration.version = version.map(str::to_owned);
        declaration.description = Some("d".repeat(300));
        Entry {
            declaration,
            registered_at: "2026-01-01T00:00:00Z".to_owned(),
            updated_at: "2026-01-01T00:00:00Z".to_owned(),
            registered_by: "ann".to_owned(),
            gone: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_a_server_or_what_is_left_of_one_and_nothing_else() {
        let there = Record::Declared(Box::new(entry(Some("1.0.0"))));
        let gone: Record = Record::Removed(Removed {
            removed_at: "2026-02-01T00:00:00Z".to_owned(),
            gone: vec![entry(None).going(Some("2"), "2026-02-01T00:00:00Z")],
        });
        for record in [&there, &gone] {
            let text = serde_json::to_string(record).expect("JSON");
            assert_eq!(serde_json::from_str::<Record>(&text).ok().as_ref(), Some(record));
        }
        // What an older process has written.
        let old = r#"{"declaration":{"id":"a","url":"https://a"},"registeredAt":"","updatedAt":"","registeredBy":""}"#;
        assert!(
            serde_json::from_str::<Record>(old)
                .expect("a server")
                .entry()
                .is_some()
        );
        // What nobody can read is not taken for something that was removed.
        let odd = old.replace("https://a\"", "https://a\",\"new\":1");
        assert!(serde_json::from_str::<Record>(&odd).is_err());
        assert!(serde_json::from_str::<Record>("{}").is_err());
    }

    #[test]
    fn what_is_gone_is_told_once_not_for_ever_and_not_without_a_bound() {
        let at = |day: u32| format!("2026-02-{day:02}T00:00:00Z");
        let going = |version: &str, day| entry(Some(version)).going(None, &at(day));
        assert_eq!(going("1.0.0", 1).description.map(|text| text.len()), Some(100));
        let gone = with_gone(&[], Some(going("1.0.0", 1)), &at(1));
        let gone = with_gone(&gone, Some(going("2.0.0", 3)), &at(1));
        let gone = with_gone(&gone, Some(going("1.0.0", 5)), &at(1));
        assert_eq!(gone, [going("2.0.0", 3), going("1.0.0", 5)]);
        assert_eq!(with_gone(&gone, None, &at(4)), [going("1.0.0", 5)]);
        let mut many = Vec::new();
        for patch in 0..100 {
            many = with_gone(&many, Some(going(&format!("1.0.{patch}"), 1)), &at(1));
        }
        assert_eq!(many.len(), MOST_GONE);
        assert_eq!(many.last(), Some(&going("1.0.99", 1)));
    }

    #[test]
    fn a_replacement_is_gone_only_under_another_name_or_version() {
        let one = entry(Some("1.0.0"));
        let mut other = one.declaration.clone();
        other.url = "https://b.example".to_owned();
        assert_eq!(one.replaced(&other, None, "now"), None);
        other.version = Some("1.1.0".to_owned());
        let gone = one.replaced(&other, None, "now").expect("gone");
        assert_eq!(gone.version.as_deref(), Some("1.0.0"));
    }
}
