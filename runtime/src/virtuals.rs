//! The virtual servers that are defined: every process with doors holds a picture of them, and writes are fenced by revision.
//!
//! Some are kept in the bucket, where REST and the command line put them; others stand in a process's configuration, and are that process's
//! own. What a definition comes to is worked out at the doors.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus_schema::{
    ServerId,
    virtual_server::{Defined, VirtualServer},
};
use tokio::sync::watch;

use crate::{
    bus::Bus,
    store::{BucketOptions, Named, Picture},
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
}

/// The virtual servers of a tenant.
#[derive(Clone)]
pub struct Virtuals {
    kept: Named<Defined>,
    table: watch::Receiver<Arc<Table>>,
    configured: watch::Sender<Vec<VirtualServer>>,
}

impl Virtuals {
    /// Reads what is kept, and goes on to do so for as long as the bus connection stands. On a bus without JetStream there are only those of
    /// the configuration.
    pub async fn open(bus: &Bus, tenant: &str, configured: Vec<VirtualServer>) -> Self {
        let kept = Named::open(bus, tenant, "virtual server", BUCKET).await;
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
    pub fn kept(&self) -> &Named<Defined> {
        &self.kept
    }
}

fn put_together(
    generation: u64,
    named: &Named<Defined>,
    picture: &Picture<Defined>,
    configured: &[VirtualServer],
) -> Table {
    let kept = named.of_tenant(picture).map(|(_, record)| Virtual {
        definition: record.value.definition.clone(),
        kept: Some((record.value.clone(), record.revision)),
    });
    let configured = configured.iter().map(|definition| Virtual {
        definition: definition.clone(),
        kept: None,
    });
    Table {
        generation,
        servers: kept
            .chain(configured)
            .map(|server| (server.definition.id.clone(), Arc::new(server)))
            .collect(),
    }
}
