//! One spelling for JSON texts that say the same, so that they can be compared: members in the order of their names, no blanks,
//! strings with one set of escapes.
//!
//! Nothing is lost on the way: numbers are never read into a machine's own, and what cannot be read stays as it is spelled.

use std::fmt;

use serde_json::value::RawValue;

use crate::{mcp::meta, members::Members, rpc};

/// What lies deeper is compared as it is spelled, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;

/// When two numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// When they are spelled the same: `1` and `1.0` differ.
    AsSpelled,
    /// When they are the same decimal number, however large or exact: `1`, `1.0` and `10e-1` are one.
    ByValue,
}

/// A JSON text, read so that it can be compared. Written out, it is the one spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An object: its members in the order of their names, which are spelled as JSON.
    Object(Vec<(String, Self)>),
    /// A list.
    Array(Vec<Self>),
    /// Anything else, in its one spelling.
    Plain(String),
}

impl Node {
    /// Reads a text.
    #[must_use]
    pub fn read(raw: &RawValue, numbers: Numbers) -> Self {
        Self::read_at(raw, numbers, 0)
    }

    /// Makes an object of members.
    #[must_use]
    pub fn object<'a>(members: impl Iterator<Item = (&'a RawValue, &'a RawValue)>, numbers: Numbers) -> Self {
        Self::object_at(members, numbers, 0)
    }

    /// The text of a string; `None` for everything else.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        match self {
            Self::Plain(spelled) if spelled.starts_with('"') => serde_json::from_str(spelled).ok(),
            _ => None,
        }
    }

    fn read_at(raw: &RawValue, numbers: Numbers, depth: usize) -> Self {
        let as_it_is = || Self::Plain(raw.get().to_owned());
        match raw.get().as_bytes()[0] {
            b'{' if depth < MAX_DEPTH => match Members::of(raw) {
                Some(members) => Self::object_at(members.iter(), numbers, depth),
                None => as_it_is(),
            },
            b'[' if depth < MAX_DEPTH => match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
                Ok(items) => Self::Array(
                    items
                        .into_iter()
                        .map(|item| Self::read_at(item, numbers, depth + 1))
                        .collect(),
                ),
                Err(_) => as_it_is(),
            },
            b'"' => Self::Plain(text(raw)),
            b'-' | b'0'..=b'9' if numbers == Numbers::ByValue => Self::Plain(number(raw.get())),
            _ => as_it_is(),
        }
    }

    fn object_at<'a>(
        members: impl Iterator<Item = (&'a RawValue, &'a RawValue)>,
        numbers: Numbers,
        depth: usize,
    ) -> Self {
        let mut members: Vec<_> = members
            .map(|(key, value)| (text(key), Self::read_at(value, numbers, depth + 1)))
            .collect();
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::Object(members)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(spelled) => f.write_str(spelled),
            Self::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (at, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A string in one spelling; one that is no text, such as half a character, stays as it is.
fn text(raw: &RawValue) -> String {
    meta::as_text(raw).map_or_else(|| raw.get().to_owned(), |text| rpc::quote(&text))
}

/// A number in one spelling: its digits without zeros at the ends, and the power of ten that they are multiplied with. One whose
/// power cannot be counted stays as it is.
fn number(spelled: &str) -> String {
    let (sign, rest) = spelled
        .strip_prefix('-')
        .map_or(("", spelled), |rest| ("-", rest));
    let (mantissa, power) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return "0".to_owned();
    }
    let kept = digits.trim_end_matches('0');
    let shift = i64::try_from(digits.len() - kept.len())
        .ok()
        .zip(i64::try_from(fraction.len()).ok())
        .map(|(zeros, fraction)| zeros - fraction);
    let power = power
        .parse::<i64>()
        .ok()
        .zip(shift)
        .and_then(|(power, shift)| power.checked_add(shift));
    match power {
        Some(0) => format!("{sign}{kept}"),
        Some(power) => format!("{sign}{kept}e{power}"),
        None => spelled.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
    use serde_json::{Map, Value};

    use super::*;

    fn of(text: &str) -> String {
        Node::read(serde_json::from_str(text).unwrap(), Numbers::ByValue).to_string()
    }

    #[test]
    fn a_number_is_the_same_however_it_is_spelled() {
        for (same, spelling) in [
            (["1", "1.0", "10e-1", "0.1E+1", "100e-2"], "1"),
            (["0", "-0", "0.0", "0e9", "-0.00E-7"], "0"),
            (["-250", "-2.5e2", "-25E1", "-250.0", "-0.25e3"], "-25e1"),
            (["1e400", "10e399", "1.0e400", "0.1e401", "1E+400"], "1e400"),
        ] {
            for number in same {
                assert_eq!(of(number), spelling, "{number}");
            }
        }
        assert_ne!(of("0.1"), of("0.10000000000000000001"));
        assert_ne!(of("9007199254740992"), of("9007199254740993"));
        assert_ne!(of("1"), of("-1"));
        assert_eq!(of("1e99999999999999999999"), "1e99999999999999999999");
        assert_eq!(of("1e-9223372036854775808"), "1e-9223372036854775808");
        assert_eq!(of("0.1e-9223372036854775808"), "0.1e-9223372036854775808");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same value in another spelling: members the other way round, blanks, every character of a string escaped.
    fn respelled(value: &Value) -> String {
        let escaped = |text: &str| {
            let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            format!("\"{units}\"")
        };
        match value {
            Value::String(text) => escaped(text),
            Value::Number(number) => format!("{number}.0"),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(respelled).collect();
                format!("[ {} ]", items.join(" ,\n"))
            }
            Value::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .rev()
                    .map(|(key, value)| format!("{} :\t{}", escaped(key), respelled(value)))
                    .collect();
                format!("{{ {} }}", members.join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn spelling_does_not_count(value in json()) {
            assert_eq!(of(&respelled(&value)), of(&value.to_string()));
        }

        #[test]
        fn what_is_said_counts(a in json(), b in json()) {
            assert_eq!(of(&a.to_string()) == of(&b.to_string()), a == b);
        }

        #[test]
        fn the_one_spelling_is_its_own(value in json()) {
            let once = of(&value.to_string());
            assert_eq!(of(&once), once);
        }
    }

    #[test]
    fn a_member_that_stands_twice_counts_twice() {
        assert_ne!(of(r#"{"a":1,"a":2}"#), of(r#"{"a":2}"#));
        assert_eq!(of(&Value::Object(Map::new()).to_string()), "{}");
    }
}
