//! The official conformance suite against the platform, and the fixture that it calls as a program of its own.

mod args;
mod client;
mod fixture;
mod run;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Arguments, Command};

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
            // A read of standard input cannot be called off, and must not hold up the end.
            runtime.shutdown_background();
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
