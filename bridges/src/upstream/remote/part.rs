//! A remote server as a part of the platform.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, HostOptions,
    supervise::{Part, PartError, RunningPart},
};
use tokio_util::sync::CancellationToken;

use crate::upstream::{
    connection::{Association, Carrier, Connection, Connector, Opening},
    error::UpstreamError,
    options::Limits,
    serving::Upstream,
};

use super::{
    connect::{Found, Server},
    connection::Remote,
    error::RemoteError,
    options::RemoteOptions,
};

/// A server at a URL, for [`runtime::supervise::keep`] to run.
pub struct RemoteUpstream {
    upstream: Upstream,
    connector: Arc<RemoteConnector>,
}

impl RemoteUpstream {
    /// A server that is not connected to yet.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting that cannot be used.
    pub fn new(bus: Bus, options: RemoteOptions) -> Result<Self, RemoteError> {
        let connector = Arc::new(RemoteConnector {
            server: Server::new(&options)?,
            found: Mutex::new(None),
        });
        let host = HostOptions {
            tags: options.tags,
            max_in_flight: options.max_in_flight,
            tool_timeouts: options.tool_timeouts,
            ..HostOptions::new(options.id)
        };
        Ok(Self {
            upstream: Upstream::new(bus, host, options.asking, connector.clone()),
            connector,
        })
    }
}

impl Part for RemoteUpstream {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let opening = Opening::shared(self.connector.server.era());
            let connected = |era: Option<_>| {
                if era.is_none() {
                    // It may be another one by now.
                    self.connector.remember(None);
                }
            };
            Ok(self.upstream.start(opening, connected, stop).await?)
        }
        .boxed()
    }
}

/// Opens connections to a server. To a legacy one each is a session.
struct RemoteConnector {
    server: Server,
    /// What the last connection was found to speak, so that the next need not find out again. Held only to read or set it.
    found: Mutex<Option<Found>>,
}

impl RemoteConnector {
    fn found(&self) -> Option<Found> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, found: Option<Found>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl Connector for RemoteConnector {
    fn connect(&self, opening: Opening) -> BoxFuture<'_, Result<Connection, UpstreamError>> {
        async move {
            let limits = Limits::default();
            let connected = self.server.connect(self.found(), &opening.declared, limits);
            let (remote, session) = connected.await?;
            self.remember(Some(remote.found()));
            let link = Arc::clone(remote.link());
            Ok(Connection::new(link, session, Box::new(remote)))
        }
        .boxed()
    }

    fn association(&self) -> Association {
        match self.found() {
            Some(found) if found.has_streams() => Association::Streams,
            _ => Association::None,
        }
    }
}

impl Carrier for Remote {
    fn ended(&mut self) -> BoxFuture<'_, UpstreamError> {
        Self::ended(self).boxed()
    }

    fn shut_down(self: Box<Self>) -> BoxFuture<'static, ()> {
        Self::shut_down(*self).boxed()
    }
}
