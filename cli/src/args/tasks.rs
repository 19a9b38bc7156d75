//! `trunkline tasks`

use bus_schema::task::STANDINGS;
use clap::{Args, Subcommand, builder::PossibleValuesParser};

use super::Ask;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline tasks list --status held,failed
  trunkline tasks list --server products --user ann --json
  trunkline tasks show tlt-00000000000000000000000000000001
  trunkline tasks watch tlt-00000000000000000000000000000001
  trunkline tasks cancel tlt-00000000000000000000000000000001
  trunkline tasks retry tlt-00000000000000000000000000000001      what is held, once more
  trunkline tasks answer tlt-00000000000000000000000000000001 confirm '{\"action\":\"accept\",\"content\":{}}'";

/// `trunkline tasks`
#[derive(Clone, Debug, Args)]
pub struct Tasks {
    /// What to do.
    #[command(subcommand)]
    pub command: TasksCommand,
}

/// What is done with tasks.
#[derive(Clone, Debug, Subcommand)]
pub enum TasksCommand {
    /// Show tasks, those that changed last at the end
    List(ListTasks),
    /// Show all that is known of a task, but what it was asked with
    Show(NamedTask),
    /// Watch a task until it has ended; fails when the task does
    Watch(NamedTask),
    /// Cancel a task for good
    Cancel(NamedTask),
    /// Have a task that is held tried again
    Retry(NamedTask),
    /// Give up a task that is held; it has failed then
    Discard(NamedTask),
    /// Answer what a task asks, in the place of its client
    Answer(AnswerTask),
}

/// `trunkline tasks list`
#[derive(Clone, Debug, Args)]
pub struct ListTasks {
    /// Only those that stand so; several with commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = PossibleValuesParser::new(STANDINGS))]
    pub status: Vec<String>,
    /// Only those that call this server
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// Only those of this caller, by the subject
    #[arg(long, value_name = "SUBJECT")]
    pub user: Option<String>,
    /// Show so many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// How tasks are printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// One task by its id.
#[derive(Clone, Debug, Args)]
pub struct NamedTask {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline tasks answer`
#[derive(Clone, Debug, Args)]
pub struct AnswerTask {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Which of its questions; `trunkline tasks show` shows them
    #[arg(value_name = "KEY")]
    pub key: String,
    /// What a client would answer the question with, as JSON
    #[arg(value_name = "JSON")]
    pub answer: String,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}
