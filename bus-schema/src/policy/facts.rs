//! What a condition is told: the principal, the action and the time as values of CEL, made when they are first asked for.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cel::{
    Context, Env, Value,
    objects::{Key, Map},
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{
    action::{Action, Annotations, Arguments, What},
    condition::{Uses, environment},
};
use crate::Principal;

/// How many bytes of arguments a condition is told.
const MAX_BYTES: usize = 256 * 1024;
/// How many values arguments may have, so that a condition that looks at each with each other stays cheap.
const MAX_VALUES: usize = 2048;
const SECS_PER_DAY: u64 = 24 * 60 * 60;

/// The facts of one decision.
pub(super) struct Facts<'a> {
    principal: &'a Principal,
    action: &'a Action<'a>,
    now: SystemTime,
    root: Context<'static, 'static>,
    told: Uses,
}

impl<'a> Facts<'a> {
    pub(super) fn new(principal: &'a Principal, action: &'a Action<'a>, now: SystemTime) -> Self {
        let env: Arc<Env> = environment();
        Self {
            principal,
            action,
            now,
            root: Context::with_env(env),
            told: Uses::default(),
        }
    }

    /// The time of the decision.
    pub(super) fn now(&self) -> SystemTime {
        self.now
    }

    /// Whether arguments are still open.
    pub(super) fn is_open(&self) -> bool {
        self.action.arguments == Arguments::Open
    }

    /// What a condition is evaluated in, with all that it uses.
    pub(super) fn told(&mut self, uses: Uses) -> Result<&Context<'static, 'static>, String> {
        if uses.name && !self.told.name {
            let tool = match self.action.what {
                What::Tool(tool) => tool,
                _ => "",
            };
            for (key, value) in [
                ("server", self.action.server),
                ("method", self.action.method),
                ("name", self.action.name()),
                ("tool", tool),
            ] {
                self.root.add_variable_from_value(key, text(value));
            }
        }
        if uses.principal && !self.told.principal {
            self.root
                .add_variable_from_value("principal", principal(self.principal));
        }
        if uses.annotations && !self.told.annotations {
            let value = annotations(self.action.annotations);
            self.root.add_variable_from_value("annotations", value);
        }
        if uses.time && !self.told.time {
            self.root.add_variable_from_value("time", time(self.now));
        }
        if uses.arguments
            && !self.told.arguments
            && let Arguments::Given(json) = self.action.arguments
        {
            self.root.add_variable_from_value("arguments", arguments(json)?);
            self.told.arguments = true;
        }
        self.told = Uses {
            arguments: self.told.arguments,
            ..self.told.and(uses)
        };
        Ok(&self.root)
    }
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn texts(texts: &[String]) -> Value {
    Value::List(Arc::new(texts.iter().map(|one| text(one)).collect()))
}

fn map<const N: usize>(members: [(&'static str, Value); N]) -> Value {
    let members = members.into_iter().map(|(key, value)| (Key::from(key), value));
    Value::Map(Map {
        map: Arc::new(members.collect()),
    })
}

/// Everything is there, and empty where nothing is known: a condition that asks for a client must not fail for want of one.
fn principal(principal: &Principal) -> Value {
    map([
        ("subject", text(&principal.subject)),
        ("tenant", text(&principal.tenant)),
        ("issuer", text(principal.issuer.as_deref().unwrap_or_default())),
        ("client", text(principal.client.as_deref().unwrap_or_default())),
        ("roles", texts(&principal.roles)),
        ("scopes", texts(&principal.scopes)),
    ])
}

fn annotations(annotations: Annotations) -> Value {
    map([
        ("readOnlyHint", Value::Bool(annotations.read_only)),
        ("destructiveHint", Value::Bool(annotations.destructive)),
        ("idempotentHint", Value::Bool(annotations.idempotent)),
        ("openWorldHint", Value::Bool(annotations.open_world)),
    ])
}

/// The time in UTC. Weekdays count from Monday, which is 1.
fn time(now: SystemTime) -> Value {
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs());
    let (days, of_day) = (secs / SECS_PER_DAY, secs % SECS_PER_DAY);
    let (year, month, day) = date(days);
    let int = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
    map([
        ("unix", int(secs)),
        ("hour", int(of_day / 3600)),
        ("minute", int(of_day / 60 % 60)),
        // The first of January 1970 was a Thursday.
        ("weekday", int((days + 3) % 7 + 1)),
        ("date", text(&format!("{year:04}-{month:02}-{day:02}"))),
    ])
}

/// The date of a day that is counted from 1970-01-01. Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, day)
}

/// Arguments as a condition sees them. A key that stands twice is refused: one program takes the first, another the last.
fn arguments(json: &str) -> Result<Value, String> {
    if json.len() > MAX_BYTES {
        return Err(format!("the arguments have more than {MAX_BYTES} bytes"));
    }
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = Strict(&left).deserialize(&mut reader);
    let value = value.and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| format!("the arguments cannot be read: {error}"))
}

/// Reads a value, and counts down how many there may still be.
#[derive(Clone, Copy)]
struct Strict<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0
            .set(left.ok_or_else(|| D::Error::custom(format!("they have more than {MAX_VALUES} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::List(Arc::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if map.insert(Key::from(key), value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Map(Map { map: Arc::new(map) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_is_told_in_utc() {
        for (secs, expected) in [
            (0, ("1970-01-01", 4, 0, 0)),
            (951_782_400, ("2000-02-29", 2, 0, 0)),
            (1_795_424_461, ("2026-11-23", 1, 9, 1)),
            (4_102_444_799, ("2099-12-31", 4, 23, 59)),
        ] {
            let Value::Map(told) = time(UNIX_EPOCH + Duration::from_secs(secs)) else {
                panic!("a map");
            };
            let get = |key: &str| told.map[&Key::from(key)].clone();
            let (date, weekday, hour, minute) = expected;
            assert_eq!(get("date"), text(date), "{secs}");
            assert_eq!(get("weekday"), Value::Int(weekday), "{secs}");
            assert_eq!(
                (get("hour"), get("minute")),
                (Value::Int(hour), Value::Int(minute)),
                "{secs}"
            );
        }
    }

    #[test]
    fn arguments_that_two_programs_may_read_differently_are_not_read_at_all() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"\u0062":2}}"#,
            r#"{"a":1e400}"#,
            r#"{"a":1}x"#,
            "{",
            &format!("[{}]", vec!["1"; MAX_VALUES].join(",")),
            &format!("\"{}\"", "x".repeat(MAX_BYTES)),
        ] {
            assert!(arguments(bad).is_err(), "{}", &bad[..bad.len().min(40)]);
        }
        assert!(arguments(r#"{"a":[1,-2,3.5,"x",null,true,18446744073709551615],"b":{}}"#).is_ok());
    }
}
