//! The official conformance suite against the platform, and the fixture that it calls as a program of its own.

mod args;
mod client;
mod fixture;
mod run;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Arguments, Command};

/// How long what still runs may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program goes to the terminal"
)]
fn main() -> ExitCode {
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let ended = runtime.block_on(execute(Arguments::parse().command));
            // Calls that are given up leave their marks when they are dropped. A read of standard input, which cannot be called off, must
            // not hold up the end for long.
            runtime.shutdown_timeout(LAST_WORDS);
            ended
        });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => run::run(&options).await,
        Command::Fixture(options) => fixture::run(&options).await.map(|()| ExitCode::SUCCESS),
        Command::Client { url } => client::run(&url).await.map(|()| ExitCode::SUCCESS),
    }
}
