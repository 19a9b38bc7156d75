//! A declared server as a part that ends at once when this process may no longer run it.

use std::sync::{Arc, OnceLock};

use bus_schema::registry::Entry;
use futures::{FutureExt as _, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use super::Make;
use crate::supervise::{Part, PartError, RunningPart};

pub(super) struct Placed {
    /// The server's name among those of all tenants.
    pub(super) name: String,
    /// Whose it is.
    pub(super) tenant: Arc<str>,
    pub(super) entry: Entry,
    /// Grows with each owner that the server gets, over all processes.
    pub(super) epoch: u64,
    pub(super) make: Make,
    /// Cancelled when this process may no longer run it.
    pub(super) fence: CancellationToken,
    pub(super) made: OnceLock<Arc<dyn Part>>,
}

impl Placed {
    fn part(&self) -> Result<Arc<dyn Part>, PartError> {
        if let Some(part) = self.made.get() {
            return Ok(Arc::clone(part));
        }
        let part = (self.make)(&self.tenant, &self.entry, self.epoch)?;
        Ok(Arc::clone(self.made.get_or_init(|| part)))
    }
}

impl Part for Placed {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let lost = || PartError::from("this process may no longer run it");
            let part = self.part()?;
            let running = tokio::select! {
                biased;
                () = self.fence.cancelled() => return Err(lost()),
                started = part.start(stop) => started?,
            };
            let fence = self.fence.clone();
            let fenced = async move {
                tokio::select! {
                    biased;
                    () = fence.cancelled() => Err(lost()),
                    ended = running => ended,
                }
            };
            Ok(fenced.boxed() as RunningPart)
        }
        .boxed()
    }
}
