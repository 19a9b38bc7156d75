//! The NATS of a process: the one that it starts and keeps running, or the one that it joins.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus,
    nats_server::{Clients, NatsServer, NatsServerOptions},
    supervise::{self, Kept, Part, PartError, RunningPart},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Config;

/// What a process connects to, or starts.
#[derive(Clone)]
pub enum NatsChoice {
    /// A NATS of its own.
    Own(NatsServerOptions),
    /// One that is there: the one that is named, or the one of this data folder's platform.
    Join(Option<String>),
}

/// The platform's own NATS.
pub(super) struct OwnNats {
    pub(super) url: String,
    pub(super) kept: Kept,
}

impl OwnNats {
    pub(super) async fn keep(
        options: NatsServerOptions,
        server: NatsServer,
        bus: &Bus,
    ) -> anyhow::Result<Self> {
        let url = server.url().to_owned();
        // A restart must come back where the others look for it.
        let listen = url
            .trim_start_matches("nats://")
            .parse()
            .context("nats-server listens nowhere")?;
        let part = NatsPart {
            options: NatsServerOptions { listen, ..options },
            first: Mutex::new(Some(server)),
        };
        let kept = supervise::keep(Arc::new(part), bus.metrics().clone()).await?;
        Ok(Self { url, kept })
    }
}

/// The platform's own NATS under supervision. The first one is started before there is a bus, and handed over.
struct NatsPart {
    options: NatsServerOptions,
    /// Held only to take it.
    first: Mutex<Option<NatsServer>>,
}

impl Part for NatsPart {
    fn name(&self) -> &str {
        "nats-server"
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let first = self.first.lock().await.take();
            let mut server = match first {
                Some(server) => server,
                None => NatsServer::start(self.options.clone()).await?,
            };
            let running = async move {
                tokio::select! {
                    () = stop.cancelled() => {
                        server.stop().await;
                        Ok(())
                    }
                    ended = server.ended() => Err(PartError::from(format!("nats-server ended: {ended}"))),
                }
            };
            Ok(running.boxed() as RunningPart)
        }
        .boxed()
    }
}

/// Says which plain clients come in, where that is not as one would think.
pub(super) fn say_who_comes_in(options: &NatsServerOptions) {
    if options.clients == Clients::Nobody {
        warn!(
            address = %options.listen,
            "plain NATS clients do not come in, as this NATS is open to the network and [auth] asks nobody who they are"
        );
    }
}

/// Where NATS listens unless somebody says otherwise.
pub(super) fn default_nats() -> String {
    "nats://127.0.0.1:4222".to_owned()
}

/// Where the program of a nats-server and its data are, as `trunkline up` takes it.
#[must_use]
pub fn own_nats(config: &Config, program: Option<PathBuf>) -> NatsChoice {
    NatsChoice::Own(NatsServerOptions {
        program,
        listen: config.nats_listen,
        data_dir: config.data_dir.clone(),
        clients: match (config.is_authenticated(), config.nats_listen.ip().is_loopback()) {
            (true, _) => Clients::Callout,
            (false, true) => Clients::Anybody,
            (false, false) => Clients::Nobody,
        },
        tenants: config.tenants.clone(),
    })
}
