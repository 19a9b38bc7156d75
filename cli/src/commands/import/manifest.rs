//! What a server.json asks for, as a declaration of the registry: which of its remotes is taken, and what becomes of its headers.
//!
//! Members are read by their names of today and by those that they had before (2025-07-09), where they mean the same.

use std::collections::BTreeMap;

use bus_schema::{
    ServerId,
    registry::{Auth, Declaration, SecretRef},
    upstream::TransportKnob,
};
use serde_json::{Map, Value};

use super::package;

/// The label of servers that their registry advises against.
const DEPRECATED: &str = "deprecated";

/// What can be done with a server.
#[derive(Debug)]
pub(super) enum Wish {
    /// It can be declared; with what its operator should know.
    Declare(Box<Declaration>, Vec<String>),
    /// It cannot.
    Skip(Skipped),
}

/// Why a server is not declared.
#[derive(Debug)]
pub(super) struct Skipped {
    /// In words.
    pub(super) reason: String,
    /// What can be put into trunkline.toml instead.
    pub(super) lines: Option<String>,
}

/// Reads a server.json over what is declared already: what it does not say stays as it is. `secrets` is what the variables of secrets begin with.
pub(super) fn read(server: &Map<String, Value>, status: &str, base: Declaration, secrets: &str) -> Wish {
    let mut declaration = base;
    let text = |key: &str| {
        let text = server.get(key).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    declaration.name = text("name");
    declaration.title = text("title").or(declaration.title);
    declaration.description = text("description").or(declaration.description);
    let older = server
        .get("version_detail")
        .and_then(|detail| detail["version"].as_str());
    declaration.version = text("version").or_else(|| older.map(str::to_owned));
    let mut notes = Vec::new();
    if status == DEPRECATED && !declaration.tags.iter().any(|tag| tag == DEPRECATED) {
        declaration.tags.push(DEPRECATED.to_owned());
        notes.push("its registry calls it deprecated".to_owned());
    }
    let mut first_reason = None;
    for (transport, remote) in remotes(server) {
        match with_remote(&declaration, (transport, remote), secrets) {
            Ok((mut declared, more)) => {
                notes.extend(more);
                notes.extend(without_bad_version(&mut declared));
                return Wish::Declare(Box::new(declared), notes);
            }
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    Wish::Skip(match first_reason {
        Some(reason) => Skipped { reason, lines: None },
        None => package::skipped(server, &declaration.id),
    })
}

/// Leaves out a version that the registry would not take; with a note of it.
fn without_bad_version(declared: &mut Declaration) -> Option<String> {
    let bad = declared.check().err()?;
    if bad.field != "version" {
        return None;
    }
    let version = declared.version.take()?;
    Some(format!(
        "its version `{version}` is no semantic one, and is left out"
    ))
}

/// The remotes in the order in which they are tried: Streamable HTTP before HTTP+SSE.
fn remotes(server: &Map<String, Value>) -> Vec<(TransportKnob, &Value)> {
    let all = server.get("remotes").and_then(Value::as_array);
    let mut known: Vec<_> = all
        .into_iter()
        .flatten()
        .filter_map(|remote| {
            let kind = ["type", "transport_type", "transport"]
                .iter()
                .find_map(|key| remote[*key].as_str());
            match kind? {
                "streamable-http" | "streamable" | "http" => Some((TransportKnob::Http, remote)),
                "sse" => Some((TransportKnob::Sse, remote)),
                _ => None,
            }
        })
        .collect();
    known.sort_by_key(|(transport, _)| *transport == TransportKnob::Sse);
    known
}

fn with_remote(
    declaration: &Declaration,
    (transport, remote): (TransportKnob, &Value),
    secrets: &str,
) -> Result<(Declaration, Vec<String>), String> {
    let mut declared = declaration.clone();
    let mut notes = Vec::new();
    let url = remote["url"].as_str().ok_or("its remote has no URL")?;
    let url = Template::fill(url, &remote["variables"]);
    if let Some(missing) = url.missing.first() {
        return Err(format!(
            "its URL `{}` needs a value for `{}`{}; register it with `trunkline servers add` and the URL that is meant",
            url.text,
            missing.name,
            told(missing.told.as_deref()),
        ));
    }
    declared.url = url.text;
    declared.transport = transport;
    for header in remote["headers"].as_array().into_iter().flatten() {
        match read_header(header)? {
            Header::Fixed(name, value) => {
                declared
                    .headers
                    .retain(|known, _| !known.eq_ignore_ascii_case(&name));
                declared.headers.insert(name, value);
            }
            Header::Bearer(about) => {
                if declared.auth == Auth::None {
                    declared.auth = Auth::Bearer {
                        token_env: Some(secret_of(&declared.id, secrets)),
                        token_name: None,
                    };
                }
                match declared.auth.secret() {
                    Some(SecretRef::Variable(name)) => notes.push(format!(
                        "set {name} to its token{about} in the environment of every process that runs upstreams"
                    )),
                    Some(SecretRef::Named(name)) => notes.push(format!(
                        "give every process that runs upstreams its token{about} as the secret `{name}`"
                    )),
                    None => {}
                }
            }
            Header::Optional(name, about) => {
                notes.push(format!(
                    "it may be sent the header `{name}`{about}, which is left out"
                ));
            }
        }
    }
    Ok((declared, notes))
}

/// The variable that holds the token of a server.
fn secret_of(id: &ServerId, secrets: &str) -> String {
    let name = id.as_str().to_ascii_uppercase().replace('-', "_");
    format!("{secrets}{name}")
}

enum Header {
    /// It always has this value.
    Fixed(String, String),
    /// It carries a token.
    Bearer(String),
    /// It may be left out.
    Optional(String, String),
}

fn read_header(header: &Value) -> Result<Header, String> {
    let name = header["name"]
        .as_str()
        .ok_or("one of its headers has no name")?
        .to_owned();
    let about = told(header["description"].as_str());
    let given = header["value"].as_str().or(header["default"].as_str());
    let filled = given.map(|given| Template::fill(given, &header["variables"]));
    if let Some(filled) = &filled
        && filled.missing.is_empty()
    {
        return Ok(Header::Fixed(name, filled.text.clone()));
    }
    let missing = filled
        .as_ref()
        .map(|filled| filled.missing.as_slice())
        .unwrap_or_default();
    let is_required =
        flag(header, "isRequired", "is_required") || missing.iter().any(|missing| missing.is_required);
    if !is_required {
        return Ok(Header::Optional(name, about));
    }
    let is_bearer = match (given, missing) {
        (None, _) => true,
        (Some(given), [one]) => {
            let bare = given.strip_prefix("Bearer ").or(given.strip_prefix("bearer "));
            bare.is_some_and(|rest| rest.trim() == format!("{{{}}}", one.name))
        }
        (Some(_), _) => false,
    };
    if is_bearer && name.eq_ignore_ascii_case("authorization") {
        return Ok(Header::Bearer(about));
    }
    let is_secret = flag(header, "isSecret", "is_secret") || missing.iter().any(|missing| missing.is_secret);
    Err(if is_secret {
        format!(
            "it needs the secret header `{name}`{about}; headers of the registry are shown to its readers, and only a bearer token in Authorization stays secret: put the server into trunkline.toml, as [[servers]] with `url` and `headers`"
        )
    } else {
        format!(
            "it needs the header `{name}`{about}, which has no value; register it with `trunkline servers add`, and --header \"{name}: …\""
        )
    })
}

/// A text with its variables filled in as far as they have values.
pub(super) struct Template {
    pub(super) text: String,
    pub(super) missing: Vec<Missing>,
}

/// A variable without a value.
pub(super) struct Missing {
    pub(super) name: String,
    told: Option<String>,
    is_required: bool,
    is_secret: bool,
}

impl Template {
    /// Fills in what the variables say. Braces around any other word stay as they are, as the schema wants it.
    pub(super) fn fill(text: &str, variables: &Value) -> Self {
        let none = Map::new();
        let known: BTreeMap<_, _> = variables.as_object().unwrap_or(&none).iter().collect();
        let mut filled = text.to_owned();
        let mut missing = Vec::new();
        for (name, variable) in known {
            let place = format!("{{{name}}}");
            if !filled.contains(&place) {
                continue;
            }
            match variable["value"].as_str().or(variable["default"].as_str()) {
                Some(value) => filled = filled.replace(&place, value),
                None => missing.push(Missing {
                    name: name.clone(),
                    told: variable["description"].as_str().map(str::to_owned),
                    is_required: flag(variable, "isRequired", "is_required"),
                    is_secret: flag(variable, "isSecret", "is_secret"),
                }),
            }
        }
        // A place that no variable explains cannot be left in what is sent.
        if missing.is_empty()
            && let Some(name) = open_place(&filled)
        {
            missing.push(Missing {
                name: name.to_owned(),
                told: None,
                is_required: false,
                is_secret: false,
            });
        }
        Self {
            text: filled,
            missing,
        }
    }
}

/// The first word in braces.
fn open_place(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('{')?;
    let (name, _) = rest.split_once('}')?;
    let is_word = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    is_word.then_some(name)
}

/// A member by its name of today, or by the one that it had.
pub(super) fn member<'a>(value: &'a Value, name: &str, older: &str) -> &'a Value {
    match value.get(name) {
        Some(found) => found,
        None => &value[older],
    }
}

fn flag(value: &Value, name: &str, older: &str) -> bool {
    member(value, name, older).as_bool().unwrap_or_default()
}

/// What a publisher says of something, in one line of bounded length.
fn told(text: Option<&str>) -> String {
    let words: String = text
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let short: String = words.chars().filter(|c| !c.is_control()).take(120).collect();
    if short.is_empty() {
        short
    } else {
        format!(" ({short})")
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::registry::SECRET_PREFIX;
    use serde_json::json;

    use super::*;

    fn wish(server: Value) -> Wish {
        let Value::Object(server) = server else {
            panic!("an object")
        };
        let base = Declaration::new("weather".parse().unwrap(), "");
        read(&server, "active", base, SECRET_PREFIX)
    }

    fn remote(remote: &Value) -> Wish {
        wish(json!({ "name": "com.example/weather", "version": "1.0.0", "remotes": [remote] }))
    }

    fn declared(wish: Wish) -> (Declaration, Vec<String>) {
        match wish {
            Wish::Declare(declaration, notes) => (*declaration, notes),
            Wish::Skip(skipped) => panic!("{}", skipped.reason),
        }
    }

    fn reason(wish: Wish) -> String {
        match wish {
            Wish::Skip(skipped) => skipped.reason,
            Wish::Declare(..) => panic!("it can be declared"),
        }
    }

    #[test]
    fn streamable_http_is_taken_before_sse() {
        let (declared, notes) = declared(wish(json!({
            "name": "com.example/weather", "title": " Weather ", "description": "Tells it.", "version": "v1",
            "remotes": [
                { "type": "sse", "url": "https://a.example/sse" },
                { "type": "streamable-http", "url": "https://a.example/mcp" },
            ],
        })));
        assert_eq!(
            (declared.url.as_str(), declared.transport),
            ("https://a.example/mcp", TransportKnob::Http)
        );
        assert_eq!(declared.title.as_deref(), Some("Weather"));
        assert_eq!((declared.version, notes.len()), (None, 1));
    }

    #[test]
    fn names_of_the_first_schema_mean_the_same() {
        let (declared, notes) = declared(wish(json!({
            "name": "com.example/weather", "version_detail": { "version": "1.2.3" },
            "remotes": [{
                "transport_type": "sse", "url": "https://a.example/sse",
                "headers": [{ "name": "authorization", "is_required": true, "is_secret": true }],
            }],
        })));
        assert_eq!(declared.version.as_deref(), Some("1.2.3"));
        assert_eq!(declared.transport, TransportKnob::Sse);
        assert_eq!(
            declared.auth.secret(),
            Some(SecretRef::Variable("TRUNKLINE_SECRET_WEATHER"))
        );
        assert!(notes[0].contains("set TRUNKLINE_SECRET_WEATHER"), "{notes:?}");
    }

    #[test]
    fn headers_are_filled_and_tokens_become_variables() {
        let (declared, notes) = declared(remote(&json!({
            "type": "streamable-http", "url": "https://{region}.a.example/mcp",
            "variables": { "region": { "default": "eu" } },
            "headers": [
                { "name": "X-Region", "value": "{r}", "variables": { "r": { "value": "eu" } } },
                { "name": "Authorization", "value": "Bearer {key}", "isSecret": true,
                  "variables": { "key": { "isRequired": true, "isSecret": true } } },
                { "name": "X-Trace", "description": "an id" },
            ],
        })));
        assert_eq!(declared.url, "https://eu.a.example/mcp");
        assert_eq!(
            declared.headers,
            BTreeMap::from([("X-Region".to_owned(), "eu".to_owned())])
        );
        assert!(matches!(declared.auth, Auth::Bearer { .. }));
        assert!(notes[1].contains("`X-Trace` (an id)"), "{notes:?}");
    }

    #[test]
    fn what_cannot_be_declared_is_told_with_what_to_do() {
        for (header, words) in [
            (
                json!({ "name": "X-Key", "isRequired": true, "isSecret": true }),
                "secret header `X-Key`",
            ),
            (
                json!({ "name": "X-Team", "isRequired": true, "description": "yours" }),
                "`X-Team` (yours)",
            ),
            (
                json!({ "name": "Authorization", "isRequired": true, "isSecret": true, "value": "Basic {x}", "variables": { "x": {} } }),
                "secret header `Authorization`",
            ),
        ] {
            let reason = reason(remote(
                &json!({ "type": "sse", "url": "https://a.example", "headers": [header] }),
            ));
            assert!(reason.contains(words), "{reason}");
        }
        let open = remote(&json!({
            "type": "sse", "url": "https://{tenant}.a.example", "variables": { "tenant": { "description": "your id" } }
        }));
        assert!(reason(open).contains("`tenant` (your id)"));
        assert!(reason(remote(&json!({ "type": "sse", "url": "{baseUrl}/mcp" }))).contains("`baseUrl`"));
        assert!(reason(remote(&json!({ "type": "carrier-pigeon", "url": "x" }))).contains("no remote"));
    }

    #[test]
    fn what_an_operator_has_added_stays() {
        let mut base = Declaration::new("weather".parse().unwrap(), "https://old.example");
        base.owner = Some("team-a".to_owned());
        base.auth = Auth::Bearer {
            token_env: Some("TRUNKLINE_SECRET_OTHER".to_owned()),
            token_name: None,
        };
        let server = json!({ "name": "com.example/weather", "version": "1.0.0",
            "remotes": [{ "type": "streamable-http", "url": "https://a.example/mcp" }] });
        let Value::Object(server) = server else {
            panic!("an object")
        };
        let (declared, _) = declared(read(&server, "deprecated", base.clone(), SECRET_PREFIX));
        assert_eq!((&declared.owner, &declared.auth), (&base.owner, &base.auth));
        assert_eq!(declared.tags, ["deprecated"]);
        assert_eq!(declared.url, "https://a.example/mcp");
    }
}
