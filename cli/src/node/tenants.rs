//! What a process has for each tenant: what doors ask through, what is told of servers, and what legacy clients need.

use bridges::{
    admin::Fleet,
    front::{Bounds, Front},
    legacy::Doors,
    tenants::Tenants,
};
use bus_schema::{ServerId, card::name_of};
use futures::future::join_all;
use runtime::{Catalogue, Directory, virtuals::Virtuals};
use tracing::warn;

use super::Node;
use crate::config::Config;

impl Node {
    /// What doors ask through for the tenant that the command acts in; made on first use.
    ///
    /// # Errors
    /// When the bus refuses the directory's subscriptions.
    pub async fn front(&mut self, config: &Config) -> anyhow::Result<Front> {
        self.front_of(config, &config.tenant).await
    }

    /// The same for any tenant.
    ///
    /// # Errors
    /// When the bus refuses the directory's subscriptions.
    pub async fn front_of(&mut self, config: &Config, tenant: &str) -> anyhow::Result<Front> {
        let wanted = self.open_fronts(config, &[tenant.to_owned()]).await?;
        let front = wanted.of(tenant).cloned();
        front.ok_or_else(|| anyhow::anyhow!("there is no front of tenant `{tenant}`"))
    }

    /// Those of all tenants that the configuration knows.
    ///
    /// # Errors
    /// When the bus refuses the directories' subscriptions.
    pub async fn fronts(&mut self, config: &Config) -> anyhow::Result<Tenants<Front>> {
        self.open_fronts(config, &config.tenants()).await
    }

    /// Makes those that are not there yet, and gives all that are wanted.
    pub(super) async fn open_fronts(
        &mut self,
        config: &Config,
        tenants: &[String],
    ) -> anyhow::Result<Tenants<Front>> {
        let is_new = |tenant: &&String| !self.fronts.contains_key(*tenant);
        let mut new: Vec<String> = tenants.iter().filter(is_new).cloned().collect();
        new.sort_unstable();
        new.dedup();
        // What tenants can share, such as what callers are counted by, is there once.
        let (mut virtuals, mut bounds) = match self.fronts.values().next() {
            Some(front) => (Some(front.virtuals().clone()), Some(front.bounds().clone())),
            None => (None, None),
        };
        for directory in Directory::start_each(&self.bus, &new).await? {
            let tenant = directory.tenant().to_owned();
            let configured = config.virtuals_of(&tenant);
            let own = match &virtuals {
                Some(others) => others.of_another(&self.bus, &tenant, configured),
                None => Virtuals::open(&self.bus, &tenant, configured).await,
            };
            let shared = match bounds.take() {
                Some(bounds) => bounds,
                None => Box::pin(Bounds::open(&self.bus, config.limits.clone())).await,
            };
            bounds = Some(shared.clone());
            virtuals = Some(own.clone());
            let catalogue = Catalogue::new(self.bus.clone(), directory);
            let front = Front::new(self.bus.clone(), catalogue, own, config.call_timeout, shared);
            self.fronts.insert(tenant, front);
        }
        let wanted = tenants.iter();
        let wanted = wanted.filter_map(|tenant| Some((tenant.clone(), self.fronts.get(tenant)?.clone())));
        Ok(wanted.collect())
    }

    /// What is told of the servers of the tenant that the command acts in, declared or on the bus.
    ///
    /// # Errors
    /// When the bus refuses the directory's subscriptions.
    pub async fn fleet(&mut self, config: &Config) -> anyhow::Result<Fleet> {
        let front = self.front(config).await?;
        Ok(self.fleet_of(config, front).await)
    }

    /// The same of all tenants that the configuration knows.
    ///
    /// # Errors
    /// When the bus refuses the directories' subscriptions.
    pub async fn fleets(&mut self, config: &Config) -> anyhow::Result<Tenants<Fleet>> {
        let mut fleets = Vec::new();
        for (tenant, front) in self.fronts(config).await?.each() {
            fleets.push((tenant.to_owned(), self.fleet_of(config, front.clone()).await));
        }
        Ok(fleets.into_iter().collect())
    }

    async fn fleet_of(&self, config: &Config, front: Front) -> Fleet {
        let declared = match self.declared.open(&self.bus).await {
            Ok(declared) => Some(declared.clone()),
            Err(error) => {
                warn!(%error, "servers cannot be registered on this bus");
                None
            }
        };
        Fleet::new(front, declared, config.private()).named(config.naming.clone())
    }
}

/// The id of a server of a tenant, from its name among those of all tenants; `None` for another's.
pub(super) fn own_id(tenant: &str, name: &str) -> Option<ServerId> {
    let id = name.rsplit('/').next()?.parse().ok()?;
    (name_of(tenant, &id) == name).then_some(id)
}

/// Starts what the doors of each tenant need for legacy clients.
pub(super) async fn start_doors(fronts: &Tenants<Front>, config: &Config) -> anyhow::Result<Tenants<Doors>> {
    let mut all = Vec::new();
    for (tenant, front) in fronts.each() {
        let doors = Doors::start(front.clone(), config.max_sessions_per_principal).await?;
        all.push((tenant.to_owned(), doors));
    }
    Ok(all.into_iter().collect())
}

/// Ends what still runs for clients that have gone, of all tenants.
pub(super) async fn stop_doors(doors: Tenants<Doors>) {
    join_all(doors.into_each().into_values().map(Doors::stop)).await;
}
