//! What both sides of a legacy handshake can do, between the words of its version and those of the modern era.

use bus_schema::{
    ProtocolVersion,
    edit::{Members, Object, is_key},
    mcp::meta,
};
use serde_json::{Map, Value, json, value::RawValue};

use super::{Dialect, Tasks};

const EXTENSIONS: &str = "extensions";
const TASKS: &str = "tasks";
/// How the ids of the protocol's own extensions begin.
const OF_THE_PROTOCOL: &str = "io.modelcontextprotocol/";

/// What servers may ask of a client in the middle of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: the door cannot carry questions to it.
    Nothing,
    /// Whatever it declares.
    Declared,
}

/// The capabilities that a legacy client declares in `initialize`, as a modern request says them. What is not known here stays.
#[must_use]
pub fn of_client(version: ProtocolVersion, declared: Option<&RawValue>, asks: Asks) -> String {
    let members = declared.and_then(Members::of);
    let mut modern = Object::default();
    for (key, value) in members.iter().flat_map(Members::iter) {
        let name = meta::as_text(key);
        match (name.as_deref(), asks) {
            (Some("roots" | "sampling" | "elicitation"), Asks::Nothing) | (Some(TASKS), _) => {}
            (Some("roots"), _) => push(&mut modern, key, without(value, &["listChanged"])),
            (Some("sampling"), _) if version < ProtocolVersion::V2025_11_25 => {
                push(&mut modern, key, without(value, &["tools", "context"]));
            }
            (Some("elicitation"), _) => push(&mut modern, key, elicitation(version, value)),
            (Some(EXTENSIONS), _) => push(&mut modern, key, without(value, &[meta::TASKS_EXTENSION])),
            _ => modern.push(key.get(), value.get()),
        }
    }
    if asks == Asks::Declared && members.as_ref().is_some_and(speaks_beyond) {
        return with_extension(&modern.finish(), meta::REQUESTS_EXTENSION);
    }
    modern.finish()
}

/// Whether a client has said that it speaks with servers of what the protocol does not know. Others are asked nothing of that kind.
fn speaks_beyond(declared: &Members<'_>) -> bool {
    let any = |name: &str, counts: fn(&str) -> bool| {
        let members = declared.get(name).and_then(Members::of);
        members.is_some_and(|members| {
            members
                .iter()
                .any(|(key, _)| meta::as_text(key).is_some_and(|key| counts(&key)))
        })
    };
    any("experimental", |_| true) || any(EXTENSIONS, |id| !id.starts_with(OF_THE_PROTOCOL))
}

fn push(object: &mut Object, key: &RawValue, value: Option<String>) {
    if let Some(value) = value {
        object.push(key.get(), &value);
    }
}

/// Elicitation came with 2025-06-18, which knows forms alone; the next version names the modes, and forms when it names none.
fn elicitation(version: ProtocolVersion, declared: &RawValue) -> Option<String> {
    let members = Members::of(declared)?;
    if version < ProtocolVersion::V2025_06_18 {
        return None;
    }
    let names_mode = members.get("form").is_some() || members.get("url").is_some();
    if version >= ProtocolVersion::V2025_11_25 && names_mode {
        return Some(declared.get().to_owned());
    }
    let mut modern = Object::default();
    modern.push("\"form\"", "{}");
    for (key, value) in members.iter() {
        if !is_key(key, "form") && !is_key(key, "url") {
            modern.push(key.get(), value.get());
        }
    }
    Some(modern.finish())
}

/// An object without these members; `None` when the value is no object.
fn without(value: &RawValue, names: &[&str]) -> Option<String> {
    let mut kept = Object::default();
    for (key, value) in Members::of(value)?.iter() {
        if !names.iter().any(|name| is_key(key, name)) {
            kept.push(key.get(), value.get());
        }
    }
    Some(kept.finish())
}

/// Adds the tasks extension to modern client capabilities, for a call that the client wants as a task.
#[must_use]
pub fn with_tasks(modern: &str) -> String {
    with_extension(modern, meta::TASKS_EXTENSION)
}

