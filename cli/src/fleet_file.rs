//! A file that declares a whole fleet of remote servers: `[[servers]]` tables in TOML, or the same as JSON.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use bus_schema::registry::Declaration;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fleet {
    servers: Vec<Value>,
}

/// Reads the declarations of a file, in its order.
///
/// # Errors
/// What of the file cannot be used, by the number and the id of the server.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Declaration>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(
        &text,
        path.extension().is_some_and(|extension| extension == "json"),
    )
    .with_context(|| format!("{} cannot be used", path.display()))
}

fn parse(text: &str, is_json: bool) -> anyhow::Result<Vec<Declaration>> {
    let servers = if is_json {
        match serde_json::from_str(text)? {
            Value::Array(servers) => servers,
            Value::Object(one) if !one.contains_key("servers") => vec![Value::Object(one)],
            fleet => serde_json::from_value::<Fleet>(fleet)?.servers,
        }
    } else {
        toml::from_str::<Fleet>(text)?.servers
    };
    let mut declarations: Vec<Declaration> = Vec::with_capacity(servers.len());
    for (at, server) in servers.into_iter().enumerate() {
        let place = || match server["id"].as_str() {
            Some(id) => format!("server `{id}`"),
            None => format!("server number {}", at + 1),
        };
        let declaration: Declaration = serde_json::from_value(server.clone()).with_context(place)?;
        declaration.check().with_context(place)?;
        if declarations.iter().any(|other| other.id == declaration.id) {
            bail!(
                "server `{}` is declared twice; give each its own id",
                declaration.id
            );
        }
        declarations.push(declaration);
    }
    Ok(declarations)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_fleet_is_read_from_toml_and_json_alike() {
        let toml = "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\ntags = [\"x\"]\nhealthUrl = \"https://a.example/h\"\n\n[[servers]]\nid = \"b\"\nurl = \"wss://b.example\"\nauth = { type = \"bearer\", tokenEnv = \"TRUNKLINE_SECRET_B\" }\n";
        let one = r#"{"id":"a","url":"https://a.example","tags":["x"],"healthUrl":"https://a.example/h"}"#;
        let two =
            r#"{"id":"b","url":"wss://b.example","auth":{"type":"bearer","tokenEnv":"TRUNKLINE_SECRET_B"}}"#;
        let of_toml = parse(toml, false).expect("reads");
        assert_eq!(parse(&format!("[{one},{two}]"), true).expect("reads"), of_toml);
        assert_eq!(
            parse(&format!(r#"{{"servers":[{one},{two}]}}"#), true).expect("reads"),
            of_toml
        );
        assert_eq!(parse(one, true).expect("reads"), of_toml[..1]);
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_server() {
        for (text, words) in [
            (
                "[[servers]]\nurl = \"https://a.example\"",
                ["server number 1", "id"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"a.example\"",
                ["server `a`", "https://host/path"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a\"\ncommand = [\"x\"]",
                ["server `a`", "command"],
            ),
            (
                "[[servers]]\nid = \"a\"\nurl = \"https://a\"\n[[servers]]\nid = \"a\"\nurl = \"https://b\"",
                ["`a`", "twice"],
            ),
            ("[[server]]\nid = \"a\"", ["server", "servers"]),
        ] {
            let error = format!("{:#}", parse(text, false).expect_err(text));
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }
}
