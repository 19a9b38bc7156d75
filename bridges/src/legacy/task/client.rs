//! A modern server's tasks, as a client of 2025-11-25 knows them.
//!
//! What the client asks goes to the server as `tasks/get` and `tasks/cancel` of the extension; each of the four legacy methods
//! gets its answer made here.

use bus_schema::{
    RpcError,
    edit::{Members, Object, is_key},
    mcp::{meta, method, task as names},
    rpc::{self, Message},
};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{MODERN_DETAILS, Status, is_error, push_meta, push_task, with_related};
use crate::legacy::{
    Dialect,
    request::without,
    result::{self, Downgraded},
};

const TIMES: [(&str, &str); 2] = [("ttlMs", "ttl"), ("pollIntervalMs", "pollInterval")];

/// How a client that wants a call to be a task says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// For how long it wants the task to be kept, in milliseconds.
    pub ttl_ms: Option<u64>,
}

/// Reads the `task` of a call's parameters; `None` when the client makes a plain call.
#[must_use]
pub fn augmentation(params: &RawValue) -> Option<Augmentation> {
    let task = Members::of(Members::of(params)?.get("task")?)?;
    let ttl = task.get("ttl").map(RawValue::get);
    Some(Augmentation {
        ttl_ms: ttl.and_then(|ttl| ttl.parse().ok()),
    })
}

/// The call without the wish for a task, which the modern era does not know.
#[must_use]
pub fn plain(request: &Bytes) -> Bytes {
    without(request, "task")
}

/// Whether the client is told of a task as it is, or was told otherwise before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As the server tells.
    AsTold,
    /// The client cancelled it, and it stays so whatever the server makes of it.
    Cancelled,
}

/// The result that creates a task: what a modern server says flat is nested here, and a new task always works at first.
///
/// `None` when the server's result is no object.
#[must_use]
pub fn created(flat: &RawValue) -> Option<String> {
    let members = Members::of(flat)?;
    let mut task = Object::default();
    push_task(&mut task, &members, TIMES, Some(Status::Working), &MODERN_DETAILS);
    let mut result = Object::default();
    result.push("\"task\"", &task.finish());
    push_meta(&mut result, members.get("_meta"), meta::SERVER_INFO);
    Some(result.finish())
}

/// The result of `tasks/get`, and the entry of `tasks/list`, out of what the server answers to `tasks/get`.
///
/// `None` when the server's result is no object.
#[must_use]
pub fn task(told: &RawValue, standing: Standing) -> Option<String> {
    let members = Members::of(told)?;
    let status = match (standing, Status::read(&members)) {
        (Standing::Cancelled, _) => Some(Status::Cancelled),
        // A tool that says it failed is a failure in this era.
        (Standing::AsTold, Some(Status::Completed)) if members.get("result").is_some_and(is_error) => {
            Some(Status::Failed)
        }
        (Standing::AsTold, _) => None,
    };
    let mut task = Object::default();
    push_task(&mut task, &members, TIMES, status, &MODERN_DETAILS);
    push_meta(&mut task, members.get("_meta"), meta::SERVER_INFO);
    Some(task.finish())
}

/// The result of `tasks/cancel`, out of what the server answers to `tasks/get` before it is told to cancel.
///
/// # Errors
/// The error for the client when the task has ended already, or cannot be read.
pub fn cancelled(told: &RawValue, standing: Standing) -> Result<String, RpcError> {
    let status = match standing {
        Standing::Cancelled => Some(Status::Cancelled),
        Standing::AsTold => Status::of(told),
    };
    if let Some(status) = status.filter(|status| status.is_terminal()) {
        let status = status.as_str();
        return Err(RpcError::invalid_params(format!(
            "the task has ended already, with status `{status}`; it cannot be cancelled"
        )));
    }
    task(told, Standing::Cancelled).ok_or_else(|| super::unusable("it is no object"))
}

/// The response to `tasks/result` for a task that came to this result, which is JSON like the two ids.
#[must_use]
pub fn result(dialect: Dialect, id: &str, outcome: &str, task_id: &str) -> Bytes {
    let related = with_related(outcome, task_id);
    let response = Bytes::from(rpc::result_response(id, related.as_bytes()));
    match result::downgrade(dialect, method::TOOLS_CALL, &response) {
        Downgraded::Complete(response) => response,
        Downgraded::Unreadable(error) => result::refused(&response, &error),
        Downgraded::InputRequired(_) | Downgraded::Task(_) => {
            let error = super::unusable("its result is none that a call may come to");
            result::refused(&response, &error)
        }
    }
}

