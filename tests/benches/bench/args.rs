//! What a user can type.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// Measures a call through the bus and the HTTP bridge against raw NATS and bare axum.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How long each cell of the table is measured in each round, in seconds
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    pub(crate) seconds: f64,
    /// How many times everything is measured, in turns; the table shows medians
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) rounds: u32,
    /// How many calls are under way at once
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_name = "N,…")]
    pub(crate) callers: Vec<usize>,
    /// Measure these only
    #[arg(long, value_delimiter = ',', value_name = "WHAT,…")]
    pub(crate) only: Vec<What>,
    /// How many calls `memory` makes; a million takes a few minutes
    #[arg(long, default_value_t = 50_000, value_name = "N")]
    pub(crate) memory_calls: u64,
    /// Which endpoint of the bridge takes the calls
    #[arg(long, value_enum, default_value_t = EndpointChoice::All)]
    pub(crate) endpoint: EndpointChoice,
    /// How many threads each process runs on, except those of raw NATS and the load [default: as `trunkline` chooses]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Guardrails that the host has in force, as a JSON document with `steps`
    #[arg(long, value_name = "FILE")]
    pub(crate) guardrails: Option<PathBuf>,
    /// Write every single measurement as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  make bench
  make bench ARGS=\"--seconds 5 --callers 16 --only raw,http,bytes\"
  make bench ARGS=\"--only bus --guardrails guardrails.json\"
  make bench ARGS=\"--only memory --memory-calls 1000000\"
  GOMAXPROCS=1 make bench          nats-server on one thread";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A request and its answer over NATS, without any of ours
    Raw,
    /// A tool called over the bus
    Bus,
    /// The same through the HTTP bridge
    Http,
    /// The same with a key at the door, a limit, and a policy that bridge and host ask
    Guarded,
    /// The same rmcp handler behind a bare axum route
    Rmcp,
    /// Bare axum answering the same bytes
    Bytes,
    /// A list of 1,000 tools through the bridge
    List,
    /// Bare axum answering the same list
    ListBytes,
    /// A call with 100 progress notifications through the bridge
    Progress,
    /// 500 clients through the bridge
    Crowd,
    /// The same beside 500 clients that never read their streams
    BesideDeaf,
    /// How much memory many calls leave behind
    Memory,
}

/// An endpoint of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndpointChoice {
    /// `/mcp`, where names carry their server's id
    All,
    /// `/servers/{id}/mcp`
    Server,
}

impl Options {
    pub(crate) fn wants(&self, what: What) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }
}
