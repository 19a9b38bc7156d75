//! What guardrails read of calls and write into results.

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{META_KEY, Note};
use crate::{
    mcp::meta,
    members::Members,
    rpc::{Message, splice},
};

/// The arguments of a request; an empty object where there are none.
pub(super) fn arguments(body: &[u8]) -> &str {
    let message = Message::parse(body).ok();
    let params = message.and_then(|message| message.peek_params().ok());
    params
        .and_then(|params| params.arguments)
        .map_or("{}", RawValue::get)
}

/// What a result has of structured content.
pub(super) enum Structured<'a> {
    /// It should have some, and has none.
    Absent,
    /// It need not: it is an error, a question to the client, or a task.
    Unasked,
    /// This.
    Is(&'a str),
}

pub(super) fn structured(body: &[u8]) -> Structured<'_> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Peek<'a> {
        #[serde(borrow, default)]
        result_type: Option<&'a RawValue>,
        #[serde(borrow, default)]
        is_error: Option<&'a RawValue>,
        #[serde(borrow, default)]
        structured_content: Option<&'a RawValue>,
    }
    let result = Message::parse(body).ok().and_then(|message| message.result);
    let Some(result) = result else {
        return Structured::Unasked;
    };
    let Ok(peek) = serde_json::from_str::<Peek<'_>>(result.get()) else {
        return Structured::Absent;
    };
    let is_complete = peek
        .result_type
        .is_none_or(|kind| meta::as_text(kind).is_some_and(|kind| kind == "complete"));
    let is_error = peek.is_error.is_some_and(|is_error| is_error.get() == "true");
    match peek.structured_content {
        _ if is_error || !is_complete => Structured::Unasked,
        Some(content) => Structured::Is(content.get()),
        None => Structured::Absent,
    }
}

pub(super) fn annotate(body: &[u8], notes: &[Note]) -> Option<Vec<u8>> {
    if notes.is_empty() {
        return None;
    }
    let result = Message::parse(body).ok()?.result?;
    Some(splice(body, result.get(), &annotated(result, notes)?))
}

/// An object with what was found in its `_meta`; `None` when nothing was, and for what is no object.
pub(super) fn annotated(object: &RawValue, notes: &[Note]) -> Option<String> {
    if notes.is_empty() {
        return None;
    }
    let members = Members::of(object)?;
    let told: Vec<_> = notes.iter().map(Note::to_json).collect();
    let told = json!({ "notes": told }).to_string();
    let member = format!("\"{META_KEY}\":{told}");
    let whole = object.get().as_bytes();
    let put = |object: &str, members: &str| {
        let comma = if object[1..].trim_start().starts_with('}') {
            ""
        } else {
            ","
        };
        splice(whole, &object[..1], &format!("{{{members}{comma}"))
    };
    let present = members.get("_meta");
    let spliced = match present.filter(|meta| meta.get().starts_with('{')) {
        Some(present) => match Members::of(present)?.get(META_KEY) {
            // A server's own word on this is none.
            Some(own) => splice(whole, own.get(), &told),
            None => put(present.get(), &member),
        },
        None => match present {
            // What is no object says nothing.
            Some(other) => splice(whole, other.get(), &format!("{{{member}}}")),
            None => put(object.get(), &format!("\"_meta\":{{{member}}}")),
        },
    };
    String::from_utf8(spliced).ok()
}
