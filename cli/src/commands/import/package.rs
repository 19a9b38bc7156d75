//! Servers that are packages and no remotes: the platform runs those that its operator writes into trunkline.toml, and no others. Here
//! the lines are written that can be pasted there.

use std::fmt::Write as _;

use bus_schema::ServerId;
use serde_json::{Map, Value};

use super::manifest::{Skipped, Template, member};

/// Why a server without a usable remote is not declared, with the lines for the first package that can be run.
pub(super) fn skipped(server: &Map<String, Value>, id: &ServerId) -> Skipped {
    let packages = server.get("packages").and_then(Value::as_array);
    let packages = packages.map(Vec::as_slice).unwrap_or_default();
    let kinds: Vec<&str> = packages.iter().filter_map(kind).collect();
    let Some(lines) = packages.iter().find_map(|package| lines(package, id)) else {
        let reason = if packages.is_empty() {
            "it has no remote that can be reached by HTTP, and no package".to_owned()
        } else {
            format!(
                "it is a package ({}) and no remote, and none that can be started with npx, uvx or docker",
                kinds.join(", ")
            )
        };
        return Skipped { reason, lines: None };
    };
    Skipped {
        reason: format!(
            "it is a package ({}) and no remote; programs are started only from trunkline.toml, by these lines",
            kinds.join(", ")
        ),
        lines: Some(lines),
    }
}

fn kind(package: &Value) -> Option<&str> {
    let kind = member(package, "registryType", "registry_type").as_str();
    kind.or(package["registry_name"].as_str())
}

fn lines(package: &Value, id: &ServerId) -> Option<String> {
    let transport = package["transport"]["type"].as_str();
    if transport.is_some_and(|transport| transport != "stdio") {
        return None;
    }
    let environment = member(package, "environmentVariables", "environment_variables");
    let environment: Vec<(&str, String)> = environment
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| Some((variable["name"].as_str()?, value(variable, "set this"))))
        .collect();
    let command = command(package, &environment)?;
    let quoted: Vec<String> = command.iter().map(|word| quote(word)).collect();
    let mut lines = format!(
        "[[servers]]\nid = {}\ncommand = [{}]\n",
        quote(id.as_str()),
        quoted.join(", ")
    );
    if !environment.is_empty() {
        let pairs: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{} = {}", key(name), quote(value)))
            .collect();
        let _ = writeln!(lines, "env = {{ {} }}", pairs.join(", "));
    }
    Some(lines)
}

fn command(package: &Value, environment: &[(&str, String)]) -> Option<Vec<String>> {
    let identifier = package["identifier"].as_str().or(package["name"].as_str())?;
    let version = package["version"].as_str().filter(|version| !version.is_empty());
    let at_version = version.map_or_else(
        || identifier.to_owned(),
        |version| format!("{identifier}@{version}"),
    );
    let runtime = arguments(member(package, "runtimeArguments", "runtime_arguments"));
    let own = arguments(member(package, "packageArguments", "package_arguments"));
    let mut command: Vec<String> = Vec::new();
    match kind(package)? {
        "npm" => {
            command.push("npx".to_owned());
            if !runtime.iter().any(|word| word == "-y" || word == "--yes") {
                command.push("-y".to_owned());
            }
            command.extend(runtime);
            command.push(at_version);
        }
        "pypi" => {
            command.push("uvx".to_owned());
            command.extend(runtime);
            command.push(at_version);
        }
        "oci" | "docker" | "docker-hub" => {
            command.extend(["docker", "run", "-i", "--rm"].map(str::to_owned));
            for (name, _) in environment {
                command.extend(["-e".to_owned(), (*name).to_owned()]);
            }
            command.extend(runtime);
            let has_tag = identifier
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains([':', '@']));
            command.push(match version {
                Some(version) if !has_tag => format!("{identifier}:{version}"),
                _ => identifier.to_owned(),
            });
        }
        _ => return None,
    }
    command.extend(own);
    Some(command)
}

