//! The card of a server instance: what it tells the bus about itself.

use std::{fmt, str::FromStr};

use crate::{principal::DEFAULT_TENANT, task::TaskKnob};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What stands between server and tool on an endpoint that shows many servers.
pub const NAME_SEPARATOR: &str = "__";

/// The id of a server: 1 to 48 characters of `[a-z0-9-]`, beginning and ending with a letter or digit.
///
/// It stands in URLs, in subjects and before tool names, so it needs no escaping in any of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerId(String);

/// Says why a text is not a server id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a server id: use 1 to 48 lower-case letters, digits and `-`, with a letter or digit at both ends"
)]
pub struct BadServerId(pub String);

impl ServerId {
    /// The id under which every process with doors answers the other doors. It is no slug, so that no server can have it.
    #[must_use]
    pub fn door() -> Self {
        Self("_door".to_owned())
    }

    /// The id under which the registry takes declarations. It is no slug either.
    #[must_use]
    pub fn registry() -> Self {
        Self("_registry".to_owned())
    }

    /// The id under which it takes the wishes of the command line, which the broker lets speak to it nowhere else.
    #[must_use]
    pub fn operators() -> Self {
        Self("_operators".to_owned())
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that a tool or prompt of this server has on an endpoint of many servers.
    #[must_use]
    pub fn prefixed(&self, name: &str) -> String {
        format!("{}{NAME_SEPARATOR}{name}", self.0)
    }

    /// Takes a prefixed name apart; `None` when it has no server before the separator.
    #[must_use]
    pub fn split_prefixed(name: &str) -> Option<(Self, &str)> {
        let (server, name) = name.split_once(NAME_SEPARATOR)?;
        Some((server.parse().ok()?, name))
    }
}

impl FromStr for ServerId {
    type Err = BadServerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inner = bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if inner && bytes.len() <= 48 && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadServerId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ServerId {
    type Error = BadServerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServerId> for String {
    fn from(id: ServerId) -> Self {
        id.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one instance of a server tells the bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerCard {
    /// Which server.
    pub id: ServerId,
    /// Which process serves it.
    pub instance: String,
    /// Where that process runs.
    #[serde(default, skip_serializing_if = "Place::is_nowhere")]
    pub place: Place,
    /// Whose it is.
    pub tenant: String,
    /// Its name for people.
    pub title: String,
    /// Its version, as the server itself spells it.
    pub version: String,
    /// How a model should use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Labels to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The protocol version that is spoken behind the host, such as a child process's.
    pub protocol_version: String,
    /// MCP server capabilities, by name.
    #[serde(default)]
    pub capabilities: Map<String, Value>,
    /// Changes whenever a list of tools, prompts or resources changes.
    pub revision: String,
    /// What stands in each of its lists, as digests: a list has changed when its digest has.
    #[serde(default)]
    pub lists: ListDigests,
    /// A digest of all tools that its server offers, also of those that are withheld until somebody approves them; empty without tools.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub offered: String,
    /// How many tools it has.
    #[serde(default)]
    pub tools: u32,
    /// How many prompts it has.
    #[serde(default)]
    pub prompts: u32,
    /// How many resources and resource templates it has.
    #[serde(default)]
    pub resources: u32,
    /// How many calls it takes at once.
    pub max_in_flight: u32,
    /// Whether its calls are made once only, also those that read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_most_once: bool,
    /// Which of its calls become tasks of the platform.
    #[serde(default, skip_serializing_if = "TaskKnob::is_usual")]
    pub tasks: TaskKnob,
    /// Why it should not be used now, while that is so. It is there and answers, but is left out of what shows many servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Where a process runs: what it is near to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The region, as its operator calls it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
}

impl Place {
    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        *self == Self::default()
    }
}

/// The numbers in a version, so that 0.10.0 is newer than 0.9.0 however a server spells its versions.
#[must_use]
pub fn version_numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// A digest for each list of a server, in hex; empty for a list that it does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListDigests {
    /// Of its tools.
    pub tools: String,
    /// Of its prompts.
    pub prompts: String,
    /// Of its resources and resource templates.
    pub resources: String,
}

/// The name of a server among those of all tenants, for operators: its id, with the tenant before it unless that is `default`.
#[must_use]
pub fn name_of(tenant: &str, server: &ServerId) -> String {
    match tenant {
        DEFAULT_TENANT => server.to_string(),
        tenant => format!("{tenant}/{server}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_slugs() {
        for good in ["a", "products", "my-server-2", "7"] {
            assert!(good.parse::<ServerId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a b", &"x".repeat(49)] {
            assert!(bad.parse::<ServerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixed_names_come_apart_at_the_first_separator() {
        let id: ServerId = "crm".parse().expect("id");
        let name = id.prefixed("get__it");
        assert_eq!(ServerId::split_prefixed(&name), Some((id, "get__it")));
        assert_eq!(ServerId::split_prefixed("get"), None);
        assert_eq!(ServerId::split_prefixed("__get"), None);
    }
}
