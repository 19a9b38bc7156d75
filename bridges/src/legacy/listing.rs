//! One entry of a list of tools, prompts or resources, as a client's version knows it.
//!
//! Members that came later than the client's version go, as does a tool's output schema that the version could not say. Unknown
//! members and `_meta` stay.

use bus_schema::{
    ProtocolVersion,
    edit::{Edits, Members, is_key},
    mcp::{meta, method},
};
use serde_json::value::RawValue;

use super::Dialect;

/// The member of a list's result that holds the entries; `None` for methods that list nothing.
pub(super) fn member(called: &str) -> Option<&'static str> {
    match called {
        method::TOOLS_LIST => Some("tools"),
        method::PROMPTS_LIST => Some("prompts"),
        method::RESOURCES_LIST => Some("resources"),
        method::TEMPLATES_LIST => Some("resourceTemplates"),
        _ => None,
    }
}

/// Changes an entry into one that the client knows.
pub(super) fn fit(dialect: Dialect, called: &str, entry: &Members<'_>, edits: &mut Edits<'_>) {
    let version = dialect.version;
    if called == method::TOOLS_LIST {
        return fit_tool(dialect, entry, edits);
    }
    edits.remove_where(entry, |key| is_newer(version, key));
    if called == method::PROMPTS_LIST
        && version < ProtocolVersion::V2025_06_18
        && let Some(arguments) = entry.get("arguments")
    {
        let arguments: Vec<Members<'_>> = serde_json::from_str(arguments.get()).unwrap_or_default();
        for argument in &arguments {
            edits.remove(argument, "title");
        }
    }
}

/// Whether a member of a tool, prompt or resource came later than this version.
fn is_newer(version: ProtocolVersion, key: &RawValue) -> bool {
    (version < ProtocolVersion::V2025_06_18 && is_key(key, "title"))
        || (version < ProtocolVersion::V2025_11_25 && is_key(key, "icons"))
}

