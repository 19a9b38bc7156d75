//! What a client can be asked for, as it declares it.
//!
//! Nothing else of what a client declares counts here. So this has a few dozen values, whatever clients write, and lists can be kept
//! for each of them.

use bus_schema::{edit::Members, mcp::meta};
use serde_json::{Map, Value, json, value::RawValue};

use crate::request::Incoming;

/// The part of a client's capabilities by which a server may ask it for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Askable {
    pub(crate) roots: bool,
    pub(crate) sampling: Option<Sampling>,
    pub(crate) elicitation: Option<Elicitation>,
}

/// The finer points of sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampling {
    pub(crate) tools: bool,
    pub(crate) context: bool,
}

/// How a user can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elicitation {
    pub(crate) form: bool,
    pub(crate) url: bool,
}

impl Askable {
    /// What the client of a request declares.
    pub(crate) fn of(incoming: &Incoming) -> Self {
        let place = incoming.meta.capabilities.clone();
        let text = place.and_then(|place| std::str::from_utf8(&incoming.body[place]).ok());
        text.map(Self::read).unwrap_or_default()
    }

    /// Reads `clientCapabilities`. What is no object declares nothing.
    fn read(text: &str) -> Self {
        Members::read(text).map_or_else(Self::default, |members| Self::among(&members))
    }

    /// Reads the members of `clientCapabilities`.
    pub(crate) fn among(members: &Members<'_>) -> Self {
        let object = |name: &str| members.get(name).filter(|raw| meta::is_object(raw));
        Self {
            roots: object("roots").is_some(),
            sampling: object("sampling").map(|raw| Sampling {
                tools: has(raw, "tools"),
                context: has(raw, "context"),
            }),
            elicitation: object("elicitation").map(|raw| {
                let url = has(raw, "url");
                Elicitation {
                    // An empty one is from before there were modes.
                    form: has(raw, "form") || !url,
                    url,
                }
            }),
        }
    }

    /// Whether a server may ask such a client anything.
    pub(crate) fn anything(self) -> bool {
        self.roots || self.sampling.is_some() || self.elicitation.is_some()
    }

    /// As `clientCapabilities`: the same for all clients that can be asked the same.
    pub(crate) fn capabilities(self) -> Map<String, Value> {
        let named = |names: &[(&str, bool)]| -> Value {
            let there = names.iter().filter(|(_, there)| *there);
            there.map(|(name, _)| ((*name).to_owned(), json!({}))).collect()
        };
        let mut all = Map::new();
        if let Some(Elicitation { form, url }) = self.elicitation {
            all.insert("elicitation".to_owned(), named(&[("form", form), ("url", url)]));
        }
        if self.roots {
            all.insert("roots".to_owned(), json!({}));
        }
        if let Some(Sampling { tools, context }) = self.sampling {
            all.insert(
                "sampling".to_owned(),
                named(&[("context", context), ("tools", tools)]),
            );
        }
        all
    }
}

fn has(object: &RawValue, name: &str) -> bool {
    Members::of(object)
        .and_then(|members| members.get(name))
        .is_some_and(meta::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_can_be_asked_the_same_are_alike() {
        for (text, expected) in [
            ("{}", "{}"),
            ("7", "{}"),
            (
                r#"{"roots":null,"sampling":[],"extensions":{"a/b":{}},"experimental":{"x":{}}}"#,
                "{}",
            ),
            (r#"{"elicitation":{}}"#, r#"{"elicitation":{"form":{}}}"#),
            (
                r#"{"elicitation":{"url":{},"x":1}}"#,
                r#"{"elicitation":{"url":{}}}"#,
            ),
            (
                r#"{"sampling":{"tools":{"x":1},"context":{}},"roots":{"listChanged":true},"elicitation":{"url":{},"form":{}}}"#,
                r#"{"elicitation":{"form":{},"url":{}},"roots":{},"sampling":{"context":{},"tools":{}}}"#,
            ),
            (r#"{"sampling":{"tools":true}}"#, r#"{"sampling":{}}"#),
        ] {
            let told = Value::Object(Askable::read(text).capabilities());
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(told, expected, "{text}");
        }
    }
}
