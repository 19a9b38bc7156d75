//! Runs an upstream server on the bus, however it is connected to: from its first connection until it ends or is stopped.

use std::{sync::Arc, time::Duration};

use bus_schema::mcp::Era;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, Host, HostOptions,
    supervise::{PartError, RunningPart},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    connection::{Carrier, Connection, Connector, Opening},
    error::UpstreamError,
    lanes::Lanes,
    options::AskingOptions,
    park::Parks,
    server::UpstreamServer,
};

/// How long the host of a server that has ended may take to hand out its last answers before a new one starts.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// What outlives single runs of an upstream server.
pub(super) struct Upstream {
    bus: Bus,
    options: HostOptions,
    connector: Arc<dyn Connector>,
    /// What belongs to single callers outlives the connection that all share.
    lanes: Arc<Lanes>,
    parks: Arc<Parks>,
}

impl Upstream {
    pub(super) fn new(
        bus: Bus,
        options: HostOptions,
        asking: AskingOptions,
        connector: Arc<dyn Connector>,
    ) -> Self {
        let parks = Parks::new(options.id.clone(), bus.instance().to_owned(), asking.input_ttl);
        let lanes = Lanes::new(
            options.id.clone(),
            Arc::clone(&connector),
            asking.into(),
            Arc::clone(&parks),
        );
        Self {
            bus,
            options,
            connector,
            lanes,
            parks,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.options.id.as_str()
    }

    /// Opens the connection that all share, and puts the server on the bus. `connected` hears which era it speaks.
    ///
    /// # Errors
    /// [`UpstreamError`] when it cannot be connected to, or cannot be put on the bus.
    pub(super) async fn start(
        &self,
        opening: Opening,
        connected: impl FnOnce(Option<Era>),
        stop: CancellationToken,
    ) -> Result<RunningPart, UpstreamError> {
        let connection = self.connector.connect(opening).await;
        connected(
            connection
                .as_ref()
                .ok()
                .map(|connection| connection.session.version.era()),
        );
        let Connection {
            link,
            session,
            mut carrier,
        } = connection?;
        info!(server.id = %self.options.id, version = %session.version, "the upstream server is ready");
        let server = Arc::new(UpstreamServer::new(
            link,
            session,
            Arc::clone(&self.lanes),
            Arc::clone(&self.parks),
        ));
        let host = tokio::select! {
            host = Host::start(self.bus.clone(), Arc::clone(&server) as _, self.options.clone()) => host?,
            error = carrier.ended() => return Err(error),
        };
        Ok(run(server, carrier, host, stop).boxed())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Told to stop while it was down, it has not ended them.
        self.parks.clear();
        self.lanes.stop();
    }
}

async fn run(
    server: Arc<UpstreamServer>,
    mut carrier: Box<dyn Carrier>,
    host: Host,
    stop: CancellationToken,
) -> Result<(), PartError> {
    tokio::select! {
        () = stop.cancelled() => {}
        never = server.accompany() => match never {},
        error = carrier.ended() => {
            leave(&server, host.stop().boxed()).await;
            return Err(error.into());
        }
    }
    let mut leaving = host.stop().boxed();
    tokio::select! {
        () = &mut leaving => {}
        // Whoever still waits for an answer has an error now, and the host can leave.
        _ = carrier.ended() => leaving.await,
    }
    // Nobody comes back to them.
    server.parks.clear();
    server.lanes.close().await;
    carrier.shut_down().await;
    Ok(())
}

/// Takes a server off the bus that has ended. Its host goes on answering those who are slow to listen.
async fn leave(server: &UpstreamServer, mut leaving: BoxFuture<'_, ()>) {
    if timeout(LEAVES_WITHIN, &mut leaving).await.is_err() {
        // Calls on connections of their own must not outlast their host: the next one would hear of them as well.
        server.over.cancel();
        let _ = timeout(LEAVES_WITHIN, leaving).await;
    }
}
