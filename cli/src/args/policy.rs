//! What a user can type after `trunkline policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Ask, ListVersions, RollBack, SetDocument, ShowVersion};

/// Examples of it.
pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline policy set policy.toml --comment 'managers see actions'
  trunkline policy explain knowledge.search --role employee
  trunkline policy test cases.toml --policy policy.toml
  trunkline policy diff policy.toml
  trunkline tail --json > calls.jsonl; trunkline policy replay calls.jsonl --policy policy.toml
  trunkline policy history
  trunkline policy rollback 3";

/// `trunkline policy`
#[derive(Clone, Debug, Args)]
pub struct Policy {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What is done with policies.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the policy that is kept
    Show(ShowVersion),
    /// Check a policy and have it kept; it is in force everywhere at once
    Set(SetDocument),
    /// Check a file of cases, each with the decision that is expected
    Test(PolicyTest),
    /// Say what is decided, and why
    Explain(Box<PolicyExplain>),
    /// Show in what a policy differs from the one that is kept
    Diff(PolicyDiff),
    /// Decide anew about calls that were recorded by `trunkline tail --json`
    Replay(PolicyReplay),
    /// Show the versions
    History(ListVersions),
    /// Have an earlier version again, as a new one
    Rollback(RollBack),
}

/// Which policy is asked.
#[derive(Clone, Debug, Args)]
pub struct Candidate {
    /// A policy in a file [default: the one that is kept]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// `trunkline policy test`
#[derive(Clone, Debug, Args)]
pub struct PolicyTest {
    /// The cases as TOML or JSON
    #[arg(value_name = "CASES")]
    pub cases: PathBuf,
    /// Which policy is asked.
    #[command(flatten)]
    pub candidate: Candidate,
}

/// `trunkline policy explain`
#[derive(Clone, Debug, Args)]
pub struct PolicyExplain {
    /// A tool
    #[arg(value_name = "SERVER.TOOL", required_unless_present_any = ["prompt", "resource", "method", "admin"])]
    pub tool: Option<String>,
    /// A prompt instead
    #[arg(long, value_name = "SERVER.PROMPT", conflicts_with = "tool")]
    pub prompt: Option<String>,
    /// A resource instead
    #[arg(long, value_name = "SERVER.URI", conflicts_with_all = ["tool", "prompt"])]
    pub resource: Option<String>,
    /// A method of a server's own instead
    #[arg(long, value_name = "SERVER.METHOD", conflicts_with_all = ["tool", "prompt", "resource"])]
    pub method: Option<String>,
    /// What an operator does instead, such as `servers:write`
    #[arg(long, value_name = "ACTION", conflicts_with_all = ["tool", "prompt", "resource", "method"])]
    pub admin: Option<String>,
    /// Who asks
    #[arg(long, value_name = "SUBJECT", default_value = "somebody")]
    pub subject: String,
    /// A role that the caller has
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// A scope that the caller was granted
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// The arguments as a JSON object [default: any, as for a list]
    #[arg(long, value_name = "JSON")]
    pub arguments: Option<String>,
    /// The time, as RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Which policy is asked.
    #[command(flatten)]
    pub candidate: Candidate,
    /// How it is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline policy diff`
#[derive(Clone, Debug, Args)]
pub struct PolicyDiff {
    /// A policy in a file
    #[arg(value_name = "FILE", required_unless_present = "to")]
    pub file: Option<PathBuf>,
    /// From which version [default: the present one]
    #[arg(long, value_name = "N")]
    pub from: Option<u64>,
    /// To which version, instead of a file
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub to: Option<u64>,
    /// How it is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline policy replay`
#[derive(Clone, Debug, Args)]
pub struct PolicyReplay {
    /// The lines of `trunkline tail --json`; `-` reads them from standard input
    #[arg(value_name = "CALLS")]
    pub calls: PathBuf,
    /// The policy in a file that is to be tried
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// How it is printed.
    #[command(flatten)]
    pub ask: Ask,
}
