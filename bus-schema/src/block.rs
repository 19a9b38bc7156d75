//! A full stop for one caller: what is kept of it, and under which key.

use serde::{Deserialize, Serialize};

use crate::{principal::Principal, token::Token};

/// The longest text of a block, in characters.
pub const MAX_TEXT_CHARS: usize = 1_024;
/// The longest that a block may be set for: ten years. One without an end is meant for longer.
pub const LONGEST_SECS: u64 = 10 * 366 * 24 * 60 * 60;

/// The method by which the registry is asked to stop somebody of its tenant; its parameters are a [`Stop`], its result is a [`Block`].
pub const PUT: &str = "blocks/put";
/// The method by which it is asked to let somebody go; its parameters are a [`Release`].
pub const REMOVE: &str = "blocks/remove";

/// A wish that somebody be stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Who it is.
    pub subject: String,
    /// Who vouches for the subject; everybody of that name is meant where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// For how many seconds; for good where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_secs: Option<u64>,
    /// Why, for operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A wish that somebody be let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Who it is.
    pub subject: String,
    /// As a subject of whom, if the block has an issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// Who is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// In which tenant.
    pub tenant: String,
    /// Who vouches for the subject; everybody of that name is meant where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Who it is.
    pub subject: String,
}

/// A block as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Who is stopped.
    #[serde(flatten)]
    pub who: Blocked,
    /// Until when, in milliseconds since 1970; for good where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Why, for operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was said, as RFC 3339.
    pub since: String,
    /// Who said it.
    pub by: String,
}

/// Says why nobody can be stopped by these words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadBlock {
    /// Nobody is named.
    #[error("no subject is named; write the caller's subject as its token says it")]
    Nobody,
    /// More than is kept.
    #[error("`{0}` is longer than {MAX_TEXT_CHARS} characters")]
    TooLong(&'static str),
    /// No time that can be meant.
    #[error(
        "a block for {0} s cannot be meant; use 1 to {LONGEST_SECS} seconds, or none for a block without an end"
    )]
    Time(u64),
}

impl Blocked {
    /// A subject of a tenant; an issuer without a name is none.
    #[must_use]
    pub fn new(tenant: &str, issuer: Option<String>, subject: String) -> Self {
        Self {
            tenant: tenant.to_owned(),
            issuer: issuer.filter(|issuer| !issuer.is_empty()),
            subject,
        }
    }

    /// Checks what somebody has written.
    ///
    /// # Errors
    /// [`BadBlock`] that names what is wrong.
    pub fn check(&self) -> Result<(), BadBlock> {
        if self.subject.is_empty() {
            return Err(BadBlock::Nobody);
        }
        let issuer = self.issuer.as_deref().unwrap_or_default();
        for (field, text) in [("subject", self.subject.as_str()), ("issuer", issuer)] {
            if text.chars().count() > MAX_TEXT_CHARS {
                return Err(BadBlock::TooLong(field));
            }
        }
        Ok(())
    }

    /// Whether a caller is meant.
    #[must_use]
    pub fn is(&self, principal: &Principal) -> bool {
        self.tenant == principal.tenant
            && self.subject == principal.subject
            && (self.issuer.is_none() || self.issuer == principal.issuer)
    }

    /// The key of its record: three tokens. The issuer's is empty text's where it is absent.
    #[must_use]
    pub fn key(&self) -> String {
        let issuer = self.issuer.as_deref().unwrap_or_default();
        [self.tenant.as_str(), issuer, self.subject.as_str()]
            .map(|text| Token::encode(text).to_string())
            .join(".")
    }
}

impl Block {
    /// Whether it still holds at a moment.
    #[must_use]
    pub fn holds(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(issuer: Option<&str>, subject: &str) -> Principal {
        Principal {
            issuer: issuer.map(str::to_owned),
            ..Principal::new(subject, "t")
        }
    }

    #[test]
    fn a_block_is_of_one_issuer_or_of_all() {
        let (one, other) = (Some("https://a.example"), Some("https://b.example"));
        let named = Blocked::new("t", one.map(str::to_owned), "ann".to_owned());
        let all = Blocked::new("t", Some(String::new()), "ann".to_owned());
        for (who, issuer, subject, expected) in [
            (&named, one, "ann", true),
            (&named, other, "ann", false),
            (&named, None, "ann", false),
            (&named, one, "bob", false),
            (&all, one, "ann", true),
            (&all, None, "ann", true),
            (&all, other, "bob", false),
        ] {
            assert_eq!(
                who.is(&caller(issuer, subject)),
                expected,
                "{who:?} {issuer:?} {subject}"
            );
        }
        let elsewhere = Blocked::new("u", None, "ann".to_owned());
        assert!(!elsewhere.is(&caller(None, "ann")));
        assert_ne!(named.key(), all.key());
        assert_eq!(all.key(), "t._.ann");
    }

    #[test]
    fn who_cannot_be_meant_is_refused_and_a_time_ends() {
        let who = |subject: &str| Blocked::new("t", None, subject.to_owned());
        assert_eq!(who("").check(), Err(BadBlock::Nobody));
        assert_eq!(who(&"ä".repeat(MAX_TEXT_CHARS)).check(), Ok(()));
        let long = who(&"a".repeat(MAX_TEXT_CHARS + 1)).check();
        assert_eq!(long, Err(BadBlock::TooLong("subject")));
        let mut block = Block {
            who: who("ann"),
            until_ms: Some(7),
            reason: None,
            since: "2026-01-01T00:00:00Z".to_owned(),
            by: "op".to_owned(),
        };
        assert!(block.holds(6) && !block.holds(7));
        block.until_ms = None;
        assert!(block.holds(u64::MAX));
    }
}
