//! What a child says of its own accord or in answer, and where that goes.

use bus_schema::{
    RpcError,
    mcp::{meta, method},
    rpc::{self, Kind, Message},
};
use runtime::Outcome;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use crate::lines::Skipped;

use super::{answer, link::Link, pending::Origin, request::LogLevel};

/// Takes one line; an empty one says nothing. `stream` is the call whose own stream it came on, where the transport can tell.
///
/// # Errors
/// What is wrong with a line that is no message.
pub(super) fn take(link: &Link, line: &[u8], stream: Option<u64>) -> Result<(), RpcError> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    if line.starts_with(b"[") {
        return take_batch(link, line, stream);
    }
    let message = Message::parse(line)?;
    match message.kind()? {
        Kind::Response => take_response(link, line, &message),
        Kind::Notification => take_notification(link, line, &message, stream),
        Kind::Request => take_request(link, &message, stream),
    }
    Ok(())
}

/// Version 2025-03-26 lets a server put several messages into one array.
fn take_batch(link: &Link, line: &[u8], stream: Option<u64>) -> Result<(), RpcError> {
    let bad = |error: serde_json::Error| RpcError::invalid_request(error.to_string());
    let messages: Vec<&RawValue> = serde_json::from_slice(line).map_err(bad)?;
    let mut taken = Ok(());
    for message in messages {
        if !message.get().starts_with('[') {
            taken = taken.and(take(link, message.get().as_bytes(), stream));
        }
    }
    taken
}

/// Takes what is left of a line that was too long: its call, if it can be told, ends with an error.
///
/// # Errors
/// An error when it answers no call that can be told.
pub(super) fn take_skipped(link: &Link, skipped: &Skipped) -> Result<(), RpcError> {
    warn!(server.id = %link.server, bytes = skipped.bytes, "skipped a line that is longer than a message may be");
    let entry = skipped.answered_call().and_then(|id| link.pending.remove(id));
    let error = answer::too_long(skipped.bytes);
    match entry {
        Some(entry) => {
            entry.fail(&error);
            Ok(())
        }
        None => Err(error),
    }
}

fn take_response(link: &Link, line: &[u8], message: &Message<'_>) {
    let id = message.id.and_then(number);
    let Some(entry) = id.and_then(|id| link.pending.remove(id)) else {
        debug!(server.id = %link.server, "ignored an answer that nobody waits for");
        return;
    };
    entry.outbox.put_answer(match &entry.from {
        Origin::Bus { asked, era } => answer::for_caller(line, message, asked, *era),
        Origin::Room => Outcome {
            code: None,
            body: line.to_vec().into(),
        },
    });
}

fn take_notification(link: &Link, line: &[u8], message: &Message<'_>, stream: Option<u64>) {
    let method = message.method.as_deref().unwrap_or_default();
    let taken = match method {
        method::PROGRESS => take_progress(link, line, message),
        method::MESSAGE => take_log_line(link, line, message, stream),
        method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => {
            link.list_changed.notify_one();
            Some(())
        }
        _ => None,
    };
    if taken.is_none() {
        debug!(server.id = %link.server, method, "dropped a notification that belongs to no call");
    }
}

fn take_progress(link: &Link, line: &[u8], message: &Message<'_>) -> Option<()> {
    let token = message.peek_params().ok()?.progress_token?;
    let entry = link.pending.get(number(token)?)?;
    let Origin::Bus { asked, .. } = &entry.from else {
        return None;
    };
    let body = rpc::splice(line, token.get(), asked.progress_token.as_deref()?);
    entry.outbox.put(body.into());
    Some(())
}

/// A log line names no call: it belongs to the one whose stream it came on, or else to the only call that there is. In either
/// case the call must have asked for such lines.
fn take_log_line(link: &Link, line: &[u8], message: &Message<'_>, stream: Option<u64>) -> Option<()> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow)]
        level: &'a RawValue,
    }
    let params: Peek<'_> = serde_json::from_str(message.params?.get()).ok()?;
    let entry = match stream {
        Some(call) => link.pending.get(call)?,
        None => link.pending.only_one()?,
    };
    let Origin::Bus { asked, .. } = &entry.from else {
        return None;
    };
    if LogLevel::of(params.level)? < asked.log_level? {
        return None;
    }
    entry.outbox.put(line.to_vec().into());
    Some(())
}

/// A child asks back: only `ping` can be answered, as the handshake declared nothing else.
fn take_request(link: &Link, message: &Message<'_>, stream: Option<u64>) {
    let (Some(id), Some(method)) = (message.id, message.method.as_deref()) else {
        return;
    };
    link.try_send(if method == method::PING {
        rpc::result_response(id.get(), b"{}")
    } else {
        debug!(server.id = %link.server, method, call = stream, "refused a request of the server");
        rpc::error_response(Some(id.get()), &RpcError::method_not_found(method))
    });
}

/// The number of a call; some servers answer with the text of it.
fn number(raw: &RawValue) -> Option<u64> {
    match meta::as_text(raw) {
        Some(text) => text.parse().ok(),
        None => raw.get().parse().ok(),
    }
}
