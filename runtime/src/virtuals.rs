//! The virtual servers that are defined: every process with doors holds a picture of them, and writes are fenced by revision.
//!
//! Some are kept in the bucket, where REST and the command line put them; others stand in a process's configuration, and are that process's
//! own. What a definition comes to is worked out at the doors.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus_schema::{
    ServerId,
    registry::{Record, Removed},
    virtual_server::{Defined, VirtualServer},
};
use tokio::sync::watch;

use crate::{
    bus::Bus,
    store::{BucketOptions, Live, Named, Picture, StoreError},
};

const BUCKET: BucketOptions = BucketOptions {
    name: "virtual",
    max_age: Duration::ZERO,
    max_bytes: 64 * 1024 * 1024,
    max_record_bytes: 128 * 1024,
};

/// A virtual server as this process knows it.
#[derive(Clone, Debug)]
pub struct Virtual {
    /// What was defined.
    pub definition: VirtualServer,
    /// How it is kept, with its revision; `None` when it stands in the configuration.
    pub kept: Option<(Defined, u64)>,
}

/// The virtual servers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Counts up at each change.
    pub generation: u64,
    /// By their ids. What stands in the configuration comes before what is kept.
    pub servers: BTreeMap<ServerId, Arc<Virtual>>,
    /// What is left of those that were removed, each with its revision.
    pub removed: BTreeMap<ServerId, (Removed, u64)>,
}

impl Live for Record<Defined> {
    fn is_there(&self) -> bool {
        self.entry().is_some()
    }
}

/// The virtual servers of a tenant.
#[derive(Clone)]
pub struct Virtuals {
    kept: Named<Record<Defined>>,
    table: watch::Receiver<Arc<Table>>,
    configured: watch::Sender<Vec<VirtualServer>>,
}

impl Virtuals {
    /// Reads what is kept, and goes on to do so for as long as the bus connection stands. On a bus without JetStream there are only those of
    /// the configuration.
    pub async fn open(bus: &Bus, tenant: &str, configured: Vec<VirtualServer>) -> Self {
        let kept = Named::open(bus, tenant, "virtual server", BUCKET).await;
        Self::of(bus, kept, configured)
    }

    /// The same for another tenant, from what is read for this one.
    #[must_use]
    pub fn of_another(&self, bus: &Bus, tenant: &str, configured: Vec<VirtualServer>) -> Self {
        Self::of(bus, self.kept.of_another(tenant), configured)
    }

    fn of(bus: &Bus, kept: Named<Record<Defined>>, configured: Vec<VirtualServer>) -> Self {
        let (configured, mut changed) = watch::channel(configured);
        let mut picture = kept.changes();
        let (tables, table) = watch::channel(Arc::new(put_together(
            0,
            &kept,
            &picture.borrow_and_update(),
            &changed.borrow_and_update(),
        )));
        let virtuals = Self {
            kept: kept.clone(),
            table,
            configured,
        };
        bus.spawn(async move {
            let mut has_picture = true;
            loop {
                tokio::select! {
                    there = picture.changed(), if has_picture => has_picture = there.is_ok(),
                    there = changed.changed() => if there.is_err() { return },
                }
                let generation = tables.borrow().generation + 1;
                let next = put_together(
                    generation,
                    &kept,
                    &picture.borrow_and_update(),
                    &changed.borrow_and_update(),
                );
                tables.send_replace(Arc::new(next));
            }
        });
        virtuals
    }

    /// All of them at this moment.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.borrow())
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &ServerId) -> Option<Arc<Virtual>> {
        self.table.borrow().servers.get(id).cloned()
    }

    /// Tells of each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Table>> {
        self.table.clone()
    }

    /// Takes the place of what stood in the configuration.
    pub fn configure(&self, servers: Vec<VirtualServer>) {
        self.configured.send_replace(servers);
    }

    /// Those that are kept, to write them.
    #[must_use]
    pub fn kept(&self) -> &Named<Record<Defined>> {
        &self.kept
    }

    /// Forgets for good what was removed before a moment.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn forget_before(&self, moment: &str) -> Result<(), StoreError> {
        for (id, (removed, revision)) in &self.table().removed {
            if removed.removed_at.as_str() >= moment {
                continue;
            }
            match self.kept.remove_at(id, *revision).await {
                // Somebody else was quicker, or it is defined again.
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn put_together(
    generation: u64,
    named: &Named<Record<Defined>>,
    picture: &Picture<Record<Defined>>,
    configured: &[VirtualServer],
) -> Table {
    let removed = named.of_tenant(picture).filter_map(|(id, record)| {
        let removed = record.value.removed()?.clone();
        Some((id, (removed, record.revision)))
    });
    let kept = named.of_tenant(picture).filter_map(|(_, record)| {
        let defined = record.value.entry()?;
        Some(Virtual {
            definition: defined.definition.clone(),
            kept: Some((defined.clone(), record.revision)),
        })
    });
    let configured = configured.iter().map(|definition| Virtual {
        definition: definition.clone(),
        kept: None,
    });
    Table {
        generation,
        removed: removed.collect(),
        servers: kept
            .chain(configured)
            .map(|server| (server.definition.id.clone(), Arc::new(server)))
            .collect(),
    }
}
