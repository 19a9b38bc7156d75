//! What a user can type.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use tests::conformance::{fixture::Era, suite::Wire};

/// Runs the official MCP conformance suite against the platform
#[derive(Debug, Parser)]
#[command(name = "conformance")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play the suite's scenarios with the platform in between, and hold what comes of it against the baseline
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Be the server that the suite calls, until standard input ends
    Fixture(Fixture),
    /// Be the client of the suite's server, through a platform of its own; the suite starts it
    Client {
        /// Where the suite's server is
        url: String,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  make conformance
  make conformance ARGS=\"--only rmcp-bus,ts2-stdio --wire modern --all\"
  make conformance ARGS=--direct         the servers alone, to see what the platform changes
  make conformance ARGS=\"--only client\"  the suite as the server, and the platform its client";

/// `conformance run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Play with these servers only; `client` is the platform as the suite's client
    #[arg(long, value_delimiter = ',', value_name = "SERVER,…")]
    pub(crate) only: Vec<String>,
    /// Let the suite speak this era only
    #[arg(long, value_enum)]
    pub(crate) wire: Option<Wire>,
    /// Leave the platform out
    #[arg(long)]
    pub(crate) direct: bool,
    /// How many servers are played with at once
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) jobs: usize,
    /// Show every fault, and not only what differs from the baseline
    #[arg(long)]
    pub(crate) all: bool,
}

/// `conformance fixture`
#[derive(Debug, Args)]
pub(crate) struct Fixture {
    /// Serve HTTP here and print the URL; port 0 picks a free one [default: standard input and output]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Which protocol versions it speaks
    #[arg(long, value_enum, default_value_t = Era::Both)]
    pub(crate) era: Era,
}