fn with_extension(modern: &str, extension: &str) -> String {
    let members = Members::read(modern);
    let mut all = Object::default();
    let mut extensions = Object::default();
    for (key, value) in members.iter().flat_map(Members::iter) {
        if !is_key(key, EXTENSIONS) {
            all.push(key.get(), value.get());
        } else if let Some(known) = Members::of(value) {
            for (id, settings) in known.iter().filter(|(id, _)| !is_key(id, extension)) {
                extensions.push(id.get(), settings.get());
            }
        }
    }
    extensions.push(&bus_schema::rpc::quote(extension), "{}");
    all.push("\"extensions\"", &extensions.finish());
    all.finish()
}

/// The capabilities of an endpoint, as `initialize` answers them.
#[must_use]
pub fn of_server(dialect: Dialect, mut modern: Map<String, Value>) -> Map<String, Value> {
    let extensions = modern.get_mut(EXTENSIONS).and_then(Value::as_object_mut);
    let makes_tasks = extensions.is_some_and(|extensions| {
        let had = extensions.remove(meta::TASKS_EXTENSION).is_some();
        had && dialect.has_tasks()
    });
    if modern
        .get(EXTENSIONS)
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        modern.remove(EXTENSIONS);
    }
    modern.remove(TASKS);
    if makes_tasks {
        let mut tasks = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
        if dialect.tasks == Tasks::Listed {
            tasks["list"] = json!({});
        }
        modern.insert(TASKS.to_owned(), tasks);
    }
    // The first version has the method and no capability for it.
    if dialect.version < ProtocolVersion::V2025_03_26 {
        modern.remove("completions");
    }
    modern
}

