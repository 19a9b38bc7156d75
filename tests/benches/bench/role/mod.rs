//! What a process of the benchmark can be, and what all of them share.

mod axum;
mod bridge;
mod host;
mod nats;
mod raw_responder;

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use bus_schema::subject::CallerClass;
use runtime::{
    Bus, BusOptions,
    telemetry::{self, LogFormat},
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::{
    child::Ready,
    load::{self, Order},
};

pub(crate) use self::{
    axum::Route,
    host::{GUARDED, TOOLS},
};

/// A process of the benchmark.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// nats-server with the repository's configuration.
    Nats {
        /// Where its files go.
        folder: PathBuf,
    },
    /// The servers on the bus.
    Host {
        /// Where the bus is.
        nats: String,
        /// How many threads it runs on.
        threads: Option<usize>,
        /// What it looks for in calls.
        guardrails: Option<PathBuf>,
        /// The policy that it asks, for a host of its own under [`GUARDED`].
        policy: Option<PathBuf>,
    },
    /// `trunkline bridge http`.
    Bridge {
        /// Where the bus is.
        nats: String,
        /// How many threads it runs on.
        threads: Option<usize>,
        /// Where its files would go.
        folder: PathBuf,
        /// What it is told beside that.
        config: Option<PathBuf>,
    },
    /// Bare axum: with the rmcp handler, and with answers that are ready.
    Axum {
        /// How many threads it runs on.
        threads: Option<usize>,
        /// The answer to a call.
        answer: String,
        /// The file with the answer to a list, as a command line cannot hold it.
        list: PathBuf,
    },
    /// Answers requests over NATS without any of ours.
    RawResponder {
        /// Where NATS is.
        nats: String,
        /// What it answers.
        answer: String,
    },
    /// Makes calls and measures.
    Load(Order),
}

impl Role {
    /// What it is called in words for the user.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Nats { .. } => "nats-server",
            Self::Host { .. } => "the host",
            Self::Bridge { .. } => "the bridge",
            Self::Axum { .. } => "bare axum",
            Self::RawResponder { .. } => "the responder of raw NATS",
            Self::Load(_) => "the load",
        }
    }
}

/// Plays a role to its end.
pub(crate) fn run(role: Role) -> anyhow::Result<()> {
    let threads = match &role {
        Role::Host { threads, .. } | Role::Axum { threads, .. } => *threads,
        // The caller on the bus is a process like any other of ours; the rest does no work, or is one loop.
        _ => Some(1),
    };
    let runtime = runtime(threads)?;
    let ended = runtime.block_on(async {
        match role {
            Role::Nats { folder } => nats::serve(folder).await,
            Role::Host {
                nats,
                policy: Some(policy),
                ..
            } => host::serve_guarded(&nats, &policy).await,
            Role::Host { nats, guardrails, .. } => host::serve(&nats, guardrails.as_deref()).await,
            Role::Bridge {
                nats,
                threads,
                folder,
                config,
            } => bridge::serve(&nats, threads, &folder, config.as_deref()).await,
            Role::Axum { answer, list, .. } => axum::serve(answer, &list).await,
            Role::RawResponder { nats, answer } => raw_responder::serve(&nats, &answer).await,
            Role::Load(order) => tokio::select! {
                ended = load::run(order) => ended,
                () = input_ended() => Ok(()),
            },
        }
    });
    // Standard input may still be read, and that cannot be broken off.
    runtime.shutdown_background();
    ended
}

/// A runtime as `trunkline` makes it: one thread for each four cores if nobody says otherwise.
pub(crate) fn runtime(threads: Option<usize>) -> anyhow::Result<tokio::runtime::Runtime> {
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

/// Connects to the bus as `trunkline` does, with its logging, which costs as well.
pub(crate) async fn connect(nats: &str) -> anyhow::Result<Bus> {
    telemetry::start_logging(None, LogFormat::Text).map_err(anyhow::Error::msg)?;
    let options = BusOptions {
        url: nats.to_owned(),
        credentials: None,
        class: CallerClass::Node,
        place: bus_schema::card::Place::default(),
    };
    Ok(Bus::connect(options).await?)
}

/// Tells the process that has started this one where it is reached.
fn ready(at: impl Into<String>, pid: u32) -> anyhow::Result<()> {
    let ready = Ready { at: at.into(), pid };
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(&ready)?)?;
    Ok(output.flush()?)
}

/// Waits until the process that has started this one lets it end, or has ended itself.
async fn input_ended() {
    let mut nothing = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
}
