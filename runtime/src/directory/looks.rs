//! Lists that go out otherwise than before, though no server has changed: guardrails look at them, or do no more. Whoever keeps lists makes them
//! anew then.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::Directory;
use crate::{bus::Bus, guardrails::AllGuardrails};

/// How long other processes may take to hear of what this one has heard.
const HEARD_EVERYWHERE: Duration = Duration::from_secs(1);

/// By what the lists of a process's tenants are looked at.
pub(super) struct Looks {
    guardrails: AllGuardrails,
    changes: watch::Receiver<u64>,
    /// For each tenant: by which version, if at all.
    by: Vec<Option<u64>>,
    /// When lists are made anew once more, as hosts hear of other guardrails when doors do.
    once_more: Option<Instant>,
}

impl Looks {
    pub(super) fn new(bus: &Bus) -> Self {
        let guardrails = bus.guardrails();
        Self {
            changes: guardrails.changes(),
            guardrails,
            by: Vec::new(),
            once_more: None,
        }
    }

    /// Waits until lists may go out otherwise. Dropping this loses nothing.
    pub(super) async fn are_others(&mut self, directories: &[Directory]) {
        self.by.resize(directories.len(), None);
        loop {
            let again = self.once_more;
            tokio::select! {
                Ok(()) = self.changes.changed() => {
                    let each = directories.iter().map(|directory| self.by_which(directory));
                    let now: Vec<_> = each.collect();
                    if now != self.by {
                        self.by = now;
                        self.once_more = Some(Instant::now() + HEARD_EVERYWHERE);
                        return;
                    }
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.once_more = None;
                    return;
                }
                else => std::future::pending().await,
            }
        }
    }

    /// By which guardrails the lists of a tenant are looked at, if they are; by any where these are not kept.
    fn by_which(&self, directory: &Directory) -> Option<u64> {
        let in_force = self.guardrails.of(directory.tenant());
        let looks = in_force
            .rails()
            .is_ok_and(|guardrails| guardrails.look_at_lists());
        looks.then(|| in_force.version.unwrap_or_default())
    }
}

impl Directory {
    /// Has lists made anew.
    pub(super) fn look_anew(&self) {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        self.publish(&known);
    }
}
