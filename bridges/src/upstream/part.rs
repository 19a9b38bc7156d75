//! A child as a part of the platform: put on the bus when it is ready, taken off when it ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::mcp::Era;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, Host, HostOptions,
    supervise::{Part, PartError, RunningPart},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    child::Child,
    error::UpstreamError,
    handshake::connect,
    options::{ChildOptions, EraKnob, Limits},
    server::ChildServer,
};

/// How long the host of a child that has ended may take to hand out its last answers before a new one starts.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// A server that is a child process, for [`runtime::supervise::keep`] to run.
pub struct ChildUpstream {
    bus: Bus,
    options: ChildOptions,
    /// The era that the last run was found to speak, so that a restart need not find out again. Held only to read or set it.
    era: Mutex<Option<Era>>,
}

impl ChildUpstream {
    /// A child that is not started yet.
    #[must_use]
    pub fn new(bus: Bus, options: ChildOptions) -> Self {
        Self {
            bus,
            options,
            era: Mutex::new(None),
        }
    }

    async fn start_child(&self, stop: CancellationToken) -> Result<RunningPart, UpstreamError> {
        let connected = connect(&self.options, self.knob(), Limits::default()).await;
        self.remember(connected.as_ref().ok().map(|(_, session)| session.version.era()));
        let (mut child, session) = connected?;
        info!(server.id = %self.options.id, version = %session.version, "the child process is ready");
        let options = HostOptions {
            tags: self.options.tags.clone(),
            max_in_flight: self.options.max_in_flight,
            tool_timeouts: self.options.tool_timeouts.clone(),
            ..HostOptions::new(self.options.id.clone())
        };
        let server = ChildServer {
            link: Arc::clone(child.link()),
            session,
        };
        let host = tokio::select! {
            host = Host::start(self.bus.clone(), Arc::new(server), options) => host?,
            error = child.ended() => return Err(error),
        };
        Ok(run(child, host, stop).boxed())
    }

    fn knob(&self) -> EraKnob {
        let known = *self.era.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.options.era, known) {
            (EraKnob::Auto, Some(Era::Legacy)) => EraKnob::Legacy,
            (EraKnob::Auto, Some(Era::Modern)) => EraKnob::Modern,
            (knob, _) => knob,
        }
    }

    fn remember(&self, era: Option<Era>) {
        *self.era.lock().unwrap_or_else(PoisonError::into_inner) = era;
    }
}

async fn run(mut child: Child, host: Host, stop: CancellationToken) -> Result<(), PartError> {
    tokio::select! {
        () = stop.cancelled() => {}
        error = child.ended() => {
            // It goes on answering those who are slow to listen, off the bus already.
            let _ = timeout(LEAVES_WITHIN, host.stop()).await;
            return Err(error.into());
        }
    }
    let mut leaving = host.stop().boxed();
    tokio::select! {
        () = &mut leaving => {}
        // Whoever still waits for an answer has an error now, and the host can leave.
        _ = child.ended() => leaving.await,
    }
    child.shut_down().await;
    Ok(())
}

impl Part for ChildUpstream {
    fn name(&self) -> &str {
        self.options.id.as_str()
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move { Ok(self.start_child(stop).await?) }.boxed()
    }
}