/// The words of arguments; those that somebody has to choose stand in angle brackets.
fn arguments(all: &Value) -> Vec<String> {
    let mut words = Vec::new();
    for argument in all.as_array().into_iter().flatten() {
        let hint = member(argument, "valueHint", "value_hint").as_str();
        let is_required = member(argument, "isRequired", "is_required")
            .as_bool()
            .unwrap_or_default();
        let has_value = argument["value"].is_string() || argument["default"].is_string();
        match argument["name"].as_str().filter(|_| argument["type"] == "named") {
            Some(name) if has_value => words.push(format!("{name}={}", value(argument, ""))),
            Some(name) if is_required => {
                words.push(format!("{name}={}", value(argument, hint.unwrap_or("value"))))
            }
            Some(_) => {}
            None if has_value || is_required => words.push(value(argument, hint.unwrap_or("value"))),
            None => {}
        }
    }
    words
}

/// What an input has, or what stands for it.
fn value(input: &Value, hint: &str) -> String {
    match input["value"].as_str().or(input["default"].as_str()) {
        Some(given) => Template::fill(given, &input["variables"]).text,
        None => format!("<{hint}>"),
    }
}

/// A text as TOML: JSON's strings are strings there too, but for one character.
fn quote(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { quote(name) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(packages: &Value) -> Skipped {
        let Value::Object(server) = json!({ "packages": packages }) else {
            panic!("an object")
        };
        skipped(&server, &"files".parse().unwrap())
    }

    #[test]
    fn packages_become_lines_of_the_configuration() {
        for (package, command) in [
            (
                json!({ "registryType": "npm", "identifier": "@a/b", "version": "1.0.2", "transport": { "type": "stdio" },
                        "packageArguments": [{ "type": "positional", "valueHint": "folder", "isRequired": true }] }),
                r#"["npx", "-y", "@a/b@1.0.2", "<folder>"]"#,
            ),
            (
                json!({ "registryType": "pypi", "identifier": "b", "version": "2", "transport": { "type": "stdio" },
                        "packageArguments": [{ "type": "named", "name": "--port", "default": "1" }, { "type": "named", "name": "--x" }] }),
                r#"["uvx", "b@2", "--port=1"]"#,
            ),
            (
                json!({ "registry_type": "pypi", "identifier": "b", "runtime_arguments": [{ "type": "positional", "value": "--quiet" }] }),
                r#"["uvx", "--quiet", "b"]"#,
            ),
            (
                json!({ "registryType": "oci", "identifier": "ghcr.io/a/b:1", "transport": { "type": "stdio" } }),
                r#"["docker", "run", "-i", "--rm", "ghcr.io/a/b:1"]"#,
            ),
        ] {
            let lines = told(&json!([package])).lines.expect("lines");
            let read: toml::Value = toml::from_str(&lines).expect("they are TOML");
            assert_eq!(read["servers"][0]["id"].as_str(), Some("files"));
            assert!(lines.contains(&format!("command = {command}\n")), "{lines}");
        }
    }

    #[test]
    fn variables_stand_beside_the_command() {
        let lines = told(&json!([{
            "registryType": "oci", "identifier": "a", "version": "2", "transport": { "type": "stdio" },
            "environmentVariables": [{ "name": "KEY", "isSecret": true }, { "name": "MODE", "default": "a\"b" }],
        }]))
        .lines
        .expect("lines");
        let read: toml::Value = toml::from_str(&lines).expect("they are TOML");
        assert_eq!(read["servers"][0]["env"]["KEY"].as_str(), Some("<set this>"));
        assert_eq!(read["servers"][0]["env"]["MODE"].as_str(), Some("a\"b"));
        assert!(lines.contains(r#""-e", "KEY", "-e", "MODE", "a:2""#), "{lines}");
    }

    #[test]
    fn what_nobody_can_start_is_told_by_its_kind() {
        for (packages, words) in [
            (json!([]), "no package"),
            (
                json!([{ "registryType": "mcpb", "identifier": "https://a/b.mcpb" }]),
                "mcpb",
            ),
            (
                json!([{ "registryType": "npm", "identifier": "a", "transport": { "type": "sse", "url": "http://localhost" } }]),
                "npm",
            ),
        ] {
            let skipped = told(&packages);
            assert!(skipped.lines.is_none());
            assert!(skipped.reason.contains(words), "{}", skipped.reason);
        }
    }
}
