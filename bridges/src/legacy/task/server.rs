//! The experimental tasks of a server of 2025-11-25, as modern clients know the extension's.
//!
//! A modern client never asks for a task: whoever speaks with the server does ([`augment`]), for tools that say so ([`Support`]).
//! What a task came to is told apart from the task in the legacy era, and with it in the modern one ([`Detail`]).

use std::borrow::Cow;

use bus_schema::{
    RpcError,
    edit::{Edits, Members, Object, is_key},
    mcp::{error, meta, task as names},
    rpc::Message,
};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Status, push_meta, push_task, unusable};
use crate::legacy::error::{is_legacy_only, wrapped};

const TIMES: [(&str, &str); 2] = [("ttl", "ttlMs"), ("pollInterval", "pollIntervalMs")];

/// Whether calls of a tool may be tasks, as the server's own list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// A call must be a plain one.
    Forbidden,
    /// It may be either.
    Optional,
    /// It must be a task.
    Required,
}

impl Support {
    /// Reads `execution.taskSupport` of a tool; a tool that says nothing forbids it.
    #[must_use]
    pub fn of(tool: &RawValue) -> Self {
        let execution = Members::of(tool).and_then(|tool| tool.get("execution"));
        let support = execution
            .and_then(Members::of)
            .and_then(|execution| execution.get("taskSupport"));
        match support.and_then(meta::as_text).as_deref() {
            Some("optional") => Self::Optional,
            Some("required") => Self::Required,
            _ => Self::Forbidden,
        }
    }
}

/// Whether a server's capabilities, as it answered them to `initialize`, let calls be tasks.
#[must_use]
pub fn makes_tasks(capabilities: &RawValue) -> bool {
    let path = ["tasks", "requests", "tools", "call"];
    let mut at = Some(capabilities);
    for name in path {
        at = at.and_then(Members::of).and_then(|members| members.get(name));
    }
    at.is_some_and(meta::is_object)
}

