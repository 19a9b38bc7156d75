//! Changes to JSON texts that leave every other byte as it is.
//!
//! [`rpc::splice`](crate::rpc::splice) exchanges one piece; here are several at once, so that a large message is copied once. What a change
//! needs to know of the text, [`Members`] and [`Opened`] read in one scan.

use std::{fmt, ops::Range};

pub use crate::members::{Members, is_key};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Changes to one text, made together in the end.
pub struct Edits<'a> {
    whole: &'a [u8],
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    /// No changes yet.
    #[must_use]
    pub fn new(whole: &'a [u8]) -> Self {
        Self {
            whole,
            changes: Vec::new(),
        }
    }

    /// Whether the text stays as it is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Exchanges a piece, which must be a slice of the whole.
    pub fn replace(&mut self, piece: &str, new: impl Into<String>) {
        let range = self.range(piece);
        self.changes.push((range, new.into()));
    }

    /// Puts members, written `"a":1,"b":2`, before all others of an object, which must be a slice of the whole.
    pub fn insert_first(&mut self, object: &str, members: &str) {
        let start = self.range(object).start + 1;
        let comma = if is_empty_object(object) { "" } else { "," };
        self.changes.push((start..start, format!("{members}{comma}")));
    }

    /// Puts text, such as `,"a":1`, behind a piece, which must be a slice of the whole.
    pub fn insert_after(&mut self, piece: &str, new: impl Into<String>) {
        let end = self.range(piece).end;
        self.changes.push((end..end, new.into()));
    }

    /// Takes one member out of an object, which must be a slice of the whole.
    pub fn remove(&mut self, object: &Members<'_>, name: &str) {
        self.remove_where(object, |key| is_key(key, name));
    }

    /// Takes the members out of an object whose keys are meant.
    pub fn remove_where(&mut self, object: &Members<'_>, meant: impl Fn(&RawValue) -> bool) {
        let slots: Vec<_> = object.iter().map(|(key, value)| (key, Some(value))).collect();
        self.cut(&slots, meant);
    }

    /// Takes the members out of an opened object whose keys are meant; the opened one itself stays.
    pub fn remove_opened(&mut self, object: &Opened<'_>, meant: impl Fn(&RawValue) -> bool) {
        self.cut(&object.slots, meant);
    }

    /// Adds an item, which is JSON, at the end of the array of an opened object. `false` when there is no such array.
    pub fn append_item(&mut self, object: &Opened<'_>, item: &str) -> bool {
        let Some((key, _)) = object.slots.iter().find(|(_, value)| value.is_none()) else {
            return false;
        };
        let last = object.items.last().map(|last| text_in(last, self.whole));
        if let Some(Some(last)) = last {
            self.insert_after(last, format!(",{item}"));
            return true;
        }
        let colon = self.skip_space(self.range(key.get()).end);
        let start = self.skip_space(colon + 1) + 1;
        let comma = if object.items.is_empty() { "" } else { "," };
        self.changes.push((start..start, format!("{item}{comma}")));
        true
    }

    /// Makes the changes.
    pub fn apply(mut self) -> Vec<u8> {
        // What is put in at a place stands before what is taken out there.
        self.changes.sort_by_key(|(range, _)| (range.start, range.end));
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

    /// A member goes with the comma behind it; those at the end with the comma before them.
    fn cut(&mut self, slots: &[Slot<'_>], meant: impl Fn(&RawValue) -> bool) {
        let goes = |slot: &Slot<'_>| slot.1.is_some() && meant(slot.0);
        let tail = slots
            .iter()
            .rposition(|slot| !goes(slot))
            .map_or(0, |last_kept| last_kept + 1);
        for pair in slots[..tail].windows(2).filter(|pair| goes(&pair[0])) {
            let range = self.range(pair[0].0.get()).start..self.range(pair[1].0.get()).start;
            self.changes.push((range, String::new()));
        }
        if let (Some((key, _)), Some((_, Some(value)))) = (slots.get(tail), slots.last()) {
            let key = self.range(key.get()).start;
            let start = if tail == 0 { key } else { self.end_before(key) };
            let end = self.range(value.get()).end;
            self.changes.push((start..end, String::new()));
        }
    }

    /// Where the value before a key ends, that is before the comma between them.
    fn end_before(&self, key: usize) -> usize {
        let before = self.whole[..key].iter();
        let value = before.rev().skip_while(|byte| is_space(**byte) || **byte == b',');
        value.count()
    }

    fn skip_space(&self, at: usize) -> usize {
        let space = self.whole[at..].iter().take_while(|byte| is_space(**byte));
        at + space.count()
    }

    fn range(&self, piece: &str) -> Range<usize> {
        range_in(self.whole, piece)
    }
}

fn range_in(whole: &[u8], piece: &str) -> Range<usize> {
    let start = (piece.as_ptr() as usize)
        .checked_sub(whole.as_ptr() as usize)
        .filter(|start| start + piece.len() <= whole.len())
        .expect("the piece was cut from the whole");
    start..start + piece.len()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_empty_object(object: &str) -> bool {
    object[1..].trim_start().starts_with('}')
}

/// An object's own text, with its braces. `whole` must be the text it was read from; `None` when the object is empty.
fn text_in<'w>(object: &Members<'_>, whole: &'w [u8]) -> Option<&'w str> {
    let (first, last) = (object.iter().next()?.0, object.iter().last()?.1);
    let (first, last) = (range_in(whole, first.get()), range_in(whole, last.get()));
    let start = whole[..first.start].iter().rposition(|byte| *byte == b'{')?;
    let end = last.end + whole[last.end..].iter().position(|byte| *byte == b'}')?;
    std::str::from_utf8(&whole[start..=end]).ok()
}

/// A member's key, and its value unless that was opened.
type Slot<'a> = (&'a RawValue, Option<&'a RawValue>);

/// An object like [`Members`], with one member opened: an array of objects, which are read in the same scan.
pub struct Opened<'a> {
    slots: Vec<Slot<'a>>,
    /// The objects in the array, in their order.
    pub items: Vec<Members<'a>>,
}

impl<'a> Opened<'a> {
    /// The result of a JSON-RPC response. The member to open is read as any other when it is no array of objects.
    ///
    /// `None` when the text is no response with an object as its result.
    pub fn result_of(response: &'a str, open: Option<&'static str>) -> Option<Self> {
        let read = |open| InResponse(open).deserialize(&mut serde_json::Deserializer::from_str(response));
        match read(open) {
            Ok(opened) => Some(opened),
            Err(_) if open.is_some() => read(None).ok(),
            Err(_) => None,
        }
    }

    /// The value of the first member of that name, unless it was opened.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.slots
            .iter()
            .find(|(key, _)| is_key(key, name))
            .and_then(|(_, value)| *value)
    }

    /// The first member of that name as spelled.
    pub fn key(&self, name: &str) -> Option<&'a RawValue> {
        let slot = self.slots.iter().find(|(key, _)| is_key(key, name));
        slot.map(|(key, _)| *key)
    }
}

