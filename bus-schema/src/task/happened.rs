//! What is told of tasks, to whoever listens.

use serde::{Deserialize, Serialize};

use super::{Task, TaskId};

/// Something has happened to a task. Who did not hear it looks at the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Happened {
    /// Which task.
    pub id: TaskId,
    /// Whose; see [`owner`](super::owner).
    pub owner: String,
    /// Whose workers do it.
    pub group: String,
    /// The server that it calls.
    pub server: String,
    /// How it stands, in one word.
    pub standing: String,
    /// What it is about, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How far it is, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
}

impl Happened {
    /// What is told of a task as it stands.
    #[must_use]
    pub fn to(task: &Task) -> Self {
        let order = &task.order;
        Self {
            id: order.id.clone(),
            owner: super::owner(order.request.principal.identity()).to_string(),
            group: order.group.clone(),
            server: order.request.server.clone(),
            standing: task.standing().to_owned(),
            note: task.note.clone(),
            fraction: task.fraction,
        }
    }
}
