//! The virtual servers that are defined: every process with doors holds a picture of them, and writes are fenced by revision.
//!
//! Some are kept in the bucket, where REST and the command line put them; others stand in a process's configuration, and are that process's
//! own. What a definition comes to is worked out at the doors.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus_schema::{
    ServerId, Token,
    registry::{Record, Removed},
    virtual_server::{Defined, VirtualServer},
};
use tokio::sync::watch;
use tracing::debug;

use crate::{
    bus::Bus,
    store::{Bucket, BucketOptions, Mirror, Picture, StoreError},
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

/// The virtual servers of a tenant.
#[derive(Clone)]
pub struct Virtuals {
    tenant: String,
    /// `None` on a bus without JetStream, where only those of the configuration are there.
    bucket: Option<Bucket>,
    table: watch::Receiver<Arc<Table>>,
    configured: watch::Sender<Vec<VirtualServer>>,
}

impl Virtuals {
    /// Reads what is kept, and goes on to do so for as long as the bus connection stands.
    pub async fn open(bus: &Bus, tenant: &str, configured: Vec<VirtualServer>) -> Self {
        let kept = async {
            let bucket = Bucket::open(bus, BUCKET).await?;
            let mirror = Mirror::<Record<Defined>>::of(bucket.clone()).await?;
            Ok::<_, StoreError>((bucket, mirror))
        };
        let (bucket, mirror) = match kept.await {
            Ok((bucket, mirror)) => (Some(bucket), Some(mirror)),
            Err(error) => {
                debug!(%error, "virtual servers are those of the configuration only");
                (None, None)
            }
        };
        let (configured, mut changed) = watch::channel(configured);
        let (_alone, nothing) = watch::channel(Arc::<Picture<Record<Defined>>>::default());
        let mut picture = mirror.map_or(nothing, |mirror| mirror.changes());
        let prefix = format!("{}.", Token::encode(tenant));
        let (tables, table) = watch::channel(Arc::new(put_together(
            0,
            &prefix,
            &picture.borrow_and_update(),
            &changed.borrow_and_update(),
        )));
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
                    &prefix,
                    &picture.borrow_and_update(),
                    &changed.borrow_and_update(),
                );
                tables.send_replace(Arc::new(next));
            }
        });
        Self {
            tenant: tenant.to_owned(),
            bucket,
            table,
            configured,
        }
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

    /// Reads what is kept under an id, with its revision.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn read(&self, id: &ServerId) -> Result<Option<(Record<Defined>, u64)>, StoreError> {
        self.bucket()?.read(&self.key(id)).await
    }

    /// Keeps a definition: over the revision that was read, or where none was. Gives the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written or removed it in between.
    pub async fn write(&self, defined: &Defined, over: Option<u64>) -> Result<u64, StoreError> {
        let key = self.key(&defined.definition.id);
        self.bucket()?.write(&key, defined, over).await
    }

    /// Leaves of a definition what is to be told of it, at the revision that was read. Gives the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written in between.
    pub async fn remove(&self, id: &ServerId, left: &Removed, revision: u64) -> Result<u64, StoreError> {
        self.bucket()?.write(&self.key(id), left, Some(revision)).await
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
            match self.bucket()?.remove_at(&self.key(id), *revision).await {
                // Somebody else was quicker, or it is defined again.
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bucket(&self) -> Result<&Bucket, StoreError> {
        let missing =
            || StoreError::Broker("this NATS has no JetStream, or had none when this process started".into());
        self.bucket.as_ref().ok_or_else(missing)
    }

    fn key(&self, id: &ServerId) -> String {
        format!("{}.{id}", Token::encode(&self.tenant))
    }
}

fn put_together(
    generation: u64,
    prefix: &str,
    kept: &Picture<Record<Defined>>,
    configured: &[VirtualServer],
) -> Table {
    let of_tenant = || {
        kept.iter()
            .filter_map(|(key, record)| Some((key.strip_prefix(prefix)?, record)))
    };
    let removed = of_tenant().filter_map(|(id, record)| {
        let removed = record.value.removed()?.clone();
        Some((id.parse().ok()?, (removed, record.revision)))
    });
    let kept = of_tenant().filter_map(|(_, record)| {
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
