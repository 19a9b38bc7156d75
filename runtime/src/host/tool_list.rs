//! What a host does to a list of tools on its way out, whoever serves it: tools whose annotations no HTTP client can follow are left
//! out, and deprecated ones say so. Every other tool keeps its bytes.
//!
//! A server is hosted for all doors at once, so what HTTP clients must not see nobody sees (MCP 2026-07-28, server/tools).

use bus_schema::{
    mcp::{
        meta,
        mirrored::{BadAnnotation, mirrored},
    },
    rpc::{Message, splice},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{deprecated, server::Outcome};

/// A list that has neither of these in it goes out as it is; an escape may hide either.
const WORTH_A_LOOK: [&[u8]; 3] = [b"x-mcp-header", deprecated::KEY.as_bytes(), b"\\u"];

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "inputSchema")]
    input_schema: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

/// The list in an answer to `tools/list`, as it is spelled, and the tools in it; `None` when there is none that can be read.
pub(super) fn read(body: &[u8]) -> Option<(&RawValue, Vec<&RawValue>)> {
    let message = Message::parse(body).ok()?;
    let listed: Listed<'_> = serde_json::from_str(message.result?.get()).ok()?;
    let list = listed.tools?;
    Some((list, serde_json::from_str(list.get()).ok()?))
}

/// Edits the answer to `tools/list`. `left_out` hears of each tool that is left out, and why.
pub(crate) fn edit(outcome: Outcome, left_out: impl FnMut(&str, &BadAnnotation)) -> Outcome {
    let worth_a_look = WORTH_A_LOOK
        .iter()
        .any(|word| outcome.body.windows(word.len()).any(|window| window == *word));
    if !worth_a_look {
        return outcome;
    }
    match edited(&outcome.body, left_out) {
        Some(body) => Outcome {
            body: body.into(),
            ..outcome
        },
        None => outcome,
    }
}

/// The whole body with another list; `None` when nothing is to be changed, or the body is no list.
fn edited(body: &[u8], mut left_out: impl FnMut(&str, &BadAnnotation)) -> Option<Vec<u8>> {
    let (list, tools) = read(body)?;
    let mut changed = false;
    let mut kept = Vec::with_capacity(tools.len());
    for raw in tools {
        // What is no tool at all is for whoever reads the list to judge.
        let Ok(tool) = serde_json::from_str::<Tool<'_>>(raw.get()) else {
            kept.push(raw.get().to_owned());
            continue;
        };
        if let Err(why) = annotations(&tool) {
            let name = tool.name.and_then(meta::as_text).unwrap_or_default();
            left_out(&name, &why);
            changed = true;
            continue;
        }
        let described = described(raw, &tool);
        changed |= described.is_some();
        kept.push(described.unwrap_or_else(|| raw.get().to_owned()));
    }
    changed.then(|| splice(body, list.get(), &format!("[{}]", kept.join(","))))
}

fn annotations(tool: &Tool<'_>) -> Result<(), BadAnnotation> {
    let Some(schema) = tool.input_schema else {
        return Ok(());
    };
    match serde_json::from_str::<Value>(schema.get()) {
        Ok(schema) => mirrored(&schema).map(|_| ()),
        // A number that is too large for us to read may stand beside an annotation.
        Err(_) if schema.get().contains("x-mcp-header") => Err(BadAnnotation::unreadable()),
        Err(_) => Ok(()),
    }
}

