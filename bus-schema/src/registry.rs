//! What is declared in the registry: servers that the platform is to reach, each with what is told of it.
//!
//! A declaration says what somebody wants; who serves it at this moment is presence, and stands in cards and health reports.

mod auth;
mod connect;
mod removed;
mod status;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ServerId,
    integrity::{self, Hidden},
    task::TaskKnob,
    upstream::{BreakerKnob, EraKnob, RetryKnob, TransportKnob},
};

pub use auth::{Auth, SECRET_PREFIX, SecretRef, is_secret_name};
pub use connect::{Connect, Credentials};
pub use removed::{GONE_FOR_DAYS, Gone, MOST_GONE, Record, Removed, with_gone};
pub use status::{Status, StatusEvent, Told};

/// The most replicas that a declared server may ask for.
pub const MOST_REPLICAS: u32 = 16;
/// The most that a declared server's `max_in_flight` may be.
pub const MOST_IN_FLIGHT: u32 = 10_000;
/// How many bytes a declaration may have as JSON.
pub const MAX_DECLARATION_BYTES: usize = 64 * 1024;

/// The longest that a call may be allowed, in milliseconds: a day.
pub const LONGEST_CALL_MS: u64 = 24 * 60 * 60 * 1_000;

const MAX_TAGS: usize = 64;
const MAX_TAG: usize = 64;
const MAX_NAME: usize = 200;
const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 4_000;
const MAX_URL: usize = 2_048;

/// A remote server that the platform is to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declaration {
    /// Its id on the bus.
    pub id: ServerId,
    /// Its name in registries, such as `com.example/weather`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is.
    pub url: String,
    /// How messages travel.
    #[serde(default)]
    pub transport: TransportKnob,
    /// Which era it speaks.
    #[serde(default)]
    pub era: EraKnob,
    /// Its version, as semantic versioning spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Labels to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How the platform is let in.
    #[serde(default)]
    pub auth: Auth,
    /// Whose account it is used with. Where that is the user's, `auth` is for its lists only.
    #[serde(default, skip_serializing_if = "Credentials::is_usual")]
    pub credentials: Credentials,
    /// How users connect their accounts there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Connect>,
    /// Headers of every request to it. They are shown to whoever may read the registry, so they are no place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Whether it may be at a private address, and without encryption.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
    /// A URL that answers 2xx while the server is well; without it the server itself is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_url: Option<String>,
    /// Whom to ask about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How many calls each replica takes at once.
    #[serde(default = "default_in_flight")]
    pub max_in_flight: u32,
    /// How many processes of the fleet connect to it.
    #[serde(default = "default_replicas")]
    pub replicas: u32,
    /// The longest that one call may take, in milliseconds; as long as the platform allows if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_timeout_ms: Option<u64>,
    /// When calls to it are stopped because they keep failing.
    #[serde(default, skip_serializing_if = "BreakerKnob::is_usual")]
    pub breaker: BreakerKnob,
    /// How often calls to it are made that were lost.
    #[serde(default, skip_serializing_if = "RetryKnob::is_usual")]
    pub retry: RetryKnob,
    /// Which of its calls become tasks of the platform.
    #[serde(default, skip_serializing_if = "TaskKnob::is_usual")]
    pub tasks: TaskKnob,
}

/// A declaration as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// What was declared.
    pub declaration: Declaration,
    /// When it was first declared, as RFC 3339.
    pub registered_at: String,
    /// When it was last changed, as RFC 3339.
    pub updated_at: String,
    /// Who declared it last.
    pub registered_by: String,
    /// What it was told of as before, and is not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
}

/// The method by which the registry is asked to keep a declaration; its parameters are a [`Put`], its result is a [`Written`].
pub const PUT: &str = "registry/put";
/// The method by which it is asked to forget one; its parameters are a [`Remove`].
pub const REMOVE: &str = "registry/remove";

/// A wish that a declaration be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Put {
    /// What is declared.
    pub declaration: Declaration,
    /// What it may replace.
    pub over: Over,
}

/// What a declaration may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Over {
    /// Nothing but the very same.
    Nothing,
    /// Whatever is there.
    Anything,
    /// What has this revision.
    Revision(u64),
}

/// A wish that a declaration be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    /// Which server.
    pub id: ServerId,
    /// Its revision, if only that one is to be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// What has become of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// What the registry keeps now.
    pub entry: Entry,
    /// Its revision.
    pub revision: u64,
    /// What it was to the registry.
    pub was: Was,
}

