//! A request from the bus, as the child gets it: its number, its progress token, and the metadata that its era knows.

use bus_schema::{
    RpcError, TraceContext, header,
    mcp::{Era, meta, method},
    rpc::{Kind, Message},
};
use serde_json::value::RawValue;

use crate::lines::end_line;

use super::edit::{Edits, Members, Object};

/// Methods that would change what a child is to all its callers, and that no modern client has.
const SESSION_METHODS: [&str; 5] = [
    method::INITIALIZE,
    method::PING,
    method::SET_LEVEL,
    "resources/subscribe",
    "resources/unsubscribe",
];

/// What has to be remembered of a request until its answer comes; all raw JSON but the method.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) progress_token: Option<String>,
    /// The resource that it names.
    pub(super) uri: Option<String>,
    /// From which level on it wants log lines.
    pub(super) log_level: Option<LogLevel>,
}

/// The weight of a log line; a greater one is graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogLevel(usize);

impl LogLevel {
    const NAMES: [&str; 8] = [
        "debug",
        "info",
        "notice",
        "warning",
        "error",
        "critical",
        "alert",
        "emergency",
    ];

    pub(super) fn of(raw: &RawValue) -> Option<Self> {
        let name = meta::as_text(raw)?;
        Self::NAMES.iter().position(|known| *known == name).map(Self)
    }
}

/// Writes a request for the child, under this number.
///
/// # Errors
/// The error for a caller whose message is no request that a child may get.
pub(super) fn for_child(
    body: &[u8],
    era: Era,
    number: u64,
    trace: Option<&TraceContext>,
) -> Result<(Vec<u8>, Asked), RpcError> {
    let message = Message::parse(body)?;
    let (Kind::Request, Some(id), Some(method)) = (message.kind()?, message.id, &message.method) else {
        return Err(RpcError::invalid_request("the message is no request"));
    };
    if SESSION_METHODS.contains(&method.as_ref()) {
        return Err(RpcError::method_not_found(method));
    }
    let params = message.peek_params()?;
    let members = match params.meta {
        Some(raw) => {
            Some(Members::of(raw).ok_or_else(|| RpcError::invalid_params("`_meta` must be an object"))?)
        }
        None => None,
    };
    let member = |name: &str| members.as_ref().and_then(|members| members.get(name));
    let asked = Asked {
        id: id.get().to_owned(),
        method: method.to_string(),
        progress_token: member(meta::PROGRESS_TOKEN)
            .filter(|token| is_token(token))
            .map(|token| token.get().to_owned()),
        uri: params.uri.map(|uri| uri.get().to_owned()),
        log_level: member(meta::LOG_LEVEL).and_then(LogLevel::of),
    };
    let mut edits = Edits::new(body);
    let number = number.to_string();
    let new_meta = rewrite(members.as_ref(), era, &number, trace);
    match (message.params, params.meta) {
        (Some(whole), Some(_)) if new_meta.is_empty() => {
            if let Some(members) = Members::of(whole) {
                edits.remove(&members, "_meta");
            }
        }
        (_, Some(old)) => edits.replace(old.get(), new_meta.finish()),
        _ if new_meta.is_empty() => {}
        (Some(whole), None) => {
            edits.insert_first(whole.get(), &format!("\"_meta\":{}", new_meta.finish()));
        }
        (None, None) => {
            let params = format!("{number},\"params\":{{\"_meta\":{}}}", new_meta.finish());
            edits.replace(id.get(), params);
            return Ok((end_line(edits.apply()), asked));
        }
    }
    edits.replace(id.get(), number);
    Ok((end_line(edits.apply()), asked))
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
        let (line, _) = for_child(body.as_bytes(), era, 42, trace).unwrap();
        String::from_utf8(line).unwrap()
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
    fn what_a_child_must_not_get_is_refused() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":7}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#,
            "garbage",
        ] {
            assert!(
                for_child(body.as_bytes(), Era::Legacy, 1, None).is_err(),
                "{body}"
            );
        }
    }
}
