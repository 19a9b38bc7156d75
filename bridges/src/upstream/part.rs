//! A child process as a part of the platform.

use std::sync::{Arc, Mutex, PoisonError};

use bus_schema::mcp::Era;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, HostOptions,
    supervise::{Part, PartError, RunningPart},
};
use tokio_util::sync::CancellationToken;

use super::{
    child::ChildConnector,
    connection::Opening,
    options::{ChildOptions, EraKnob, Limits},
    serving::Upstream,
};

/// A server that is a child process, for [`runtime::supervise::keep`] to run.
pub struct ChildUpstream {
    upstream: Upstream,
    era: EraKnob,
    /// The era that the last run was found to speak, so that a restart need not find out again. Held only to read or set it.
    found: Mutex<Option<Era>>,
}

impl ChildUpstream {
    /// A child that is not started yet.
    #[must_use]
    pub fn new(bus: Bus, options: ChildOptions) -> Self {
        let host = HostOptions {
            tags: options.tags.clone(),
            max_in_flight: options.max_in_flight,
            tool_timeouts: options.tool_timeouts.clone(),
            ..HostOptions::new(options.id.clone())
        };
        let (era, asking) = (options.era, options.asking);
        let connector = ChildConnector {
            options,
            limits: Limits::default(),
        };
        Self {
            upstream: Upstream::new(bus, host, asking, Arc::new(connector)),
            era,
            found: Mutex::new(None),
        }
    }

    fn knob(&self) -> EraKnob {
        let known = *self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.era, known) {
            (EraKnob::Auto, Some(Era::Legacy)) => EraKnob::Legacy,
            (EraKnob::Auto, Some(Era::Modern)) => EraKnob::Modern,
            (knob, _) => knob,
        }
    }

    fn remember(&self, era: Option<Era>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = era;
    }
}

impl Part for ChildUpstream {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let opening = Opening::shared(self.knob());
            let running = self.upstream.start(opening, |era| self.remember(era), stop);
            Ok(running.await?)
        }
        .boxed()
    }
}