/// A deprecated tool with a description that says so first; `None` for others, and for one that says so already.
fn described(raw: &RawValue, tool: &Tool<'_>) -> Option<String> {
    let mark = deprecated::mark(tool.meta?)?;
    let sentence = mark.sentence();
    let own = tool.description.and_then(meta::as_text);
    if own.as_deref().is_some_and(|own| own.starts_with(&sentence)) {
        return None;
    }
    let whole = match own.as_deref() {
        None | Some("") => sentence,
        Some(own) => format!("{sentence} {own}"),
    };
    let whole = Value::from(whole).to_string();
    Some(match tool.description {
        Some(piece) => {
            let spliced = splice(raw.get().as_bytes(), piece.get(), &whole);
            String::from_utf8(spliced).expect("text in text stays text")
        }
        None => format!(r#"{{"description":{whole},{}"#, &raw.get()[1..]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Verdict;

    fn edit_text(list: &str) -> (String, Vec<String>) {
        let mut out = Vec::new();
        let body = format!(r#"{{"id":7.0,"result":{{"x":1e400,"tools":{list},"ttlMs":0}},"jsonrpc":"2.0"}}"#);
        let outcome = Outcome {
            code: None,
            body: body.into(),
            verdict: Verdict::Answered,
        };
        let edited = edit(outcome, |name, why| out.push(format!("{name}: {why}")));
        let text = String::from_utf8(edited.body.to_vec()).unwrap();
        let list = text
            .strip_prefix(r#"{"id":7.0,"result":{"x":1e400,"tools":"#)
            .and_then(|rest| rest.strip_suffix(r#","ttlMs":0},"jsonrpc":"2.0"}"#));
        (list.expect("everything around the list stays").to_owned(), out)
    }

    fn tool(name: &str, property: &str) -> String {
        format!(
            r#"{{"name":"{name}","inputSchema":{{"type":"object","properties":{{"a":{property}}}}}, "z":1e400}}"#
        )
    }

    #[test]
    fn a_tool_with_a_bad_annotation_is_left_out_and_the_others_keep_their_bytes() {
        let good = tool("good", r#"{"type":"integer","x-mcp-header":"A"}"#);
        let plain = r#"{ "name" : "plain" }"#;
        for bad in [
            r#"{"type":"number","x-mcp-header":"A"}"#,
            r#"{"type":"string","x-mcp-header":""}"#,
            r#"{"type":"string","x-mcp-header":"a b"}"#,
            r#"{"type":"string","x-mcp-h\u0065ader":"a b"}"#,
            r#"{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#,
            r##"{"$ref":"#/$defs/a","x-mcp-header":"A"}"##,
            r#"{"maximum":1e400,"type":"integer","x-mcp-header":"A"}"#,
            r#"{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}"#,
        ] {
            let bad = tool("bad", bad);
            let (list, out) = edit_text(&format!("[{good},\n{bad}, {plain}]"));
            assert_eq!(list, format!("[{good},{plain}]"), "{bad}");
            assert!(
                out.len() == 1 && out[0].starts_with("bad: `x-mcp-header` "),
                "{out:?}"
            );
        }
        assert_eq!(
            edit_text(&format!("[{}]", tool("bad", r#"{"x-mcp-header":1}"#))).0,
            "[]"
        );
    }

    #[test]
    fn a_list_that_needs_no_change_stays_as_it_is() {
        let good = tool("good", r#"{"type":"string","x-mcp-header":"A"}"#);
        for list in [
            format!("[ {good} ,{{\"name\":\"\\u0061\"}}, 7, null ]"),
            "[ ]".to_owned(),
            "\"x-mcp-header\"".to_owned(),
            "[\"io.trunkline/deprecated\"]".to_owned(),
            r#"[{"name":"a", "_meta":{"io.trunkline/deprecated":false}}]"#.to_owned(),
        ] {
            assert_eq!(edit_text(&list), (list, Vec::new()));
        }
    }

    #[test]
    fn a_deprecated_tool_says_so_first_and_once() {
        let mark = r#""_meta":{"io.trunkline/deprecated":{"since":"1.4","use":"search","removed":"2.0"}}"#;
        let sentence = "Deprecated since 1.4: use `search` instead. It is to be removed by 2.0.";
        for (tool, expected) in [
            (
                format!(r#"{{"name":"find","description":"Finds \"it\".", {mark}}}"#),
                format!(r#"{{"name":"find","description":"{sentence} Finds \"it\".", {mark}}}"#),
            ),
            (
                format!(r#"{{ "name":"find",{mark}}}"#),
                format!(r#"{{"description":"{sentence}", "name":"find",{mark}}}"#),
            ),
            (
                format!(r#"{{"description":"{sentence} Finds it.",{mark}}}"#),
                format!(r#"{{"description":"{sentence} Finds it.",{mark}}}"#),
            ),
            (
                r#"{"description":"Finds it.","_meta":{"io.trunkline/deprecated":true}}"#.to_owned(),
                r#"{"description":"Deprecated. Finds it.","_meta":{"io.trunkline/deprecated":true}}"#
                    .to_owned(),
            ),
        ] {
            assert_eq!(edit_text(&format!("[{tool}]")).0, format!("[{expected}]"));
        }
    }
}