/// What is kept of anything else under the id of a server: a traffic rule, a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keeping<R> {
    /// What the registry keeps now.
    pub record: R,
    /// Its revision.
    pub revision: u64,
    /// What it was to the registry.
    pub was: Was,
}

/// What a declaration was to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Was {
    /// Not there.
    New,
    /// There, and otherwise.
    Changed,
    /// There, and the same.
    Same,
}

/// Why the registry does not do as it was asked; the data of its error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "camelCase")]
pub enum Refusal {
    /// The declaration cannot be used.
    Bad {
        /// Which member.
        field: String,
    },
    /// Something else is declared under the id.
    Exists,
    /// Nothing is declared under the id.
    Unknown,
    /// It has another revision by now.
    Changed,
    /// A server of the id is on the bus that was never declared here.
    OnTheBus,
    /// The registry cannot write at this moment.
    Unavailable,
    /// The policy does not let who asks do that.
    Forbidden {
        /// What decides so: the rule, or the name of the decision.
        rule: String,
        /// The scopes that would help.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
    },
}

/// Says what of a declaration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct BadDeclaration {
    /// Which member.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub why: String,
}

const fn default_in_flight() -> u32 {
    64
}

const fn default_replicas() -> u32 {
    1
}

impl Declaration {
    /// Where its texts have characters that nobody sees.
    #[must_use]
    pub fn hidden(&self) -> Vec<Hidden> {
        let node = serde_json::to_string(self)
            .ok()
            .and_then(|text| integrity::read(&text));
        node.map(|node| integrity::hidden(&node)).unwrap_or_default()
    }

    /// A declaration of a server at a URL, with all else as usual.
    #[must_use]
    pub fn new(id: ServerId, url: impl Into<String>) -> Self {
        Self {
            id,
            name: None,
            title: None,
            description: None,
            url: url.into(),
            transport: TransportKnob::default(),
            era: EraKnob::default(),
            version: None,
            tags: Vec::new(),
            auth: Auth::None,
            credentials: Credentials::default(),
            connect: None,
            headers: BTreeMap::new(),
            allow_private: false,
            health_url: None,
            owner: None,
            max_in_flight: default_in_flight(),
            replicas: default_replicas(),
            call_timeout_ms: None,
            breaker: BreakerKnob::default(),
            retry: RetryKnob::default(),
            tasks: TaskKnob::default(),
        }
    }

    /// Finds what cannot be used whatever the platform's settings are.
    ///
    /// # Errors
    /// [`BadDeclaration`] that names the member and what would be right.
    pub fn check(&self) -> Result<(), BadDeclaration> {
        check_url("url", &self.url, &["https", "http", "wss", "ws"])?;
        if let Some(url) = &self.health_url {
            check_url("healthUrl", url, &["https", "http"])?;
        }
        for (field, text, most) in [
            ("name", &self.name, MAX_NAME),
            ("title", &self.title, MAX_TITLE),
            ("description", &self.description, MAX_DESCRIPTION),
            ("owner", &self.owner, MAX_TITLE),
        ] {
            let Some(text) = text else { continue };
            let characters = text.chars().count();
            if characters == 0 || characters > most {
                return Err(bad(
                    field,
                    format!("has {characters} characters; use 1 to {most}, or leave it out"),
                ));
            }
        }
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if let Some(version) = &self.version
            && semver::Version::parse(version).is_err()
        {
            return Err(bad(
                "version",
                format!("is `{version}`; write a semantic version such as 1.2.0"),
            ));
        }
        check_tags(&self.tags)?;
        self.auth.check()?;
        connect::check(self.credentials, self.connect.as_ref())?;
        for (field, number, most) in [
            ("maxInFlight", self.max_in_flight, MOST_IN_FLIGHT),
            ("replicas", self.replicas, MOST_REPLICAS),
        ] {
            if !(1..=most).contains(&number) {
                return Err(bad(field, format!("is {number}; use 1 to {most}")));
            }
        }
        if let Some(millis) = self.call_timeout_ms
            && !(1..=LONGEST_CALL_MS).contains(&millis)
        {
            return Err(bad(
                "callTimeoutMs",
                format!("is {millis}; use 1 to {LONGEST_CALL_MS} (a day)"),
            ));
        }
        self.breaker.check().map_err(|why| bad("breaker", why))?;
        self.retry.check().map_err(|why| bad("retry", why))?;
        self.tasks.check().map_err(|why| bad("tasks", why))
    }
}

fn bad(field: &'static str, why: impl Into<String>) -> BadDeclaration {
    BadDeclaration {
        field,
        why: why.into(),
    }
}

