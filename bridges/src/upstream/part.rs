//! An upstream server as a part of the platform: put on the bus when it is ready, taken off when it ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{card::name_of, mcp::Era};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Breaker, Bus, Directory, Host, HostOptions,
    supervise::{Part, PartError, RunningPart},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    child::ChildConnector,
    connection::{Carrier, Connection, Connector, Opening},
    error::UpstreamError,
    lanes::Lanes,
    options::{AskingOptions, ChildOptions, EraKnob, Limits},
    park::Parks,
    polling,
    remote::{RemoteConnector, RemoteError, RemoteOptions},
    server::UpstreamServer,
    tasks::Tasks,
};

/// How long the host of a server that has ended may take to hand out its last answers before a new one starts.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// A foreign server, for [`runtime::supervise::keep`] to run.
pub struct Upstream {
    /// Its name among the servers of all tenants.
    name: String,
    bus: Bus,
    host: HostOptions,
    knob: EraKnob,
    connector: Arc<dyn Connector>,
    /// What belongs to single callers outlives the connection that all share.
    lanes: Arc<Lanes>,
    parks: Arc<Parks>,
    tasks: Arc<Tasks>,
    /// The era that the last run was found to speak, so that a restart need not find out again. Held only to read or set it.
    era: Mutex<Option<Era>>,
}

impl Upstream {
    /// A server that is a child process; it is not started yet.
    #[must_use]
    pub fn child(bus: Bus, options: ChildOptions) -> Self {
        let host = HostOptions {
            tags: options.tags.clone(),
            max_in_flight: options.max_in_flight,
            tool_timeouts: options.tool_timeouts.clone(),
            call_timeout: options.call_timeout,
            breaker: Breaker::new(options.breaker),
            retry: Some(options.retry),
            tasks: options.tasks.clone(),
            ..HostOptions::new(options.id.clone())
        };
        let (knob, asking) = (options.era, options.asking);
        let connector = ChildConnector::new(options, Limits::default());
        Self::new(bus, host, knob, asking, Arc::new(connector))
    }

    /// A server at a URL; it is not connected to yet.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting that cannot be used.
    pub fn remote(bus: Bus, options: RemoteOptions) -> Result<Self, RemoteError> {
        let connector = RemoteConnector::new(&options, Limits::default())?;
        let host = HostOptions {
            tags: options.tags,
            max_in_flight: options.max_in_flight,
            tool_timeouts: options.tool_timeouts,
            call_timeout: options.call_timeout,
            breaker: Breaker::new(options.breaker),
            retry: Some(options.retry),
            tasks: options.tasks,
            ..HostOptions::new(options.id)
        };
        Ok(Self::new(
            bus,
            host,
            options.era,
            options.asking,
            Arc::new(connector),
        ))
    }

    fn new(
        bus: Bus,
        host: HostOptions,
        knob: EraKnob,
        asking: AskingOptions,
        connector: Arc<dyn Connector>,
    ) -> Self {
        let parks = Parks::new(
            host.id.clone(),
            bus.instance().to_owned(),
            asking.input_ttl,
            Some(bus.audit().clone()),
        );
        let tasks = Tasks::new(bus.instance().to_owned());
        let lanes = Lanes::new(
            host.id.clone(),
            Arc::clone(&connector),
            asking.into(),
            Arc::clone(&parks),
        );
        Self {
            name: name_of(&host.tenant, &host.id),
            bus,
            host,
            knob,
            connector,
            lanes,
            parks,
            tasks,
            era: Mutex::new(None),
        }
    }

    /// The same as a server of a tenant.
    #[must_use]
    pub fn of_tenant(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.host.tenant);
        self.name = name_of(tenant, &self.host.id);
        self
    }

    /// The same, which finds its other replicas here.
    #[must_use]
    pub fn among(mut self, directory: Directory) -> Self {
        self.host.peers = Some(directory);
        self
    }

    async fn start_server(&self, stop: CancellationToken) -> Result<RunningPart, UpstreamError> {
        let connected = self.connector.connect(Opening::shared(self.knob())).await;
        self.remember(
            connected
                .as_ref()
                .ok()
                .map(|connection| connection.session.version.era()),
        );
        let Connection {
            link,
            session,
            mut carrier,
        } = connected?;
        info!(server.id = %self.host.id, version = %session.version, "the server is ready");
        let server = Arc::new(UpstreamServer::new(
            link,
            session,
            Arc::clone(&self.lanes),
            Arc::clone(&self.parks),
            Arc::clone(&self.tasks),
        ));
        let host = tokio::select! {
            host = Host::start(self.bus.clone(), Arc::clone(&server) as _, self.host.clone()) => host?,
            error = carrier.ended() => return Err(error),
        };
        let connector = Arc::clone(&self.connector);
        Ok(run(server, connector, carrier, host, stop).boxed())
    }

    fn knob(&self) -> EraKnob {
        let known = *self.era.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.knob, known) {
            (EraKnob::Auto, Some(Era::Legacy)) => EraKnob::Legacy,
            (EraKnob::Auto, Some(Era::Modern)) => EraKnob::Modern,
            (knob, _) => knob,
        }
    }

    fn remember(&self, era: Option<Era>) {
        *self.era.lock().unwrap_or_else(PoisonError::into_inner) = era;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Told to stop while it was down, it has not ended them.
        self.parks.clear();
        self.tasks.clear();
        self.lanes.stop();
    }
}

async fn run(
    server: Arc<UpstreamServer>,
    connector: Arc<dyn Connector>,
    mut carrier: Box<dyn Carrier>,
    host: Host,
    stop: CancellationToken,
) -> Result<(), PartError> {
    tokio::select! {
        () = stop.cancelled() => {}
        never = server.accompany() => match never {},
        never = polling::watch(&*connector, host.health()) => match never {},
        () = connector.outdated() => {
            info!(server.id = %server.id(), "its secrets have changed; it finishes its calls and is started again");
            leave(host, &mut carrier).await;
            // Calls there that wait for input go on with what they began with.
            server.lanes.retire();
            carrier.shut_down().await;
            return Err(UpstreamError::Outdated.into());
        }
        error = carrier.ended() => {
            // It goes on answering those who are slow to listen, off the bus already.
            let mut leaving = host.stop().boxed();
            if timeout(LEAVES_WITHIN, &mut leaving).await.is_err() {
                // Calls on connections of their own must not outlast their host: the next one would hear of them as well.
                server.over.cancel();
                let _ = timeout(LEAVES_WITHIN, leaving).await;
            }
            return Err(error.into());
        }
    }
    leave(host, &mut carrier).await;
    // Nobody comes back to them.
    server.parks.clear();
    server.tasks.clear();
    server.lanes.close().await;
    carrier.shut_down().await;
    Ok(())
}

/// Takes a server off the bus that still runs.
async fn leave(host: Host, carrier: &mut Box<dyn Carrier>) {
    let mut leaving = host.stop().boxed();
    tokio::select! {
        () = &mut leaving => {}
        // Whoever still waits for an answer has an error now, and the host can leave.
        _ = carrier.ended() => leaving.await,
    }
}

impl Part for Upstream {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move { Ok(self.start_server(stop).await?) }.boxed()
    }
}
