//! What a user can type after the commands that keep versions of a document, such as `trunkline policy`.

use std::path::PathBuf;

use clap::Args;

use super::Ask;

/// `trunkline policy show`, `trunkline guardrails show`
#[derive(Clone, Debug, Args)]
pub struct ShowVersion {
    /// Which version [default: the present one]
    #[arg(value_name = "N")]
    pub number: Option<u64>,
    /// How it is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline policy set`, `trunkline guardrails set`
#[derive(Clone, Debug, Args)]
pub struct SetDocument {
    /// What is to be kept, as TOML or JSON; `-` reads it from standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
    /// Only if this version is the present one; 0 if there is none
    #[arg(long, value_name = "N")]
    pub over: Option<u64>,
    /// Check it only
    #[arg(long)]
    pub check: bool,
}

/// `trunkline policy history`, `trunkline guardrails history`
#[derive(Clone, Debug, Args)]
pub struct ListVersions {
    /// How many versions at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// How it is printed.
    #[command(flatten)]
    pub ask: Ask,
}

/// `trunkline policy rollback`, `trunkline guardrails rollback`
#[derive(Clone, Debug, Args)]
pub struct RollBack {
    /// Which version
    #[arg(value_name = "N")]
    pub to: u64,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
    /// Only if this version is the present one
    #[arg(long, value_name = "N")]
    pub over: Option<u64>,
}
