//! Tasks in the shapes of both eras: the experimental ones of 2025-11-25, and the extension of the modern era.
//!
//! [`client`] speaks with a legacy client about a modern server's tasks, [`server`] with a legacy server for modern clients, and
//! [`outcome`] waits for what a modern task comes to. Where tasks are kept is no business of this room.
//! Sources: MCP 2025-11-25, tasks; the extension `io.modelcontextprotocol/tasks` (SEP-2663).

pub mod client;
pub mod outcome;
pub mod server;

use bus_schema::{
    RpcError,
    edit::{Edits, Members, Object, is_key},
    mcp::{meta, task},
    rpc,
};
use serde_json::value::RawValue;

use super::asking::InputRequest;

/// Members of a modern task that no legacy task has.
const MODERN_DETAILS: [&str; 5] = ["resultType", "result", "error", "inputRequests", "requestState"];

/// How a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The server works on it.
    Working,
    /// It waits for the client.
    InputRequired,
    /// It came to a result.
    Completed,
    /// It came to an error; in the legacy era, also to a result that is one.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl Status {
    /// Reads the `status` of a task in the shape of either era.
    #[must_use]
    pub fn of(task: &RawValue) -> Option<Self> {
        Self::read(&Members::of(task)?)
    }

    fn read(task: &Members<'_>) -> Option<Self> {
        match meta::as_text(task.get("status")?)?.as_ref() {
            "working" => Some(Self::Working),
            "input_required" => Some(Self::InputRequired),
            "completed" => Some(Self::Completed),
            "failed" => Some(Self::Failed),
            "cancelled" => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// The word for it, in both eras.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it stays so.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What a modern server tells of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It goes on.
    Working,
    /// It waits for these answers.
    InputRequired(Vec<InputRequest>),
    /// It came to this result, as JSON.
    Completed(String),
    /// It came to this error, as JSON.
    Failed(String),
    /// It was stopped.
    Cancelled,
}

impl Told {
    /// Reads the result of `tasks/get`.
    ///
    /// # Errors
    /// An internal error that says what the server did wrong.
    pub fn read(result: &RawValue) -> Result<Self, RpcError> {
        let members = Members::of(result).ok_or_else(|| unusable("it is no object"))?;
        let object = |name: &str| {
            let value = members.get(name).filter(|value| meta::is_object(value));
            value.ok_or_else(|| unusable(format!("it has no `{name}`")))
        };
        match Status::read(&members).ok_or_else(|| unusable("its `status` is not known here"))? {
            Status::Working => Ok(Self::Working),
            Status::InputRequired => {
                InputRequest::read_all(object("inputRequests")?).map(Self::InputRequired)
            }
            Status::Completed => Ok(Self::Completed(object("result")?.get().to_owned())),
            Status::Failed => Ok(Self::Failed(object("error")?.get().to_owned())),
            Status::Cancelled => Ok(Self::Cancelled),
        }
    }
}

fn unusable(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!("what the server tells of the task cannot be used: {why}"))
}

/// Whether a tool's result says that the tool failed.
fn is_error(result: &RawValue) -> bool {
    let flag = Members::of(result).and_then(|members| members.get("isError"));
    flag.is_some_and(|flag| flag.get() == "true")
}

/// An object with one more key in its `_meta`, which says to which task it belongs. `task_id` is JSON.
#[must_use]
pub fn with_related(object: &str, task_id: &str) -> String {
    let Some(members) = Members::read(object) else {
        return object.to_owned();
    };
    let related = format!(r#"{}:{{"taskId":{task_id}}}"#, rpc::quote(task::RELATED));
    let mut edits = Edits::new(object.as_bytes());
    match members.get("_meta").map(|raw| (raw, Members::of(raw))) {
        Some((raw, Some(known))) if known.iter().any(|(key, _)| !is_key(key, task::RELATED)) => {
            edits.remove(&known, task::RELATED);
            edits.insert_first(raw.get(), &related);
        }
        Some((raw, _)) => edits.replace(raw.get(), format!("{{{related}}}")),
        None => edits.insert_first(object, &format!(r#""_meta":{{{related}}}"#)),
    }
    String::from_utf8_lossy(&edits.apply()).into_owned()
}

/// The task that a legacy message belongs to, by its parameters or result; the id as JSON.
#[must_use]
pub fn related(object: &RawValue) -> Option<String> {
    let meta = Members::of(Members::of(object)?.get("_meta")?)?;
    let id = Members::of(meta.get(task::RELATED)?)?.get("taskId")?;
    Some(id.get().to_owned())
}

/// Copies the metadata without a key; nothing when nothing else is in it.
fn push_meta(object: &mut Object, meta: Option<&RawValue>, gone: &str) {
    let Some(meta) = meta else { return };
    let Some(members) = Members::of(meta) else {
        return object.push("\"_meta\"", meta.get());
    };
    let mut kept = Object::default();
    for (key, value) in members.iter().filter(|(key, _)| !is_key(key, gone)) {
        kept.push(key.get(), value.get());
    }
    if !kept.is_empty() || members.iter().next().is_none() {
        object.push("\"_meta\"", &kept.finish());
    }
}

/// Copies the members of a task, the two times under the names of the other era. What is `gone`, and `_meta`, is left out.
fn push_task(
    object: &mut Object,
    task: &Members<'_>,
    names: [(&str, &str); 2],
    status: Option<Status>,
    gone: &[&str],
) {
    for (key, value) in task.iter() {
        if is_key(key, "_meta") || gone.iter().any(|name| is_key(key, name)) {
            continue;
        }
        if let (Some(status), true) = (status, is_key(key, "status")) {
            object.push(key.get(), &rpc::quote(status.as_str()));
            continue;
        }
        match names.iter().find(|(from, _)| is_key(key, from)) {
            Some((_, to)) => object.push(&rpc::quote(to), value.get()),
            None => object.push(key.get(), value.get()),
        }
    }
    // How long a task is kept is required in both eras, and `null` says that it is kept for good.
    let (from, to) = names[0];
    if task.get(from).is_none() {
        object.push(&rpc::quote(to), "null");
    }
}
