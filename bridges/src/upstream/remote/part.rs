//! A remote server as a part of the platform: put on the bus when it is connected, taken off when it is gone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, Host, HostOptions,
    supervise::{Part, PartError, RunningPart},
};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::upstream::{error::UpstreamError, options::Limits, server::ChildServer};

use super::{
    connect::{Found, Server},
    connection::Remote,
    error::RemoteError,
    options::RemoteOptions,
};

/// How long the host of a server that is gone may take to hand out its last answers before it is connected to again.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// A server at a URL, for [`runtime::supervise::keep`] to run.
pub struct RemoteUpstream {
    bus: Bus,
    options: RemoteOptions,
    server: Server,
    /// What the last connection was found to speak, so that the next need not find out again. Held only to read or set it.
    found: Mutex<Option<Found>>,
}

impl RemoteUpstream {
    /// A server that is not connected to yet.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting that cannot be used.
    pub fn new(bus: Bus, options: RemoteOptions) -> Result<Self, RemoteError> {
        Ok(Self {
            bus,
            server: Server::new(&options)?,
            options,
            found: Mutex::new(None),
        })
    }

    async fn start_remote(&self, stop: CancellationToken) -> Result<RunningPart, UpstreamError> {
        let known = *self.found.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is asked anything on this connection, so nothing is declared.
        let connected = self.server.connect(known, &json!({}), Limits::default()).await;
        let found = connected.as_ref().ok().map(|(remote, _)| remote.found());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        let (mut remote, session) = connected?;
        info!(server.id = %self.options.id, version = %session.version, "the remote server is connected");
        let options = HostOptions {
            tags: self.options.tags.clone(),
            max_in_flight: self.options.max_in_flight,
            tool_timeouts: self.options.tool_timeouts.clone(),
            ..HostOptions::new(self.options.id.clone())
        };
        let server = ChildServer {
            link: Arc::clone(remote.link()),
            session,
        };
        let host = tokio::select! {
            host = Host::start(self.bus.clone(), Arc::new(server), options) => host?,
            error = remote.ended() => return Err(error),
        };
        Ok(run(remote, host, stop).boxed())
    }
}

async fn run(mut remote: Remote, host: Host, stop: CancellationToken) -> Result<(), PartError> {
    tokio::select! {
        () = stop.cancelled() => {}
        error = remote.ended() => {
            // It goes on answering those who are slow to listen, off the bus already.
            let _ = timeout(LEAVES_WITHIN, host.stop()).await;
            return Err(error.into());
        }
    }
    let mut leaving = host.stop().boxed();
    tokio::select! {
        () = &mut leaving => {}
        // Whoever still waits for an answer has an error now, and the host can leave.
        _ = remote.ended() => leaving.await,
    }
    remote.shut_down().await;
    Ok(())
}

impl Part for RemoteUpstream {
    fn name(&self) -> &str {
        self.options.id.as_str()
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move { Ok(self.start_remote(stop).await?) }.boxed()
    }
}