/// Reads a response; says which member of its result is to be opened.
#[derive(Clone, Copy)]
struct InResponse(Option<&'static str>);

impl<'de> DeserializeSeed<'de> for InResponse {
    type Value = Opened<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InResponse {
    type Value = Opened<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a response with a result")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut result = None;
        while let Some(key) = map.next_key::<&RawValue>()? {
            if is_key(key, "result") {
                if result.is_some() {
                    return Err(A::Error::duplicate_field("result"));
                }
                result = Some(map.next_value_seed(InResult(self.0))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        result.ok_or_else(|| A::Error::missing_field("result"))
    }
}

/// Reads a result; says which of its members is to be opened.
struct InResult(Option<&'static str>);

impl<'de> DeserializeSeed<'de> for InResult {
    type Value = Opened<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InResult {
    type Value = Opened<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut opened = Opened {
            slots: Vec::new(),
            items: Vec::new(),
        };
        while let Some(key) = map.next_key::<&RawValue>()? {
            let value = if self.0.is_some_and(|name| is_key(key, name)) {
                // Which of two arrays the items came from could not be told.
                if opened.slots.iter().any(|(_, value)| value.is_none()) {
                    return Err(A::Error::custom("the member to open is there twice"));
                }
                opened.items = map.next_value()?;
                None
            } else {
                Some(map.next_value()?)
            };
            opened.slots.push((key, value));
        }
        Ok(opened)
    }
}

/// A JSON object in the making, out of parts that are JSON already.
#[derive(Default)]
pub struct Object(String);

impl Object {
    /// Adds a member; key and value are JSON.
    pub fn push(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push(':');
        self.0.push_str(value);
    }

    /// Whether it has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members without the braces.
    pub fn members(&self) -> &str {
        &self.0
    }

    /// The object.
    #[must_use]
    pub fn finish(self) -> String {
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
    fn many_members_go_wherever_they_stand() {
        for (text, expected) in [
            (r#"{"a":1,"b":2,"c":3}"#, r#"{"c":3}"#),
            (r#"{"c":3 , "a":1, "b":2 }"#, r#"{"c":3 }"#),
            (r#"{ "a":1,"c":3,"b":2,"d":4}"#, r#"{ "c":3,"d":4}"#),
            (r#"{"a":1,"b":2}"#, "{}"),
            (r#"{"a":1,"a":2,"c":",}"}"#, r#"{"c":",}"}"#),
            ("{}", "{}"),
        ] {
            let mut edits = Edits::new(text.as_bytes());
            edits.remove_where(&Members::read(text).unwrap(), |key| {
                is_key(key, "a") || is_key(key, "b")
            });
            assert_eq!(String::from_utf8(edits.apply()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn one_array_of_a_result_is_opened_and_the_rest_stays_closed() {
        let text = r#"{"id":1,"result":{"x":1e400, "list" : [ {"a":"}"} ,{ }, { "b":[{}] } ] ,"y":"\ud800"},"z":{}}"#;
        let opened = Opened::result_of(text, Some("list")).unwrap();
        let texts: Vec<_> = opened
            .items
            .iter()
            .map(|item| text_in(item, text.as_bytes()))
            .collect();
        assert_eq!(texts, [Some(r#"{"a":"}"}"#), None, Some(r#"{ "b":[{}] }"#)]);
        assert_eq!(opened.get("y").unwrap().get(), r#""\ud800""#);
        assert!(opened.get("list").is_none() && opened.key("list").is_some());
        let mut edits = Edits::new(text.as_bytes());
        edits.remove_opened(&opened, |key| is_key(key, "y") || is_key(key, "x"));
        assert_eq!(
            String::from_utf8(edits.apply()).unwrap(),
            r#"{"id":1,"result":{"list" : [ {"a":"}"} ,{ }, { "b":[{}] } ]},"z":{}}"#
        );
    }

    #[test]
    fn an_array_of_other_things_is_not_opened() {
        for list in ["[1e400]", "7", "null", r#"["\ud800"]"#, "[{},[]]"] {
            let text = format!(r#"{{"result":{{"list":{list}}}}}"#);
            let opened = Opened::result_of(&text, Some("list")).unwrap();
            assert_eq!(opened.get("list").unwrap().get(), list);
            assert!(opened.items.is_empty());
        }
        let twice = Opened::result_of(r#"{"result":{"list":[{}],"list":[]}}"#, Some("list")).unwrap();
        assert!(twice.get("list").is_some() && twice.items.is_empty());
        for text in [
            "{}",
            r#"{"result":7}"#,
            r#"{"result":[]}"#,
            "[]",
            "",
            r#"{"error":{}}"#,
            r#"{"result":{},"result":{}}"#,
        ] {
            assert!(Opened::result_of(text, Some("list")).is_none(), "{text}");
        }
    }

    #[test]
    fn items_are_added_at_the_end() {
        for (list, expected) in [
            ("[]", "[7]"),
            (" [ ] ", " [7 ] "),
            (r#"[ {"a":1} ]"#, r#"[ {"a":1},7 ]"#),
            (r#"[{"a":1}, { }]"#, r#"[7,{"a":1}, { }]"#),
        ] {
            let text = format!(r#"{{"result":{{"list" :{list}}}}}"#);
            let mut edits = Edits::new(text.as_bytes());
            assert!(edits.append_item(&Opened::result_of(&text, Some("list")).unwrap(), "7"));
            let expected = format!(r#"{{"result":{{"list" :{expected}}}}}"#);
            assert_eq!(String::from_utf8(edits.apply()).unwrap(), expected);
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
