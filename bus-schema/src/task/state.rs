//! How tasks stand, and what a worker does about a word.

use serde::{Deserialize, Serialize};

use crate::envelope::Body;

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A word about it is in the queue.
    Ready,
    /// A worker has it.
    Working,
    /// It waits for a time.
    Sleeping {
        /// In milliseconds since 1970.
        until_ms: u64,
        /// Which sleep it is.
        round: u32,
    },
    /// It waits for answers.
    Waiting {
        /// When it gives up, in milliseconds since 1970.
        until_ms: u64,
        /// Which wait it is.
        round: u32,
    },
    /// It has been tried too often, and waits for an operator.
    Held {
        /// What the last attempt came to.
        why: String,
    },
    /// It has ended with this result, which is JSON and may say that the tool has failed.
    Completed {
        /// Exactly what the call would have been answered with.
        result: Body,
    },
    /// It has ended with a JSON-RPC error.
    Failed {
        /// The error, as JSON.
        error: Body,
    },
    /// Somebody has cancelled it.
    Cancelled,
}

/// Something done that is never done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it came to, as JSON.
    pub value: Body,
}

/// A move that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// It has ended; nothing changes it any more.
    #[error("the task has ended")]
    Ended,
    /// Another worker has it by now.
    #[error("another worker has taken the task")]
    Lost,
    /// It does not wait for this.
    #[error("the task does not wait for this")]
    NotWaiting,
    /// It is larger than a record may be.
    #[error("{0}")]
    TooMuch(String),
}

/// How a word has come to a worker.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The worker.
    pub worker: &'a str,
    /// Which message of the queue's stream the word is.
    pub sequence: u64,
    /// How often it was given to a worker, with this time.
    pub count: u32,
    /// When, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What a worker does about a word from the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Works on the task, which has changed.
    Work,
    /// Works on the task, of which nobody needs to know yet.
    First,
    /// Writes the task down, which has changed, and leaves it.
    Write,
    /// Nothing: somebody else has seen to it.
    Drop,
}
