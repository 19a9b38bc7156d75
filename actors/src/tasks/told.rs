//! Tasks as tools tell of them.

use bus_schema::task::{POLL_MS, State, Task};
use runtime::moment::of_ms;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Told {
    /// Its id, for the other tools.
    task_id: String,
    /// How it stands: `queued`, `working`, `sleeping`, `input_required`, `held`, `completed`, `failed` or `cancelled`.
    status: String,
    /// Whether it has ended. As long as it has not, ask again.
    has_ended: bool,
    /// After how many milliseconds to ask again; absent when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    poll_after_ms: Option<u64>,
    /// Which server works on it.
    server: String,
    /// Which tool was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    /// What it is about at the moment, or why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// How far it is, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    /// When it was made, ISO 8601 in UTC.
    created_at: String,
    /// When something last happened to it, ISO 8601 in UTC.
    updated_at: String,
    /// What the call came to, as the tool would have answered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// Whether what came of a task is told with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    Whole,
    InAList,
}

impl Told {
    pub(super) fn of(task: &Task, telling: Telling) -> Self {
        let has_ended = matches!(
            task.state,
            State::Completed { .. } | State::Failed { .. } | State::Cancelled
        );
        let result = match &task.state {
            State::Completed { result } if telling == Telling::Whole => {
                serde_json::from_slice(&result.0).ok()
            }
            _ => None,
        };
        Self {
            task_id: task.order.id.to_string(),
            status: task.standing().to_owned(),
            has_ended,
            poll_after_ms: (!has_ended).then_some(POLL_MS),
            server: task.order.request.server.clone(),
            tool: task.order.request.name.clone(),
            message: message(task),
            fraction: task.fraction.filter(|_| !has_ended),
            created_at: of_ms(task.order.created_ms),
            updated_at: of_ms(task.changed_ms),
            result,
        }
    }
}

fn message(task: &Task) -> Option<String> {
    match &task.state {
        State::Failed { error } => {
            let error: Option<bus_schema::RpcError> = serde_json::from_slice(&error.0).ok();
            error.map(|error| error.message)
        }
        State::Held { why } => Some(format!("it was tried too often and waits for an operator: {why}")),
        State::Completed { .. } | State::Cancelled => None,
        _ => task.note.clone(),
    }
}

/// A page of tasks.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ToldPage {
    /// The tasks, without what came of them.
    pub(super) tasks: Vec<Told>,
    /// Send it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}