fn fit_tool(dialect: Dialect, tool: &Members<'_>, edits: &mut Edits<'_>) {
    let version = dialect.version;
    let hides_schema = version < ProtocolVersion::V2025_06_18
        || tool
            .get("outputSchema")
            .is_some_and(|schema| !describes_object(schema));
    let moves_title = version == ProtocolVersion::V2025_03_26 && move_title(tool, edits);
    edits.remove_where(tool, |key| {
        if is_key(key, "title") && moves_title {
            return false;
        }
        is_newer(version, key)
            || (hides_schema && is_key(key, "outputSchema"))
            || (version < ProtocolVersion::V2025_03_26 && is_key(key, "annotations"))
            || (!dialect.has_tasks() && is_key(key, "execution"))
    });
    // In the modern era the server alone decides which calls become tasks; this version wants to be told.
    if dialect.has_tasks()
        && tool.get("execution").is_none()
        && tool.get("name").is_some()
        && let Some((_, last)) = tool.iter().last()
    {
        edits.insert_after(last.get(), r#","execution":{"taskSupport":"optional"}"#);
    }
}

/// 2025-03-26 has a tool's title among its annotations. `true` when the title's own place is taken by them.
fn move_title(tool: &Members<'_>, edits: &mut Edits<'_>) -> bool {
    let title = tool.iter().find(|(key, _)| is_key(key, "title"));
    let Some((key, title)) = title else {
        return false;
    };
    match tool.get("annotations") {
        None => {
            edits.replace(key.get(), r#""annotations""#);
            edits.replace(title.get(), format!(r#"{{"title":{}}}"#, title.get()));
            true
        }
        Some(annotations) => {
            if Members::of(annotations).is_some_and(|members| members.get("title").is_none()) {
                edits.insert_first(annotations.get(), &format!(r#""title":{}"#, title.get()));
            }
            false
        }
    }
}

/// Before 2026-07-28 a tool's structured results are objects, and its output schema says so at the root.
fn describes_object(schema: &RawValue) -> bool {
    let kind = Members::of(schema).and_then(|members| members.get("type"));
    kind.and_then(meta::as_text).as_deref() == Some("object")
}

#[cfg(test)]
mod tests {
    use super::super::Tasks;
    use super::*;
    use ProtocolVersion as V;

    fn fitted(dialect: Dialect, called: &str, entry: &str) -> String {
        let mut edits = Edits::new(entry.as_bytes());
        fit(dialect, called, &Members::read(entry).unwrap(), &mut edits);
        String::from_utf8(edits.apply()).unwrap()
    }

    #[test]
    fn a_tool_shows_what_its_clients_version_knows() {
        let tool = r#"{"name":"n","title":"T","icons":[{"src":"i"}],"annotations":{"readOnlyHint":true},"inputSchema":{"type":"object","n":1e400},"outputSchema":{"type":"object"},"execution":{"taskSupport":"required"},"_meta":{"ui":{"resourceUri":"ui://x"}},"z":1.0}"#;
        let rest = r#""_meta":{"ui":{"resourceUri":"ui://x"}},"z":1.0}"#;
        let input = r#""inputSchema":{"type":"object","n":1e400}"#;
        let (annotations, output) = (
            r#""annotations":{"readOnlyHint":true}"#,
            r#""outputSchema":{"type":"object"}"#,
        );
        for (version, expected) in [
            (V::V2024_11_05, format!(r#"{{"name":"n",{input},{rest}"#)),
            (
                V::V2025_03_26,
                format!(r#"{{"name":"n","annotations":{{"title":"T","readOnlyHint":true}},{input},{rest}"#),
            ),
            (
                V::V2025_06_18,
                format!(r#"{{"name":"n","title":"T",{annotations},{input},{output},{rest}"#),
            ),
            (
                V::V2025_11_25,
                format!(
                    r#"{{"name":"n","title":"T","icons":[{{"src":"i"}}],{annotations},{input},{output},{rest}"#
                ),
            ),
        ] {
            assert_eq!(
                fitted(Dialect::plain(version), method::TOOLS_LIST, tool),
                expected,
                "{version}"
            );
        }
    }

    #[test]
    fn a_title_becomes_an_annotation_where_only_those_are_known() {
        for (tool, expected) in [
            (
                r#"{"title":"T","name":"n"}"#,
                r#"{"annotations":{"title":"T"},"name":"n"}"#,
            ),
            (
                r#"{"title":"T","annotations":{}}"#,
                r#"{"annotations":{"title":"T"}}"#,
            ),
            (
                r#"{"title":"T","annotations":{"title":"U"}}"#,
                r#"{"annotations":{"title":"U"}}"#,
            ),
            (r#"{"title":"T","annotations":7}"#, r#"{"annotations":7}"#),
        ] {
            assert_eq!(
                fitted(Dialect::plain(V::V2025_03_26), method::TOOLS_LIST, tool),
                expected
            );
        }
    }

    #[test]
    fn an_output_schema_of_anything_but_an_object_is_hidden() {
        for (schema, stays) in [
            (r#"{"type":"object","properties":{}}"#, true),
            (r#"{"type":"array","items":{}}"#, false),
            (r#"{"type":["object","null"]}"#, false),
            (r##"{"$ref":"#/$defs/a"}"##, false),
            ("true", false),
        ] {
            let tool = format!(r#"{{"outputSchema":{schema},"name":"n"}}"#);
            for version in [V::V2025_06_18, V::V2025_11_25] {
                let expected = if stays { tool.as_str() } else { r#"{"name":"n"}"# };
                assert_eq!(
                    fitted(Dialect::plain(version), method::TOOLS_LIST, &tool),
                    expected,
                    "{schema}"
                );
            }
        }
    }

    #[test]
    fn tools_say_that_they_may_become_tasks_where_tasks_are_offered() {
        let offered = |version| Dialect {
            version,
            tasks: Tasks::Offered,
        };
        for (version, tool, expected) in [
            (
                V::V2025_11_25,
                r#"{"name":"n"}"#,
                r#"{"name":"n","execution":{"taskSupport":"optional"}}"#,
            ),
            (
                V::V2025_11_25,
                r#"{"name":"n","outputSchema":7}"#,
                r#"{"name":"n","execution":{"taskSupport":"optional"}}"#,
            ),
            (
                V::V2025_11_25,
                r#"{"execution":{"taskSupport":"forbidden"}}"#,
                r#"{"execution":{"taskSupport":"forbidden"}}"#,
            ),
            (
                V::V2025_06_18,
                r#"{"name":"n","execution":{}}"#,
                r#"{"name":"n"}"#,
            ),
        ] {
            assert_eq!(fitted(offered(version), method::TOOLS_LIST, tool), expected);
        }
    }

    #[test]
    fn prompts_and_resources_lose_what_came_later() {
        let prompt = r#"{"name":"p","title":"T","arguments":[{"name":"a","title":"A","z":1.0},{"name":"b"}],"icons":[]}"#;
        let resource = r#"{"uri":"a://b","title":"T","name":"r","icons":[],"size":1.0,"_meta":{"ui":{}},"annotations":{}}"#;
        for (called, version, entry, expected) in [
            (
                method::PROMPTS_LIST,
                V::V2025_03_26,
                prompt,
                r#"{"name":"p","arguments":[{"name":"a","z":1.0},{"name":"b"}]}"#.to_owned(),
            ),
            (
                method::PROMPTS_LIST,
                V::V2025_06_18,
                prompt,
                prompt.replace(r#","icons":[]"#, ""),
            ),
            (method::PROMPTS_LIST, V::V2025_11_25, prompt, prompt.to_owned()),
            (
                method::RESOURCES_LIST,
                V::V2024_11_05,
                resource,
                resource
                    .replace(r#""title":"T","#, "")
                    .replace(r#""icons":[],"#, ""),
            ),
            (
                method::TEMPLATES_LIST,
                V::V2025_06_18,
                resource,
                resource.replace(r#""icons":[],"#, ""),
            ),
            (
                method::RESOURCES_LIST,
                V::V2025_11_25,
                resource,
                resource.to_owned(),
            ),
        ] {
            assert_eq!(
                fitted(Dialect::plain(version), called, entry),
                expected,
                "{version}"
            );
        }
    }
}
