//! Brings the servers of a running process in line with a configuration file that has changed.

use std::{collections::BTreeSet, sync::Arc};

use bus_schema::ServerId;
use futures::future::join_all;
use runtime::supervise::{self, Part};
use tracing::warn;

use super::{Node, REGISTRY};
use crate::config::{Config, ServerLine};

/// Which servers of the file a process takes that it did not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adds {
    /// Every one.
    AllOfTheFile,
    /// None: it serves what it was told to.
    None,
}

impl Node {
    /// Starts, stops and restarts the servers whose lines are not what they were, and gives their ids. A server whose new line
    /// cannot be used stays as it is.
    pub async fn reload(&mut self, old: &Config, new: &Config, adds: Adds) -> Vec<String> {
        if let Err(error) = Box::pin(self.open_connections(new)).await {
            warn!(error = format!("{error:#}"), "users' credentials cannot be kept");
        }
        let lines = old.servers.iter().chain(&new.servers);
        let ids: BTreeSet<_> = lines.map(|line| line.id.clone()).collect();
        let (mut changed, mut starting, mut stopping) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let after = line(new, &id);
            let is_same = line(old, &id) == after && old.timeouts_of(&id) == new.timeouts_of(&id);
            let kept = self.servers.iter().position(|kept| kept.name() == id.as_str());
            let is_ours = kept.is_some() || (after.is_some() && adds == Adds::AllOfTheFile);
            if is_same || !is_ours {
                continue;
            }
            if let Some(line) = after {
                match self.external(new, line) {
                    Ok(part) => starting.push(part),
                    Err(error) => {
                        warn!(error = format!("{error:#}"), server.id = %id, "the changed line of a server cannot be used; it stays as it was");
                        continue;
                    }
                }
            }
            stopping.extend(kept.map(|at| self.servers.swap_remove(at).stop()));
            changed.push(id.to_string());
        }
        if let Some(front) = self.front.as_ref().filter(|_| old.virtuals != new.virtuals) {
            front.virtuals().configure(new.virtuals.clone());
            changed.push("virtual servers".to_owned());
        }
        if old.integrity != new.integrity && self.services.iter().any(|kept| kept.name() == REGISTRY) {
            changed.extend(self.take_policies(new));
        }
        if let Some(front) = self.front.as_ref().filter(|_| old.limits != new.limits) {
            front.limits().configure(new.limits.clone());
            changed.push("limits".to_owned());
        }
        join_all(stopping).await;
        for part in starting {
            self.start(part).await;
        }
        changed
    }

    /// Hands the registry of this process what is done about changed tools.
    fn take_policies(&self, new: &Config) -> Option<String> {
        if new.integrity.is_none() {
            warn!(
                "[integrity] is gone from the file; the policies of the platform stay as they are, and policy = \"warn\" brings the usual one back"
            );
            return None;
        }
        self.policies.send_replace(new.integrity.clone());
        Some("the policies for changed tools".to_owned())
    }

    async fn start(&mut self, part: Arc<dyn Part>) {
        match supervise::keep(part, self.bus.metrics().clone()).await {
            Ok(kept) => self.servers.push(kept),
            Err(error) => warn!(%error, "cannot keep a server"),
        }
    }
}

fn line<'a>(config: &'a Config, id: &ServerId) -> Option<&'a ServerLine> {
    config.servers.iter().find(|line| line.id == *id)
}
