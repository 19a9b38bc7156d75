//! How often callers may have servers work: what a limit says, whom and what it is for, and what it counts by.
//!
//! How many calls of a window are left at a moment is in [`window`]; who counts them, and where, is no matter of this room.

pub mod window;

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, de};

use crate::{
    card::NAME_SEPARATOR,
    mcp::method,
    policy::Pattern,
    principal::{Identity, Principal},
};

/// The window of a limit that names none.
pub const DEFAULT_WINDOW_SECS: u64 = 60;
/// The longest window; what counts for longer is a daily quota.
pub const LONGEST_WINDOW_SECS: u64 = 3_600;
/// A day, as quotas count it: from midnight to midnight, UTC.
pub const DAY_SECS: u64 = 86_400;
/// How many calls a user may make in a minute when nobody says otherwise.
pub const DEFAULT_CALLS: u64 = 60;
/// How many limits there may be: a call looks at each.
pub const MAX_LIMITS: usize = 64;
/// What a limit may allow at most; beyond, it limits nothing.
const MOST_CALLS: u64 = 1_000_000_000;
const MAX_NAME_BYTES: usize = 64;

/// Who vouches for plain NATS clients, as their door says.
pub const NATS_ISSUER: &str = "urn:trunkline:nats";
/// The user that the broker makes of a NATS client without credentials.
const NATS_NOBODY: &str = "developer";

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What it is called, in errors, meters and logs.
    pub name: String,
    /// What is counted apart. A list counts each combination apart.
    #[serde(default = "by_principal", deserialize_with = "one_or_many")]
    pub by: BTreeSet<By>,
    /// Whose calls count.
    #[serde(default)]
    pub who: Who,
    /// The tenant whose callers it is for; every tenant's when there is none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// What of servers it is for, as `<server>__<name>`; everything when there is none.
    #[serde(default, rename = "for", deserialize_with = "patterns")]
    pub of: Vec<Pattern>,
    /// How many calls there may be in a window.
    #[serde(default)]
    pub calls: Option<u64>,
    /// How long a window is.
    #[serde(default = "default_window")]
    pub window_secs: u64,
    /// How many calls there may be in a day.
    #[serde(default)]
    pub daily: Option<u64>,
    /// How many calls each process lets run at once.
    #[serde(default)]
    pub concurrent: Option<u32>,
}

/// What a limit counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Each caller.
    Principal,
    /// Each tool of each server; only calls of tools count.
    Tool,
    /// Each server.
    Server,
    /// Each tenant.
    Tenant,
}

/// Whose calls count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Everybody's.
    #[default]
    Everybody,
    /// Those of callers for whom somebody vouches.
    Authenticated,
}

/// Work that a caller wants a server to do.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// Who wants it.
    pub principal: &'a Principal,
    /// Of which server.
    pub server: &'a str,
    /// The method.
    pub method: &'a str,
    /// What the method names there, such as the tool.
    pub name: Option<&'a str>,
}

/// Says why limits cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadLimit {
    /// A name that cannot be told in a header or a meter.
    #[error(
        "`{0}` is no name of a limit: 1 to {MAX_NAME_BYTES} lower-case letters, digits and `-` are expected"
    )]
    Name(String),
    /// Two of the same name.
    #[error("two limits are named `{0}`; give each a name of its own")]
    Same(String),
    /// It limits nothing.
    #[error("limit `{0}` limits nothing; say how many with `calls`, `daily` or `concurrent`")]
    Nothing(String),
    /// It counts nothing apart, and so nothing.
    #[error("limit `{0}` counts by nothing; write by = \"principal\", \"tool\", \"server\" or \"tenant\"")]
    ByNothing(String),
    /// A number that cannot be meant.
    #[error("limit `{name}` has {field} = {is}; use {least} to {most}")]
    Number {
        /// Of which limit.
        name: String,
        /// Which setting.
        field: &'static str,
        /// What it says.
        is: u64,
        /// The least that it may say.
        least: u64,
        /// The most that it may say.
        most: u64,
    },
    /// More than a call can look at.
    #[error("there are {0} limits; use {MAX_LIMITS} at most, as every call looks at each")]
    TooMany(usize),
}

impl Limit {
    /// What holds when nobody says otherwise: each user may make so many calls in a minute.
    #[must_use]
    pub fn default_of_users() -> Self {
        Self {
            name: "user".to_owned(),
            by: by_principal(),
            who: Who::Authenticated,
            tenant: None,
            of: Vec::new(),
            calls: Some(DEFAULT_CALLS),
            window_secs: DEFAULT_WINDOW_SECS,
            daily: None,
            concurrent: None,
        }
    }

