//! `trunkline block`, `trunkline unblock` and `trunkline blocked`

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline block mallory                                    for good, whoever vouches for them
  trunkline block mallory --for 1h --reason 'leaked token'
  trunkline block 42 --issuer https://id.example.com/realms/acme
  trunkline unblock mallory
  trunkline blocked";

/// `trunkline block`
#[derive(Clone, Debug, Args)]
pub struct Block {
    /// Who is stopped.
    #[command(flatten)]
    pub who: WhoIsBlocked,
    /// For how long, such as 90s, 30m, 1h or 7d [default: until they are unblocked]
    #[arg(long = "for", value_name = "TIME")]
    pub time: Option<String>,
    /// Why, for operators
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Who is meant.
#[derive(Clone, Debug, Args)]
pub struct WhoIsBlocked {
    /// The caller's subject, as their token says it
    #[arg(value_name = "SUBJECT")]
    pub subject: String,
    /// Only as a subject of this issuer
    #[arg(long, value_name = "ISSUER")]
    pub issuer: Option<String>,
}
