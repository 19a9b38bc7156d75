//! A child's answer, as its caller on the bus gets it: the caller's id, and the shape of the modern era.

use std::borrow::Cow;

use bus_schema::{
    RpcError,
    mcp::{Era, error, meta, method},
    rpc::Message,
};
use runtime::{Outcome, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::legacy;

use super::{
    ask::Ask,
    capabilities::urls_are_needed,
    edit::{Edits, Members, Object},
    request::Asked,
};

const COMPLETE: &str = "complete";
const INPUT_REQUIRED: &str = "input_required";
const TASK: &str = "task";

/// Codes that the modern era reserves; of them it defines three.
const RESERVED: std::ops::RangeInclusive<i64> = -32099..=-32020;

/// Makes the answer to a caller out of the line that holds the child's.
pub(super) fn for_caller(line: &[u8], message: &Message<'_>, asked: &Asked, era: Era) -> Outcome {
    let mut edits = Edits::new(line);
    if let Some(id) = message.id {
        edits.replace(id.get(), asked.id.as_str());
    }
    if let (Era::Legacy, method::TOOLS_LIST, Some(result)) = (era, asked.method.as_str(), message.result) {
        hide_execution(result, &mut edits);
    }
    let judged = match (message.error, message.result) {
        (Some(error), _) => failure(error, asked, era, &mut edits).map(Some),
        (None, Some(result)) => complete(result, asked, era, &mut edits).map(|()| None),
        (None, None) => Err(unreadable("it has neither a result nor an error")),
    };
    match judged {
        Ok(code) => Outcome {
            code,
            body: edits.apply().into(),
            verdict: Verdict::Answered,
        },
        Err(error) => Outcome::error(Some(&asked.id), &error).saying(Verdict::Failed),
    }
}

fn unreadable(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!("the server's answer cannot be used: {why}"))
}

/// Adds what every modern result has.
fn complete(result: &RawValue, asked: &Asked, era: Era, edits: &mut Edits<'_>) -> Result<(), RpcError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Peek<'a> {
        #[serde(borrow)]
        result_type: Option<&'a RawValue>,
        #[serde(borrow)]
        ttl_ms: Option<&'a RawValue>,
        #[serde(borrow)]
        cache_scope: Option<&'a RawValue>,
    }
    if !meta::is_object(result) {
        return Err(unreadable("its result is no object"));
    }
    let peek: Peek<'_> = serde_json::from_str(result.get()).map_err(unreadable)?;
    let called = asked.method.as_str();
    let mut missing = Object::default();
    let result_type = peek
        .result_type
        .map_or(Some(Cow::Borrowed(COMPLETE)), meta::as_text);
    match result_type.as_deref() {
        Some(COMPLETE) => {
            if peek.result_type.is_none() {
                missing.push("\"resultType\"", "\"complete\"");
            }
            if method::is_cacheable(called) && peek.ttl_ms.is_none() {
                missing.push("\"ttlMs\"", "0");
            }
            if method::is_cacheable(called) && peek.cache_scope.is_none() {
                missing.push("\"cacheScope\"", "\"private\"");
            }
        }
        Some(other) if may_pass(other, asked, era) => {}
        _ => return Err(unreadable("its `resultType` is not known here")),
    }
    if !missing.is_empty() {
        edits.insert_first(result.get(), missing.members());
    }
    Ok(())
}

/// Whether the caller understands a result that is not complete. The legacy era has no such results.
fn may_pass(result_type: &str, asked: &Asked, era: Era) -> bool {
    era == Era::Modern
        && match result_type {
            INPUT_REQUIRED => method::ASKING.contains(&asked.method.as_str()),
            TASK => asked.declared.tasks,
            _ => asked.declared.extensions,
        }
}

/// The requests that show the URLs which the legacy era's error for that names; `None` when it names none, or not only such.
pub(super) fn url_requests(data: Option<&RawValue>) -> Option<Vec<String>> {
    let elicitations = Members::of(data?)?.get("elicitations")?;
    let elicitations: Vec<&RawValue> = serde_json::from_str(elicitations.get()).ok()?;
    let requests: Option<Vec<_>> = elicitations.into_iter().map(Ask::bare_url_request).collect();
    requests.filter(|requests| !requests.is_empty())
}

