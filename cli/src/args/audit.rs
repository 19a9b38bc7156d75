//! `trunkline audit`

use clap::{Args, Subcommand, ValueEnum};

use super::Ask;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline audit tail                              what is refused from now on
  trunkline audit tail --last 50                    and what was refused before
  trunkline audit tail --last 50 --no-follow --json
  trunkline audit tail --user mallory --outcome refused";

/// `trunkline audit`
#[derive(Clone, Debug, Args)]
pub struct Audit {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What is done with what is on record.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Show what is put on record, as it comes
    Tail(AuditTail),
}

/// `trunkline audit tail`
#[derive(Clone, Debug, Args)]
pub struct AuditTail {
    /// Show so many of those that are there first
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub last: usize,
    /// End after those
    #[arg(long)]
    pub no_follow: bool,
    /// Only of this tenant
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Only of this caller, by the subject
    #[arg(long, value_name = "SUBJECT")]
    pub user: Option<String>,
    /// Only what has ended so
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Option<Outcome>,
    /// How records are printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// How something has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// It was not done
    Refused,
    /// It had begun, and was cut off
    Ended,
    /// Its records were lost
    Lost,
}
