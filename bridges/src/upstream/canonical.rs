//! One spelling for JSON texts that say the same, so that they can be compared: members in the order of their names, no blanks.
//!
//! Numbers stay as they are spelled: whoever repeats a request repeats them too.

use bus_schema::{mcp::meta, rpc};
use serde_json::value::RawValue;

use super::edit::Members;

/// What lies deeper is compared as it is spelled, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;

/// The one spelling of a JSON text.
pub(crate) fn canonical(raw: &RawValue) -> String {
    let mut out = String::with_capacity(raw.get().len());
    write(raw, 0, &mut out);
    out
}

/// The one spelling of an object of which some members do not count.
pub(super) fn canonical_without(object: &Members<'_>, names: &[&str]) -> String {
    let kept = object
        .iter()
        .filter(|(key, _)| !meta::as_text(key).is_some_and(|key| names.contains(&key.as_ref())));
    let mut out = String::new();
    write_members(kept, 0, &mut out);
    out
}

fn write(raw: &RawValue, depth: usize, out: &mut String) {
    match raw.get().as_bytes()[0] {
        b'{' if depth < MAX_DEPTH => match Members::of(raw) {
            Some(members) => write_members(members.iter(), depth, out),
            None => out.push_str(raw.get()),
        },
        b'[' if depth < MAX_DEPTH => match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
            Ok(items) => write_items(&items, depth, out),
            Err(_) => out.push_str(raw.get()),
        },
        b'"' => out.push_str(&text(raw)),
        _ => out.push_str(raw.get()),
    }
}

fn write_members<'a>(
    members: impl Iterator<Item = (&'a RawValue, &'a RawValue)>,
    depth: usize,
    out: &mut String,
) {
    let mut members: Vec<_> = members.map(|(key, value)| (text(key), value)).collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.push('{');
    for (at, (key, value)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&key);
        out.push(':');
        write(value, depth + 1, out);
    }
    out.push('}');
}

fn write_items(items: &[&RawValue], depth: usize, out: &mut String) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(item, depth + 1, out);
    }
    out.push(']');
}

/// A string in one spelling; one that is no text, such as half a character, stays as it is.
fn text(raw: &RawValue) -> String {
    meta::as_text(raw).map_or_else(|| raw.get().to_owned(), |text| rpc::quote(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        canonical(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn order_blanks_and_escapes_do_not_count_and_everything_else_does() {
        assert_eq!(
            of(r#" { "b" : [ 1 , {"y":null,"x":"\u0061"} ] , "a" : 1.50 } "#),
            r#"{"a":1.50,"b":[1,{"x":"a","y":null}]}"#
        );
        assert_ne!(of("[1]"), of("[1.0]"));
        assert_ne!(of("[1,2]"), of("[2,1]"));
        assert_ne!(of(r#""1""#), of("1"));
        assert_eq!(of(r#"["\ud800"]"#), r#"["\ud800"]"#);
    }

    #[test]
    fn a_deep_text_is_compared_without_a_crash() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(of(&deep), deep);
    }

    #[test]
    fn members_that_do_not_count_are_left_out() {
        let raw: &RawValue = serde_json::from_str(r#"{"_meta":{},"b":1,"a":2}"#).unwrap();
        let members = Members::of(raw).unwrap();
        assert_eq!(canonical_without(&members, &["_meta"]), r#"{"a":2,"b":1}"#);
    }
}
