//! `trunkline traffic`

use clap::{Args, Subcommand};

use super::Ask;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline traffic set weather --share 1.4.2=90 --share 2.0.0=10    a tenth of the calls to 2.0.0
  trunkline traffic set weather --share 1.4.2=1 --mirror 2.0.0=50    copies of half of the reading calls to 2.0.0
  trunkline traffic set weather --nearest                            replicas in the caller's process, node or region first
  trunkline traffic clear weather";

/// `trunkline traffic`
#[derive(Clone, Debug, Args)]
pub struct Traffic {
    /// What to do.
    #[command(subcommand)]
    pub command: TrafficCommand,
}

/// What is done with traffic rules.
#[derive(Clone, Debug, Subcommand)]
pub enum TrafficCommand {
    /// Say how a server's calls are spread; takes the place of what was said before
    Set(TrafficSet),
    /// Leave a server's calls to all its replicas again
    Clear(TrafficClear),
    /// Show how a server's calls are spread
    Show(TrafficOf),
    /// Show the servers whose calls are spread by a rule
    List(Ask),
}

/// `trunkline traffic set`
#[derive(Clone, Debug, Default, Args)]
pub struct TrafficSet {
    /// The server's id
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// The share of a version: 9 and 1 mean as much as 90 and 10, 0 means none at all; may be given several times
    #[arg(long = "share", value_name = "VERSION=SHARE")]
    pub shares: Vec<String>,
    /// All calls of one principal go to the same version
    #[arg(long, requires = "shares")]
    pub by_principal: bool,
    /// A version that gets copies of reading calls, with how many in a hundred [default: all]
    #[arg(long, value_name = "VERSION[=PERCENT]")]
    pub mirror: Option<String>,
    /// Replicas in the caller's own process come first, then on its node, then in its region
    #[arg(long)]
    pub nearest: bool,
    /// Only if the rule still has this revision
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<u64>,
}

/// `trunkline traffic clear`
#[derive(Clone, Debug, Args)]
pub struct TrafficClear {
    /// Whose rule.
    #[command(flatten)]
    pub of: TrafficOf,
    /// Only if the rule still has this revision
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<u64>,
}

/// Whose rule.
#[derive(Clone, Debug, Args)]
pub struct TrafficOf {
    /// The server's id
    #[arg(value_name = "SERVER")]
    pub server: String,
}
