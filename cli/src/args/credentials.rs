//! `trunkline credentials`: the accounts that users have connected.

use clap::{Args, Subcommand};

use super::Ask;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline credentials list
  trunkline credentials list --server tickets --json
  trunkline credentials forget tickets --user ann
  trunkline credentials forget tickets                   of everybody";

/// `trunkline credentials`
#[derive(Clone, Debug, Args)]
pub struct Credentials {
    /// What to do.
    #[command(subcommand)]
    pub what: CredentialsCommand,
}

/// What is done with the accounts of users.
#[derive(Clone, Debug, Subcommand)]
pub enum CredentialsCommand {
    /// Show which users have connected accounts, and where
    List(ListCredentials),
    /// Forget the accounts of a server, have their tokens taken back, and end what runs with them
    Forget(ForgetCredentials),
}

/// `trunkline credentials list`
#[derive(Clone, Debug, Args)]
pub struct ListCredentials {
    /// Those at this server only
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub whose: WhoseCredentials,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline credentials forget`
#[derive(Clone, Debug, Args)]
pub struct ForgetCredentials {
    /// The server's id
    pub server: String,
    /// Whose.
    #[command(flatten)]
    pub whose: WhoseCredentials,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// Whose accounts are meant.
#[derive(Clone, Debug, Args)]
pub struct WhoseCredentials {
    /// Those of this user only, by the subject that their token says
    #[arg(long, value_name = "SUBJECT")]
    pub user: Option<String>,
    /// Only as a subject of this issuer
    #[arg(long, value_name = "ISSUER", requires = "user")]
    pub issuer: Option<String>,
}
