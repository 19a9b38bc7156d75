//! Changes to JSON texts that leave every other byte as it is.
//!
//! [`bus_schema::rpc::splice`] exchanges one piece; here are several at once, so that a large message is copied once.

use std::{fmt, ops::Range};

use bus_schema::mcp::meta;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Changes to one text, made together in the end.
pub(super) struct Edits<'a> {
    whole: &'a [u8],
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(whole: &'a [u8]) -> Self {
        Self {
            whole,
            changes: Vec::new(),
        }
    }

    /// Exchanges a piece, which must be a slice of the whole.
    pub(super) fn replace(&mut self, piece: &str, new: impl Into<String>) {
        let range = self.range(piece);
        self.changes.push((range, new.into()));
    }

    /// Puts members, written `"a":1,"b":2`, before all others of an object, which must be a slice of the whole.
    pub(super) fn insert_first(&mut self, object: &str, members: &str) {
        let start = self.range(object).start + 1;
        let comma = if is_empty_object(object) { "" } else { "," };
        self.changes.push((start..start, format!("{members}{comma}")));
    }

    /// Takes one member out of an object, which must be a slice of the whole.
    pub(super) fn remove(&mut self, object: &Members<'_>, name: &str) {
        let Some(at) = object.0.iter().position(|(key, _)| is_key(key, name)) else {
            return;
        };
        let (key, value) = (self.range(object.0[at].0.get()), self.range(object.0[at].1.get()));
        let range = if let Some((next, _)) = object.0.get(at + 1) {
            key.start..self.range(next.get()).start
        } else if at > 0 {
            self.range(object.0[at - 1].1.get()).end..value.end
        } else {
            key.start..value.end
        };
        self.changes.push((range, String::new()));
    }

    /// Makes the changes.
    pub(super) fn apply(mut self) -> Vec<u8> {
        self.changes.sort_by_key(|(range, _)| range.start);
        let added: usize = self.changes.iter().map(|(_, new)| new.len()).sum();
        let mut out = Vec::with_capacity(self.whole.len() + added + 1);
        let mut from = 0;
        for (range, new) in self.changes {
            out.extend_from_slice(&self.whole[from..range.start]);
            out.extend_from_slice(new.as_bytes());
            from = range.end;
        }
        out.extend_from_slice(&self.whole[from..]);
        out
    }

    fn range(&self, piece: &str) -> Range<usize> {
        let start = (piece.as_ptr() as usize)
            .checked_sub(self.whole.as_ptr() as usize)
            .filter(|start| start + piece.len() <= self.whole.len())
            .expect("the piece was cut from the whole");
        start..start + piece.len()
    }
}

fn is_empty_object(object: &str) -> bool {
    object[1..].trim_start().starts_with('}')
}

/// The members of a JSON object in their order, keys and values as spelled.
pub(super) struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None` when the value is no object.
    pub(super) fn of(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// The value of the first member of that name.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(key, _)| is_key(key, name))
            .map(|(_, value)| *value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a RawValue, &'a RawValue)> {
        self.0.iter().copied()
    }
}

/// Whether a key, as spelled, is this name.
pub(super) fn is_key(key: &RawValue, name: &str) -> bool {
    meta::as_text(key).is_some_and(|text| text == name)
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A JSON object in the making, out of parts that are JSON already.
#[derive(Default)]
pub(super) struct Object(String);

impl Object {
    /// Adds a member; key and value are JSON.
    pub(super) fn push(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push(':');
        self.0.push_str(value);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members without the braces.
    pub(super) fn members(&self) -> &str {
        &self.0
    }

    pub(super) fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(text: &str, name: &str) -> String {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let mut edits = Edits::new(text.as_bytes());
        edits.remove(&Members::of(raw).unwrap(), name);
        String::from_utf8(edits.apply()).unwrap()
    }

    #[test]
    fn a_member_goes_and_every_other_byte_stays() {
        for (text, expected) in [
            (r#"{ "a" : 1e400 , "b" : {} }"#, r#"{ "a" : 1e400 }"#),
            (r#"{"b":[1 , 2],"a":1.0}"#, r#"{"a":1.0}"#),
            (r#"{"c":"\ud800","b":7,"a":1}"#, r#"{"c":"\ud800","a":1}"#),
            (r#"{"b":7}"#, "{}"),
            (r#"{"\u0062":7,"\ud800":1}"#, r#"{"\ud800":1}"#),
            (r#"{"a":7}"#, r#"{"a":7}"#),
        ] {
            assert_eq!(remove(text, "b"), expected);
        }
    }

    #[test]
    fn members_come_first_and_an_empty_object_gets_no_comma() {
        for (text, expected) in [(r#"{"a":1}"#, r#"{"x":0,"a":1}"#), ("{ }", r#"{"x":0 }"#)] {
            let mut edits = Edits::new(text.as_bytes());
            edits.insert_first(text, r#""x":0"#);
            assert_eq!(String::from_utf8(edits.apply()).unwrap(), expected);
        }
    }

    #[test]
    fn several_changes_are_made_in_the_order_of_the_text() {
        let text = "abcdef";
        let mut edits = Edits::new(text.as_bytes());
        edits.replace(&text[4..5], "EE");
        edits.replace(&text[0..2], "");
        assert_eq!(edits.apply(), b"cdEEf");
    }
}
