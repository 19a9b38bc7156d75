//! What hooks are asked, and what they answer: plain JSON, as ten lines of any language read and write it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Side;
use crate::{
    Principal,
    mcp::method,
    members::Members,
    rpc::{Message, splice},
};

/// The longest question, in bytes; what is longer counts as not answered.
pub const MAX_QUESTION: usize = 1024 * 1024;
/// The longest reason that is told, in characters.
const MAX_REASON: usize = 500;

/// A question.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question<'a> {
    /// Which step asks.
    pub step: &'a str,
    /// Whether it is asked before the server, or about its result.
    pub on: Side,
    /// Who calls.
    pub principal: Who<'a>,
    /// Which server.
    pub server: &'a str,
    /// The method, such as `tools/call`.
    pub method: &'a str,
    /// The tool, the prompt or the URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// The arguments as they would go on, or have gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<&'a RawValue>,
    /// The result as it would go out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'a RawValue>,
    /// The trace that the call belongs to, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
}

/// Who calls, as far as hooks are told.
#[derive(Debug, Serialize)]
pub struct Who<'a> {
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    roles: &'a [String],
    scopes: &'a [String],
}

impl<'a> From<&'a Principal> for Who<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            subject: &principal.subject,
            issuer: principal.issuer.as_deref(),
            tenant: &principal.tenant,
            client: principal.client.as_deref(),
            roles: &principal.roles,
            scopes: &principal.scopes,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call goes on.
    Allow,
    /// It does not.
    Deny {
        /// Why, for the caller; empty when nothing is said.
        reason: String,
    },
    /// It goes on with other arguments, or another result: this JSON object.
    Change(String),
}

impl Answer {
    /// Reads an answer to a question about one side.
    ///
    /// # Errors
    /// What is wrong with it, for the operator's log.
    pub fn read(text: &[u8], side: Side) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Decision {
            Allow,
            Deny,
            Change,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Said<'a> {
            decision: Decision,
            #[serde(default)]
            reason: String,
            #[serde(borrow, default)]
            arguments: Option<&'a RawValue>,
            #[serde(borrow, default)]
            result: Option<&'a RawValue>,
        }
        let said: Said<'_> = serde_json::from_slice(text).map_err(|error| {
            format!("the answer is not {{\"decision\":\"allow\"|\"deny\"|\"change\",…}}: {error}")
        })?;
        let (changed, other) = match side {
            Side::Arguments => (said.arguments, said.result),
            Side::Results | Side::Lists | Side::Completions => (said.result, said.arguments),
        };
        match (said.decision, changed) {
            _ if other.is_some() => Err(format!(
                "the question was about {}, and the answer has the other",
                side.as_str()
            )),
            (Decision::Allow, None) => Ok(Self::Allow),
            (Decision::Deny, None) => Ok(Self::Deny {
                reason: said.reason.chars().take(MAX_REASON).collect(),
            }),
            (Decision::Change, Some(changed)) if changed.get().starts_with('{') => {
                Ok(Self::Change(changed.get().to_owned()))
            }
            (Decision::Change, Some(_)) => Err("what it is changed to is no JSON object".to_owned()),
            (Decision::Change, None) => Err("it says `change` and not what to".to_owned()),
            (_, Some(_)) => Err("it says something else than `change`, and what to change it to".to_owned()),
        }
    }
}

/// A request with other arguments. `None` when it is of a kind that has none.
#[must_use]
pub fn with_arguments(body: &[u8], arguments: &str) -> Option<Vec<u8>> {
    let message = Message::parse(body).ok()?;
    if !matches!(
        message.method.as_deref(),
        Some(method::TOOLS_CALL | method::PROMPTS_GET)
    ) {
        return None;
    }
    let params = message.params?;
    match Members::of(params)?.get("arguments") {
        Some(present) => Some(splice(body, present.get(), arguments)),
        None => {
            // Whatever is asked for has a name, so there is a member to stand before.
            let params = params.get();
            Some(splice(
                body,
                &params[..1],
                &format!("{{\"arguments\":{arguments},"),
            ))
        }
    }
}

/// A response with another result. `None` when it has none.
#[must_use]
pub fn with_result(body: &[u8], result: &str) -> Option<Vec<u8>> {
    let message = Message::parse(body).ok()?;
    Some(splice(body, message.result?.get(), result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_one_thing_or_is_none() {
        let read = |text: &str, side| Answer::read(text.as_bytes(), side);
        assert_eq!(
            read(r#"{"decision":"allow"}"#, Side::Arguments),
            Ok(Answer::Allow)
        );
        assert_eq!(
            read(r#"{"decision":"deny","reason":"no"}"#, Side::Results),
            Ok(Answer::Deny {
                reason: "no".to_owned()
            })
        );
        let changed = read(
            r#"{"decision":"change","arguments":{"a":1e400}}"#,
            Side::Arguments,
        );
        assert_eq!(changed, Ok(Answer::Change(r#"{"a":1e400}"#.to_owned())));
        for (text, side) in [
            ("", Side::Arguments),
            ("yes", Side::Arguments),
            (r#"{"decision":"maybe"}"#, Side::Arguments),
            (r#"{"decision":"allow","more":1}"#, Side::Arguments),
            (r#"{"decision":"allow","arguments":{}}"#, Side::Arguments),
            (r#"{"decision":"change"}"#, Side::Arguments),
            (r#"{"decision":"change","arguments":[]}"#, Side::Arguments),
            (r#"{"decision":"change","result":{}}"#, Side::Arguments),
            (r#"{"decision":"change","arguments":{}}"#, Side::Results),
        ] {
            assert!(read(text, side).is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_are_exchanged_and_every_other_byte_stays() {
        let body = br#"{"id":7.0, "jsonrpc":"2.0","method":"tools/call","params":{ "arguments" : {"a":1},"name":"t"}}"#;
        let changed = with_arguments(body, r#"{"b":2}"#).expect("changed");
        let expected = r#"{"id":7.0, "jsonrpc":"2.0","method":"tools/call","params":{ "arguments" : {"b":2},"name":"t"}}"#;
        assert_eq!(std::str::from_utf8(&changed), Ok(expected));
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#;
        let changed = with_arguments(body, "{}").expect("changed");
        let expected =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{},"name":"t"}}"#;
        assert_eq!(std::str::from_utf8(&changed), Ok(expected));
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x:y"}}"#;
        assert_eq!(with_arguments(body, "{}"), None);
    }
}
