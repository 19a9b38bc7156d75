//! What is asked of workers, and what operators say of which calls become tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{KEPT_MS, TaskId};
use crate::envelope::{Body, Request};

/// Which of the waiting tasks are taken first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others; a share of each worker is kept for these.
    High,
    /// The usual.
    #[default]
    Normal,
    /// When there is time.
    Low,
}

impl Priority {
    /// All of them, the first first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// As subjects and settings spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// Which calls of a tool become tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every one, also of clients that know nothing of tasks: those wait for its end.
    Always,
    /// One that takes longer than its budget, of a client that declares the extension.
    #[default]
    Auto,
    /// None.
    Never,
}

/// The longest budget, in milliseconds.
const LONGEST_BUDGET_MS: u32 = 60 * 60 * 1000;

/// What an operator says of the tasks of a server that knows nothing of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskKnob {
    /// Which calls become tasks.
    pub mode: Mode,
    /// How long a call may take before it becomes one, with `auto`, in milliseconds.
    #[serde(alias = "budget_ms")]
    pub budget_ms: u32,
    /// What holds for single tools, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, Mode>,
    /// The tools that need a person's yes before a call of theirs runs, by their names; `*` is all that say that they destroy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approve: Vec<String>,
    /// Whether the yes must be another's than the caller's.
    #[serde(alias = "second_person", skip_serializing_if = "std::ops::Not::not")]
    pub second_person: bool,
}

impl Default for TaskKnob {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            budget_ms: 10_000,
            tools: BTreeMap::new(),
            approve: Vec::new(),
            second_person: false,
        }
    }
}

impl TaskKnob {
    /// Whether nothing was said of it.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// What holds for a tool.
    #[must_use]
    pub fn of(&self, tool: &str) -> Mode {
        self.tools.get(tool).copied().unwrap_or(self.mode)
    }

    /// Whether a call of a tool needs a person's yes.
    #[must_use]
    pub fn needs_approval(&self, tool: &str, destroys: bool) -> bool {
        self.approve
            .iter()
            .any(|name| name == tool || (name == "*" && destroys))
    }

    /// Finds what cannot be used.
    ///
    /// # Errors
    /// What is wrong and what would be right, to stand behind the name of the setting.
    pub fn check(&self) -> Result<(), String> {
        let budget = self.budget_ms;
        if !(1..=LONGEST_BUDGET_MS).contains(&budget) {
            return Err(format!("has budget_ms = {budget}; use 1 to {LONGEST_BUDGET_MS}"));
        }
        Ok(())
    }
}

/// What has to be said yes to before a call runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Whether another than the caller must say it.
    #[serde(default)]
    pub second_person: bool,
    /// Until when, in milliseconds since 1970; after that nobody can.
    pub until_ms: u64,
}

/// What makes a task: the call, and how it is to be worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What it is called.
    pub id: TaskId,
    /// Whose workers do it: [`HOSTED`](super::HOSTED), or the id of a server that works on its own tasks.
    pub group: String,
    /// The endpoint that its client has made it on; nowhere else it is known.
    pub endpoint: String,
    /// The call, with its caller.
    pub request: Request,
    /// Which is taken first.
    #[serde(default)]
    pub priority: Priority,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// How long it is kept after the last that happened to it, in milliseconds.
    #[serde(default = "kept_ms")]
    pub kept_ms: u64,
    /// Not to begin before, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// What must be said yes to first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Whether a call that may have taken effect must not be made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_most_once: bool,
}

fn kept_ms() -> u64 {
    KEPT_MS
}

/// What comes through the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// There is work.
    Run(Box<Order>),
    /// Somebody has answered what a task asks.
    Answers {
        /// By keys; each is JSON.
        answers: BTreeMap<String, Body>,
        /// Who: a principal's subject.
        by: String,
    },
    /// The time has come that a task sleeps until. The number tells this sleep from others.
    Wake(u32),
    /// It is to be looked at again, whatever it waits for.
    Again,
}

impl Word {
    /// As the last token of subjects.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Answers { .. } => "answer",
            Self::Wake(_) => "wake",
            Self::Again => "again",
        }
    }
}
