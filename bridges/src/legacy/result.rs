//! A modern result, as a legacy client reads it.
//!
//! What only the modern era says of a result goes, what the client's version does not know is said in older words, and every other
//! byte stays. The text is read once, and a result that needs no change is handed on as it is.

use bus_schema::{
    ProtocolVersion, RpcError,
    edit::{Edits, Members, Opened, is_key},
    mcp::{meta, method},
    rpc::{self, Message},
};
use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::{Dialect, asking::InputRequired, content, listing};

const STRUCTURED: &str = "structuredContent";
const CONTENT: &str = "content";

/// What a modern result means for a legacy client.
#[derive(Clone, Debug, PartialEq)]
pub enum Downgraded {
    /// The response that the client gets.
    Complete(Bytes),
    /// The server asks the client something first, and wants the call again with the answers.
    InputRequired(InputRequired),
    /// The server made a task of the call; the response describes it in modern words.
    Task(Bytes),
    /// The result is none that can be read.
    Unreadable(RpcError),
}

/// Reads a response that holds a result, and makes of it what the client can use.
#[must_use]
pub fn downgrade(dialect: Dialect, called: &str, body: &Bytes) -> Downgraded {
    let Some((text, result)) = read(called, body) else {
        return Downgraded::Complete(body.clone());
    };
    match result.get("resultType").map(meta::as_text) {
        None => {}
        Some(Some(kind)) if kind == "complete" => {}
        Some(Some(kind)) if kind == "input_required" => {
            let (requests, state) = (result.get("inputRequests"), result.get("requestState"));
            return match InputRequired::read(requests, state) {
                Ok(required) => Downgraded::InputRequired(required),
                Err(error) => Downgraded::Unreadable(error),
            };
        }
        Some(Some(kind)) if kind == "task" => return Downgraded::Task(body.clone()),
        Some(kind) => {
            let kind = kind.map_or_else(|| "no string".to_owned(), |kind| format!("`{kind}`"));
            return Downgraded::Unreadable(RpcError::internal(format!(
                "the server's result cannot be used: its `resultType` is {kind}, which is not known here"
            )));
        }
    }
    let edits = fit(dialect, called, text, &result);
    Downgraded::Complete(if edits.is_empty() {
        body.clone()
    } else {
        edits.apply().into()
    })
}

fn read<'a>(called: &str, body: &'a Bytes) -> Option<(&'a str, Opened<'a>)> {
    let open = match called {
        method::TOOLS_CALL => Some(CONTENT),
        method::PROMPTS_GET => Some("messages"),
        _ => listing::member(called),
    };
    let text = std::str::from_utf8(body).ok()?;
    Some((text, Opened::result_of(text, open)?))
}

fn fit<'a>(dialect: Dialect, called: &str, text: &'a str, result: &Opened<'a>) -> Edits<'a> {
    let mut edits = Edits::new(text.as_bytes());
    let version = dialect.version;
    for item in &result.items {
        match called {
            method::TOOLS_CALL => content::fit(version, item, &mut edits),
            method::PROMPTS_GET => fit_message(version, item, &mut edits),
            _ => listing::fit(dialect, called, item, &mut edits),
        }
    }
    let structured = result
        .get(STRUCTURED)
        .filter(|value| called == method::TOOLS_CALL && !is_known(version, value));
    let is_said = structured.is_none_or(|value| say_in_text(value, result, &mut edits));
    let bare_meta = result.get("_meta").is_some_and(|raw| strip_meta(raw, &mut edits));
    edits.remove_opened(result, |key| {
        is_key(key, "resultType")
            || (method::is_cacheable(called) && (is_key(key, "ttlMs") || is_key(key, "cacheScope")))
            || (bare_meta && is_key(key, "_meta"))
            || (structured.is_some() && is_said && is_key(key, STRUCTURED))
    });
    edits
}

/// Whether a client of this version reads structured content like this.
fn is_known(version: ProtocolVersion, structured: &RawValue) -> bool {
    version >= ProtocolVersion::V2025_06_18 && meta::is_object(structured)
}

