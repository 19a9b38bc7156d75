//! The platform's own NATS: a process of this one, started again when it ends.

use std::sync::Arc;

use anyhow::Context as _;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus,
    nats_server::{NatsServer, NatsServerOptions},
    supervise::{self, Kept, Part, PartError, RunningPart},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// A nats-server that this process keeps.
pub(super) struct OwnNats {
    pub(super) url: String,
    pub(super) kept: Kept,
}

impl OwnNats {
    /// Keeps one that is running.
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
