//! What a modern caller hears of a legacy child: the answer to `server/discover`, made of the child's handshake.

use bus_schema::mcp::{ProtocolVersion, meta};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::legacy::task::server;

use super::{
    capabilities::TASKS_EXTENSION,
    connection::Offers,
    edit::{Members, Object, is_key},
};

/// Tasks of the legacy era are not those of the extension, which stands in their place.
const TASKS: &str = "tasks";
const EXTENSIONS: &str = "extensions";
const COMPLETIONS: &str = "completions";

/// What a child answers to `initialize`, as spelled.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InitializeResult<'a> {
    #[serde(borrow)]
    pub(super) protocol_version: &'a RawValue,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow)]
    server_info: Option<&'a RawValue>,
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
}

impl InitializeResult<'_> {
    /// What it can do that only this room makes use of.
    pub(super) fn offers(&self, version: ProtocolVersion) -> Offers {
        let capabilities = self.capabilities.map(RawValue::get).unwrap_or_default();
        Offers {
            tasks: self.makes_tasks(version),
            ..Offers::of(&serde_json::from_str(capabilities).unwrap_or_default())
        }
    }

    /// Whether it makes tasks of calls, in the one version that has them.
    fn makes_tasks(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::V2025_11_25 && self.capabilities.is_some_and(server::makes_tasks)
    }

    /// The result of `server/discover` that says the same.
    pub(super) fn discovered(&self, version: ProtocolVersion) -> String {
        let mut result = Object::default();
        result.push("\"resultType\"", "\"complete\"");
        result.push(
            "\"supportedVersions\"",
            &format!("[\"{}\"]", ProtocolVersion::MODERN),
        );
        result.push("\"capabilities\"", &self.modern_capabilities(version));
        if let Some(instructions) = self.instructions.filter(|raw| meta::as_text(raw).is_some()) {
            result.push("\"instructions\"", instructions.get());
        }
        if let Some(info) = self.server_info.filter(|raw| meta::is_object(raw)) {
            let mut about = Object::default();
            about.push(&bus_schema::rpc::quote(meta::SERVER_INFO), info.get());
            result.push("\"_meta\"", &about.finish());
        }
        result.push("\"ttlMs\"", "0");
        result.push("\"cacheScope\"", "\"private\"");
        result.finish()
    }

    fn modern_capabilities(&self, version: ProtocolVersion) -> String {
        let mut modern = Object::default();
        let members = self.capabilities.and_then(Members::of);
        let mut own = self.makes_tasks(version).then_some(TASKS_EXTENSION);
        for (key, value) in members.iter().flat_map(Members::iter) {
            if is_key(key, EXTENSIONS) {
                modern.push(key.get(), &extensions(value, own.take()));
            } else if !is_key(key, TASKS) {
                modern.push(key.get(), value.get());
            }
        }
        if let Some(own) = own {
            modern.push("\"extensions\"", &format!("{{\"{own}\":{{}}}}"));
        }
        // The first version has the method and no capability for it.
        let names_completions = members.is_some_and(|members| members.get(COMPLETIONS).is_some());
        if version == ProtocolVersion::V2024_11_05 && !names_completions {
            modern.push("\"completions\"", "{}");
        }
        modern.finish()
    }
}

/// The server's extensions; that for tasks is the bridge's own, for a server whose tasks it translates.
fn extensions(object: &RawValue, own: Option<&str>) -> String {
    let Some(members) = Members::of(object) else {
        return object.get().to_owned();
    };
    let mut kept = Object::default();
    for (key, value) in members.iter().filter(|(key, _)| !is_key(key, TASKS_EXTENSION)) {
        kept.push(key.get(), value.get());
    }
    if let Some(own) = own {
        kept.push(&bus_schema::rpc::quote(own), "{}");
    }
    kept.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_becomes_a_discovery() {
        let result: InitializeResult<'_> = serde_json::from_str(
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"tasks":{"list":{}},
            "extensions":{"a/b":{"x":1.0},"io.modelcontextprotocol/tasks":{}}},"instructions":"i","serverInfo":{"name":"n"},"more":1}"#,
        )
        .unwrap();
        assert_eq!(
            result.discovered(ProtocolVersion::V2025_11_25),
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"extensions":{"a/b":{"x":1.0}}},"instructions":"i","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"n"}},"ttlMs":0,"cacheScope":"private"}"#
        );
    }

    #[test]
    fn a_server_that_makes_tasks_has_the_extension() {
        let tasks = r#""tasks":{"requests":{"tools":{"call":{}}}}"#;
        let ours = r#""io.modelcontextprotocol/tasks":{}"#;
        for (capabilities, version, expected) in [
            (
                tasks.to_owned(),
                ProtocolVersion::V2025_11_25,
                format!(r#"{{"extensions":{{{ours}}}}}"#),
            ),
            (
                format!(r#"{tasks},"extensions":{{"a/b":{{}}}}"#),
                ProtocolVersion::V2025_11_25,
                format!(r#"{{"extensions":{{"a/b":{{}},{ours}}}}}"#),
            ),
            (tasks.to_owned(), ProtocolVersion::V2025_06_18, "{}".to_owned()),
            (
                r#""tasks":{"list":{}}"#.to_owned(),
                ProtocolVersion::V2025_11_25,
                "{}".to_owned(),
            ),
        ] {
            let text = format!(r#"{{"protocolVersion":"{version}","capabilities":{{{capabilities}}}}}"#);
            let result: InitializeResult<'_> = serde_json::from_str(&text).unwrap();
            let discovered = result.discovered(version);
            assert!(
                discovered.contains(&format!(r#""capabilities":{expected}"#)),
                "{discovered}"
            );
            assert_eq!(result.offers(version).tasks, expected.contains("tasks"), "{text}");
        }
    }

    #[test]
    fn the_first_version_completes_without_saying_so() {
        let result: InitializeResult<'_> =
            serde_json::from_str(r#"{"protocolVersion":"2024-11-05"}"#).unwrap();
        assert!(
            result
                .discovered(ProtocolVersion::V2024_11_05)
                .contains(r#""capabilities":{"completions":{}}"#)
        );
        assert!(
            result
                .discovered(ProtocolVersion::V2025_06_18)
                .contains(r#""capabilities":{}"#)
        );
    }
}
