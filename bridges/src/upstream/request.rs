//! A message from the bus, read once, and as a server gets it: its number, its progress token, and the metadata that its era knows.

use std::borrow::Cow;

use bus_schema::{
    RpcError, TraceContext, header,
    mcp::{Era, meta, method},
    rpc::{Kind, Message, Params},
};
use serde_json::value::RawValue;

use crate::lines::end_line;

use super::{
    canonical::canonical_without,
    capabilities::{Declared, TASKS_EXTENSION},
    edit::{Edits, Members, Object},
    levels::LogLevel,
};

/// Methods that would change what a server is to all its callers, and that no modern client has.
const SESSION_METHODS: [&str; 5] = [
    method::INITIALIZE,
    method::PING,
    method::SET_LEVEL,
    method::SUBSCRIBE,
    method::UNSUBSCRIBE,
];
const META: &str = "_meta";
/// What a retry adds to the request that it repeats.
const ROUND: [&str; 2] = ["inputResponses", "requestState"];

/// What has to be remembered of a request until its answer comes; all raw JSON but the method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) progress_token: Option<String>,
    /// The resource that it names.
    pub(super) uri: Option<String>,
    /// From which level on it wants log lines.
    pub(super) log_level: Option<LogLevel>,
    /// What its caller can be asked for.
    pub(super) declared: Declared,
    /// Whether it is made as a task of a legacy server.
    pub(super) as_task: AsTask,
}

/// How a call is made of a legacy server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AsTask {
    /// As any call.
    #[default]
    No,
    /// As a task, which its caller gets.
    Handed,
    /// As a task, whose result its caller gets.
    Driven,
}

/// A message from the bus.
pub(super) struct Reading<'a> {
    body: &'a [u8],
    message: Message<'a>,
    params: Params<'a>,
    meta: Option<Members<'a>>,
}

impl<'a> Reading<'a> {
    /// Reads a request or a notification.
    ///
    /// # Errors
    /// The error for a caller whose message is neither, or whose parameters have the wrong shape.
    pub(super) fn of(body: &'a [u8]) -> Result<Self, RpcError> {
        let message = Message::parse(body)?;
        if message.kind()? == Kind::Response {
            return Err(RpcError::invalid_request("the message is no request"));
        }
        let params = message.peek_params()?;
        let meta = match params.meta {
            Some(raw) => {
                Some(Members::of(raw).ok_or_else(|| RpcError::invalid_params("`_meta` must be an object"))?)
            }
            None => None,
        };
        Ok(Self {
            body,
            message,
            params,
            meta,
        })
    }

    pub(super) fn method(&self) -> &str {
        self.message.method.as_deref().unwrap_or_default()
    }

