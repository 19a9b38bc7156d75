//! The composition root: the only crate that sees both actors and bridges, and puts them together by role.
//!
//! [`args`] is what a user can type, [`config`] what a file can say, [`node`] starts and stops the parts of one process, and
//! `commands` holds one file for each command.

pub mod args;
mod commands;
pub mod config;
mod descriptors;
mod fleet_file;
pub mod node;
pub mod services;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use runtime::telemetry::{self, LogFormat};

use crate::args::{Arguments, Command};

/// How long tasks may take to end after the command has.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// A call makes some two hundred small allocations, and giving them back is what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the program; the exit code is 0 for success, 1 for a failure that was reported, and 2 for a wrong command line.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a command goes to the terminal, whatever is logged"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Completions(shell) = &arguments.command {
        commands::completions::print(shell);
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Keys(keys) = &arguments.command {
        commands::keys::run(keys, arguments.common.tenant.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let common = arguments.common;
    if common.tenant.is_some() && arguments.command.is_for_all_tenants() {
        bail!(
            "--tenant means nothing here: the process serves every tenant that `tenants` of its configuration names"
        );
    }
    // A command that only asks should not talk about how it connects.
    let default_filter = if arguments.command.is_long_running() {
        None
    } else {
        Some("warn")
    };
    let format = if common.log_json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    telemetry::start_logging(common.log.as_deref().or(default_filter), format)
        .map_err(anyhow::Error::msg)
        .context("cannot start logging")?;
    if arguments.command.is_long_running() {
        descriptors::raise_limit();
    }
    let config = config::Config::load(&common)?;
    let runtime = build_runtime(config.threads)?;
    let ended = runtime.block_on(async {
        match arguments.command {
            Command::Up(up) => Box::pin(commands::up::run(config, up)).await,
            Command::Serve(serve) => commands::serve::run(config, serve).await,
            Command::Bridge(bridge) => commands::bridge::run(config, bridge).await,
            Command::Servers(servers) => commands::servers::run(config, servers).await,
            Command::Tools(tools) => commands::tools::run(config, tools).await,
            Command::Virtual(command) => commands::virtual_servers::run(config, command).await,
            Command::Traffic(traffic) => commands::traffic::run(config, traffic).await,
            command @ (Command::Block(_) | Command::Unblock(_) | Command::Blocked(_)) => {
                commands::blocks::run(config, command).await
            }
            Command::Credentials(command) => commands::credentials::run(config, command).await,
            Command::Call(call) => commands::call::run(config, call).await,
            Command::Tail(tail) => commands::tail::run(config, &tail).await,
            Command::Tasks(tasks) => commands::tasks::run(config, tasks).await,
            Command::Audit(audit) => commands::audit::run(config, audit).await,
            Command::Policy(command) => commands::policy::run(config, command).await,
            Command::Guardrails(command) => commands::guardrails::run(config, command).await,
            Command::Keys(_) | Command::Completions(_) => Ok(ExitCode::SUCCESS),
        }
    });
    // A read of standard input cannot be called off, and must not hold up the end.
    runtime.shutdown_timeout(LAST_TASKS);
    ended
}

/// One thread costs the least for each call where cores are few, as waking other threads is what a call on the bus mostly costs.
fn build_runtime(threads: Option<usize>) -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(cores.div_ceil(4));
    let mut builder = if threads <= 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    builder.enable_all().build().context("cannot start the runtime")
}
