//! What a caller can be asked for, as each of its requests declares it, and how a legacy handshake says the same.

use bus_schema::{RpcError, mcp::meta};
use serde_json::{json, value::RawValue};

use crate::askable::Askable;

use super::{
    canonical::canonical,
    edit::{Members, Object, is_key},
};

/// Tasks of the legacy era mean something else than the extension of this name; neither crosses.
pub(super) use bus_schema::mcp::meta::TASKS_EXTENSION;
/// What a handshake does not declare: the legacy era has no word for it, or another one.
const NOT_LEGACY: [&str; 2] = [TASKS_EXTENSION, meta::REQUESTS_EXTENSION];
const EXTENSIONS: &str = "extensions";

/// What one caller declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    /// What it can be asked for.
    pub(super) asks: Askable,
    /// Any extension at all.
    pub(super) extensions: bool,
    /// The extension for tasks.
    pub(super) tasks: bool,
    /// The extension for requests that the protocol does not know.
    requests: bool,
    /// The members of the capabilities that a legacy handshake declares for it, in one spelling.
    members: String,
}

impl Declared {
    /// Reads `clientCapabilities`. What is no object declares nothing.
    pub(super) fn of(raw: Option<&RawValue>) -> Self {
        let Some(members) = raw.and_then(Members::of) else {
            return Self::default();
        };
        let object = |name: &str| members.get(name).filter(|raw| meta::is_object(raw));
        let extensions = object(EXTENSIONS).and_then(Members::of);
        let names = |name: &str| extensions.as_ref().is_some_and(|all| all.get(name).is_some());
        Self {
            asks: Askable::among(&members),
            extensions: extensions.as_ref().is_some_and(|all| all.iter().next().is_some()),
            tasks: names(TASKS_EXTENSION),
            requests: names(meta::REQUESTS_EXTENSION),
            members: legacy_members(&members),
        }
    }

    /// Whether a server may ask this caller anything.
    pub(super) fn can_be_asked(&self) -> bool {
        self.asks.anything() || self.requests
    }

    /// Whether a server may ask it what the protocol does not know.
    pub(super) fn takes_requests(&self) -> bool {
        self.requests
    }

    /// Whether it needs no other connection than a caller that declares nothing.
    pub(super) fn is_plain(&self) -> bool {
        self.members.is_empty() && !self.requests
    }

    /// The capabilities for a legacy handshake; the same text for callers that declare the same.
    pub(super) fn for_handshake(&self) -> Box<RawValue> {
        RawValue::from_string(format!("{{{}}}", self.members)).expect("JSON was put together from JSON")
    }

    /// Tells callers apart that a server could tell apart, by what it hears of them or by what it may ask.
    pub(super) fn fingerprint(&self) -> String {
        let requests = if self.requests { "+requests" } else { "" };
        format!("{}{requests}", self.members)
    }

    pub(super) fn takes_urls(&self) -> bool {
        self.asks.elicitation.is_some_and(|elicitation| elicitation.url)
    }
}

/// For a caller to whom no URL can be shown, and whose request needs that.
pub(super) fn urls_are_needed() -> RpcError {
    RpcError::missing_capability(
        "the server needs its user to open a page first, and the request does not declare `elicitation.url`",
        json!({ "elicitation": { "url": {} } }),
    )
}

/// Everything that both eras have; the era's own tasks and what nobody knows stay out, so that callers who are alike share.
fn legacy_members(declared: &Members<'_>) -> String {
    let mut legacy = Object::default();
    for name in ["elicitation", "experimental", EXTENSIONS, "roots", "sampling"] {
        let Some(raw) = declared.get(name).filter(|raw| meta::is_object(raw)) else {
            continue;
        };
        let value = match name {
            // Changes of roots are not told in the modern era.
            "roots" => "{}".to_owned(),
            EXTENSIONS => as_legacy(raw),
            _ => canonical(raw),
        };
        let says_something = value != "{}" || matches!(name, "elicitation" | "roots" | "sampling");
        if says_something {
            legacy.push(&bus_schema::rpc::quote(name), &value);
        }
    }
    legacy.members().to_owned()
}

fn as_legacy(extensions: &RawValue) -> String {
    let members = Members::of(extensions);
    let mut kept: Vec<_> = members
        .iter()
        .flat_map(Members::iter)
        .filter(|(key, _)| !NOT_LEGACY.iter().any(|name| is_key(key, name)))
        .map(|(key, value)| (canonical(key), canonical(value)))
        .collect();
    kept.sort();
    let mut object = Object::default();
    for (key, value) in kept {
        object.push(&key, &value);
    }
    object.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str) -> Declared {
        Declared::of(Some(serde_json::from_str(text).unwrap()))
    }

    #[test]
    fn a_handshake_declares_what_the_caller_does_and_never_tasks() {
        for (text, expected) in [
            ("{}", "{}"),
            ("7", "{}"),
            (r#"{"elicitation":{}}"#, r#"{"elicitation":{}}"#),
            (r#"{"roots":{"listChanged":true}}"#, r#"{"roots":{}}"#),
            (
                r#"{"tasks":{"list":{}},"sampling":{"tools":{},"context":{}},"elicitation":{"url":{},"form":{}},"mine":{}}"#,
                r#"{"elicitation":{"form":{},"url":{}},"sampling":{"context":{},"tools":{}}}"#,
            ),
            (
                r#"{"extensions":{"b/x":{"n":1.0},"io.modelcontextprotocol/tasks":{},"a/y":{}}}"#,
                r#"{"extensions":{"a/y":{},"b/x":{"n":1.0}}}"#,
            ),
            (r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#, "{}"),
            (
                r#"{"experimental":{"x":{}},"extensions":{"io.trunkline/requests":{}}}"#,
                r#"{"experimental":{"x":{}}}"#,
            ),
            (r#"{"experimental":{},"roots":null}"#, "{}"),
        ] {
            let declared = declared(text);
            assert_eq!(declared.for_handshake().get(), expected, "{text}");
            assert_eq!(declared.is_plain(), expected == "{}", "{text}");
        }
    }

    #[test]
    fn what_a_caller_can_be_asked_is_read_with_its_finer_points() {
        let none = declared(r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#);
        assert!(!none.can_be_asked() && none.tasks && none.extensions);
        let modes = |text: &str| {
            let elicitation = declared(text).asks.elicitation.unwrap();
            (elicitation.form, elicitation.url)
        };
        assert_eq!(modes(r#"{"elicitation":{}}"#), (true, false));
        assert_eq!(modes(r#"{"elicitation":{"form":{}}}"#), (true, false));
        assert_eq!(modes(r#"{"elicitation":{"url":{}}}"#), (false, true));
        assert_eq!(modes(r#"{"elicitation":{"url":{},"form":{}}}"#), (true, true));
        let sampling = declared(r#"{"sampling":{"tools":{}}}"#).asks.sampling.unwrap();
        assert_eq!((sampling.tools, sampling.context), (true, false));
    }

    #[test]
    fn callers_that_declare_the_same_are_alike_however_they_spell_it() {
        let one = declared(r#"{"elicitation":{"form":{},"url":{}},"roots":{}}"#);
        let other = declared(r#"{ "roots" : {"listChanged":true}, "elicitation": {"url":{}, "form":{}} }"#);
        assert_eq!(one.fingerprint(), other.fingerprint());
    }
}