    /// Whether some work counts.
    #[must_use]
    pub fn is_for(&self, work: &Work<'_>) -> bool {
        if self.who == Who::Authenticated && !is_vouched_for(work.principal) {
            return false;
        }
        let is_anothers = |tenant: &String| *tenant != work.principal.tenant;
        if self.tenant.as_ref().is_some_and(is_anothers) {
            return false;
        }
        if self.by.contains(&By::Tool) && (work.method != method::TOOLS_CALL || work.name.is_none()) {
            return false;
        }
        if self.of.is_empty() {
            return true;
        }
        let name = format!(
            "{}{NAME_SEPARATOR}{}",
            work.server,
            work.name.unwrap_or(work.method)
        );
        self.of.iter().any(|pattern| pattern.matches(&name))
    }

    /// What work counts with: texts that are the same for all work that is counted together. Tenants never share a count.
    #[must_use]
    pub fn counts_with<'a>(&'a self, work: &Work<'a>) -> Vec<&'a str> {
        let Identity {
            tenant,
            issuer,
            subject,
        } = work.principal.identity();
        let mut pieces = vec![self.name.as_str(), tenant];
        for by in &self.by {
            match by {
                By::Principal => pieces.extend(["principal", issuer, subject]),
                By::Tool => pieces.extend(["tool", work.server, work.name.unwrap_or_default()]),
                By::Server => pieces.extend(["server", work.server]),
                By::Tenant => pieces.push("tenant"),
            }
        }
        pieces
    }

    fn check(&self) -> Result<(), BadLimit> {
        let name = &self.name;
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_letter) {
            return Err(BadLimit::Name(name.clone()));
        }
        if self.by.is_empty() {
            return Err(BadLimit::ByNothing(name.clone()));
        }
        if self.calls.is_none() && self.daily.is_none() && self.concurrent.is_none() {
            return Err(BadLimit::Nothing(name.clone()));
        }
        let numbers = [
            ("calls", self.calls, MOST_CALLS),
            ("window_secs", Some(self.window_secs), LONGEST_WINDOW_SECS),
            ("daily", self.daily, MOST_CALLS),
            ("concurrent", self.concurrent.map(u64::from), MOST_CALLS),
        ];
        for (field, is, most) in numbers {
            if let Some(is) = is
                && !(1..=most).contains(&is)
            {
                return Err(BadLimit::Number {
                    name: name.clone(),
                    field,
                    is,
                    least: 1,
                    most,
                });
            }
        }
        Ok(())
    }
}

/// Checks limits as they are to hold together.
///
/// # Errors
/// [`BadLimit`] that names the limit and what would be right.
pub fn check(limits: &[Limit]) -> Result<(), BadLimit> {
    if limits.len() > MAX_LIMITS {
        return Err(BadLimit::TooMany(limits.len()));
    }
    let mut names = BTreeSet::new();
    for limit in limits {
        limit.check()?;
        if !names.insert(&limit.name) {
            return Err(BadLimit::Same(limit.name.clone()));
        }
    }
    Ok(())
}

/// Whether somebody says who a caller is. Those without credentials are one developer, by whichever door they come.
fn is_vouched_for(principal: &Principal) -> bool {
    match principal.issuer.as_deref() {
        None => false,
        Some(NATS_ISSUER) => principal.subject.rsplit('/').next() != Some(NATS_NOBODY),
        Some(_) => true,
    }
}

fn by_principal() -> BTreeSet<By> {
    BTreeSet::from([By::Principal])
}

const fn default_window() -> u64 {
    DEFAULT_WINDOW_SECS
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<By>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let names = match OneOrMany::deserialize(from)
        .map_err(|_| de::Error::custom("`by` is one name or a list of them"))?
    {
        OneOrMany::One(name) => vec![name],
        OneOrMany::Many(names) => names,
    };
    let read = |name: String| match name.as_str() {
        "principal" => Ok(By::Principal),
        "tool" => Ok(By::Tool),
        "server" => Ok(By::Server),
        "tenant" => Ok(By::Tenant),
        _ => Err(de::Error::custom(format!(
            "`{name}` is nothing that is counted by: principal, tool, server or tenant is expected"
        ))),
    };
    names.into_iter().map(read).collect()
}

