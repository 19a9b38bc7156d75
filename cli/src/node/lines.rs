//! Brings the servers of a running process in line with a configuration file that has changed.

use std::{collections::BTreeSet, sync::Arc};

use bridges::tls::TlsOptions;
use futures::future::join_all;
use runtime::supervise::{self, Part};
use tokio::sync::watch;
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
        let names: BTreeSet<_> = lines.map(ServerLine::name).collect();
        let (mut changed, mut starting, mut stopping) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let after = line(new, &name);
            let timeouts = |config: &Config| {
                let line = line(config, &name)?;
                Some(config.timeouts_of(&line.tenant, &line.id))
            };
            let is_same = line(old, &name) == after && timeouts(old) == timeouts(new);
            let kept = self.servers.iter().position(|kept| kept.name() == name);
            let is_ours = kept.is_some() || (after.is_some() && adds == Adds::AllOfTheFile);
            if is_same || !is_ours {
                continue;
            }
            if let Some(line) = after {
                match self.external(new, line) {
                    Ok(part) => starting.push(part),
                    Err(error) => {
                        warn!(
                            error = format!("{error:#}"),
                            server = name,
                            "the changed line of a server cannot be used; it stays as it was"
                        );
                        continue;
                    }
                }
            }
            stopping.extend(kept.map(|at| self.servers.swap_remove(at).stop()));
            changed.push(name);
        }
        changed.extend(self.take_rules(old, new));
        join_all(stopping).await;
        for part in starting {
            self.start(part).await;
        }
        changed
    }

    /// Puts what else the file says in force, and names what has changed.
    fn take_rules(&self, old: &Config, new: &Config) -> Vec<String> {
        let mut changed = Vec::new();
        if old.virtuals != new.virtuals && !self.fronts.is_empty() {
            for (tenant, front) in &self.fronts {
                front.virtuals().configure(new.virtuals_of(tenant));
            }
            changed.push("virtual servers".to_owned());
        }
        if old.integrity != new.integrity && self.services.iter().any(|kept| kept.name() == REGISTRY) {
            changed.extend(self.take_policies(new));
        }
        // All tenants' fronts have the same.
        if let Some(front) = self.fronts.values().next().filter(|_| old.limits != new.limits) {
            front.limits().configure(new.limits.clone());
            changed.push("limits".to_owned());
        }
        if let (Some(tls), Some(new)) = (&self.tls, &new.tls)
            && *tls.borrow() != *new
        {
            tls.send_replace(new.clone());
            changed.push("the files of [http.tls]".to_owned());
        }
        if old.guardrails != new.guardrails {
            changed.extend(self.take_guardrails(new));
        }
        changed
    }

    /// Puts what the file says of calls in force, where nothing is kept.
    fn take_guardrails(&self, new: &Config) -> Option<String> {
        match self.bus.guardrails().configure(new.guardrails.clone()) {
            Ok(()) => Some("guardrails".to_owned()),
            Err(bad) => {
                warn!(%bad, "the changed guardrails cannot be used; they stay as they were");
                None
            }
        }
    }

    /// How the HTTP door speaks TLS, and will after each change of the file.
    pub(super) fn follow_tls(&mut self, config: &Config) -> Option<watch::Receiver<TlsOptions>> {
        let options = config.tls.clone()?;
        let tls = self.tls.get_or_insert_with(|| watch::Sender::new(options));
        Some(tls.subscribe())
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

fn line<'a>(config: &'a Config, name: &str) -> Option<&'a ServerLine> {
    config.servers.iter().find(|line| line.name() == name)
}