/// How an endpoint introduces itself, in the words of the version.
#[must_use]
pub fn server_info(version: ProtocolVersion, mut info: Value) -> Value {
    if let Some(info) = info.as_object_mut() {
        if version < ProtocolVersion::V2025_06_18 {
            info.remove("title");
        }
        if version < ProtocolVersion::V2025_11_25 {
            info.remove("icons");
            info.remove("websiteUrl");
            info.remove("description");
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion as V;

    fn declared(version: V, text: &str, asks: Asks) -> String {
        of_client(version, Some(serde_json::from_str(text).unwrap()), asks)
    }

    #[test]
    fn a_client_declares_what_its_version_has() {
        let all = r#"{"roots":{"listChanged":true,"x":1.0},"sampling":{"tools":{},"context":{},"y":{}},"elicitation":{"form":{"f":1.0},"url":{}},"tasks":{"list":{}},"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]},"io.modelcontextprotocol/tasks":{}},"experimental":{"e":{}},"z":1e400}"#;
        let ui = r#""io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}"#;
        let rest = format!(
            r#""experimental":{{"e":{{}}}},"z":1e400,"extensions":{{{ui},"io.trunkline/requests":{{}}}}}}"#
        );
        let unasked = format!(r#"{{"extensions":{{{ui}}},"experimental":{{"e":{{}}}},"z":1e400}}"#);
        let roots = r#"{"roots":{"x":1.0},"#;
        for (version, expected) in [
            (
                V::V2024_11_05,
                format!(r#"{roots}"sampling":{{"y":{{}}}},{rest}"#),
            ),
            (
                V::V2025_03_26,
                format!(r#"{roots}"sampling":{{"y":{{}}}},{rest}"#),
            ),
            (
                V::V2025_06_18,
                format!(r#"{roots}"sampling":{{"y":{{}}}},"elicitation":{{"form":{{}}}},{rest}"#),
            ),
            (
                V::V2025_11_25,
                format!(
                    r#"{roots}"sampling":{{"tools":{{}},"context":{{}},"y":{{}}}},"elicitation":{{"form":{{"f":1.0}},"url":{{}}}},{rest}"#
                ),
            ),
        ] {
            assert_eq!(declared(version, all, Asks::Declared), expected, "{version}");
            assert_eq!(declared(version, all, Asks::Nothing), unasked);
        }
    }

    #[test]
    fn elicitation_without_a_mode_means_forms() {
        for (version, elicitation, expected) in [
            (V::V2025_06_18, "{}", r#"{"elicitation":{"form":{}}}"#),
            (V::V2025_11_25, "{}", r#"{"elicitation":{"form":{}}}"#),
            (
                V::V2025_11_25,
                r#"{"x":1.0}"#,
                r#"{"elicitation":{"form":{},"x":1.0}}"#,
            ),
            (V::V2025_11_25, r#"{"url":{}}"#, r#"{"elicitation":{"url":{}}}"#),
            (V::V2025_03_26, "{}", "{}"),
            (V::V2025_11_25, "true", "{}"),
        ] {
            let text = format!(r#"{{"elicitation":{elicitation}}}"#);
            assert_eq!(declared(version, &text, Asks::Declared), expected);
        }
        assert_eq!(of_client(V::V2025_11_25, None, Asks::Declared), "{}");
        assert_eq!(declared(V::V2025_11_25, "[]", Asks::Declared), "{}");
    }

    #[test]
    fn a_call_that_is_to_be_a_task_declares_the_extension() {
        let tasks = r#""io.modelcontextprotocol/tasks":{}"#;
        for (modern, expected) in [
            ("{}", format!(r#"{{"extensions":{{{tasks}}}}}"#)),
            (
                r#"{"extensions":{"a/b":{"x":1.0}},"roots":{}}"#,
                format!(r#"{{"roots":{{}},"extensions":{{"a/b":{{"x":1.0}},{tasks}}}}}"#),
            ),
            (
                r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
                format!(r#"{{"extensions":{{{tasks}}}}}"#),
            ),
        ] {
            assert_eq!(with_tasks(modern), expected);
        }
    }

    #[test]
    fn a_server_offers_what_the_version_has() {
        let modern = json!({
            "tools": { "listChanged": true }, "resources": { "subscribe": true, "listChanged": true }, "completions": {},
            "extensions": { "io.modelcontextprotocol/tasks": {}, "io.modelcontextprotocol/ui": {} }, "experimental": { "e": 1 },
        });
        let kept = json!({
            "tools": { "listChanged": true }, "resources": { "subscribe": true, "listChanged": true },
            "extensions": { "io.modelcontextprotocol/ui": {} }, "experimental": { "e": 1 },
        });
        let calls = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
        let listed = json!({ "cancel": {}, "list": {}, "requests": { "tools": { "call": {} } } });
        for (version, tasks, expected) in [
            (V::V2024_11_05, Tasks::Listed, None),
            (V::V2025_06_18, Tasks::Listed, None),
            (V::V2025_11_25, Tasks::Hidden, None),
            (V::V2025_11_25, Tasks::Offered, Some(&calls)),
            (V::V2025_11_25, Tasks::Listed, Some(&listed)),
        ] {
            let answered = of_server(Dialect { version, tasks }, modern.as_object().unwrap().clone());
            let mut wanted = kept.clone();
            if version > V::V2024_11_05 {
                wanted["completions"] = json!({});
            }
            if let Some(tasks) = expected {
                wanted["tasks"] = tasks.clone();
            }
            assert_eq!(Value::Object(answered), wanted, "{version} {tasks:?}");
        }
    }

    #[test]
    fn tasks_are_offered_only_by_servers_that_make_them() {
        let dialect = Dialect {
            version: V::V2025_11_25,
            tasks: Tasks::Offered,
        };
        for (modern, expected) in [
            (json!({ "tools": {} }), json!({ "tools": {} })),
            (
                json!({ "tools": {}, "tasks": { "list": {} } }),
                json!({ "tools": {} }),
            ),
            (
                json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } }),
                json!({ "tasks": { "cancel": {}, "requests": { "tools": { "call": {} } } } }),
            ),
        ] {
            let answered = of_server(dialect, modern.as_object().unwrap().clone());
            assert_eq!(Value::Object(answered), expected);
        }
    }

    #[test]
    fn a_server_introduces_itself_with_what_the_version_knows() {
        let info =
            json!({ "name": "n", "version": "1", "title": "t", "icons": [], "websiteUrl": "u", "x": 1 });
        for (version, expected) in [
            (V::V2025_03_26, json!({ "name": "n", "version": "1", "x": 1 })),
            (
                V::V2025_06_18,
                json!({ "name": "n", "version": "1", "title": "t", "x": 1 }),
            ),
            (V::V2025_11_25, info.clone()),
        ] {
            assert_eq!(server_info(version, info.clone()), expected);
        }
    }
}