fn patterns<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Pattern>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read = |text: String| text.parse().map_err(de::Error::custom);
    texts.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limit(text: serde_json::Value) -> Limit {
        serde_json::from_value(text).expect("a limit")
    }

    fn work<'a>(principal: &'a Principal, server: &'a str, tool: &'a str) -> Work<'a> {
        Work {
            principal,
            server,
            method: method::TOOLS_CALL,
            name: Some(tool),
        }
    }

    fn ann(tenant: &str) -> Principal {
        Principal {
            issuer: Some("https://id.example".to_owned()),
            ..Principal::new("ann", tenant)
        }
    }

    #[test]
    fn a_limit_is_for_what_its_patterns_name() {
        let some = limit(json!({ "name": "a", "calls": 1, "for": ["crm__get_*", "weather__*"] }));
        let who = ann("t");
        for (server, tool, expected) in [
            ("crm", "get_all", true),
            ("crm", "set", false),
            ("weather", "x", true),
        ] {
            assert_eq!(
                some.is_for(&work(&who, server, tool)),
                expected,
                "{server} {tool}"
            );
        }
        let all = limit(json!({ "name": "a", "calls": 1 }));
        assert!(all.is_for(&work(&who, "crm", "set")));
        let by_tool = limit(json!({ "name": "a", "calls": 1, "by": "tool" }));
        let read = Work {
            method: method::RESOURCES_READ,
            ..work(&who, "crm", "a://b")
        };
        assert!(all.is_for(&read) && !by_tool.is_for(&read));
    }

    #[test]
    fn users_are_limited_and_the_developer_is_not_until_somebody_says_so() {
        let nats = |subject: &str| Principal {
            issuer: Some(NATS_ISSUER.to_owned()),
            ..Principal::new(subject, "t")
        };
        let usual = Limit::default_of_users();
        let everybody = limit(json!({ "name": "a", "calls": 1 }));
        for (who, expected) in [
            (Principal::developer(), false),
            (nats("DEFAULT/developer"), false),
            (nats("DEFAULT/ann"), true),
            (ann("t"), true),
        ] {
            assert_eq!(usual.is_for(&work(&who, "a", "b")), expected, "{who:?}");
            assert!(everybody.is_for(&work(&who, "a", "b")));
        }
        assert_eq!((usual.calls, usual.window_secs), (Some(60), 60));
    }

    #[test]
    fn what_is_counted_apart_has_counts_of_its_own_and_tenants_always_have() {
        let (ann, other) = (ann("t"), ann("u"));
        let bob = Principal {
            subject: "bob".to_owned(),
            ..ann.clone()
        };
        let base = work(&ann, "crm", "get");
        for (by, same, apart) in [
            ("principal", work(&ann, "x", "y"), work(&bob, "crm", "get")),
            ("tool", work(&bob, "crm", "get"), work(&ann, "crm", "set")),
            ("server", work(&bob, "crm", "set"), work(&ann, "x", "get")),
            ("tenant", work(&bob, "x", "y"), work(&other, "crm", "get")),
        ] {
            let limit = limit(json!({ "name": "a", "calls": 1, "by": by }));
            assert_eq!(limit.counts_with(&base), limit.counts_with(&same), "{by}");
            assert_ne!(limit.counts_with(&base), limit.counts_with(&apart), "{by}");
            let elsewhere = work(&other, "crm", "get");
            assert_ne!(limit.counts_with(&base), limit.counts_with(&elsewhere), "{by}");
        }
        let both = limit(json!({ "name": "a", "calls": 1, "by": ["principal", "tool"] }));
        for apart in [work(&ann, "crm", "set"), work(&bob, "crm", "get")] {
            assert_ne!(both.counts_with(&base), both.counts_with(&apart));
        }
    }

    #[test]
    fn a_limit_that_cannot_be_meant_is_named() {
        for (text, words) in [
            (json!([{ "name": "A b", "calls": 1 }]), "`A b`"),
            (json!([{ "name": "", "calls": 1 }]), "no name"),
            (json!([{ "name": "a" }]), "limit `a` limits nothing"),
            (json!([{ "name": "a", "calls": 0 }]), "calls = 0; use 1 to"),
            (
                json!([{ "name": "a", "calls": 1, "window_secs": 7200 }]),
                "window_secs = 7200; use 1 to 3600",
            ),
            (json!([{ "name": "a", "daily": 0 }]), "daily = 0"),
            (json!([{ "name": "a", "concurrent": 0 }]), "concurrent = 0"),
            (
                json!([{ "name": "a", "calls": 1, "by": [] }]),
                "counts by nothing",
            ),
            (
                json!([{ "name": "a", "calls": 1 }, { "name": "a", "daily": 1 }]),
                "two limits are named `a`",
            ),
        ] {
            let limits: Vec<Limit> = serde_json::from_value(text.clone()).expect("limits");
            let error = check(&limits).expect_err(words).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let many: Vec<_> = (0..=MAX_LIMITS)
            .map(|at| limit(json!({ "name": format!("a{at}"), "calls": 1 })))
            .collect();
        assert_eq!(check(&many), Err(BadLimit::TooMany(MAX_LIMITS + 1)));
        assert_eq!(check(&[Limit::default_of_users()]), Ok(()));
        for (text, words) in [
            (json!({ "name": "a", "calls": 1, "by": "user" }), "`user`"),
            (
                json!({ "name": "a", "calls": 1, "for": ["get"] }),
                "`get` names nothing",
            ),
            (json!({ "name": "a", "call": 1 }), "unknown field `call`"),
        ] {
            let error = serde_json::from_value::<Limit>(text)
                .expect_err(words)
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
