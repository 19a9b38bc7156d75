//! `trunkline servers import`

use clap::Args;

use super::Ask;

pub(super) const EXAMPLES: &str = "\
Examples:
  trunkline servers import path/to/server.json
  trunkline servers import https://registry.example.com --search weather --dry-run
  trunkline servers import https://registry.example.com/v0.1/servers/com.example%2Fweather
  trunkline servers import http://127.0.0.1:8080 --allow-private";

/// What is imported, and how.
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// A registry's URL, the URL of one of its servers or of a server.json, or the path of a server.json
    #[arg(value_name = "URL|FILE")]
    pub source: String,
    /// The server's id on the bus, when one server is imported [default: from its name]
    #[arg(long, value_name = "ID")]
    pub name: Option<String>,
    /// A label to find the servers by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only the registry's servers with this in their names
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// The registry and its servers may be at private addresses, and without encryption
    #[arg(long)]
    pub allow_private: bool,
    /// Replace what is registered and differs
    #[arg(long)]
    pub replace: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How the answer is printed.
    #[command(flatten)]
    pub ask: Ask,
}
