//! The parts that stand behind the registry: what keeps declarations, and what runs this process's share of declared servers.

use std::sync::Arc;

use actors::registry::RegistryServer;
use bridges::{
    admin::Private,
    upstream::{Upstream, remote::RemoteOptions},
};
use bus_schema::{integrity::Policies, registry::Entry};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, Directory,
    placement::{Make, Owners, Placement},
    registry::Registry,
    store::StoreError,
    supervise::{Part, PartError, RunningPart},
};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// What is declared and who runs it, once for all parts of a process.
#[derive(Clone, Default)]
pub struct Declared(Arc<OnceCell<(Registry, Owners)>>);

impl Declared {
    /// Opens both, if that was not done.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn open(&self, bus: &Bus) -> Result<&(Registry, Owners), StoreError> {
        let both = async || Ok((Registry::open(bus).await?, Owners::open(bus).await?));
        self.0.get_or_try_init(both).await
    }
}

/// The registry in this process.
pub struct RegistryPart {
    /// The connection to the bus.
    pub bus: Bus,
    /// Who is there.
    pub directory: Directory,
    /// What is declared.
    pub declared: Declared,
    /// What is done about changed tools, if this process's settings say so; they may change.
    pub policies: watch::Receiver<Option<Policies>>,
}

impl Part for RegistryPart {
    fn name(&self) -> &str {
        "registry"
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let (registry, owners) = self.declared.open(&self.bus).await?.clone();
            let server = RegistryServer::new(
                self.bus.clone(),
                registry,
                owners,
                self.directory.clone(),
                self.policies.clone(),
            );
            let running_registry = server.start(self.bus.clone()).await?;
            let running = async move {
                stop.cancelled().await;
                running_registry.stop().await;
                Ok(())
            };
            Ok(running.boxed() as RunningPart)
        }
        .boxed()
    }
}

/// This process's share of the declared servers.
pub struct UpstreamsPart {
    /// The connection to the bus.
    pub bus: Bus,
    /// What this process allows, and how long tools may take.
    pub config: Config,
    /// What is declared.
    pub declared: Declared,
    /// Who is there.
    pub directory: Directory,
}

impl UpstreamsPart {
    fn make(&self) -> Make {
        let (bus, config) = (self.bus.clone(), self.config.clone());
        let directory = self.directory.clone();
        Arc::new(move |entry: &Entry, epoch| {
            let declaration = &entry.declaration;
            if declaration.allow_private && config.private() == Private::Refused {
                return Err("its declaration has allowPrivate, which [registry] of this process's configuration does not allow".into());
            }
            let options = RemoteOptions {
                epoch: Some(epoch),
                health_every: config.health_every,
                tool_timeouts: config.timeouts_of(&declaration.id),
                ..RemoteOptions::declared(declaration, |named| config.registered_secret(named))?
            };
            let upstream = Upstream::remote(bus.clone(), options)?;
            Ok(Arc::new(upstream.among(directory.clone())))
        })
    }
}

impl Part for UpstreamsPart {
    fn name(&self) -> &str {
        "upstreams"
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let (registry, owners) = self.declared.open(&self.bus).await?.clone();
            let placement = Placement::start(self.bus.clone(), registry, owners, self.make()).await?;
            let running = async move {
                stop.cancelled().await;
                placement.stop().await;
                Ok(())
            };
            Ok(running.boxed() as RunningPart)
        }
        .boxed()
    }
}
