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
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    action::{Action, Annotations, Arguments, What},
    condition::{Members, Uses, environment},
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
    /// What the conditions of the policy ask for, all together.
    uses: &'a Uses,
    root: Context<'static, 'static>,
    told: Told,
}

/// What was made.
#[derive(Default)]
struct Told {
    principal: bool,
    name: bool,
    annotations: bool,
    arguments: bool,
    time: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        uses: &'a Uses,
        principal: &'a Principal,
        action: &'a Action<'a>,
        now: SystemTime,
    ) -> Self {
        let env: Arc<Env> = environment();
        Self {
            principal,
            action,
            now,
            uses,
            root: Context::with_env(env),
            told: Told::default(),
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
    pub(super) fn told(&mut self, uses: &Uses) -> Result<&Context<'static, 'static>, String> {
        if !uses.name.is_none() && !self.told.name {
            self.told.name = true;
            self.tell_name();
        }
        if !uses.principal.is_none() && !self.told.principal {
            self.told.principal = true;
            let value = principal(self.principal, &self.uses.principal);
            self.root.add_variable_from_value("principal", value);
        }
        if !uses.annotations.is_none() && !self.told.annotations {
            self.told.annotations = true;
            let value = annotations(self.action.annotations);
            self.root.add_variable_from_value("annotations", value);
        }
        if !uses.time.is_none() && !self.told.time {
            self.told.time = true;
            let value = time(self.now, &self.uses.time);
            self.root.add_variable_from_value("time", value);
        }
        if !uses.arguments.is_none()
            && !self.told.arguments
            && let Arguments::Given(json) = self.action.arguments
        {
            let value = arguments(json, &self.uses.arguments)?;
            self.root.add_variable_from_value("arguments", value);
            self.told.arguments = true;
        }
        Ok(&self.root)
    }

    fn tell_name(&mut self) {
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
            if self.uses.name.has(key) {
                self.root.add_variable_from_value(key, text(value));
            }
        }
    }
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn texts(texts: &[String]) -> Value {
    Value::List(Arc::new(texts.iter().map(|one| text(one)).collect()))
}

/// A member by name, and what makes it.
type Member<'m> = (&'static str, &'m dyn Fn() -> Value);

/// The members that are asked for.
fn map(asked: &Members, members: &[Member<'_>]) -> Value {
    let members = members.iter().filter(|(key, _)| asked.has(key));
    let members = members.map(|(key, make)| (Key::from(*key), make()));
    Value::Map(Map {
        map: Arc::new(members.collect()),
    })
}

/// Everything is there, and empty where nothing is known: a condition that asks for a client must not fail for want of one.
fn principal(principal: &Principal, asked: &Members) -> Value {
    map(
        asked,
        &[
            ("subject", &|| text(&principal.subject)),
            ("tenant", &|| text(&principal.tenant)),
            ("issuer", &|| {
                text(principal.issuer.as_deref().unwrap_or_default())
            }),
            ("client", &|| {
                text(principal.client.as_deref().unwrap_or_default())
            }),
            ("roles", &|| texts(&principal.roles)),
            ("scopes", &|| texts(&principal.scopes)),
        ],
    )
}

fn annotations(annotations: Annotations) -> Value {
    map(
        &Members::All,
        &[
            ("readOnlyHint", &|| Value::Bool(annotations.read_only)),
            ("destructiveHint", &|| Value::Bool(annotations.destructive)),
            ("idempotentHint", &|| Value::Bool(annotations.idempotent)),
            ("openWorldHint", &|| Value::Bool(annotations.open_world)),
        ],
    )
}

/// The time in UTC. Weekdays count from Monday, which is 1.
fn time(now: SystemTime, asked: &Members) -> Value {
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs());
    let (days, of_day) = (secs / SECS_PER_DAY, secs % SECS_PER_DAY);
    let int = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
    map(
        asked,
        &[
            ("unix", &|| int(secs)),
            ("hour", &|| int(of_day / 3600)),
            ("minute", &|| int(of_day / 60 % 60)),
            // The first of January 1970 was a Thursday.
            ("weekday", &|| int((days + 3) % 7 + 1)),
            ("date", &|| {
                let (year, month, day) = date(days);
                text(&format!("{year:04}-{month:02}-{day:02}"))
            }),
        ],
    )
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
/// What no condition asks for is read over.
fn arguments(json: &str, asked: &Members) -> Result<Value, String> {
    if json.len() > MAX_BYTES {
        return Err(format!("the arguments have more than {MAX_BYTES} bytes"));
    }
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = match asked {
        Members::All => Strict(&left).deserialize(&mut reader),
        asked => Object(&left, asked).deserialize(&mut reader),
    };
    let value = value.and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| format!("the arguments cannot be read: {error}"))
}

/// Reads the members of an object that are asked for. What is no object has none of them.
struct Object<'c>(&'c Cell<usize>, &'c Members);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(key) = members.next_key::<String>()? {
            if !self.1.has(&key) {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = members.next_value_seed(Strict(self.0))?;
            if map.insert(Key::from(key), value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Map(Map { map: Arc::new(map) }))
    }
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
            let Value::Map(told) = time(UNIX_EPOCH + Duration::from_secs(secs), &Members::All) else {
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
            assert!(
                arguments(bad, &Members::All).is_err(),
                "{}",
                &bad[..bad.len().min(40)]
            );
        }
        let good = r#"{"a":[1,-2,3.5,"x",null,true,18446744073709551615],"b":{}}"#;
        assert!(arguments(good, &Members::All).is_ok());
        // What is not asked for matters to nobody here, and what is asked for is read as strictly.
        let some = |member: &str| Members::Some([member.to_owned()].into());
        for (json, asked, is_read) in [
            (r#"{"a":1,"a":2,"b":3}"#, "b", true),
            (r#"{"a":1,"a":2,"b":3}"#, "a", false),
            (r#"{"a":1,"\u0061":2}"#, "a", false),
            (r#"{"a":{"x":1,"x":2}}"#, "a", false),
            ("[1]", "a", false),
            ("{}x", "a", false),
            ("{}", "a", true),
        ] {
            assert_eq!(arguments(json, &some(asked)).is_ok(), is_read, "{json} {asked}");
        }
    }
}
