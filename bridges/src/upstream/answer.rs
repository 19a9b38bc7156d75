//! A child's answer, as its caller on the bus gets it: the caller's id, and the shape of the modern era.

use std::borrow::Cow;

use bus_schema::{
    RpcError,
    mcp::{Era, error, meta, method},
    rpc::Message,
};
use runtime::Outcome;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::legacy;

use super::{
    edit::{Edits, Members, Object},
    request::Asked,
};

const COMPLETE: &str = "complete";
const INPUT_REQUIRED: &str = "input_required";

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
        (None, Some(result)) => complete(result, &asked.method, &mut edits).map(|()| None),
        (None, None) => Err(unreadable("it has neither a result nor an error")),
    };
    match judged {
        Ok(code) => Outcome {
            code,
            body: edits.apply().into(),
        },
        Err(error) => Outcome::error(Some(&asked.id), &error),
    }
}

fn unreadable(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!("the server's answer cannot be used: {why}"))
}

/// Adds what every modern result has.
fn complete(result: &RawValue, called: &str, edits: &mut Edits<'_>) -> Result<(), RpcError> {
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
        Some(INPUT_REQUIRED) => {}
        _ => return Err(unreadable("its `resultType` is not known here")),
    }
    if !missing.is_empty() {
        edits.insert_first(result.get(), missing.members());
    }
    Ok(())
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
    let is_modern = matches!(
        code,
        error::HEADER_MISMATCH | error::MISSING_CAPABILITY | error::UNSUPPORTED_VERSION
    );
    let is_foreign = match era {
        Era::Legacy => legacy::error::is_legacy_only(code),
        Era::Modern => RESERVED.contains(&code) && !is_modern,
    };
    if is_foreign {
        edits.replace(raw.get(), legacy::error::wrapped(raw, message));
        return Ok(error::INTERNAL);
    }
    Ok(code)
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

    fn answered(line: &str, method: &str, era: Era) -> (Option<i64>, String) {
        let asked = Asked {
            id: "\"mine\"".to_owned(),
            method: method.to_owned(),
            progress_token: None,
            uri: Some("\"a://b\"".to_owned()),
            log_level: None,
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
            (
                method::RESOURCES_READ,
                r#"{"resultType":"input_required"}"#,
                r#"{"resultType":"input_required"}"#.to_owned(),
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
    fn errors_are_spelled_as_the_modern_era_has_them() {
        let remapped =
            |original: &str| format!(r#"{{"code":-32603,"message":"m","data":{{"original":{original}}}}}"#);
        let (private, url) = (
            r#"{"code":-32050,"message":"m"}"#,
            r#"{"code":-32042,"message":"m","data":{"elicitations":[]}}"#,
        );
        let modern = r#"{"code":-32022,"message":"m","data":{}}"#;
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
