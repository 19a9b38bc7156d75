//! What a call costs, in one run: raw NATS, the bus, the HTTP bridge, and bare axum to hold them against.
//!
//! The binary starts itself again for each role, as only processes of their own show what each of them costs. The first one
//! ([`run`]) starts the others, takes turns between what it compares, and prints the [`report`].

mod args;
mod child;
mod load;
mod messages;
mod nats_raw;
mod platform;
mod proc;
mod report;
mod role;
mod run;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::Options;

/// What stands before the JSON of a role on the command line of a process that this one has started.
const ROLE: &str = "role";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(ROLE) {
        let role = arguments.next().context("a role's JSON is missing")?;
        return role::run(serde_json::from_str(&role).context("a role's JSON is wrong")?);
    }
    role::runtime(None)?.block_on(run::run(Options::parse()))
}