/// Gives the code that the caller gets, and changes the error where the modern era spells it otherwise.
fn failure(raw: &RawValue, asked: &Asked, era: Era, edits: &mut Edits<'_>) -> Result<i64, RpcError> {
    let members = Members::of(raw).ok_or_else(|| unreadable("its error is no object"))?;
    let (Some(code_raw), Some(message)) = (
        members.get("code"),
        members.get("message").filter(|raw| meta::as_text(raw).is_some()),
    ) else {
        return Err(unreadable("its error has no code and message"));
    };
    let code: i64 =
        serde_json::from_str(code_raw.get()).map_err(|_| unreadable("its error code is no integer"))?;
    if code == error::LEGACY_RESOURCE_NOT_FOUND {
        edits.replace(code_raw.get(), error::INVALID_PARAMS.to_string());
        name_resource(raw, members.get("data"), asked, edits);
        return Ok(error::INVALID_PARAMS);
    }
    let asks_for_urls = code == error::LEGACY_URL_ELICITATION
        && era == Era::Legacy
        && method::ASKING.contains(&asked.method.as_str())
        && url_requests(members.get("data")).is_some();
    if asks_for_urls {
        // Whoever runs the call makes an `InputRequiredResult` of it.
        return if asked.declared.takes_urls() {
            Ok(code)
        } else {
            Err(urls_are_needed())
        };
    }
    let is_modern = matches!(
        code,
        error::HEADER_MISMATCH | error::MISSING_CAPABILITY | error::UNSUPPORTED_VERSION
    );
    let is_foreign = match era {
        Era::Legacy => legacy::error::is_legacy_only(code) && !names_capabilities(code, members.get("data")),
        Era::Modern => RESERVED.contains(&code) && !is_modern,
    };
    if is_foreign {
        edits.replace(raw.get(), legacy::error::wrapped(raw, message));
        return Ok(error::INTERNAL);
    }
    Ok(code)
}

/// Whether an error says which capabilities are missing as the modern era does. A legacy server may use the code for what it likes; one
/// that names capabilities in its data means just that.
fn names_capabilities(code: i64, data: Option<&RawValue>) -> bool {
    let required = data
        .and_then(Members::of)
        .and_then(|data| data.get("requiredCapabilities"));
    code == error::MISSING_CAPABILITY && required.is_some_and(meta::is_object)
}