fn fit_message(version: ProtocolVersion, message: &Members<'_>, edits: &mut Edits<'_>) {
    if content::may_differ(version)
        && let Some(block) = message.get(CONTENT).and_then(Members::of)
    {
        content::fit(version, &block, edits);
    }
}

/// Makes sure that the text of a result says what its structured content says. `false` when the text took the member's own place.
fn say_in_text(structured: &RawValue, result: &Opened<'_>, edits: &mut Edits<'_>) -> bool {
    let value: Option<Value> = serde_json::from_str(structured.get()).ok();
    if result
        .items
        .iter()
        .any(|block| says(block, structured, value.as_ref()))
    {
        return true;
    }
    let block = format!(r#"{{"type":"text","text":{}}}"#, rpc::quote(structured.get()));
    if edits.append_item(result, &block) || result.key(CONTENT).is_some() {
        return true;
    }
    if let Some(key) = result.key(STRUCTURED) {
        edits.replace(key.get(), rpc::quote(CONTENT));
        edits.replace(structured.get(), format!("[{block}]"));
    }
    false
}

/// Whether a content block is the text of that value.
fn says(block: &Members<'_>, structured: &RawValue, value: Option<&Value>) -> bool {
    let Some(text) = block.get("text").and_then(meta::as_text) else {
        return false;
    };
    let Some(value) = value else {
        return text.trim() == structured.get();
    };
    // Most texts are told apart by how they begin.
    value.as_str() == Some(&text)
        || (text.trim_start().as_bytes().first() == structured.get().as_bytes().first()
            && serde_json::from_str::<Value>(&text).is_ok_and(|said| said == *value))
}

/// Takes the server's name out of the metadata. `true` when nothing else is in it.
fn strip_meta(raw: &RawValue, edits: &mut Edits<'_>) -> bool {
    let Some(members) = Members::of(raw) else {
        return false;
    };
    if members.get(meta::SERVER_INFO).is_none() {
        return false;
    }
    if members.iter().all(|(key, _)| is_key(key, meta::SERVER_INFO)) {
        return true;
    }
    edits.remove(&members, meta::SERVER_INFO);
    false
}

/// The response with an error in place of its result.
#[must_use]
pub fn refused(body: &Bytes, error: &RpcError) -> Bytes {
    let id = Message::parse(body).ok().and_then(|message| message.id);
    rpc::error_response(id.map(RawValue::get), error).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion as V;
    use bus_schema::mcp::error;

    const LEGACY: [V; 4] = [V::V2024_11_05, V::V2025_03_26, V::V2025_06_18, V::V2025_11_25];

    fn response(result: &str) -> Bytes {
        format!(r#"{{"z":0,"result":{result} ,"id":"a","jsonrpc":"2.0"}}"#).into()
    }

    fn complete(version: V, called: &str, result: &str) -> Bytes {
        match downgrade(Dialect::plain(version), called, &response(result)) {
            Downgraded::Complete(body) => body,
            other => panic!("{result}: {other:?}"),
        }
    }

    #[test]
    fn what_only_the_modern_era_says_goes_and_the_rest_stays() {
        let me = r#""io.modelcontextprotocol/serverInfo":{"name":"n"}"#;
        for (called, result, expected) in [
            (
                method::TOOLS_CALL,
                r#"{"resultType":"complete"}"#.to_owned(),
                "{}",
            ),
            (
                method::TOOLS_CALL,
                r#"{ "content":[],"ttlMs":1e400 , "resultType":"complete","y":"\ud800"}"#.to_owned(),
                r#"{ "content":[],"ttlMs":1e400 , "y":"\ud800"}"#,
            ),
            (
                method::RESOURCES_READ,
                format!(
                    r#"{{"ttlMs":7,"contents":[{{"uri":"ui://a","_meta":{{"ui":{{}}}}}}],"cacheScope":"public","_meta":{{{me}}},"resultType":"complete"}}"#
                ),
                r#"{"contents":[{"uri":"ui://a","_meta":{"ui":{}}}]}"#,
            ),
            (
                method::COMPLETE,
                format!(
                    r#"{{"_meta":{{"com.example/x":1.0,{me}}},"resultType":"complete","completion":{{"values":[]}}}}"#
                ),
                r#"{"_meta":{"com.example/x":1.0},"completion":{"values":[]}}"#,
            ),
            (method::PROMPTS_GET, r#"{"_meta":7}"#.to_owned(), r#"{"_meta":7}"#),
        ] {
            for version in LEGACY {
                assert_eq!(
                    complete(version, called, &result),
                    response(expected),
                    "{called} {version}"
                );
            }
        }
    }

    #[test]
    fn a_result_that_needs_no_change_is_handed_on_as_it_is() {
        for (called, result) in [
            (
                method::TOOLS_CALL,
                r#"{"content":[{"type":"text","text":"a"}],"structuredContent":{"a":1}}"#,
            ),
            (method::RESOURCES_READ, r#"{"contents":[]}"#),
            ("com.example/other", r#"{"ttlMs":1,"structuredContent":[]}"#),
        ] {
            let body = response(result);
            let Downgraded::Complete(same) = downgrade(Dialect::plain(V::V2025_06_18), called, &body) else {
                panic!("{result}");
            };
            assert_eq!(same.as_ptr(), body.as_ptr(), "{result}");
        }
        for body in [
            "",
            "garbage",
            r#"{"id":1,"result":7}"#,
            r#"{"id":1,"error":{}}"#,
            "\u{0}",
        ] {
            let body = Bytes::from(body);
            let same = downgrade(Dialect::plain(V::V2024_11_05), method::TOOLS_CALL, &body);
            assert_eq!(same, Downgraded::Complete(body));
        }
    }

    #[test]
    fn structured_content_that_a_client_cannot_read_is_said_in_text() {
        let text = |said: &str| format!(r#"{{"type":"text","text":{}}}"#, rpc::quote(said));
        let list = r#"[1.0, "é"]"#;
        for (structured, content, expected) in [
            // Nothing says it yet.
            (list, "[]".to_owned(), format!("[{}]", text(list))),
            (
                list,
                format!("[{}]", text("two")),
                format!("[{},{}]", text("two"), text(list)),
            ),
            // Something does, in its own spelling.
            (
                list,
                format!("[{}]", text("[ 1.0,\"\\u00e9\"]")),
                format!("[{}]", text("[ 1.0,\"\\u00e9\"]")),
            ),
            (r#""s""#, format!("[{}]", text("s")), format!("[{}]", text("s"))),
            (
                "1e400",
                format!("[{}]", text("1e400\n")),
                format!("[{}]", text("1e400\n")),
            ),
            (
                "null",
                format!("[{}]", text("nil")),
                format!("[{},{}]", text("nil"), text("null")),
            ),
        ] {
            let result =
                format!(r#"{{"structuredContent":{structured},"content":{content},"isError":false}}"#);
            let expected = format!(r#"{{"content":{expected},"isError":false}}"#);
            for version in LEGACY {
                assert_eq!(
                    complete(version, method::TOOLS_CALL, &result),
                    response(&expected)
                );
            }
        }
        let bare = complete(
            V::V2025_11_25,
            method::TOOLS_CALL,
            r#"{ "structuredContent" : [1],"x":1}"#,
        );
        assert_eq!(
            bare,
            response(r#"{ "content" : [{"type":"text","text":"[1]"}],"x":1}"#)
        );
    }

    #[test]
    fn structured_objects_stay_from_2025_06_18_on() {
        let result = r#"{"content":[{"type":"text","text":"one"}],"structuredContent":{"a":1}}"#;
        let older = r#"{"content":[{"type":"text","text":"one"},{"type":"text","text":"{\"a\":1}"}]}"#;
        for (version, expected) in [
            (V::V2024_11_05, older),
            (V::V2025_03_26, older),
            (V::V2025_06_18, result),
            (V::V2025_11_25, result),
        ] {
            assert_eq!(
                complete(version, method::TOOLS_CALL, result),
                response(expected),
                "{version}"
            );
        }
    }

    #[test]
    fn entries_and_blocks_are_fitted_wherever_results_have_them() {
        let link = r#"{"type":"resource_link","uri":"a://b","name":"n"}"#;
        let text = r#"{"type":"text","text":"n: a://b","uri":"a://b","name":"n"}"#;
        for (called, result) in [
            (
                method::TOOLS_CALL,
                r#"{"content":[LINK,{"type":"text","text":"x"}],"resultType":"complete"}"#,
            ),
            (
                method::PROMPTS_GET,
                r#"{"resultType":"complete","messages":[{"role":"user","content":LINK}]}"#,
            ),
        ] {
            let stripped = result
                .replace(r#","resultType":"complete""#, "")
                .replace(r#""resultType":"complete","#, "");
            for (version, block) in LEGACY.into_iter().zip([text, text, link, link]) {
                let expected = response(&stripped.replace("LINK", block));
                assert_eq!(
                    complete(version, called, &result.replace("LINK", link)),
                    expected,
                    "{version}"
                );
            }
        }
        for (called, member) in [
            (method::TOOLS_LIST, "tools"),
            (method::PROMPTS_LIST, "prompts"),
            (method::RESOURCES_LIST, "resources"),
            (method::TEMPLATES_LIST, "resourceTemplates"),
        ] {
            let list = format!(
                r#"{{"resultType":"complete","{member}":[{{"name":"a","icons":[]}},{{"icons":[],"name":"b"}}],"nextCursor":"","ttlMs":1}}"#
            );
            let expected = format!(r#"{{"{member}":[{{"name":"a"}},{{"name":"b"}}],"nextCursor":""}}"#);
            assert_eq!(complete(V::V2025_06_18, called, &list), response(&expected));
        }
    }

    #[test]
    fn a_result_of_another_kind_is_told_apart() {
        let kind = |result: &str| {
            downgrade(
                Dialect::plain(V::V2025_11_25),
                method::TOOLS_CALL,
                &response(result),
            )
        };
        let asked = kind(
            r#"{"resultType":"input_required","inputRequests":{"k\u0031":{"method":"roots/list"},"b":{"params":{"x":1e400},"method":"elicitation/create"}},"requestState":"s\u0031"}"#,
        );
        let question = |key: &str, method: &str, params: &str| super::super::asking::InputRequest {
            key: key.to_owned(),
            method: method.to_owned(),
            params: params.to_owned(),
        };
        assert_eq!(
            asked,
            Downgraded::InputRequired(InputRequired {
                requests: vec![
                    question(r#""k\u0031""#, "roots/list", "{}"),
                    question(r#""b""#, "elicitation/create", r#"{"x":1e400}"#),
                ],
                state: Some(r#""s\u0031""#.to_owned()),
            })
        );
        let task = r#"{"resultType":"task","taskId":"t","ttlMs":1}"#;
        assert_eq!(kind(task), Downgraded::Task(response(task)));
        for result in [
            r#"{"resultType":"other"}"#,
            r#"{"resultType":7}"#,
            r#"{"resultType":"input_required"}"#,
            r#"{"resultType":"input_required","requestState":7}"#,
            r#"{"resultType":"input_required","inputRequests":[]}"#,
            r#"{"resultType":"input_required","inputRequests":{"a":{}}}"#,
            r#"{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list","params":[]}}}"#,
        ] {
            let Downgraded::Unreadable(refusal) = kind(result) else {
                panic!("{result}");
            };
            assert_eq!(refusal.code, error::INTERNAL);
            let answer = refused(&response(result), &refusal);
            assert!(answer.starts_with(br#"{"jsonrpc":"2.0","id":"a","error":{"code":-32603,"#));
        }
    }
}
