//! What a user can type.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use tests::conformance::fixture::Era;

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
    /// Be the server that the suite calls, until standard input ends
    Fixture(Fixture),
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
