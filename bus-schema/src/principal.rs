//! Who asks: the verified identity that travels with every request.
//!
//! A door makes it from what it has checked; nobody else may publish where it is believed, so nothing a client
//! puts into a message can change it.

use serde::{Deserialize, Serialize};

/// The tenant of a platform that serves only one.
pub const DEFAULT_TENANT: &str = "default";

/// Who vouches for the platform's own processes. No issuer of tokens has this name, as theirs are URLs.
const PLATFORM: &str = "trunkline:platform";
/// Who vouches for those who use the command line: the broker, by the user `cli`.
const COMMAND_LINE: &str = "trunkline:cli";
/// The role that all of them have.
const COMMAND_LINE_ROLE: &str = "cli";

/// A caller whose identity a door has established.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Who it is, unique at its issuer.
    pub subject: String,
    /// Whose servers it may see.
    pub tenant: String,
    /// Who vouches for the subject; nobody does on a platform without authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The program it came with, for display and logs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What it is in its organisation, as its issuer says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What it was allowed to do here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

impl Principal {
    /// A subject of a tenant for whom nobody vouches, and who is allowed nothing in particular.
    #[must_use]
    pub fn new(subject: impl Into<String>, tenant: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            tenant: tenant.into(),
            issuer: None,
            client: None,
            roles: Vec::new(),
            scopes: Vec::new(),
        }
    }

    /// The developer on a loopback bind without authentication.
    #[must_use]
    pub fn developer() -> Self {
        Self::developer_of(DEFAULT_TENANT)
    }

    /// The same in a tenant, as who may start programs of the platform may choose it.
    #[must_use]
    pub fn developer_of(tenant: impl Into<String>) -> Self {
        Self::new("developer", tenant)
    }

    /// The principal as the name of a user of the broker, which tells it to whoever serves that user.
    ///
    /// # Panics
    /// Never: a principal is always JSON.
    #[must_use]
    pub fn to_user_name(&self) -> String {
        serde_json::to_string(self).expect("a principal is always JSON")
    }

    /// Reads the name of a user of the broker; `None` for one that is a name and no more, as the configuration gives them.
    ///
    /// # Errors
    /// When it is meant to be a principal and is none.
    pub fn of_user_name(name: &str) -> Option<Result<Self, serde_json::Error>> {
        name.starts_with('{').then(|| serde_json::from_str(name))
    }

    /// A process of the platform that asks in nobody's name, so that it sees all that there is.
    #[must_use]
    pub fn platform(subject: impl Into<String>, tenant: impl Into<String>) -> Self {
        Self {
            issuer: Some(PLATFORM.to_owned()),
            ..Self::new(subject, tenant)
        }
    }

    /// Whether it is a process of the platform, and not somebody in whose name one asks.
    #[must_use]
    pub fn is_platform(&self) -> bool {
        self.issuer.as_deref() == Some(PLATFORM)
    }

    /// Somebody at the command line, by the name that they have on their machine. What is vouched for is that they may use the broker's user
    /// `cli`; the name is their own word.
    #[must_use]
    pub fn command_line(user: &str, tenant: impl Into<String>) -> Self {
        Self {
            issuer: Some(COMMAND_LINE.to_owned()),
            roles: vec![COMMAND_LINE_ROLE.to_owned()],
            ..Self::new(format!("{COMMAND_LINE_ROLE}:{user}"), tenant)
        }
    }

    /// Whether it is somebody at the command line, who operates the platform unless a policy says otherwise.
    #[must_use]
    pub fn is_command_line(&self) -> bool {
        self.issuer.as_deref() == Some(COMMAND_LINE)
    }

    /// What tells this caller from every other: two tokens of one subject agree in it, whatever else they say.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        Identity {
            tenant: &self.tenant,
            issuer: self.issuer.as_deref().unwrap_or_default(),
            subject: &self.subject,
        }
    }
}

/// The part of a principal that sessions, tasks, states and connections are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity<'a> {
    /// Whose servers it may see.
    pub tenant: &'a str,
    /// Who vouches for the subject; empty when nobody does.
    pub issuer: &'a str,
    /// Who it is there.
    pub subject: &'a str,
}

impl<'a> Identity<'a> {
    /// The three texts, for whoever digests them; each needs its length with it.
    #[must_use]
    pub fn pieces(self) -> [&'a str; 3] {
        [self.tenant, self.issuer, self.subject]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_travels_as_a_users_name_and_other_names_are_none() {
        let ann = Principal {
            issuer: Some("https://a.example".to_owned()),
            roles: vec!["\"buyer\"\r\n".to_owned()],
            ..Principal::new("ann", "t")
        };
        let name = ann.to_user_name();
        assert!(!name.contains(['\r', '\n']), "{name}");
        let read = Principal::of_user_name(&name).expect("a principal");
        assert_eq!(read.expect("readable"), ann);
        assert!(Principal::of_user_name("developer").is_none());
        assert!(Principal::of_user_name("{\"subject\":\"ann\"}").is_some_and(|read| read.is_err()));
    }

    #[test]
    fn a_caller_stays_the_same_with_another_token_and_not_at_another_issuer() {
        let ann = Principal {
            issuer: Some("https://a.example".to_owned()),
            ..Principal::new("ann", "t")
        };
        let again = Principal {
            client: Some("inspector".to_owned()),
            scopes: vec!["more".to_owned()],
            ..ann.clone()
        };
        assert_eq!(ann.identity(), again.identity());
        let elsewhere = Principal {
            issuer: Some("https://b.example".to_owned()),
            ..ann.clone()
        };
        assert_ne!(ann.identity(), elsewhere.identity());
        assert_ne!(ann.identity(), Principal::new("ann", "t").identity());
    }
}
