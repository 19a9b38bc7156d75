//! Tool arguments that clients repeat in `Mcp-Param-*` headers, as a tool's schema asks with `x-mcp-header`.
//!
//! Source: MCP 2026-07-28, Streamable HTTP, custom headers from tool parameters.

use serde_json::Value;

/// The schema keyword.
const KEYWORD: &str = "x-mcp-header";
/// How deep properties are followed; a deeper schema is no tool's.
const MAX_DEPTH: usize = 32;

/// One argument that a header repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// What follows `Mcp-Param-` in the header's name, as the schema spells it.
    pub name: String,
    /// The way to the argument, from the root of the arguments.
    pub path: Vec<String>,
}

/// Says why a schema's annotations cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{KEYWORD}` {0}")]
pub struct BadAnnotation(String);

impl BadAnnotation {
    /// The schema around it cannot be read.
    #[must_use]
    pub fn unreadable() -> Self {
        Self("stands in a schema that cannot be read".to_owned())
    }
}

/// Finds the annotated properties of a tool's input schema.
///
/// # Errors
/// [`BadAnnotation`] when one is no header name, is used twice, or stands where no client could find its argument.
pub fn mirrored(schema: &Value) -> Result<Vec<Mirrored>, BadAnnotation> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found)?;
    for (at, one) in found.iter().enumerate() {
        if found[..at]
            .iter()
            .any(|other: &Mirrored| other.name.eq_ignore_ascii_case(&one.name))
        {
            return Err(BadAnnotation(format!("names `{}` twice", one.name)));
        }
    }
    Ok(found)
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> Result<(), BadAnnotation> {
    let Some(object) = schema.as_object() else {
        return Ok(());
    };
    if path.len() > MAX_DEPTH {
        return Err(BadAnnotation(
            "stands in a schema that is nested too deeply".to_owned(),
        ));
    }
    if let Some(name) = object.get(KEYWORD) {
        found.push(Mirrored {
            name: header_name(name, object.get("type"))?,
            path: path.clone(),
        });
    }
    for (key, inner) in object {
        if key == "properties" {
            for (property, schema) in inner.as_object().into_iter().flatten() {
                path.push(property.clone());
                collect(schema, path, found)?;
                path.pop();
            }
        } else if key != KEYWORD && mentions_keyword(inner, 0) {
            return Err(BadAnnotation(format!(
                "stands under `{key}`, where no single argument can be told"
            )));
        }
    }
    Ok(())
}

fn header_name(name: &Value, kind: Option<&Value>) -> Result<String, BadAnnotation> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let name = name
        .as_str()
        .filter(|name| !name.is_empty() && name.bytes().all(token));
    let name = name.ok_or_else(|| BadAnnotation("is not the name of a header".to_owned()))?;
    match kind.and_then(Value::as_str) {
        Some("string" | "integer" | "boolean") => Ok(name.to_owned()),
        _ => Err(BadAnnotation(format!(
            "`{name}` is not on a string, integer or boolean"
        ))),
    }
}

/// Whether an annotation stands anywhere inside. `default`, `enum` and the like hold data, where the word means nothing, but
/// a schema that hides it there is not worth telling apart.
fn mentions_keyword(value: &Value, depth: usize) -> bool {
    match value {
        _ if depth > MAX_DEPTH => false,
        Value::Object(object) => {
            object.contains_key(KEYWORD) || object.values().any(|inner| mentions_keyword(inner, depth + 1))
        }
        Value::Array(items) => items.iter().any(|inner| mentions_keyword(inner, depth + 1)),
        _ => false,
    }
}

/// How a header and the argument that it repeats compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// They say the same.
    Same,
    /// They do not.
    Other,
    /// The argument is nothing that a header can repeat.
    Never,
}