/// The call with the wish that it be a task, kept for `ttl_ms` if that is said. `None` when the text is no request with parameters.
#[must_use]
pub fn augment(request: &[u8], ttl_ms: Option<u64>) -> Option<Bytes> {
    let params = Message::parse(request).ok()?.params?;
    let members = Members::of(params)?;
    let wish = match ttl_ms {
        Some(ttl) => format!(r#""task":{{"ttl":{ttl}}}"#),
        None => r#""task":{}"#.to_owned(),
    };
    let mut edits = Edits::new(request);
    if members.iter().all(|(key, _)| is_key(key, "task")) {
        edits.replace(params.get(), format!("{{{wish}}}"));
    } else {
        edits.remove(&members, "task");
        edits.insert_first(params.get(), &wish);
    }
    Some(edits.apply().into())
}

/// The result that hands a task to a modern client, out of the server's own.
///
/// # Errors
/// An internal error when the server's result holds no task.
pub fn created(nested: &RawValue) -> Result<String, RpcError> {
    let members = Members::of(nested).ok_or_else(|| unusable("it is no object"))?;
    let task = members.get("task").and_then(Members::of);
    let task = task.ok_or_else(|| unusable("its result has no `task`, though a task was asked for"))?;
    if task.get("taskId").and_then(meta::as_text).is_none() || Status::read(&task).is_none() {
        return Err(unusable("its task has no `taskId` or `status`"));
    }
    let mut flat = Object::default();
    flat.push("\"resultType\"", "\"task\"");
    push_task(&mut flat, &task, TIMES, None, &["resultType"]);
    push_meta(&mut flat, members.get("_meta"), names::RELATED);
    Ok(flat.finish())
}

/// The id of the task that a server has made of a call, as its result says.
#[must_use]
pub fn created_id(nested: &RawValue) -> Option<String> {
    let task = Members::of(Members::of(nested)?.get("task")?)?;
    meta::as_text(task.get("taskId")?).map(Cow::into_owned)
}

/// A response of a server without the word that its result belongs to a task, for a caller that knows of none.
#[must_use]
pub fn without_related(response: &Bytes) -> Bytes {
    let result = Message::parse(response).ok().and_then(|message| message.result);
    let result = result.and_then(Members::of);
    let meta = result.as_ref().and_then(|result| result.get("_meta"));
    let (Some(result), Some(members)) = (&result, meta.and_then(Members::of)) else {
        return response.clone();
    };
    let mut edits = Edits::new(response);
    if members.iter().all(|(key, _)| is_key(key, names::RELATED)) {
        edits.remove(result, "_meta");
    } else {
        edits.remove(&members, names::RELATED);
    }
    edits.apply().into()
}

/// What has come of a task, besides what the server tells of it.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// Nothing that is known.
    Nothing,
    /// The server asks the client; an object of requests under keys of this side's making.
    Inputs(&'a str),
    /// What `tasks/result` gave.
    Result(&'a RawValue),
    /// The error that `tasks/result` gave.
    Error(&'a RawValue),
}

/// The result of a modern `tasks/get`, out of the server's own and of what has come of the task.
///
/// # Errors
/// An internal error when the server's result is no task, or what it came to is missing.
pub fn task(told: &RawValue, detail: Detail<'_>) -> Result<String, RpcError> {
    let members = Members::of(told).ok_or_else(|| unusable("it is no object"))?;
    let status = Status::read(&members).ok_or_else(|| unusable("its `status` is not known here"))?;
    let mut modern = Object::default();
    modern.push("\"resultType\"", "\"complete\"");
    let mut push = |status| push_task(&mut modern, &members, TIMES, Some(status), &super::MODERN_DETAILS);
    match (status, detail) {
        (Status::Completed | Status::Failed, Detail::Result(result)) => {
            push(Status::Completed);
            modern.push("\"result\"", &complete(result)?);
        }
        (Status::Completed | Status::Failed, Detail::Error(error)) => {
            push(Status::Failed);
            modern.push("\"error\"", &modern_error(error)?);
        }
        (Status::Completed | Status::Failed, _) => return Err(unusable("what it came to is missing")),
        // Some servers ask and do not say that they wait.
        (Status::Working | Status::InputRequired, Detail::Inputs(requests)) => {
            push(Status::InputRequired);
            modern.push("\"inputRequests\"", requests);
        }
        // The questions are still on their way, and no modern task waits for none.
        (Status::InputRequired, _) => push(Status::Working),
        (Status::Working | Status::Cancelled, _) => push(status),
    }
    push_meta(&mut modern, members.get("_meta"), names::RELATED);
    Ok(modern.finish())
}

/// A result in modern form: it says that it is complete, and no longer which task it belongs to.
fn complete(result: &RawValue) -> Result<String, RpcError> {
    let members = Members::of(result).ok_or_else(|| unusable("its result is no object"))?;
    let mut modern = Object::default();
    if members.get("resultType").is_none() {
        modern.push("\"resultType\"", "\"complete\"");
    }
    for (key, value) in members.iter() {
        if is_key(key, "_meta") {
            push_meta(&mut modern, Some(value), names::RELATED);
        } else {
            modern.push(key.get(), value.get());
        }
    }
    Ok(modern.finish())
}

fn modern_error(error: &RawValue) -> Result<String, RpcError> {
    let members = Members::of(error);
    let member = |name| members.as_ref().and_then(|members| members.get(name));
    let (Some(code), Some(message)) = (member("code"), member("message")) else {
        return Err(unusable("its error has no code and message"));
    };
    match code.get().parse::<i64>() {
        Ok(code) if is_legacy_only(code) => Ok(wrapped(error, message)),
        Ok(_) => Ok(error.get().to_owned()),
        Err(_) => Err(unusable("its error code is no integer")),
    }
}

/// What a modern client's `tasks/cancel` is answered, out of the server's answer. As the server refuses to cancel what has ended,
/// and the modern era does not, a refusal needs a look at the task: `told` is what the server then answers to `tasks/get`.
///
/// # Errors
/// The error for the client.
pub fn cancelled(
    answer: Result<&RawValue, &RpcError>,
    told: Option<&RawValue>,
) -> Result<&'static str, RpcError> {
    const ACKNOWLEDGED: &str = r#"{"resultType":"complete"}"#;
    match answer {
        Ok(_) => Ok(ACKNOWLEDGED),
        Err(refusal) if refusal.code == error::INVALID_PARAMS => {
            match told.and_then(Status::of).filter(|status| status.is_terminal()) {
                Some(_) => Ok(ACKNOWLEDGED),
                None => Err(refusal.clone()),
            }
        }
        Err(refusal) => Err(refusal.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_tool_says_whether_its_calls_may_be_tasks() {
        for (tool, expected) in [
            (r#"{"execution":{"taskSupport":"required"}}"#, Support::Required),
            (r#"{"execution":{"taskSupport":"optional"}}"#, Support::Optional),
            (r#"{"execution":{"taskSupport":"forbidden"}}"#, Support::Forbidden),
            (r#"{"execution":{}}"#, Support::Forbidden),
            ("{}", Support::Forbidden),
            ("7", Support::Forbidden),
        ] {
            assert_eq!(Support::of(raw(tool)), expected, "{tool}");
        }
        for (capabilities, expected) in [
            (r#"{"tasks":{"requests":{"tools":{"call":{}}}}}"#, true),
            (r#"{"tasks":{"requests":{"tools":{}}}}"#, false),
            (r#"{"tasks":{"list":{}}}"#, false),
            ("{}", false),
        ] {
            assert_eq!(makes_tasks(raw(capabilities)), expected, "{capabilities}");
        }
    }

    #[test]
    fn a_call_gets_the_wish_to_be_a_task() {
        let call =
            |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        for (params, ttl, expected) in [
            (
                r#"{"name":"n","arguments":{"x":1e400}}"#,
                None,
                r#"{"task":{},"name":"n","arguments":{"x":1e400}}"#,
            ),
            (
                r#"{"name":"n","task":{"ttl":1}}"#,
                Some(5),
                r#"{"task":{"ttl":5},"name":"n"}"#,
            ),
            (r#"{"task":7}"#, None, r#"{"task":{}}"#),
            ("{}", None, r#"{"task":{}}"#),
        ] {
            assert_eq!(augment(call(params).as_bytes(), ttl).unwrap(), call(expected));
        }
        assert_eq!(augment(br#"{"jsonrpc":"2.0","id":1,"method":"m"}"#, None), None);
    }

    #[test]
    fn a_new_task_is_flat() {
        assert_eq!(
            created(raw(
                r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"},"k":1.0},"task":{"taskId":"t","status":"working","ttl":null,"pollInterval":5.0,"createdAt":"c","x":"\ud800"}}"#
            ))
            .as_deref(),
            Ok(
                r#"{"resultType":"task","taskId":"t","status":"working","ttlMs":null,"pollIntervalMs":5.0,"createdAt":"c","x":"\ud800","_meta":{"k":1.0}}"#
            )
        );
        for result in [
            "{}",
            "7",
            r#"{"content":[]}"#,
            r#"{"task":{"taskId":"t"}}"#,
            r#"{"task":{"status":"working"}}"#,
        ] {
            assert!(created(raw(result)).is_err(), "{result}");
        }
    }

    #[test]
    fn a_task_is_told_with_what_came_of_it() {
        let related = r#""io.modelcontextprotocol/related-task":{"taskId":"t"}"#;
        let (failed, missing) = (
            format!(r#"{{"content":[],"isError":true,"_meta":{{{related}}}}}"#),
            r#"{"code":-32050,"message":"m","data":1e400}"#,
        );
        let result = r#""result":{"resultType":"complete","content":[],"isError":true}"#;
        for (status, detail, expected, more) in [
            ("working", Detail::Nothing, "working", String::new()),
            ("working", Detail::Result(raw("{}")), "working", String::new()),
            (
                "working",
                Detail::Inputs("{}"),
                "input_required",
                r#","inputRequests":{}"#.to_owned(),
            ),
            ("input_required", Detail::Nothing, "working", String::new()),
            (
                "input_required",
                Detail::Inputs(r#"{"k":{"method":"roots/list"}}"#),
                "input_required",
                r#","inputRequests":{"k":{"method":"roots/list"}}"#.to_owned(),
            ),
            (
                "failed",
                Detail::Result(raw(&failed)),
                "completed",
                format!(",{result}"),
            ),
            (
                "completed",
                Detail::Result(raw(&failed)),
                "completed",
                format!(",{result}"),
            ),
            (
                "failed",
                Detail::Error(raw(r#"{"code":-32603,"message":"m","x":1e400}"#)),
                "failed",
                r#","error":{"code":-32603,"message":"m","x":1e400}"#.to_owned(),
            ),
            (
                "failed",
                Detail::Error(raw(missing)),
                "failed",
                format!(r#","error":{{"code":-32603,"message":"m","data":{{"original":{missing}}}}}"#),
            ),
            ("cancelled", Detail::Error(raw("{}")), "cancelled", String::new()),
        ] {
            let told = format!(
                r#"{{"taskId":"t","status":"{status}","ttl":1e400,"x":1.0,"_meta":{{{related},"k":1.0}}}}"#
            );
            let expected = format!(
                r#"{{"resultType":"complete","taskId":"t","status":"{expected}","ttlMs":1e400,"x":1.0{more},"_meta":{{"k":1.0}}}}"#
            );
            assert_eq!(task(raw(&told), detail), Ok(expected));
        }
    }

    #[test]
    fn a_task_that_cannot_be_told_is_an_error() {
        for (told, detail) in [
            (r#"{"status":"completed"}"#, Detail::Nothing),
            (r#"{"status":"completed"}"#, Detail::Result(raw("7"))),
            (r#"{"status":"failed"}"#, Detail::Error(raw("{}"))),
            (r#"{"status":"odd"}"#, Detail::Nothing),
            ("[]", Detail::Nothing),
        ] {
            assert!(task(raw(told), detail).is_err(), "{told}");
        }
    }

    #[test]
    fn a_task_that_has_ended_is_cancelled_without_complaint() {
        let refusal = RpcError::invalid_params("it has ended");
        let other = RpcError::internal("no");
        let (ended, going) = (raw(r#"{"status":"failed"}"#), raw(r#"{"status":"working"}"#));
        for (answer, told, expected) in [
            (Ok(going), None, true),
            (Err(&refusal), Some(ended), true),
            (Err(&refusal), Some(going), false),
            (Err(&refusal), None, false),
            (Err(&other), Some(ended), false),
        ] {
            assert_eq!(cancelled(answer, told).is_ok(), expected);
        }
    }

    #[test]
    fn a_result_that_was_waited_for_says_nothing_of_its_task() {
        let related = r#""io.modelcontextprotocol/related-task":{"taskId":"t"}"#;
        let response =
            |result: String| Bytes::from(format!(r#"{{"id":1,"result":{result},"jsonrpc":"2.0"}}"#));
        for (result, expected) in [
            (
                format!(r#"{{"x":1e400,"_meta":{{{related}}}}}"#),
                r#"{"x":1e400}"#,
            ),
            (
                format!(r#"{{"_meta":{{"k":1.0,{related}}}}}"#),
                r#"{"_meta":{"k":1.0}}"#,
            ),
            (r#"{"x":1.0}"#.to_owned(), r#"{"x":1.0}"#),
        ] {
            assert_eq!(without_related(&response(result)), response(expected.to_owned()));
        }
        let id = |nested: &str| created_id(raw(nested));
        assert_eq!(id(r#"{"task":{"taskId":"t"}}"#).as_deref(), Some("t"));
        assert_eq!(id(r#"{"taskId":"t"}"#), None);
    }
}
