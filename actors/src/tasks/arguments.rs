//! The arguments of the tools, with the schema that a model reads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exports::Format;

/// Arguments of `start_data_export`, as they are written down with the task too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportArguments {
    /// Which dataset; the description of the tool names them.
    pub(super) dataset: String,
    /// The format of the file: `csv` for spreadsheets, `json` for one array of objects, `parquet` for analysis.
    #[serde(default = "usual_format")]
    pub(super) format: Format,
    /// Only rows with a date from here on: a date such as 2026-01-31, or a moment such as 2026-01-31T08:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// Only rows with a date up to here: a date, which is included, or a moment, which is where it ends. Left out, it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
}

fn usual_format() -> Format {
    Format::Csv
}

/// Arguments of `get_task_status` and `cancel_task`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskArguments {
    /// The `task_id` that was given when the task was made.
    pub(super) task_id: String,
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Standing {
    /// No worker has taken it yet.
    Queued,
    /// It is worked on.
    Working,
    /// It waits for a time.
    Sleeping,
    /// It waits for an answer.
    InputRequired,
    /// It was tried too often, and waits for an operator.
    Held,
    /// It has a result.
    Completed,
    /// It has failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl Standing {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Working => "working",
            Self::Sleeping => "sleeping",
            Self::InputRequired => "input_required",
            Self::Held => "held",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Those of tasks that have not ended.
    pub(super) const PENDING: [Self; 5] = [
        Self::Queued,
        Self::Working,
        Self::Sleeping,
        Self::InputRequired,
        Self::Held,
    ];
}

/// Arguments of `list_my_tasks`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListArguments {
    /// Only tasks that stand so. Left out, all that have not ended.
    #[serde(default)]
    pub(super) status: Vec<Standing>,
    /// Only tasks of this server.
    pub(super) server: Option<String>,
    /// How many to return at most.
    #[serde(default = "usual_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub(super) limit: usize,
    /// Where to continue: the `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

fn usual_limit() -> usize {
    20
}
