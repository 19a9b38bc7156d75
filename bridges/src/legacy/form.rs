//! The form that a server asks the user to fill in, as a client of 2025-06-18 knows forms.
//!
//! That version has texts, numbers, booleans, and one choice of many with `enumNames`. It has no mode, and no choice of several.

use bus_schema::{
    edit::{Edits, Members, Object, is_key},
    mcp::meta,
};
use serde_json::value::RawValue;

/// Changes the parameters of `elicitation/create`. `None` when the form asks for what that version cannot say.
pub(super) fn fit(params: &Members<'_>, edits: &mut Edits<'_>) -> Option<()> {
    edits.remove_where(params, |key| is_key(key, "mode") || is_key(key, "task"));
    let schema = params.get("requestedSchema").and_then(Members::of)?;
    let Some(fields) = schema.get("properties").and_then(Members::of) else {
        return Some(());
    };
    for (_, field) in fields.iter() {
        if let Some(field) = Members::of(field) {
            fit_field(&field, edits)?;
        }
    }
    Some(())
}

fn fit_field(field: &Members<'_>, edits: &mut Edits<'_>) -> Option<()> {
    let kind = field.get("type").and_then(meta::as_text);
    if kind.as_deref() == Some("array") {
        return None;
    }
    let choices = field.iter().find(|(key, _)| is_key(key, "oneOf"));
    let Some((key, choices)) = choices else {
        return Some(());
    };
    let (values, names) = titled(choices)?;
    edits.replace(key.get(), "\"enum\"");
    edits.replace(choices.get(), format!(r#"[{values}],"enumNames":[{names}]"#));
    edits.remove_where(field, |key| is_key(key, "enum") || is_key(key, "enumNames"));
    Some(())
}

/// The values of `[{"const":…,"title":…}]` and their titles, each separated by commas.
fn titled(choices: &RawValue) -> Option<(String, String)> {
    let choices: Vec<Members<'_>> = serde_json::from_str(choices.get()).ok()?;
    let (mut values, mut names) = (Vec::new(), Vec::new());
    for choice in &choices {
        let value = choice.get("const")?;
        values.push(value.get());
        names.push(choice.get("title").unwrap_or(value).get());
    }
    Some((values.join(","), names.join(",")))
}

/// What stands for the user's answer where a client cannot be shown the form.
pub(super) fn cancelled() -> String {
    let mut answer = Object::default();
    answer.push("\"action\"", "\"cancel\"");
    answer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(params: &str) -> Option<String> {
        let mut edits = Edits::new(params.as_bytes());
        fit(&Members::read(params).unwrap(), &mut edits)?;
        Some(String::from_utf8(edits.apply()).unwrap())
    }

    fn field(schema: &str) -> String {
        format!(
            r#"{{"message":"m","requestedSchema":{{"type":"object","properties":{{"a":{schema},"b":{{"type":"string"}}}},"required":["a"]}}}}"#
        )
    }

    #[test]
    fn titled_choices_become_names_beside_the_values() {
        for (schema, expected) in [
            (
                r#"{"type":"string","oneOf":[{"const":"x","title":"X"},{"title":"\u0059","const":"y"},{"const":"z"}],"default":"x","title":"T"}"#,
                r#"{"type":"string","enum":["x","y","z"],"enumNames":["X","\u0059","z"],"default":"x","title":"T"}"#,
            ),
            (
                r#"{"type":"string","enum":["x"],"enumNames":["X"]}"#,
                r#"{"type":"string","enum":["x"],"enumNames":["X"]}"#,
            ),
            (
                r#"{"oneOf":[],"type":"string","enum":[]}"#,
                r#"{"enum":[],"enumNames":[],"type":"string"}"#,
            ),
            (
                r#"{"type":"number","minimum":1e400,"x":1.0}"#,
                r#"{"type":"number","minimum":1e400,"x":1.0}"#,
            ),
        ] {
            assert_eq!(fitted(&field(schema)), Some(field(expected)));
        }
    }

    #[test]
    fn a_choice_of_several_cannot_be_asked_for() {
        for schema in [
            r#"{"type":"array","items":{"type":"string","enum":["x"]}}"#,
            r#"{"type":"array","items":{"anyOf":[{"const":"x","title":"X"}]}}"#,
            r#"{"type":"string","oneOf":[{"title":"X"}]}"#,
            r#"{"type":"string","oneOf":7}"#,
        ] {
            assert_eq!(fitted(&field(schema)), None);
        }
        assert_eq!(fitted("{}"), None);
    }

    #[test]
    fn the_mode_goes_and_unknown_members_stay() {
        assert_eq!(
            fitted(
                r#"{"mode":"form","x":1.0,"requestedSchema":{"$schema":"s"},"task":{},"_meta":{"k":1e400}}"#
            ),
            Some(r#"{"x":1.0,"requestedSchema":{"$schema":"s"},"_meta":{"k":1e400}}"#.to_owned())
        );
    }
}
