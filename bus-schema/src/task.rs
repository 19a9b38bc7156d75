//! Work that outlives its client: what is asked, what is kept of it, and which moves it can make.
//!
//! A task is made by one message in the queue, its [`Order`]. As long as nothing has happened to it, that message is all there is; from then on
//! its [`Task`] record counts. Whoever changes a record writes it over the revision that was read, so one move follows another.

mod asking;
mod happened;
mod moves;
mod order;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{principal::Identity, token::Token};

pub use asking::Asked;
pub use happened::Happened;
pub use moves::{MAX_ASKED, MAX_IDLE, MAX_STEPS_BYTES, Task};
pub use order::{Approval, Mode, Order, Priority, TaskKnob, Word};
pub use state::{Delivery, Illegal, State, Step, Turn};

/// Who works on calls to servers that know nothing of tasks: the platform's own workers.
pub const HOSTED: &str = "_tasks";
/// How long a task is kept after the last that happened to it, in milliseconds.
pub const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// After which time a client should look again, in milliseconds.
pub const POLL_MS: u64 = 1_000;
/// The member of `_meta` by which a server knows that a call is made again: the same text each time.
pub const IDEMPOTENCY_KEY: &str = "io.trunkline/idempotency-key";

/// The key of the question whether a call may run.
pub const APPROVAL: &str = "approval";
/// All that [`Task::standing`] says.
pub const STANDINGS: [&str; 8] = [
    "queued",
    "working",
    "sleeping",
    "held",
    "input_required",
    "completed",
    "failed",
    "cancelled",
];

const PREFIX: &str = "tlt-";
const DIGITS: usize = 32;

/// A task's id: 128 random bits, so that nobody guesses it. It is a token as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// The id with these random bits.
    #[must_use]
    pub fn of(random: u128) -> Self {
        Self(format!("{PREFIX}{random:032x}"))
    }

    /// Reads an id; `None` for those of servers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let is_ours =
            digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_ours.then(|| Self(text.to_owned()))
    }

    /// As it is spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As part of a subject.
    ///
    /// # Panics
    /// Never: every id is a token.
    #[must_use]
    pub fn token(&self) -> Token {
        Token::parse(&self.0).expect("an id is a token")
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

impl TryFrom<String> for TaskId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no id of a task"))
    }
}

/// Whose a task is, as part of subjects and keys: a digest of the identity, which tokens of one subject agree in.
#[must_use]
pub fn owner(identity: Identity<'_>) -> Token {
    let mut digest = Sha256::new();
    for piece in identity.pieces() {
        // The lengths keep two texts from running into each other.
        digest.update(piece.len().to_be_bytes());
        digest.update(piece);
    }
    let hex: String = digest.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Token::parse(&hex).expect("digits are a token")
}
