//! What a server says of its own accord or in answer, and where that goes.
//!
//! A message that names no call belongs to the call on whose stream it came, where the transport has streams, and otherwise to the
//! only call in flight. Where there are several it belongs to nobody.

use std::sync::Arc;

use bus_schema::{
    RpcError,
    mcp::{meta, method},
    rpc::{self, Kind, Message},
};
use runtime::{Outcome, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{debug, warn};

use crate::{legacy::task, lines::Skipped};

use super::{
    answer,
    ask::{self, Ask},
    levels::LogLevel,
    link::Link,
    pending::Origin,
    tasks::Taken,
};

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
    let kind = message.kind()?;
    if kind != Kind::Response {
        link.pace.note(line.len());
    }
    match kind {
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
            entry.refuse(&error, Verdict::Answered);
            Ok(())
        }
        None => Err(error),
    }
}

fn take_response(link: &Link, line: &[u8], message: &Message<'_>) {
    let id = message.id.and_then(number);
    let Some((number, entry)) = id.and_then(|id| Some((id, link.pending.remove(id)?))) else {
        debug!(server.id = %link.server, "ignored an answer that nobody waits for");
        if let Some(task) = message.result.and_then(task::server::created_id) {
            link.cancel_task(&task);
        }
        return;
    };
    if link.take_task(number, &entry, message) == Taken::Answer {
        entry.answer(line, message);
    }
}

fn take_notification(link: &Link, line: &[u8], message: &Message<'_>, stream: Option<u64>) {
    let method = message.method.as_deref().unwrap_or_default();
    let taken = match method {
        method::PROGRESS => take_progress(link, line, message),
        method::MESSAGE => take_log_line(link, line, message, stream),
        method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => {
            link.supports.forget();
            link.changes.count(method);
            link.list_changed.notify_one();
            Some(())
        }
        method::UPDATED => take_update(link, message),
        method::ACKNOWLEDGED => take_acknowledgement(link, line, message),
        method::CANCELLED => take_cancellation(link, message),
        // The user has opened a page; who has to know learns it by repeating the call.
        method::ELICITED => Some(()),
        known if method::NOTIFICATIONS.contains(&known) => None,
        _ => take_custom(link, line, stream),
    };
    if taken.is_none() {
        debug!(server.id = %link.server, method, "dropped a notification that belongs to no call");
    }
}

fn take_progress(link: &Link, line: &[u8], message: &Message<'_>) -> Option<()> {
    let token = message.peek_params().ok()?.progress_token?;
    let entry = link.pending.progressing(number(token)?)?;
    let Origin::Bus(call) = &entry.from else {
        return None;
    };
    let own = call.asked(|asked| asked.progress_token.clone())??;
    entry.outbox.put(rpc::splice(line, token.get(), &own).into());
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
    let entry = link.pending.only_one(stream)?;
    let Origin::Bus(call) = &entry.from else {
        return None;
    };
    if LogLevel::of(params.level)? < call.asked(|asked| asked.log_level)?? {
        return None;
    }
    entry.outbox.put(line.to_vec().into());
    Some(())
}

/// What no revision of the protocol defines is between the server and its caller.
fn take_custom(link: &Link, line: &[u8], stream: Option<u64>) -> Option<()> {
    let entry = link.pending.only_one(stream)?;
    let Origin::Bus(call) = &entry.from else {
        return None;
    };
    call.asked(|_| ())?;
    entry.outbox.put(line.to_vec().into());
    Some(())
}

fn take_update(link: &Link, message: &Message<'_>) -> Option<()> {
    let uri = message.peek_params().ok()?.uri?;
    let uri: Arc<str> = meta::as_text(uri)?.into();
    // Without receivers nobody wants to know.
    let _ = link.updates.send(uri);
    Some(())
}

/// A modern server says which changes it will tell of, to the listen call that it names.
fn take_acknowledgement(link: &Link, line: &[u8], message: &Message<'_>) -> Option<()> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
        id: &'a RawValue,
    }
    let meta: Peek<'_> = serde_json::from_str(message.peek_params().ok()?.meta?.get()).ok()?;
    let entry = link.pending.get(number(meta.id)?)?;
    if !matches!(entry.from, Origin::Listen) {
        return None;
    }
    entry.outbox.put(line.to_vec().into());
    Some(())
}

/// A legacy server takes back what it has asked; a modern one ends a listen call.
fn take_cancellation(link: &Link, message: &Message<'_>) -> Option<()> {
    let id = message.peek_params().ok()?.request_id?;
    if link.pending.withdraw(id.get()) {
        return Some(());
    }
    let number = number(id)?;
    let entry = link.pending.get(number)?;
    if !matches!(entry.from, Origin::Listen) {
        return None;
    }
    link.pending.remove(number);
    entry.outbox.put_answer(Outcome::taken());
    Some(())
}

/// A server asks back. `ping` is answered here; the rest goes to the caller of the call that it belongs to, if that can be asked.
fn take_request(link: &Link, message: &Message<'_>, stream: Option<u64>) {
    let (Some(id), Some(method)) = (message.id, message.method.as_deref()) else {
        return;
    };
    if method == method::PING {
        return link.try_send(rpc::result_response(id.get(), b"{}"));
    }
    if let Err(error) = pass_on(link, message, stream) {
        debug!(%error, server.id = %link.server, method, "refused a request of the server");
        link.try_send(rpc::error_response(Some(id.get()), &error));
    }
}

fn pass_on(link: &Link, message: &Message<'_>, stream: Option<u64>) -> Result<(), RpcError> {
    let nobody = || ask::unassociated(message.method.as_deref().unwrap_or_default(), &link.declared);
    let task = message.params.and_then(task::related);
    let task = task.and_then(|id| serde_json::from_str::<String>(&id).ok());
    let entry = link.pending.asking(stream, task.as_deref()).ok_or_else(nobody)?;
    let Origin::Bus(call) = &entry.from else {
        return Err(nobody());
    };
    let by_connection = Ask::judge(message, &link.declared)?;
    // A retry may declare less than the connection was opened for. While the caller is away, nobody has said so.
    let by_caller = call.asked(|asked| Ask::judge(message, &asked.declared));
    call.asks.add(by_caller.unwrap_or(Ok(by_connection))?)
}

/// The number of a call; some servers answer with the text of it.
fn number(raw: &RawValue) -> Option<u64> {
    match meta::as_text(raw) {
        Some(text) => text.parse().ok(),
        None => raw.get().parse().ok(),
    }
}