/// Compares a header's text with an argument: strings as they are, integers by value, booleans as words.
#[must_use]
pub fn compare(header: &str, argument: &Value) -> Repeats {
    let same = match argument {
        Value::String(text) => header == text,
        Value::Bool(flag) => header == if *flag { "true" } else { "false" },
        Value::Number(number) => match safe_integer(&number.to_string()) {
            Some(number) => safe_integer(header) == Some(number),
            None => return Repeats::Never,
        },
        _ => return Repeats::Never,
    };
    if same { Repeats::Same } else { Repeats::Other }
}

/// Reads an integer that floating point holds exactly. Beyond, two readers could take one text for two numbers.
fn safe_integer(text: &str) -> Option<i64> {
    const MAX: f64 = 9_007_199_254_740_991.0;
    let begins = text.strip_prefix('-').unwrap_or(text);
    let number: f64 = text
        .parse()
        .ok()
        .filter(|_| begins.starts_with(|c: char| c.is_ascii_digit()))?;
    (number.fract() == 0.0 && (-MAX..=MAX).contains(&number)).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn annotations_are_found_where_properties_lead() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "type": "object", "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } },
        }});
        let found = mirrored(&schema).expect("valid");
        let ways: Vec<_> = found
            .iter()
            .map(|m| (m.name.as_str(), m.path.join(".")))
            .collect();
        assert!(
            ways.contains(&("Region", "region".to_owned())) && ways.contains(&("N", "deep.n".to_owned())),
            "{ways:?}"
        );
    }

    #[test]
    fn annotations_that_no_client_could_follow_are_refused() {
        let property = |schema: Value| json!({ "type": "object", "properties": { "a": schema } });
        for schema in [
            property(json!({ "type": "string", "x-mcp-header": "" })),
            property(json!({ "type": "string", "x-mcp-header": "a b" })),
            property(json!({ "type": "number", "x-mcp-header": "A" })),
            property(json!({ "type": ["string", "integer"], "x-mcp-header": "A" })),
            property(json!({ "x-mcp-header": "A" })),
            property(json!({ "type": "string", "x-mcp-header": 7 })),
            property(json!({ "type": "string", "x-mcp-header": "A:" })),
            property(json!({ "type": "string", "x-mcp-header": "\u{e4}" })),
            property(json!({ "$ref": "#/$defs/a", "x-mcp-header": "A" })),
            property(json!({ "type": "array", "items": { "type": "string", "x-mcp-header": "A" } })),
            property(json!({ "anyOf": [{ "type": "string", "x-mcp-header": "A" }] })),
            json!({ "type": "object", "if": { "properties": { "a": { "type": "string", "x-mcp-header": "A" } } } }),
            json!({ "type": "object", "properties": {
                "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } } }),
            json!({ "type": "object", "$defs": { "d": { "type": "string", "x-mcp-header": "A" } } }),
        ] {
            assert!(mirrored(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn headers_say_what_arguments_say() {
        use Repeats::{Never, Other, Same};
        for (header, argument, expected) in [
            ("eu", json!("eu"), Same),
            ("EU", json!("eu"), Other),
            ("42", json!(42), Same),
            ("42.0", json!(42), Same),
            ("-0", json!(0), Same),
            ("4.2e1", json!(42), Same),
            ("42", json!(42.0), Same),
            ("43", json!(42), Other),
            ("forty-two", json!(42), Other),
            ("+42", json!(42), Other),
            ("inf", json!(42), Other),
            ("9007199254740991", json!(9_007_199_254_740_991_i64), Same),
            ("9007199254740992", json!(9_007_199_254_740_991_i64), Other),
            ("-9007199254740991", json!(-9_007_199_254_740_991_i64), Same),
            ("9007199254740992", json!(9_007_199_254_740_992_i64), Never),
            ("9007199254740993", json!(9_007_199_254_740_993_i64), Never),
            ("-9007199254740992", json!(-9_007_199_254_740_992_i64), Never),
            ("1.5", json!(1.5), Never),
            ("true", json!(true), Same),
            ("True", json!(true), Other),
            ("x", json!(["x"]), Never),
        ] {
            assert_eq!(compare(header, &argument), expected, "{header} {argument}");
        }
    }
}
