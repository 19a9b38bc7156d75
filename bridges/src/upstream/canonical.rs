//! One spelling for requests that say the same, so that they can be compared.
//!
//! Numbers stay as they are spelled: whoever repeats a request repeats them too.

use bus_schema::{
    canonical::{Node, Numbers},
    mcp::meta,
};
use serde_json::value::RawValue;

use super::edit::Members;

/// The one spelling of a JSON text.
pub(super) fn canonical(raw: &RawValue) -> String {
    Node::read(raw, Numbers::AsSpelled).to_string()
}

/// The one spelling of an object of which some members do not count.
pub(super) fn canonical_without(object: &Members<'_>, names: &[&str]) -> String {
    let kept = object
        .iter()
        .filter(|(key, _)| !meta::as_text(key).is_some_and(|key| names.contains(&key.as_ref())));
    Node::object(kept, Numbers::AsSpelled).to_string()
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
