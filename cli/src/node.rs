//! One process of the platform: starts its parts by role, and stops them so that nothing begun is lost.

mod callout;
mod connecting;
mod lines;
mod open_door;
mod own_nats;
mod tasks;
mod tenants;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use actors::{products::Products, tasks::SERVER as TASKS};
use anyhow::Context as _;
use bridges::{
    admin::AdminDoor,
    front::Front,
    http::{HttpDoor, HttpOptions, Serves},
    legacy::Doors,
    nats::{Identity, NatsDoor},
    tenants::Tenants,
    tls::TlsOptions,
    upstream::{Upstream, remote::Connections},
};
use bus_schema::{ServerId, card::name_of, integrity::Policies, subject::CallerClass};
use futures::{FutureExt as _, future::BoxFuture, future::join_all};
use runtime::{
    Bus, BusOptions, Host, HostOptions,
    callout::CalloutOptions,
    nats_server::{LocalNats, NatsServer},
    rmcp_host::RmcpServer,
    supervise::{self, Kept, Part, PartError, RunningPart, Status},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use lines::Adds;
pub use own_nats::{NatsChoice, own_nats};
use own_nats::{OwnNats, default_nats, say_who_comes_in};
use tasks::TasksPart;
use tenants::{own_id, start_doors, stop_doors};

use crate::{
    config::{Config, ServerLine, ServerOptions},
    services::{Declared, RegistryPart, UpstreamsPart, WorkersPart},
};

/// The servers that are built in.
pub const BUILT_IN: [&str; 2] = ["products", TASKS];
/// What is built in and no server of its own: what keeps declarations, what runs declared servers, and what works on tasks.
pub const SERVICES: [&str; 3] = [REGISTRY, "upstreams", WORKERS];
const REGISTRY: &str = "registry";
const WORKERS: &str = "workers";
/// How long a start waits for its servers' first word; slower ones come when they are ready.
const FIRST_WORD: Duration = Duration::from_secs(20);
/// How long doors may take to finish what clients have begun.
const DOOR_DRAIN: Duration = Duration::from_secs(30);
/// How long servers may take to finish their calls and leave; a little more than a host gives its calls.
const SERVER_DRAIN: Duration = Duration::from_secs(45);

/// One process of the platform.
pub struct Node {
    bus: Bus,
    /// What doors ask through, by tenant.
    fronts: BTreeMap<String, Front>,
    http: Option<SocketAddr>,
    /// What doors need for legacy clients; made with the first such door.
    legacy: Option<Tenants<Doors>>,
    doors: Vec<JoinHandle<()>>,
    doors_stop: CancellationToken,
    servers: Vec<Kept>,
    services: Vec<Kept>,
    /// What the settings say of changed tools, for a registry in this process.
    policies: watch::Sender<Option<Policies>>,
    /// What is declared; opened on first use.
    declared: Declared,
    /// How the HTTP door speaks TLS, if it does.
    tls: Option<watch::Sender<TlsOptions>>,
    /// The accounts that users connect; opened on first use.
    connections: Option<Connections>,
    /// How the auth callout reaches NATS, where its secrets are known.
    callout: Option<CalloutOptions>,
    nats: Option<OwnNats>,
}

/// Tells a connection what the settings say of it, and what holds of policies and guardrails where none are kept.
async fn configure(bus: &Bus, config: &Config) -> anyhow::Result<()> {
    bus.audit().configure(config.audit);
    bus.guardrails().configure(config.guardrails.clone())?;
    bus.policies().configure(config.policy()?).await?;
    Ok(())
}

/// Ends a NATS that was started and cannot be used.
async fn end(server: Option<NatsServer>) {
    if let Some(server) = server {
        server.stop().await;
    }
}

impl Node {
    /// Connects to the bus, and starts a NATS first if that was chosen.
    ///
    /// # Errors
    /// What went wrong, and what to change.
    pub async fn connect(config: &Config, class: CallerClass, choice: NatsChoice) -> anyhow::Result<Self> {
        let (url, secrets, server) = match choice {
            NatsChoice::Own(options) => {
                say_who_comes_in(&options);
                let server = NatsServer::start(options.clone()).await?;
                let secrets = server.secrets().clone();
                (server.url().to_owned(), Some(secrets), Some((options, server)))
            }
            NatsChoice::Join(url) => {
                let local = LocalNats::find(&config.data_dir);
                let url = url
                    .or_else(|| local.as_ref().map(|nats| nats.url.clone()))
                    .unwrap_or_else(default_nats);
                // The secrets are for the NATS that made them, and for no other that somebody names.
                let secrets = local.filter(|nats| nats.url == url).map(|nats| nats.secrets);
                (url, secrets, None)
            }
        };
        let own = secrets.as_ref().map(|secrets| secrets.password(class).to_owned());
        let given = Config::nats_password(class.as_str()).filter(|_| server.is_none());
        let credentials = own_user(class, given.or(own));
        let options = BusOptions {
            url,
            credentials,
            class,
            place: config.place.clone(),
        };
        let bus = match Bus::connect(options).await {
            Ok(bus) => bus,
            Err(error) => {
                end(server.map(|(_, server)| server)).await;
                return Err(error.into());
            }
        };
        configure(&bus, config).await?;
        let callout = match &secrets {
            Some(secrets) => Some(callout::options_of(bus.url(), secrets)),
            None => Config::callout(bus.url())?,
        };
        let nats = match server {
            Some((options, server)) => Some(OwnNats::keep(options, server, &bus).await?),
            None => None,
        };
        Ok(Self {
            bus,
            fronts: BTreeMap::new(),
            http: None,
            legacy: None,
            doors: Vec::new(),
            doors_stop: CancellationToken::new(),
            servers: Vec::new(),
            services: Vec::new(),
            policies: watch::Sender::new(config.integrity.clone()),
            declared: Declared::default(),
            tls: None,
            connections: None,
            callout,
            nats,
        })
    }

    /// The connection to the bus.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Where the platform's own NATS listens.
    #[must_use]
    pub fn nats_url(&self) -> Option<&str> {
        self.nats.as_ref().map(|nats| nats.url.as_str())
    }

    /// Where HTTP listens.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The servers that this process keeps, and how each is doing.
    pub fn servers(&self) -> impl Iterator<Item = (&str, Status)> {
        self.servers.iter().map(|kept| (kept.name(), kept.status()))
    }

    /// Waits until the doors know the servers that have started here, so that whoever reads that they are up can use them.
    pub async fn settled(&self) {
        let all_known = async {
            for (tenant, front) in &self.fronts {
                self.settled_in(tenant, front).await;
            }
        };
        if timeout(FIRST_WORD, all_known).await.is_err() {
            warn!("a server has started, but the doors have not heard of it yet");
        }
    }

    async fn settled_in(&self, tenant: &str, front: &Front) {
        let mut changes = front.directory().changes();
        loop {
            let snapshot = front.directory().snapshot();
            let up = self.servers().filter(|(_, status)| *status == Status::Up);
            let mut own = up.filter_map(|(name, _)| own_id(tenant, name));
            if own.all(|id| snapshot.server(&id).is_some()) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Starts servers by name, and waits for the first word of each.
    ///
    /// # Errors
    /// When a name is neither built in nor in the file.
    pub async fn serve(&mut self, config: &Config, names: &[String]) -> anyhow::Result<()> {
        let (services, names): (Vec<_>, Vec<_>) =
            names.iter().partition(|name| SERVICES.contains(&name.as_str()));
        for name in services {
            let part = self.service(config, name).await?;
            self.services
                .push(supervise::keep(part, self.bus.metrics().clone()).await?);
        }
        let lines = config.servers.iter();
        let external = lines.filter(|line| names.iter().any(|name| **name == line.name()));
        // External servers find their other replicas by these.
        let tenants: Vec<_> = external.map(|line| line.tenant.clone()).collect();
        self.open_fronts(config, &tenants).await?;
        Box::pin(self.open_connections(config)).await?;
        let parts = names
            .iter()
            .map(|name| self.part(config, name))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for part in parts {
            self.servers
                .push(supervise::keep(part, self.bus.metrics().clone()).await?);
        }
        let first_words = join_all(self.servers.iter_mut().map(Kept::started));
        if timeout(FIRST_WORD, first_words).await.is_err() {
            info!("some servers are still starting; they join when they are ready");
        }
        Ok(())
    }

    fn part(&self, config: &Config, name: &str) -> anyhow::Result<Arc<dyn Part>> {
        if let Some(line) = config.servers.iter().find(|line| line.name() == name) {
            return self.external(config, line);
        }
        if !BUILT_IN.contains(&name) {
            let configured = config.servers.iter().map(ServerLine::name);
            let built_in = BUILT_IN.into_iter().chain(SERVICES).map(str::to_owned);
            let known: Vec<_> = built_in.chain(configured).collect();
            anyhow::bail!("there is no server `{name}`; known are {}", known.join(", "));
        }
        let database = tasks::database_of(config)?;
        let (id, tenant): (ServerId, _) = (name.parse()?, &config.products_tenant);
        let (bus, tool_timeouts) = (self.bus.clone(), config.timeouts_of(tenant, &id));
        let (name_there, tenant) = (name_of(tenant, &id), tenant.clone());
        if name == TASKS {
            return Ok(Arc::new(TasksPart {
                bus,
                database,
                name: name_there,
                tenant,
                tool_timeouts,
                base_url: self.base_url(config),
            }));
        }
        Ok(Arc::new(ProductsPart {
            bus,
            database,
            name: name_there,
            tenant,
            tool_timeouts,
        }))
    }

    async fn service(&mut self, config: &Config, name: &str) -> anyhow::Result<Arc<dyn Part>> {
        let (bus, declared) = (self.bus.clone(), self.declared.clone());
        let connections = match name {
            REGISTRY => None,
            _ => Box::pin(self.open_connections(config)).await?,
        };
        let fronts = self.fronts(config).await?;
        let catalogues = fronts
            .each()
            .map(|(tenant, front)| (tenant.to_owned(), front.catalogue().clone()))
            .collect();
        Ok(match name {
            REGISTRY => Arc::new(RegistryPart {
                fronts,
                bus,
                declared,
                policies: self.policies.subscribe(),
            }),
            WORKERS => Arc::new(WorkersPart { catalogues, bus }),
            _ => Arc::new(UpstreamsPart {
                config: config.clone(),
                directories: fronts
                    .each()
                    .map(|(tenant, front)| (tenant.to_owned(), front.directory().clone()))
                    .collect(),
                bus,
                declared,
                connections,
            }),
        })
    }

    fn external(&self, config: &Config, line: &ServerLine) -> anyhow::Result<Arc<dyn Part>> {
        let bus = self.bus.clone();
        let timeouts = config.timeouts_of(&line.tenant, &line.id);
        let upstream = match line.to_options(timeouts, config.health_every)? {
            ServerOptions::Child(options) => Upstream::child(bus, *options),
            ServerOptions::Remote(mut options) => {
                options.users = connecting::users(line, self.connections.as_ref())?;
                Upstream::remote(bus, *options)
                    .with_context(|| format!("server `{}` cannot be used", line.id))?
            }
        };
        let upstream = upstream.of_tenant(&line.tenant);
        Ok(Arc::new(match self.fronts.get(&line.tenant) {
            Some(front) => upstream.among(front.directory().clone()),
            None => upstream,
        }))
    }

    /// Opens the HTTP and WebSocket doors.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn open_http(&mut self, config: &Config, serves: Serves) -> anyhow::Result<SocketAddr> {
        let fronts = self.fronts(config).await?;
        let options = HttpOptions {
            bus: self.bus.clone(),
            fleets: self.fleets(config).await?,
            browsers: config.browsers,
            shared: config.endpoint.clone(),
            listen: config.listen,
            allowed: config.allowed_hosts.clone(),
            serves,
            max_connections: config.max_connections,
            auth: config.auth()?,
            tls: self.follow_tls(config),
            connections: Box::pin(self.open_connections(config)).await?,
        };
        open_door::warn(config, &options)?;
        let doors = match self.legacy.take() {
            Some(doors) => doors,
            None => Box::pin(start_doors(&fronts, config)).await?,
        };
        // Boxed, as it is large and made once.
        let door = Box::pin(HttpDoor::bind(self.legacy.insert(doors), options)).await?;
        let local = door.local();
        self.http = Some(local);
        let stop = self.doors_stop.clone();
        self.doors.push(tokio::spawn(door.serve(stop)));
        Ok(local)
    }

    /// Opens the door for plain NATS clients.
    ///
    /// # Errors
    /// When the bus refuses the subscription.
    pub async fn open_nats(&mut self, config: &Config) -> anyhow::Result<()> {
        // Whoever is known to the broker as one of our roles is on a NATS with our accounts.
        let identity = match (self.bus.role(), config.is_authenticated()) {
            (Some(_), _) => Identity::FromBroker,
            (None, false) => Identity::Developer,
            (None, true) => Identity::Nobody,
        };
        let door = NatsDoor::open(self.bus.clone(), self.fronts(config).await?, identity).await?;
        self.doors.push(tokio::spawn(door.serve(self.doors_stop.clone())));
        Ok(())
    }

    /// Serves metrics and health where no HTTP door does.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn open_admin(&mut self, listen: SocketAddr) -> anyhow::Result<SocketAddr> {
        let door = AdminDoor::bind(self.bus.clone(), listen).await.with_context(|| {
            format!("cannot serve metrics on {listen}; choose another with --metrics-listen")
        })?;
        let local = door.local();
        let stop = self.doors_stop.clone();
        self.doors.push(tokio::spawn(door.serve(stop)));
        Ok(local)
    }

    /// Stops in the order in which nothing is lost: doors take no more and finish, servers finish and leave, then the bus.
    pub async fn stop(self) {
        self.doors_stop.cancel();
        if timeout(DOOR_DRAIN, join_all(self.doors)).await.is_err() {
            warn!("clients held a door open longer than the drain time");
        }
        if let Some(legacy) = self.legacy
            && timeout(DOOR_DRAIN, stop_doors(legacy)).await.is_err()
        {
            warn!("the calls of clients that had gone did not end in time");
        }
        let stopped = join_all(self.servers.into_iter().chain(self.services).map(Kept::stop));
        if timeout(SERVER_DRAIN, stopped).await.is_err() {
            warn!("a server did not stop in its time");
        }
        self.bus.close().await;
        if let Some(nats) = self.nats {
            nats.kept.stop().await;
        }
    }
}

/// What the broker knows a process by that has a password.
fn own_user(class: CallerClass, password: Option<String>) -> Option<(String, String)> {
    Some((class.as_str().to_owned(), password?))
}

struct ProductsPart {
    bus: Bus,
    name: String,
    tenant: String,
    database: String,
    tool_timeouts: HashMap<String, Duration>,
}

impl Part for ProductsPart {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let products = Products::open(&self.database).await?;
            let id: ServerId = "products".parse()?;
            let options = HostOptions {
                tenant: self.tenant.clone(),
                tags: vec!["catalogue".to_owned()],
                tool_timeouts: self.tool_timeouts.clone(),
                ..HostOptions::new(id)
            };
            let host = Host::start(self.bus.clone(), Arc::new(RmcpServer::new(products)), options).await?;
            Ok(host.serve_until(stop))
        }
        .boxed()
    }
}
