//! What a user can type after `trunkline guardrails`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Ask;

/// Examples of it.
pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline guardrails set guardrails.toml --comment 'no cards in tickets'
  trunkline guardrails set guardrails.toml --check
  trunkline guardrails show
  trunkline guardrails try guardrails.toml --tool crm.add --arguments '{\"note\":\"4111 1111 1111 1111\"}'";

/// `trunkline guardrails`
#[derive(Clone, Debug, Args)]
pub struct Guardrails {
    /// What to do.
    #[command(subcommand)]
    pub command: GuardrailsCommand,
    /// Whose guardrails
    #[arg(long, global = true, value_name = "TENANT", default_value = "default")]
    pub tenant: String,
}

/// What is done with guardrails.
#[derive(Clone, Debug, Subcommand)]
pub enum GuardrailsCommand {
    /// Show the guardrails that are kept
    Show(Ask),
    /// Check guardrails and have them kept; they are in force everywhere at once
    Set(GuardrailsSet),
    /// Show what the guardrails of a file would make of a call, without asking a hook or a schema
    Try(GuardrailsTry),
}

/// `trunkline guardrails set`
#[derive(Clone, Debug, Args)]
pub struct GuardrailsSet {
    /// The guardrails as TOML or JSON; `-` reads them from standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
    /// Only if this version is the present one; 0 if there is none
    #[arg(long, value_name = "N")]
    pub over: Option<u64>,
    /// Check them only
    #[arg(long)]
    pub check: bool,
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
