//! Who runs a declared server: a record for each of its places, written over the revision that was read.

use std::{sync::Arc, time::Duration};

use bus_schema::{ServerId, Token};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    bus::Bus,
    store::{Bucket, BucketOptions, Mirror, Picture, StoreError},
};

const BUCKET: BucketOptions = BucketOptions {
    name: "owners",
    max_age: Duration::ZERO,
    max_bytes: 64 * 1024 * 1024,
    max_record_bytes: 16 * 1024,
};

/// Who runs one replica of a declared server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Which process; `None` when it was let go.
    pub instance: Option<String>,
    /// Why it does not run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Who runs the declared servers of all tenants.
#[derive(Clone)]
pub struct Owners {
    pub(super) bucket: Bucket,
    mirror: Mirror<Owner>,
}

impl Owners {
    /// Opens the records, and reads them.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn open(bus: &Bus) -> Result<Self, StoreError> {
        let bucket = Bucket::open(bus, BUCKET).await?;
        Ok(Self {
            mirror: Mirror::of(bucket.clone()).await?,
            bucket,
        })
    }

    /// Who runs a server, as this process has heard.
    #[must_use]
    pub fn of(&self, tenant: &str, id: &ServerId) -> Vec<Owner> {
        let prefix = format!("{}.{id}.", Token::encode(tenant));
        let picture = self.mirror.picture();
        let places = picture.iter().filter(|(key, _)| key.starts_with(&prefix));
        places.map(|(_, owner)| owner.value.clone()).collect()
    }

    pub(super) fn picture(&self) -> Arc<Picture<Owner>> {
        self.mirror.picture()
    }

    /// Tells of each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Picture<Owner>>> {
        self.mirror.changes()
    }
}

/// The key of one place of a server.
pub(super) fn place(server_key: &str, replica: u32) -> String {
    format!("{server_key}.{replica}")
}
