//! What is remembered of a server's tools, as its lists pass by: which arguments its headers repeat, and what may be called twice.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bus_schema::{
    ServerId, header,
    mcp::{
        Era, meta, method,
        mirrored::{self, BadAnnotation, Mirrored},
    },
    rpc::Message,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tracing::{debug, warn};

use crate::upstream::edit::{Edits, Members};

use super::exchange::Asking;

/// How many tools are remembered; more are called without.
const MAX_TOOLS: usize = 10_000;
/// What a schema with annotations has in it, spelled in either way.
const SIGNS: [&str; 2] = ["x-mcp-header", "\\u"];

/// The tools of one server.
#[derive(Default)]
pub(super) struct Tools(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// In which era the lists are read; only the modern one knows annotations.
    era: Option<Era>,
    known: HashMap<String, Tool>,
    /// Tools whose annotations cannot be used, and have been told of.
    told: HashSet<String>,
}

#[derive(Default)]
struct Tool {
    mirrored: Vec<Mirrored>,
    repeatable: bool,
}

impl Tools {
    /// From now on lists are those of this era.
    pub(super) fn speak(&self, era: Era) {
        self.memory().era = Some(era);
    }

    /// Reads a line that may be an answer to `tools/list`, and gives it back without the tools that no client may be shown.
    pub(super) fn read(&self, server: &ServerId, call: &Asking, line: Vec<u8>) -> Vec<u8> {
        if call.method != method::TOOLS_LIST {
            return line;
        }
        let Some(list) = Message::parse(&line)
            .ok()
            .and_then(|message| Members::of(message.result?)?.get("tools"))
        else {
            return line;
        };
        let Ok(tools) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
            return line;
        };
        let kept: Vec<&str> = tools
            .iter()
            .filter(|tool| self.learn(server, tool))
            .map(|tool| tool.get())
            .collect();
        if kept.len() == tools.len() {
            return line;
        }
        let mut edits = Edits::new(&line);
        edits.replace(list.get(), format!("[{}]", kept.join(",")));
        edits.apply()
    }

    /// Learns of one page of tools that was asked for here.
    pub(super) fn learn_page(&self, server: &ServerId, result: &RawValue) {
        let list = Members::of(result).and_then(|members| members.get("tools"));
        let tools = list.and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).ok());
        for tool in tools.into_iter().flatten() {
            self.learn(server, tool);
        }
    }

    /// Remembers a tool; `false` when nobody may be shown it.
    fn learn(&self, server: &ServerId, raw: &RawValue) -> bool {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Peek<'a> {
            #[serde(borrow)]
            name: &'a RawValue,
            #[serde(borrow, default)]
            annotations: Option<&'a RawValue>,
            #[serde(borrow, default)]
            input_schema: Option<&'a RawValue>,
        }
        let Ok(peek) = serde_json::from_str::<Peek<'_>>(raw.get()) else {
            return true;
        };
        let Some(name) = meta::as_text(peek.name) else {
            return true;
        };
        let mut memory = self.memory();
        let found = match peek.input_schema {
            Some(schema) if memory.era == Some(Era::Modern) => annotated(schema),
            _ => Ok(Vec::new()),
        };
        let mirrored = match found {
            Ok(mirrored) => mirrored,
            Err(error) => {
                memory.known.remove(&*name);
                if memory.told.len() < MAX_TOOLS && memory.told.insert(name.to_string()) {
                    warn!(server.id = %server, tool.name = %name, %error, "left out a tool whose header annotations are wrong");
                }
                return false;
            }
        };
        let tool = Tool {
            mirrored,
            repeatable: peek.annotations.is_some_and(is_repeatable),
        };
        if tool.mirrored.is_empty() && !tool.repeatable {
            memory.known.remove(&*name);
        } else if memory.known.len() < MAX_TOOLS || memory.known.contains_key(&*name) {
            memory.known.insert(name.into_owned(), tool);
        } else {
            debug!(server.id = %server, tool.name = %name, "too many tools to remember this one");
        }
        true
    }

    /// Whether a call may be made twice: methods that read, and tools that say so.
    pub(super) fn may_repeat(&self, call: &Asking) -> bool {
        method::is_read_only(&call.method)
            || call.method == method::PING
            || call.method == method::TOOLS_CALL
                && call
                    .name
                    .as_ref()
                    .is_some_and(|name| self.memory().known.get(name).is_some_and(|tool| tool.repeatable))
    }

    /// The headers that repeat a tool's arguments.
    pub(super) fn headers(&self, tool: &str, arguments: Option<&RawValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mirrored = match self.memory().known.get(tool) {
            Some(tool) if !tool.mirrored.is_empty() => tool.mirrored.clone(),
            _ => return headers,
        };
        let arguments: Value = arguments
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        for mirrored in mirrored {
            let argument = mirrored
                .path
                .iter()
                .try_fold(&arguments, |value, key| value.get(key));
            let name = format!("{}{}", header::PARAM_PREFIX, mirrored.name.to_ascii_lowercase());
            let header = argument
                .and_then(header_text)
                .and_then(|text| HeaderValue::from_str(&header::encode_value(&text)).ok())
                .zip(HeaderName::from_bytes(name.as_bytes()).ok());
            if let Some((value, name)) = header {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Held only to look up or to remember.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn annotated(schema: &RawValue) -> Result<Vec<Mirrored>, BadAnnotation> {
    if !SIGNS.iter().any(|sign| schema.get().contains(sign)) {
        return Ok(Vec::new());
    }
    match serde_json::from_str(schema.get()) {
        Ok(schema) => mirrored::mirrored(&schema),
        // A schema that cannot be read is for whoever uses it to refuse.
        Err(_) => Ok(Vec::new()),
    }
}

fn is_repeatable(annotations: &RawValue) -> bool {
    let says = |name: &str| {
        Members::of(annotations)
            .and_then(|members| members.get(name))
            .is_some_and(|raw| raw.get() == "true")
    };
    says("readOnlyHint") || says("idempotentHint")
}

/// An argument as a header says it; `None` for what a header does not repeat.
fn header_text(argument: &Value) -> Option<String> {
    match argument {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        // An integer may be spelled as 42.0 and is still 42.
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 2_f64.powi(53) => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn listing() -> Asking {
        Asking {
            number: 1,
            method: method::TOOLS_LIST.to_owned(),
            name: None,
        }
    }

    fn calling(name: &str) -> Asking {
        Asking {
            number: 2,
            method: method::TOOLS_CALL.to_owned(),
            name: Some(name.to_owned()),
        }
    }

    fn tools(era: Era, list: &Value) -> (Tools, Value) {
        let tools = Tools::default();
        tools.speak(era);
        let line = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": list, "z": 1 } }).to_string();
        let read = tools.read(&"there".parse().unwrap(), &listing(), line.into_bytes());
        (tools, serde_json::from_slice(&read).unwrap())
    }

    fn annotated_tool(name: &str, annotation: &str) -> Value {
        json!({ "name": name, "inputSchema": { "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": annotation },
            "deep": { "type": "object", "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } } } } })
    }

    #[test]
    fn a_tool_with_a_wrong_annotation_is_left_out_and_the_others_stay() {
        let list = json!([annotated_tool("good", "Region"), annotated_tool("bad", "not a name"), { "name": "plain" }]);
        let (_, read) = tools(Era::Modern, &list);
        let names: Vec<_> = read["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| &tool["name"])
            .collect();
        assert_eq!(names, ["good", "plain"]);
        assert_eq!(read["result"]["z"], 1);
        // The word means nothing to a server of the legacy era.
        let (_, read) = tools(Era::Legacy, &list);
        assert_eq!(read["result"]["tools"], list);
    }

    #[test]
    fn arguments_are_repeated_in_headers_as_the_schema_asks() {
        let (tools, _) = tools(Era::Modern, &json!([annotated_tool("t", "Region")]));
        for (arguments, region, n) in [
            (
                json!({ "region": "eu", "deep": { "n": 7 } }),
                Some("eu"),
                Some("7"),
            ),
            (
                json!({ "region": "größe" }),
                Some("=?base64?Z3LDtsOfZQ==?="),
                None,
            ),
            (json!({ "region": null, "deep": { "n": 42.0 } }), None, Some("42")),
            (json!({ "region": ["eu"], "deep": 7 }), None, None),
            (
                json!({ "region": " padded " }),
                Some("=?base64?IHBhZGRlZCA=?="),
                None,
            ),
        ] {
            let raw = to_raw_value(&arguments).unwrap();
            let headers = tools.headers("t", Some(&raw));
            let found = |name: &str| {
                headers
                    .get(format!("{}{name}", header::PARAM_PREFIX))
                    .map(|value| value.to_str().unwrap())
            };
            assert_eq!((found("region"), found("n")), (region, n), "{arguments}");
        }
        assert!(tools.headers("other", None).is_empty());
    }

    #[test]
    fn what_says_that_it_only_reads_may_be_called_twice() {
        let (tools, _) = tools(
            Era::Legacy,
            &json!([{ "name": "reads", "annotations": { "readOnlyHint": true } }, { "name": "writes", "annotations": { "readOnlyHint": false } }]),
        );
        assert!(tools.may_repeat(&calling("reads")) && tools.may_repeat(&listing()));
        assert!(!tools.may_repeat(&calling("writes")) && !tools.may_repeat(&calling("unknown")));
    }
}