fn check_url(field: &'static str, url: &str, schemes: &[&str]) -> Result<(), BadDeclaration> {
    let scheme = url
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    let known = scheme.is_some_and(|scheme| schemes.contains(&scheme.as_str()));
    if !known || url.len() > MAX_URL {
        let example = format!("{}://host/path", schemes[0]);
        return Err(bad(
            field,
            format!("is no URL that can be used; write one such as {example}, of at most {MAX_URL} bytes"),
        ));
    }
    Ok(())
}

/// The form of the official registry: a reversed domain, a slash, a name.
fn check_name(name: &str) -> Result<(), BadDeclaration> {
    let fits = |part: &str, more: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let parts = name.split_once('/');
    if parts.is_some_and(|(domain, name)| fits(domain, b".-") && fits(name, b"._-")) {
        return Ok(());
    }
    Err(bad(
        "name",
        format!("is `{name}`; write a reversed domain, a slash and a name, such as com.example/weather"),
    ))
}

fn check_tags(tags: &[String]) -> Result<(), BadDeclaration> {
    if tags.len() > MAX_TAGS {
        return Err(bad(
            "tags",
            format!("has {} labels; use at most {MAX_TAGS}", tags.len()),
        ));
    }
    for tag in tags {
        let fits = tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b));
        if tag.is_empty() || tag.len() > MAX_TAG || !fits {
            return Err(bad(
                "tags",
                format!("has `{tag}`; use 1 to {MAX_TAG} letters, digits and `.`, `_`, `:`, `/`, `-`"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Declaration {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_declaration_needs_an_id_and_a_url_only() {
        let declared = read(json!({ "id": "a", "url": "https://a.example/mcp" }));
        assert_eq!(
            declared,
            Declaration::new("a".parse().unwrap(), "https://a.example/mcp")
        );
        assert_eq!(declared.check(), Ok(()));
        let again = serde_json::to_value(&declared).unwrap();
        assert_eq!(read(again), declared);
        for wrong in [
            json!({ "id": "a" }),
            json!({ "id": "A b", "url": "https://a" }),
            json!({ "id": "a", "url": "https://a", "uri": "https://a" }),
            json!({ "id": "a", "url": "https://a", "auth": { "type": "basic" } }),
            json!({ "id": "a", "url": "https://a", "auth": { "type": "bearer", "token": "secret" } }),
        ] {
            assert!(
                serde_json::from_value::<Declaration>(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_would_be_right() {
        for (member, value, words) in [
            ("url", json!("a.example/mcp"), "https://host/path"),
            ("url", json!("file:///etc/passwd"), "https://host/path"),
            ("healthUrl", json!("ws://a"), "https://host/path"),
            ("name", json!("weather"), "com.example/weather"),
            ("title", json!(""), "1 to 200"),
            ("description", json!("d".repeat(4_001)), "1 to 4000"),
            ("version", json!("1.2"), "1.2.0"),
            ("tags", json!(["a b"]), "letters, digits"),
            ("maxInFlight", json!(0), "1 to 10000"),
            ("replicas", json!(17), "1 to 16"),
            ("callTimeoutMs", json!(0), "1 to 86400000"),
            ("breaker", json!({ "openSecs": 0 }), "use 1 to 3600"),
            ("retry", json!({ "attempts": 0 }), "use 1 to 10"),
            ("auth.tokenEnv", json!("PATH"), "TRUNKLINE_SECRET_"),
            (
                "auth.tokenName",
                json!("../etc/passwd"),
                "a letter or digit first",
            ),
            ("auth.tokenEndpoint", json!("nowhere"), "https://host/path"),
            ("auth.issuer", json!("https://id.example"), "keep one"),
            ("auth.clientSecretEnv", json!(null), "is missing"),
        ] {
            let mut text = json!({ "id": "a", "url": "https://a.example/mcp" });
            match member {
                "auth.tokenEnv" => text["auth"] = json!({ "type": "bearer", "tokenEnv": value }),
                "auth.tokenName" => text["auth"] = json!({ "type": "bearer", "tokenName": value }),
                "auth.tokenEndpoint" | "auth.issuer" | "auth.clientSecretEnv" => {
                    text["auth"] = json!({
                        "type": "oauth2", "tokenEndpoint": "https://id.example/token", "clientId": "c",
                        "clientSecretEnv": "TRUNKLINE_SECRET_C"
                    });
                    text["auth"][member.trim_start_matches("auth.")] = value;
                }
                _ => text[member] = value,
            }
            let error = read(text).check().expect_err(member);
            assert_eq!(error.field, member);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