/// Tools of 2025-11-25 say whether their calls may be tasks, which no modern client asks for.
fn hide_execution(result: &RawValue, edits: &mut Edits<'_>) {
    let tools = Members::of(result).and_then(|members| members.get("tools"));
    let tools = tools.and_then(|tools| serde_json::from_str::<Vec<Members<'_>>>(tools.get()).ok());
    for tool in tools.iter().flatten() {
        edits.remove(tool, "execution");
    }
}

/// A modern client looks for the missing resource's URI in the error's data.
fn name_resource(error: &RawValue, data: Option<&RawValue>, asked: &Asked, edits: &mut Edits<'_>) {
    let Some(uri) = &asked.uri else { return };
    match data {
        None => edits.insert_first(error.get(), &format!(r#""data":{{"uri":{uri}}}"#)),
        Some(data) if data.get() == "null" => edits.replace(data.get(), format!(r#"{{"uri":{uri}}}"#)),
        Some(data) => {
            if Members::of(data).is_some_and(|members| members.get("uri").is_none()) {
                edits.insert_first(data.get(), &format!(r#""uri":{uri}"#));
            }
        }
    }
}

/// The error of an answer that nobody reshapes, as far as it can be read.
pub(super) fn error_of(raw: &RawValue) -> RpcError {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| {
        RpcError::internal(format!(
            "an error that cannot be read: {}",
            crate::lines::excerpt(raw.get().as_bytes(), 200)
        ))
    })
}

/// The error for a caller whose answer was too long to read.
pub(super) fn too_long(bytes: u64) -> RpcError {
    RpcError::internal(format!(
        "the server's answer of {bytes} bytes is larger than the {} bytes that one message may have; ask for less at a time",
        bus_schema::envelope::MAX_BODY_BYTES
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{capabilities::Declared, request::AsTask};

    fn answered(line: &str, method: &str, era: Era) -> (Option<i64>, String) {
        answered_to("{}", line, method, era)
    }

    fn answered_to(declared: &str, line: &str, method: &str, era: Era) -> (Option<i64>, String) {
        let asked = Asked {
            id: "\"mine\"".to_owned(),
            method: method.to_owned(),
            progress_token: None,
            uri: Some("\"a://b\"".to_owned()),
            log_level: None,
            declared: Declared::of(Some(serde_json::from_str(declared).unwrap())),
            as_task: AsTask::No,
        };
        let message = Message::parse(line.as_bytes()).unwrap();
        let outcome = for_caller(line.as_bytes(), &message, &asked, era);
        (outcome.code, String::from_utf8(outcome.body.to_vec()).unwrap())
    }

    #[test]
    fn a_result_gets_what_the_modern_era_asks_for_and_keeps_the_rest() {
        let complete = r#""resultType":"complete""#;
        let cached = r#""ttlMs":0,"cacheScope":"private""#;
        for (method, result, expected) in [
            (method::TOOLS_CALL, "{}", format!("{{{complete}}}")),
            (
                method::TOOLS_CALL,
                r#"{ "x":1e400,"y":"\ud800"}"#,
                format!(r#"{{{complete}, "x":1e400,"y":"\ud800"}}"#),
            ),
            (
                method::TOOLS_LIST,
                r#"{"tools":[]}"#,
                format!(r#"{{{complete},{cached},"tools":[]}}"#),
            ),
            (
                method::RESOURCES_READ,
                r#"{"ttlMs":7,"resultType":"complete"}"#,
                r#"{"cacheScope":"private","ttlMs":7,"resultType":"complete"}"#.to_owned(),
            ),
        ] {
            let line = format!(r#"{{"z":0,"result":{result},"id":42,"jsonrpc":"2.0"}}"#);
            let expected = format!(r#"{{"z":0,"result":{expected},"id":"mine","jsonrpc":"2.0"}}"#);
            assert_eq!(answered(&line, method, Era::Legacy), (None, expected));
        }
    }

    #[test]
    fn whether_a_call_may_be_a_task_is_not_told() {
        let line = r#"{"result":{"tools":[{"name":"a","execution":{"taskSupport":"required"},"x":1e400},{"execution":{}}],"ttlMs":1,"cacheScope":"private","resultType":"complete"},"id":1,"jsonrpc":"2.0"}"#;
        let hidden = line
            .replace(r#""execution":{"taskSupport":"required"},"#, "")
            .replace(r#""execution":{}"#, "");
        let body = |era| {
            answered(
                &line.replace(r#""id":1,"#, r#""id":"mine","#),
                method::TOOLS_LIST,
                era,
            )
            .1
        };
        assert_eq!(body(Era::Legacy), hidden.replace(r#""id":1,"#, r#""id":"mine","#));
        assert!(body(Era::Modern).contains("execution"));
    }

    #[test]
    fn a_result_that_no_modern_client_can_read_becomes_an_error() {
        for result in [
            "null",
            "[]",
            "7",
            r#"{"resultType":"other"}"#,
            r#"{"resultType":7}"#,
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":42,"result":{result}}}"#);
            let (code, body) = answered(&line, method::TOOLS_CALL, Era::Modern);
            assert_eq!(code, Some(error::INTERNAL), "{result}");
            assert!(body.contains(r#""id":"mine""#), "{body}");
        }
    }

    #[test]
    fn a_result_of_another_kind_is_for_callers_that_know_it() {
        let tasks = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        let other = r#"{"extensions":{"com.example/x":{}}}"#;
        for (result_type, method, declared, era, passes) in [
            ("input_required", method::RESOURCES_READ, "{}", Era::Modern, true),
            ("input_required", method::TOOLS_LIST, "{}", Era::Modern, false),
            ("input_required", method::TOOLS_CALL, "{}", Era::Legacy, false),
            ("task", method::TOOLS_CALL, tasks, Era::Modern, true),
            ("task", method::TOOLS_CALL, other, Era::Modern, false),
            ("task", method::TOOLS_CALL, tasks, Era::Legacy, false),
            ("com.example/x", method::TOOLS_CALL, other, Era::Modern, true),
            ("com.example/x", method::TOOLS_CALL, "{}", Era::Modern, false),
        ] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":42,"result":{{"resultType":"{result_type}","x":1.0}}}}"#);
            let (code, body) = answered_to(declared, &line, method, era);
            let expected = (!passes).then_some(error::INTERNAL);
            assert_eq!(code, expected, "{result_type} {method} {declared} {era:?}");
            if passes {
                assert_eq!(body, line.replace("42", "\"mine\""));
            }
        }
    }

    #[test]
    fn a_page_that_must_be_opened_first_is_for_callers_that_take_urls() {
        let url = r#"{"mode":"url","url":"https://a","message":"m","elicitationId":"e"}"#;
        let line = |data: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":42,"error":{{"code":-32042,"message":"m","data":{data}}}}}"#)
        };
        let good = format!(r#"{{"elicitations":[{url}]}}"#);
        let takes = r#"{"elicitation":{"url":{}}}"#;
        for (declared, data, era, method, code) in [
            (takes, good.as_str(), Era::Legacy, method::TOOLS_CALL, -32042),
            ("{}", &good, Era::Legacy, method::TOOLS_CALL, -32021),
            (
                r#"{"elicitation":{}}"#,
                &good,
                Era::Legacy,
                method::PROMPTS_GET,
                -32021,
            ),
            (takes, &good, Era::Legacy, method::TOOLS_LIST, -32603),
            (takes, &good, Era::Modern, method::TOOLS_CALL, -32603),
            (
                takes,
                r#"{"elicitations":[]}"#,
                Era::Legacy,
                method::TOOLS_CALL,
                -32603,
            ),
            (
                takes,
                r#"{"elicitations":[{"mode":"form"}]}"#,
                Era::Legacy,
                method::TOOLS_CALL,
                -32603,
            ),
        ] {
            let (found, body) = answered_to(declared, &line(data), method, era);
            assert_eq!(found, Some(code), "{declared} {data} {era:?} {method}");
            if code == -32021 {
                assert!(
                    body.contains(r#""requiredCapabilities":{"elicitation":{"url":{}}}"#),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn errors_are_spelled_as_the_modern_era_has_them() {
        let remapped =
            |original: &str| format!(r#"{{"code":-32603,"message":"m","data":{{"original":{original}}}}}"#);
        let (private, url) = (
            r#"{"code":-32050,"message":"m"}"#,
            r#"{"code":-32042,"message":"m","data":{"elicitations":[]}}"#,
        );
        let modern = r#"{"code":-32022,"message":"m","data":{}}"#;
        let missing = r#"{"data":{"requiredCapabilities": {"x":1e400}},"code":-32021,"message":"m"}"#;
        let unnamed = r#"{"code":-32021,"message":"m","data":{"requiredCapabilities":["sampling"]}}"#;
        let bare = r#"{"code":-32021,"message":"m"}"#;
        let other = r#"{"code":-32020,"message":"m","data":{"requiredCapabilities":{}}}"#;
        let closed = r#"{"code":-32000,"message":"m","more":1e400}"#;
        for (era, error, code, expected) in [
            (
                Era::Legacy,
                r#"{"code":-32002,"message":"m"}"#,
                -32602,
                r#"{"data":{"uri":"a://b"},"code":-32602,"message":"m"}"#.to_owned(),
            ),
            (
                Era::Legacy,
                r#"{"code":-32002,"message":"m","data":{"uri":"x"}}"#,
                -32602,
                r#"{"code":-32602,"message":"m","data":{"uri":"x"}}"#.to_owned(),
            ),
            (
                Era::Modern,
                r#"{"code":-32002,"message":"m","data":{"k":1}}"#,
                -32602,
                r#"{"code":-32602,"message":"m","data":{"uri":"a://b","k":1}}"#.to_owned(),
            ),
            (Era::Legacy, private, -32603, remapped(private)),
            (Era::Modern, url, -32603, remapped(url)),
            (Era::Legacy, modern, -32603, remapped(modern)),
            (Era::Modern, modern, -32022, modern.to_owned()),
            (Era::Legacy, missing, -32021, missing.to_owned()),
            (Era::Legacy, unnamed, -32603, remapped(unnamed)),
            (Era::Legacy, bare, -32603, remapped(bare)),
            (Era::Legacy, other, -32603, remapped(other)),
            (Era::Modern, missing, -32021, missing.to_owned()),
            (Era::Legacy, closed, -32603, remapped(closed)),
            (Era::Modern, closed, -32000, closed.to_owned()),
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":42,"error":{error}}}"#);
            let body = format!(r#"{{"jsonrpc":"2.0","id":"mine","error":{expected}}}"#);
            assert_eq!(answered(&line, method::RESOURCES_READ, era), (Some(code), body));
        }
    }

    #[test]
    fn an_error_without_code_or_message_is_an_internal_one() {
        for error in ["7", "{}", r#"{"code":1}"#, r#"{"code":"1","message":"m"}"#] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":42,"error":{error}}}"#);
            let (code, _) = answered(&line, method::TOOLS_CALL, Era::Legacy);
            assert_eq!(code, Some(error::INTERNAL), "{error}");
        }
    }
}
