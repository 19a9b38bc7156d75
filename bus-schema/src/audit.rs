//! What is put on record: who was refused what, by which rule. Records outlive the programs that wrote them, so they are plain JSON.
//!
//! A record never holds a token, a secret, or what a request was given: arguments are there as a digest only. Whatever text comes from
//! outside is cut to a length here. When and where are filled in by whoever keeps it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Principal, Request, principal::DEFAULT_TENANT};

/// The longest text from outside, in bytes.
const MAX_TEXT_BYTES: usize = 256;
/// How many roles are told.
const MAX_ROLES: usize = 16;

/// What a record is about; also the last token of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Somebody was not let in by what it shows.
    Auth,
    /// The policy does not allow it.
    Policy,
    /// A limit does not allow it now.
    Limit,
    /// The caller is stopped.
    Block,
    /// A tool is not as it was approved.
    Integrity,
    /// A guardrail has found something.
    Guardrail,
    /// A session, stream, task or state that is not the caller's, or is nobody's.
    Owner,
    /// A plain NATS client was kept out.
    Callout,
    /// A request on the bus that no process of ours would make.
    Forgery,
    /// Something that only operators do.
    Admin,
    /// A request that contradicts itself, or comes from where it must not.
    Request,
    /// Records that were lost.
    Gap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Auth,
        Self::Policy,
        Self::Limit,
        Self::Block,
        Self::Integrity,
        Self::Guardrail,
        Self::Owner,
        Self::Callout,
        Self::Forgery,
        Self::Admin,
        Self::Request,
        Self::Gap,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Policy => "policy",
            Self::Limit => "limit",
            Self::Block => "block",
            Self::Integrity => "integrity",
            Self::Guardrail => "guardrail",
            Self::Owner => "owner",
            Self::Callout => "callout",
            Self::Forgery => "forgery",
            Self::Admin => "admin",
            Self::Request => "request",
            Self::Gap => "gap",
        }
    }
}

/// How what a record is about has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not done.
    Refused,
    /// It had begun, and was cut off.
    Ended,
    /// Nobody knows, as the records of it were lost.
    Lost,
}

impl Outcome {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }
}

/// Who it was, as far as somebody has vouched for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its name.
    pub subject: String,
    /// Who vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The program that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique for ever; a record that comes twice is one.
    #[serde(default)]
    pub id: String,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// What it is about.
    pub kind: Kind,
    /// How it has ended.
    pub outcome: Outcome,
    /// What decided so: a name that stays the same, such as that of a rule of the policy.
    pub rule: String,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whose platform; the usual one where nobody is known.
    pub tenant: String,
    /// Who it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Who>,
    /// The address that it came from, which may be that of a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Which server it was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The MCP method, or the method and path of HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The tool, prompt or resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The SHA-256 of the request's text, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The trace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The protocol version of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The door that it came through.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub door: String,
    /// Which process has written it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// How many of the same caller and kind it stands for, of which it tells the last.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    /// When the last of them was, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_one(count: &u64) -> bool {
    *count == 1
}

impl Record {
    /// A refusal, of which nothing more is known yet.
    #[must_use]
    pub fn refused(kind: Kind, rule: impl AsRef<str>) -> Self {
        Self {
            id: String::new(),
            at_ms: 0,
            kind,
            outcome: Outcome::Refused,
            rule: cut(rule.as_ref()),
            reason: String::new(),
            tenant: DEFAULT_TENANT.to_owned(),
            principal: None,
            source: None,
            server: None,
            method: None,
            name: None,
            digest: None,
            trace: None,
            protocol: None,
            door: String::new(),
            instance: String::new(),
            count: 1,
            until_ms: None,
        }
    }

    /// Who it was.
    #[must_use]
    pub fn by(self, principal: &Principal) -> Self {
        let who = Who {
            subject: cut(&principal.subject),
            issuer: principal.issuer.as_deref().map(cut),
            client: principal.client.as_deref().map(cut),
            roles: principal
                .roles
                .iter()
                .take(MAX_ROLES)
                .map(|role| cut(role))
                .collect(),
        };
        Self {
            tenant: cut(&principal.tenant),
            principal: Some(who),
            ..self
        }
    }

    /// The door that it came through.
    #[must_use]
    pub fn through(self, door: &str) -> Self {
        Self {
            door: cut(door),
            ..self
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn from(self, source: &str) -> Self {
        Self {
            source: Some(cut(source)),
            ..self
        }
    }

    /// Which server it was for.
    #[must_use]
    pub fn at(self, server: &str) -> Self {
        Self {
            server: (!server.is_empty()).then(|| cut(server)),
            ..self
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn asking(self, method: &str, name: Option<&str>) -> Self {
        Self {
            method: Some(cut(method)),
            name: name.map(|name| cut(without_query(name))),
            ..self
        }
    }

    /// The text of the request, of which only the digest is kept.
    #[must_use]
    pub fn about(self, text: &[u8]) -> Self {
        let digest = Sha256::digest(text);
        Self {
            digest: Some(digest.iter().map(|byte| format!("{byte:02x}")).collect()),
            ..self
        }
    }

    /// The trace, and the protocol version of the client.
    #[must_use]
    pub fn traced(self, trace: Option<&str>, protocol: &str) -> Self {
        Self {
            trace: trace.map(cut),
            protocol: Some(cut(protocol)),
            ..self
        }
    }

    /// Why, for people. Only words of ours, and never what a client has sent.
    #[must_use]
    pub fn because(self, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: cut(&reason.into()),
            ..self
        }
    }

    /// All that a request on the bus tells of itself.
    #[must_use]
    pub fn of_request(self, request: &Request) -> Self {
        self.by(&request.principal)
            .through(&request.door)
            .at(&request.server)
            .asking(&request.method, request.name.as_deref())
            .about(&request.body.0)
            .traced(
                request.trace.as_ref().map(crate::TraceContext::trace_id),
                &request.protocol_version,
            )
    }
}

/// What follows a question mark in the URI of a resource may be a secret.
fn without_query(name: &str) -> &str {
    name.split_once('?').map_or(name, |(before, _)| before)
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_takes_no_room_and_long_texts_are_cut() {
        let record = Record::refused(Kind::Auth, "no_token").through("http");
        let text = serde_json::to_string(&record).expect("JSON");
        assert_eq!(
            text,
            r#"{"id":"","at_ms":0,"kind":"auth","outcome":"refused","rule":"no_token","tenant":"default","door":"http"}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&text).expect("a record"), record);
        let long = Record::refused(Kind::Request, "é".repeat(1000)).asking("m", Some("a://b?token=secret"));
        assert_eq!((long.rule.len(), long.name.as_deref()), (256, Some("a://b")));
    }

    #[test]
    fn a_record_says_who_asked_for_what_and_not_with_what() {
        let ann = Principal {
            issuer: Some("https://id.example".to_owned()),
            roles: (0..100).map(|n| n.to_string()).collect(),
            scopes: vec!["secret".to_owned()],
            ..Principal::new("ann", "acme")
        };
        let record = Record::refused(Kind::Policy, "r").by(&ann).about(b"secret");
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(
            !text.contains("secret") && text.contains("2bb80d537b1da3e3"),
            "{text}"
        );
        assert_eq!(record.tenant, "acme");
        assert_eq!(record.principal.expect("who").roles.len(), MAX_ROLES);
    }

    #[test]
    fn every_kind_is_spelled_as_its_subject_spells_it() {
        for kind in Kind::ALL {
            assert_eq!(
                serde_json::to_string(&kind).expect("JSON"),
                format!("\"{}\"", kind.as_str())
            );
        }
    }
}
