//! Reads a JSON text into a value, and counts its parts. A name that stands twice in an object is refused: what is checked must be what the
//! server reads, and readers differ in which of the two they take.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How large a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// How many values are in it, itself included; of long strings each 32 bytes count as one more.
    pub(super) parts: u64,
    /// How many objects and lists stand within each other.
    pub(super) depth: u64,
}

/// # Errors
/// Why it cannot be read, in words.
pub(super) fn read(text: &str) -> Result<(Value, Size), String> {
    let (parts, deepest) = (Cell::new(0), Cell::new(0));
    let reader = Reader {
        parts: &parts,
        deepest: &deepest,
        depth: 0,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let value = reader
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value))
        .map_err(|error| format!("it cannot be read: {error}"))?;
    let size = Size {
        parts: parts.get(),
        depth: deepest.get(),
    };
    Ok((value, size))
}

#[derive(Clone, Copy)]
struct Reader<'c> {
    parts: &'c Cell<u64>,
    deepest: &'c Cell<u64>,
    depth: u64,
}

impl Reader<'_> {
    fn count(&self, bytes: usize) {
        self.parts.set(self.parts.get() + 1 + bytes as u64 / 32);
    }

    fn deeper(&self) -> Self {
        let depth = self.depth + 1;
        self.deepest.set(self.deepest.get().max(depth));
        Self { depth, ..*self }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.count(0);
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.count(0);
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.count(0);
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.count(0);
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number is too large"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.count(value.len());
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.count(0);
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.count(0);
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper())? {
            all.push(item);
        }
        self.deeper();
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.count(0);
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.deeper())?;
            if all.contains_key(&name) {
                return Err(A::Error::custom(format!(
                    "`{name}` stands twice in one object; write it once"
                )));
            }
            all.insert(name, value);
        }
        self.deeper();
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_and_counted() {
        let (value, size) = read(r#"{"a":[1,-2,3.5,null,true],"b":"x"}"#).expect("read");
        assert_eq!(
            value,
            serde_json::json!({ "a": [1, -2, 3.5, null, true], "b": "x" })
        );
        assert_eq!(size, Size { parts: 8, depth: 2 });
        let long = serde_json::json!("y".repeat(3_200)).to_string();
        assert_eq!(read(&long).expect("read").1, Size { parts: 101, depth: 0 });
    }

    #[test]
    fn what_readers_would_read_differently_is_refused() {
        for (text, words) in [
            (r#"{"a":{"role":"user","role":"admin"}}"#, "`role` stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "`a` stands twice"),
            (r#"{"a":1e400}"#, "out of range"),
            ("{} {}", "trailing"),
        ] {
            let why = read(text).expect_err("refused");
            assert!(why.contains(words), "{text}: {why}");
        }
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        assert!(read(&deep).expect_err("refused").contains("recursion"), "deep");
    }
}
