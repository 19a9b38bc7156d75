//! The members of JSON objects, read without a look into their values.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::mcp::meta;

/// Whether a key, as spelled, is this name.
#[must_use]
pub fn is_key(key: &RawValue, name: &str) -> bool {
    let spelled = key.get();
    if spelled.contains('\\') {
        return meta::as_text(key).is_some_and(|text| text == name);
    }
    spelled.get(1..spelled.len() - 1) == Some(name)
}

/// The members of a JSON object in their order, keys and values as spelled. One that is there twice is here twice.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None` when the value is no object.
    #[must_use]
    pub fn of(raw: &'a RawValue) -> Option<Self> {
        Self::read(raw.get())
    }

    /// `None` when the text is no JSON object.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The value of the first member of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(key, _)| is_key(key, name))
            .map(|(_, value)| *value)
    }

    /// Each key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a RawValue, &'a RawValue)> {
        self.0.iter().copied()
    }
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