/// The result of `tasks/list`, out of entries that [`task`] made.
#[must_use]
pub fn list(tasks: &[String], next_cursor: Option<&str>) -> String {
    let mut result = Object::default();
    result.push("\"tasks\"", &format!("[{}]", tasks.join(",")));
    if let Some(cursor) = next_cursor {
        result.push("\"nextCursor\"", &rpc::quote(cursor));
    }
    result.finish()
}

/// The parameters of a request about a task. `task_id` is JSON.
#[must_use]
pub fn params(task_id: &str) -> String {
    format!(r#"{{"taskId":{task_id}}}"#)
}

/// The notice that a legacy client gets of a task, out of a modern one. `None` when it is no such notice.
#[must_use]
pub fn notice(body: &Bytes, standing: Standing) -> Option<Bytes> {
    let message = Message::parse(body).ok()?;
    let params = message.params?;
    if message.method.as_deref() != Some(names::NOTIFICATION) {
        return None;
    }
    let mut told = Object::default();
    for (key, value) in Members::of(params)?.iter() {
        if is_key(key, "_meta") {
            push_meta(&mut told, Some(value), meta::SUBSCRIPTION_ID);
        } else {
            told.push(key.get(), value.get());
        }
    }
    let told = told.finish();
    let told = task(serde_json::from_str(&told).ok()?, standing)?;
    let status = rpc::quote(names::STATUS);
    Some(format!(r#"{{"jsonrpc":"2.0","method":{status},"params":{told}}}"#).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::Tasks;
    use bus_schema::{ProtocolVersion, mcp::error};

    const DIALECT: Dialect = Dialect {
        version: ProtocolVersion::V2025_11_25,
        tasks: Tasks::Offered,
    };

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_call_says_whether_it_wants_to_be_a_task() {
        for (params, ttl_ms) in [
            (r#"{"task":{}}"#, Some(None)),
            (r#"{"task":{"ttl":60000}}"#, Some(Some(60_000))),
            (r#"{"task":{"ttl":-1}}"#, Some(None)),
            (r#"{"task":7}"#, None),
            (r#"{"name":"task"}"#, None),
        ] {
            let expected = ttl_ms.map(|ttl_ms| Augmentation { ttl_ms });
            assert_eq!(augmentation(raw(params)), expected, "{params}");
        }
    }

    #[test]
    fn the_wish_for_a_task_does_not_reach_the_server() {
        for (request, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"x", "task":{"ttl":1},"a":1e400}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"x", "a":1e400}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{"task":1}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{"task":1}}}"#,
            ),
            ("\"task\"", "\"task\""),
        ] {
            assert_eq!(plain(&Bytes::from(request)), expected);
        }
    }

    #[test]
    fn a_new_task_is_nested_and_works() {
        for (flat, expected) in [
            (
                r#"{"resultType":"task","taskId":"t","status":"input_required","createdAt":"c","lastUpdatedAt":"u","ttlMs":60000.0,"pollIntervalMs":500,"x":1e400,"inputRequests":{},"_meta":{"k":1.0,"io.modelcontextprotocol/serverInfo":{}}}"#,
                r#"{"task":{"taskId":"t","status":"working","createdAt":"c","lastUpdatedAt":"u","ttl":60000.0,"pollInterval":500,"x":1e400},"_meta":{"k":1.0}}"#,
            ),
            (
                r#"{"taskId":"t","status":"working","ttlMs":null,"_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#,
                r#"{"task":{"taskId":"t","status":"working","ttl":null}}"#,
            ),
            (
                r#"{"taskId":"t","status":"working","_meta":{}}"#,
                r#"{"task":{"taskId":"t","status":"working","ttl":null},"_meta":{}}"#,
            ),
        ] {
            assert_eq!(created(raw(flat)).unwrap(), expected);
        }
        assert_eq!(created(raw("[]")), None);
    }

    #[test]
    fn a_task_is_told_without_what_came_of_it() {
        let told = |status: &str, more: &str| {
            format!(
                r#"{{"resultType":"complete","taskId":"t","status":"{status}",{more}"ttlMs":1,"x":"\ud800"}}"#
            )
        };
        for (status, more, standing, expected) in [
            ("working", "", Standing::AsTold, "working"),
            (
                "input_required",
                r#""inputRequests":{"k":{}},"#,
                Standing::AsTold,
                "input_required",
            ),
            (
                "completed",
                r#""result":{"content":[],"isError":false},"#,
                Standing::AsTold,
                "completed",
            ),
            (
                "completed",
                r#""result":{"isError":true},"#,
                Standing::AsTold,
                "failed",
            ),
            ("failed", r#""error":{"code":1},"#, Standing::AsTold, "failed"),
            ("cancelled", "", Standing::AsTold, "cancelled"),
            ("completed", r#""result":{},"#, Standing::Cancelled, "cancelled"),
        ] {
            let answer = task(raw(&told(status, more)), standing).unwrap();
            let wanted = format!(r#"{{"taskId":"t","status":"{expected}","ttl":1,"x":"\ud800"}}"#);
            assert_eq!(answer, wanted);
        }
    }

    #[test]
    fn only_a_task_that_goes_on_can_be_cancelled() {
        for (status, standing, cancels) in [
            ("working", Standing::AsTold, true),
            ("input_required", Standing::AsTold, true),
            ("completed", Standing::AsTold, false),
            ("failed", Standing::AsTold, false),
            ("cancelled", Standing::AsTold, false),
            ("working", Standing::Cancelled, false),
        ] {
            let told = format!(r#"{{"taskId":"t","status":"{status}","ttlMs":1}}"#);
            match cancelled(raw(&told), standing) {
                Ok(task) => {
                    assert!(cancels, "{status}");
                    assert_eq!(task, r#"{"taskId":"t","status":"cancelled","ttl":1}"#);
                }
                Err(refusal) => {
                    assert!(!cancels, "{status}");
                    assert_eq!(refusal.code, error::INVALID_PARAMS);
                }
            }
        }
    }

    #[test]
    fn what_a_task_came_to_names_the_task() {
        let related = r#""io.modelcontextprotocol/related-task":{"taskId":"t"}"#;
        for (outcome, expected) in [
            (
                r#"{"content":[],"isError":true,"n":1e400}"#,
                format!(r#"{{"_meta":{{{related}}},"content":[],"isError":true,"n":1e400}}"#),
            ),
            (
                r#"{"resultType":"complete","content":[],"_meta":{"k":1.0},"structuredContent":[1]}"#,
                format!(r#"{{"content":[{{"type":"text","text":"[1]"}}],"_meta":{{{related},"k":1.0}}}}"#),
            ),
        ] {
            let expected = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{expected}}}"#);
            assert_eq!(result(DIALECT, "7", outcome, "\"t\""), expected);
        }
        let wrong = result(DIALECT, "7", r#"{"resultType":"task"}"#, "\"t\"");
        assert!(wrong.starts_with(br#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"#));
    }

    #[test]
    fn tasks_are_listed_as_they_were_told() {
        let tasks = [r#"{"taskId":"a"}"#.to_owned(), r#"{"taskId":"b"}"#.to_owned()];
        assert_eq!(
            list(&tasks, Some("n")),
            r#"{"tasks":[{"taskId":"a"},{"taskId":"b"}],"nextCursor":"n"}"#
        );
        assert_eq!(list(&[], None), r#"{"tasks":[]}"#);
        assert_eq!(params("\"a\""), r#"{"taskId":"a"}"#);
    }

    #[test]
    fn a_notice_of_a_task_changes_its_shape() {
        let modern = r#"{"jsonrpc":"2.0","method":"notifications/tasks","params":{"taskId":"t","status":"completed","ttlMs":1,"result":{"isError":true},"_meta":{"io.modelcontextprotocol/subscriptionId":9,"k":1.0}}}"#;
        assert_eq!(
            notice(&Bytes::from(modern), Standing::AsTold).unwrap(),
            r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t","status":"failed","ttl":1,"_meta":{"k":1.0}}}"#
        );
        let other = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
        assert_eq!(notice(&Bytes::from(other), Standing::AsTold), None);
    }
}
