//! What a call costs, in one run: raw NATS, the bus, the HTTP bridge, and bare axum to hold them against.
//!
//! The binary starts itself again for each role, as only processes of their own show what each of them costs. The first one
//! ([`run`]) starts the others, takes turns between what it compares, and prints the [`report`].

mod args;
mod child;
mod guarded;
mod load;
mod messages;
mod nats_raw;
mod platform;
mod proc;
mod report;
mod role;
mod run;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::Options;

/// What stands before the JSON of a role on the command line of a process that this one has started.
const ROLE: &str = "role";

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program goes to the terminal"
)]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let ended = match arguments.next().as_deref() {
        Some(ROLE) => play(arguments.next()),
        _ => role::runtime(None).and_then(|runtime| runtime.block_on(run::run(Options::parse()))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: Option<String>) -> anyhow::Result<()> {
    let role = role.context("a role's JSON is missing")?;
    role::run(serde_json::from_str(&role).context("a role's JSON is wrong")?)
}