    /// The id as spelled; a notification has none.
    pub(super) fn id(&self) -> Option<&'a str> {
        self.message.id.map(RawValue::get)
    }

    /// What has to be remembered of it.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            id: self.id().unwrap_or("null").to_owned(),
            method: self.method().to_owned(),
            progress_token: self
                .metadata(meta::PROGRESS_TOKEN)
                .filter(|token| is_token(token))
                .map(|token| token.get().to_owned()),
            uri: self.params.uri.map(|uri| uri.get().to_owned()),
            log_level: self.metadata(meta::LOG_LEVEL).and_then(LogLevel::of),
            declared: Declared::of(self.metadata(meta::CLIENT_CAPABILITIES)),
            as_task: AsTask::No,
        }
    }

    /// The whole message.
    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The tool or prompt that it names.
    pub(super) fn name(&self) -> Option<String> {
        self.params.name.and_then(meta::as_text).map(Cow::into_owned)
    }

    /// The task that it names.
    pub(super) fn task_id(&self) -> Option<String> {
        self.params.task_id.and_then(meta::as_text).map(Cow::into_owned)
    }

    /// What a client got with the last round of the call that this repeats.
    pub(super) fn request_state(&self) -> Option<&'a RawValue> {
        self.params.request_state
    }

    /// What a client answers to the last round, by the keys of its questions.
    ///
    /// # Errors
    /// The error for a client whose answers have no keys.
    pub(super) fn answers(&self) -> Result<Option<Members<'a>>, RpcError> {
        let Some(answers) = self.params.input_responses else {
            return Ok(None);
        };
        Members::of(answers).map(Some).ok_or_else(|| {
            RpcError::invalid_params("`inputResponses` must be an object with an answer under each key")
        })
    }

    /// Everything that a retry must repeat, in one spelling.
    pub(super) fn repeated(&self) -> String {
        let params = self.message.params.and_then(Members::of);
        params.map_or_else(String::new, |params| {
            canonical_without(&params, &[META, ROUND[0], ROUND[1]])
        })
    }

    /// The request without what only a retry has.
    pub(super) fn first_round(&self) -> Vec<u8> {
        let Some(members) = self.message.params.and_then(Members::of) else {
            return self.body.to_vec();
        };
        let mut edits = Edits::new(self.body);
        edits.remove_where(&members, |key| {
            meta::as_text(key).is_some_and(|key| ROUND.contains(&key.as_ref()))
        });
        edits.apply()
    }

    /// Whether a server of this era may get the request.
    ///
    /// # Errors
    /// The error for the caller if not.
    pub(super) fn check(&self, era: Era, declared: &Declared) -> Result<(), RpcError> {
        let called = self.method();
        let of_tasks = called.starts_with(method::TASKS_PREFIX);
        if SESSION_METHODS.contains(&called) || of_tasks && era == Era::Legacy {
            return Err(RpcError::method_not_found(called));
        }
        if of_tasks {
            self.check_tasks(declared)?;
        }
        Ok(())
    }

    /// Whether its caller may ask about tasks.
    ///
    /// # Errors
    /// The error for the caller if not.
    pub(super) fn check_tasks(&self, declared: &Declared) -> Result<(), RpcError> {
        if declared.tasks {
            return Ok(());
        }
        Err(RpcError::missing_capability(
            format!(
                "`{}` needs the extension `{TASKS_EXTENSION}`, which the request does not declare",
                self.method()
            ),
            serde_json::json!({ "extensions": { TASKS_EXTENSION: {} } }),
        ))
    }

    /// Writes the request for the server, under this number.
    pub(super) fn line(&self, era: Era, number: u64, trace: Option<&TraceContext>) -> Vec<u8> {
        let number = number.to_string();
        let mut edits = Edits::new(self.body);
        let new_meta = rewrite(self.meta.as_ref(), era, &number, trace);
        let Some(id) = self.id() else {
            self.exchange_metadata(&mut edits, new_meta);
            return end_line(edits.apply());
        };
        if self.message.params.is_none() && !new_meta.is_empty() {
            let params = format!("{number},\"params\":{{\"_meta\":{}}}", new_meta.finish());
            edits.replace(id, params);
        } else {
            self.exchange_metadata(&mut edits, new_meta);
            edits.replace(id, number);
        }
        end_line(edits.apply())
    }

    fn exchange_metadata(&self, edits: &mut Edits<'_>, new: Object) {
        match (self.message.params, self.params.meta) {
            (Some(whole), Some(_)) if new.is_empty() => {
                if let Some(members) = Members::of(whole) {
                    edits.remove(&members, META);
                }
            }
            (_, Some(old)) => edits.replace(old.get(), new.finish()),
            (Some(whole), None) if !new.is_empty() => {
                edits.insert_first(whole.get(), &format!("\"_meta\":{}", new.finish()));
            }
            _ => {}
        }
    }

    fn metadata(&self, name: &str) -> Option<&'a RawValue> {
        self.meta.as_ref().and_then(|members| members.get(name))
    }
}

