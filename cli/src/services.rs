//! The parts that stand behind the registry: what keeps declarations, and what runs this process's share of declared servers.

use std::{collections::HashMap, sync::Arc};

use actors::{
    registry::{Books, RegistryServer, RunningRegistry},
    workers::Hosted,
};
use bridges::{
    admin::Private,
    front::Front,
    tenants::Tenants,
    upstream::{
        Upstream,
        remote::{Connections, RemoteOptions, UserOptions},
    },
};
use bus_schema::{
    integrity::Policies,
    registry::{Credentials, Declaration, Entry, SecretRef},
    task::HOSTED,
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all, try_join_all},
};
use runtime::{
    Bus, Catalogue, Directory,
    blocks::Blocks,
    placement::{Make, Owners, Placement},
    registry::Registry,
    store::StoreError,
    supervise::{Part, PartError, RunningPart},
    tasks::{Tasks, Worker, WorkerOptions},
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

/// A worker for tasks of servers that know nothing of them.
pub struct WorkersPart {
    /// The connection to the bus.
    pub bus: Bus,
    /// What there is, of each tenant.
    pub catalogues: HashMap<String, Catalogue>,
}

impl Part for WorkersPart {
    fn name(&self) -> &str {
        "workers"
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let blocks = Blocks::open(&self.bus).await;
            let hosted = Hosted::new(self.bus.clone(), blocks, self.catalogues.clone());
            let (tasks, options) = (Tasks::new(self.bus.clone()), WorkerOptions::new(HOSTED));
            let worker = Worker::start(tasks, Arc::new(hosted), options).await?;
            let running = async move {
                stop.cancelled().await;
                worker.stop().await;
                Ok(())
            };
            Ok(running.boxed() as RunningPart)
        }
        .boxed()
    }
}

/// The registries of this process, one for each tenant.
pub struct RegistryPart {
    /// The connection to the bus.
    pub bus: Bus,
    /// What the process knows of each tenant.
    pub fronts: Tenants<Front>,
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
            let starting = self.fronts.each().map(|(_, front)| {
                let books = Books {
                    registry: registry.clone(),
                    owners: owners.clone(),
                    directory: front.directory().clone(),
                    virtuals: front.virtuals().clone(),
                    blocks: front.blocks().clone(),
                };
                let server = RegistryServer::new(self.bus.clone(), books, self.policies.clone());
                server.start(self.bus.clone())
            });
            let registries = try_join_all(starting).await?;
            let running = async move {
                stop.cancelled().await;
                join_all(registries.into_iter().map(RunningRegistry::stop)).await;
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
    /// Who is there, of each tenant.
    pub directories: Tenants<Directory>,
    /// The accounts that users connect, if this process has what they need.
    pub connections: Option<Connections>,
}

impl UpstreamsPart {
    fn make(&self) -> Make {
        let (bus, config) = (self.bus.clone(), self.config.clone());
        let (directories, connections) = (self.directories.clone(), self.connections.clone());
        Arc::new(move |tenant: &str, entry: &Entry, epoch| {
            let declaration = &entry.declaration;
            if declaration.allow_private && config.private() == Private::Refused {
                return Err("its declaration has allowPrivate, which [registry] of this process's configuration does not allow".into());
            }
            let options = RemoteOptions {
                epoch: Some(epoch),
                health_every: config.health_every,
                tool_timeouts: config.timeouts_of(tenant, &declaration.id),
                users: users(&config, tenant, declaration, connections.as_ref())?,
                ..RemoteOptions::declared(declaration, |named| config.registered_secret(tenant, named))?
            };
            let upstream = Upstream::remote(bus.clone(), options)?.of_tenant(tenant);
            Ok(Arc::new(match directories.of(tenant) {
                Some(directory) => upstream.among(directory.clone()),
                None => upstream,
            }))
        })
    }
}

/// How users connect to a declared server, if they do.
fn users(
    config: &Config,
    tenant: &str,
    declaration: &Declaration,
    connections: Option<&Connections>,
) -> Result<Option<UserOptions>, PartError> {
    match (declaration.credentials, connections) {
        (Credentials::Platform, _) => Ok(None),
        (Credentials::User, Some(connections)) => {
            let secret = |named: SecretRef<'_>| config.registered_secret(tenant, named);
            Ok(Some(UserOptions::declared(declaration, connections, secret)?))
        }
        (Credentials::User, None) => Err(
            "its declaration has credentials `user`, for which [credentials] of this process's configuration needs a key; see docs/secrets.md"
                .into(),
        ),
    }
}

impl Part for UpstreamsPart {
    fn name(&self) -> &str {
        "upstreams"
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let declared = self.declared.open(&self.bus).await?.clone();
            let tenants = self.directories.names();
            let placement = Placement::start(self.bus.clone(), declared, &tenants, self.make()).await?;
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
