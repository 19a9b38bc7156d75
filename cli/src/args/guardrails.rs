//! What a user can type after `trunkline guardrails`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ListVersions, RollBack, SetDocument, ShowVersion};

/// Examples of it.
pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline guardrails set guardrails.toml --comment 'no cards in tickets'
  trunkline guardrails set guardrails.toml --check
  trunkline guardrails show
  trunkline guardrails history
  trunkline guardrails rollback 3
  trunkline guardrails try guardrails.toml --tool crm.add --arguments '{\"note\":\"4111 1111 1111 1111\"}'";

/// `trunkline guardrails`
#[derive(Clone, Debug, Args)]
pub struct Guardrails {
    /// What to do.
    #[command(subcommand)]
    pub command: GuardrailsCommand,
}

/// What is done with guardrails.
#[derive(Clone, Debug, Subcommand)]
pub enum GuardrailsCommand {
    /// Show the guardrails that are kept
    Show(ShowVersion),
    /// Check guardrails and have them kept; they are in force everywhere at once
    Set(SetDocument),
    /// Show what the guardrails of a file would make of a call, without asking a hook or a schema
    Try(GuardrailsTry),
    /// Show the versions
    History(ListVersions),
    /// Have an earlier version again, as a new one
    Rollback(RollBack),
}

/// `trunkline guardrails try`
#[derive(Clone, Debug, Args)]
pub struct GuardrailsTry {
    /// The guardrails as TOML or JSON
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The tool that would be called
    #[arg(long, value_name = "SERVER.TOOL")]
    pub tool: String,
    /// The arguments as a JSON object
    #[arg(long, value_name = "JSON", required_unless_present = "result")]
    pub arguments: Option<String>,
    /// The result as a JSON object
    #[arg(long, value_name = "JSON")]
    pub result: Option<String>,
}