/// The metadata for the child: a number for the progress token, the trace if there is none, and no reserved keys for a legacy one.
fn rewrite(old: Option<&Members<'_>>, era: Era, number: &str, trace: Option<&TraceContext>) -> Object {
    let traced = old.is_some_and(|old| old.get(header::TRACEPARENT).is_some());
    let trace = trace.filter(|_| !traced);
    let mut new = Object::default();
    for (key, value) in old.into_iter().flat_map(Members::iter) {
        match meta::as_text(key).as_deref() {
            Some(name) if era == Era::Legacy && name.starts_with(meta::RESERVED_PREFIX) => {}
            Some(header::TRACESTATE) if trace.is_some() => {}
            Some(meta::PROGRESS_TOKEN) if is_token(value) => new.push(key.get(), number),
            _ => new.push(key.get(), value.get()),
        }
    }
    if let Some(trace) = trace {
        let mut push =
            |key: &str, value: &str| new.push(&bus_schema::rpc::quote(key), &bus_schema::rpc::quote(value));
        push(header::TRACEPARENT, &trace.traceparent);
        if let Some(state) = &trace.tracestate {
            push(header::TRACESTATE, state);
        }
    }
    new
}

fn is_token(raw: &RawValue) -> bool {
    matches!(raw.get().as_bytes()[0], b'"' | b'-' | b'0'..=b'9')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn written(body: &str, era: Era, trace: Option<&TraceContext>) -> String {
        let line = Reading::of(body.as_bytes()).unwrap().line(era, 42, trace);
        String::from_utf8(line).unwrap()
    }

    fn refused(body: &str, era: Era) -> Option<i64> {
        let checked =
            Reading::of(body.as_bytes()).and_then(|reading| reading.check(era, &reading.asked().declared));
        checked.err().map(|error| error.code)
    }

    #[test]
    fn only_what_must_change_changes() {
        let body = format!(
            r#"{{ "id":"a","params":{{"x":1e400, "_meta":{{{MODERN},"progressToken":"t","k":1.0}},"y":12345678901234567890123}},"method":"m","jsonrpc":"2.0","z":0}}"#
        );
        assert_eq!(
            written(&body, Era::Legacy, None),
            r#"{ "id":42,"params":{"x":1e400, "_meta":{"progressToken":42,"k":1.0},"y":12345678901234567890123},"method":"m","jsonrpc":"2.0","z":0}"#
                .to_owned()
                + "\n"
        );
        assert_eq!(
            written(&body, Era::Modern, None),
            body.replace(r#""a""#, "42").replace(r#""t""#, "42") + "\n"
        );
    }

    #[test]
    fn metadata_that_becomes_empty_goes() {
        for (params, expected) in [
            (
                format!(r#","params":{{"_meta":{{{MODERN}}},"name":"x"}}"#),
                r#","params":{"name":"x"}"#,
            ),
            (
                format!(r#","params":{{"_meta":{{{MODERN}}}}}"#),
                r#","params":{}"#,
            ),
            (r#","params":{"_meta":{}}"#.to_owned(), r#","params":{}"#),
            (r#","params":{"a":1}"#.to_owned(), r#","params":{"a":1}"#),
            (String::new(), ""),
        ] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m"{params}}}"#);
            let expected = format!("{{\"jsonrpc\":\"2.0\",\"id\":42,\"method\":\"m\"{expected}}}\n");
            assert_eq!(written(&body, Era::Legacy, None), expected);
        }
    }

    #[test]
    fn the_trace_is_added_where_there_is_none() {
        let trace = TraceContext::parse(TRACE, Some("a=1")).unwrap();
        let added = format!(r#"{{"traceparent":"{TRACE}","tracestate":"a=1"}}"#);
        for (params, expected) in [
            (String::new(), format!(r#","params":{{"_meta":{added}}}"#)),
            (
                r#","params":{}"#.to_owned(),
                format!(r#","params":{{"_meta":{added}}}"#),
            ),
            (
                r#","params":{"a":1}"#.to_owned(),
                format!(r#","params":{{"_meta":{added},"a":1}}"#),
            ),
            (
                r#","params":{"_meta":{"tracestate":"old"}}"#.to_owned(),
                format!(r#","params":{{"_meta":{added}}}"#),
            ),
            (
                r#","params":{"_meta":{"traceparent":"mine","tracestate":"old"}}"#.to_owned(),
                r#","params":{"_meta":{"traceparent":"mine","tracestate":"old"}}"#.to_owned(),
            ),
        ] {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"m"{params},"id":1}}"#);
            let line = written(&body, Era::Modern, Some(&trace));
            let message = Message::parse(line.as_bytes()).unwrap();
            let wanted = format!(r#"{{"jsonrpc":"2.0","method":"m"{expected},"id":42}}"#);
            let wanted = Message::parse(wanted.as_bytes()).unwrap();
            assert_eq!(message.id.unwrap().get(), "42");
            assert_eq!(message.params.unwrap().get(), wanted.params.unwrap().get());
        }
    }

    #[test]
    fn a_message_is_one_line_however_it_was_laid_out() {
        let body =
            "{\r\n \"jsonrpc\": \"2.0\",\n \"id\": 1, \"method\": \"m\", \"params\": {\"a\": \"x\\ny\"}\n}";
        let line = written(body, Era::Modern, None);
        assert_eq!(line.matches(['\n', '\r']).count(), 1);
        assert!(line.ends_with('\n') && line.contains(r#""x\ny""#));
    }

    #[test]
    fn what_a_server_must_not_get_is_refused() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tasks/list","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":7}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#,
            "garbage",
        ] {
            assert!(refused(body, Era::Legacy).is_some(), "{body}");
        }
        for method in ["tools/call", "com.example/x", "extensions/unknown"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
            assert_eq!(refused(&body, Era::Legacy), None, "{method}");
        }
    }

    #[test]
    fn tasks_are_for_callers_that_declare_them() {
        let body = |declared: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{{"taskId":"t","_meta":{{"io.modelcontextprotocol/clientCapabilities":{declared}}}}}}}"#
            )
        };
        let declared = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        assert_eq!(refused(&body("{}"), Era::Modern), Some(-32021));
        assert_eq!(refused(&body(declared), Era::Modern), None);
        assert_eq!(refused(&body(declared), Era::Legacy), Some(-32601));
    }

    #[test]
    fn a_retry_repeats_its_request_whatever_else_it_says() {
        let reading = |params: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            Reading::of(body.as_bytes()).unwrap().repeated()
        };
        let first = reading(r#"{"name":"t","arguments":{"a":1,"b":[2]},"_meta":{"progressToken":1}}"#);
        assert_eq!(
            reading(
                r#"{ "inputResponses":{}, "arguments":{"b":[2],"a":1}, "requestState":"x", "name":"t", "_meta":{} }"#
            ),
            first
        );
        for other in [
            r#"{"name":"u","arguments":{"a":1,"b":[2]}}"#,
            r#"{"name":"t","arguments":{"a":2,"b":[2]}}"#,
            r#"{"name":"t"}"#,
        ] {
            assert_ne!(reading(other), first, "{other}");
        }
    }

    #[test]
    fn what_only_a_retry_has_goes_and_the_rest_stays() {
        let body = r#"{"jsonrpc":"2.0","id":1,"params":{"requestState":"x","n":1.0,"inputResponses":{"a":{}},"name":"t"},"method":"tools/call","z":0}"#;
        let first = Reading::of(body.as_bytes()).unwrap().first_round();
        assert_eq!(
            String::from_utf8(first).unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"params":{"n":1.0,"name":"t"},"method":"tools/call","z":0}"#
        );
    }

    #[test]
    fn a_notification_keeps_its_form() {
        for (params, expected) in [
            ("", ""),
            (r#","params":{"x":1.0}"#, r#","params":{"x":1.0}"#),
            (
                &format!(r#","params":{{"_meta":{{{MODERN},"k":1}},"x":1}}"#),
                r#","params":{"_meta":{"k":1},"x":1}"#,
            ),
        ] {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"com.example/x"{params}}}"#);
            let expected = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"com.example/x\"{expected}}}\n");
            assert_eq!(written(&body, Era::Legacy, None), expected);
        }
    }
}
