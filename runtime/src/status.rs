//! How servers are: what a process sees of each, and what was told of it last.
//!
//! What was told is a record, so that of any number of registries that see a change one tells of it.

use std::{collections::BTreeMap, time::Duration};

use bus_schema::{
    ServerId, Token,
    registry::{Status, Told},
};

use crate::{
    bus::Bus,
    directory::Snapshot,
    placement::Owner,
    store::{Bucket, BucketOptions, Mirror, StoreError},
};

const BUCKET: BucketOptions = BucketOptions {
    name: "statuses",
    max_age: Duration::ZERO,
    max_bytes: 64 * 1024 * 1024,
    max_record_bytes: 8 * 1024,
};
/// How many characters of a reason are kept.
const MAX_REASON: usize = 1_000;

/// How a server is at this moment, and why it is not well. `owners` are those that run it, if it is declared.
#[must_use]
pub fn status_of(
    snapshot: &Snapshot,
    id: &ServerId,
    owners: impl FnOnce() -> Vec<Owner>,
) -> (Status, Option<String>) {
    if snapshot.replicas(id).is_empty() {
        (Status::Down, Some(why_down(&owners())))
    } else if let Some(trouble) = snapshot.trouble(id) {
        (Status::Degraded, Some(trouble.to_owned()))
    } else {
        (Status::Healthy, None)
    }
}

fn why_down(owners: &[Owner]) -> String {
    if let Some(failure) = owners.iter().find_map(|owner| owner.failure.clone()) {
        return failure;
    }
    match owners.iter().find_map(|owner| owner.instance.as_deref()) {
        Some(instance) => format!("process {instance} is connecting to it"),
        None => {
            "no process of the fleet runs it; `trunkline serve upstreams` starts one that does".to_owned()
        }
    }
}

/// What was told of a tenant's servers.
#[derive(Clone)]
pub struct Statuses {
    bucket: Bucket,
    told: Mirror<Told>,
    tenant: Token,
}

impl Statuses {
    /// Opens the records, and reads them.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn open(bus: &Bus, tenant: &str) -> Result<Self, StoreError> {
        let bucket = Bucket::open(bus, BUCKET).await?;
        Ok(Self {
            told: Mirror::of(bucket.clone()).await?,
            bucket,
            tenant: Token::encode(tenant),
        })
    }

    /// What was told of each server, with the revision to write over.
    #[must_use]
    pub fn all(&self) -> BTreeMap<ServerId, (Told, u64)> {
        let prefix = format!("{}.", self.tenant);
        let picture = self.told.picture();
        let of_tenant = picture.iter().filter_map(|(key, record)| {
            let id = key.strip_prefix(&prefix)?.parse().ok()?;
            Some((id, (record.value.clone(), record.revision)))
        });
        of_tenant.collect()
    }

    /// Keeps what is to be told of a server; `None` of one that is no more.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written since what was told had that revision.
    pub async fn keep(
        &self,
        id: &ServerId,
        told: Option<&Told>,
        over: Option<u64>,
    ) -> Result<(), StoreError> {
        let key = format!("{}.{id}", self.tenant);
        match (told, over) {
            (Some(told), _) => self.bucket.write(&key, &shortened(told), over).await.map(drop),
            (None, Some(revision)) => self.bucket.remove_at(&key, revision).await,
            (None, None) => Ok(()),
        }
    }
}

fn shortened(told: &Told) -> Told {
    let reason = told.reason.as_ref();
    Told {
        reason: reason.map(|reason| reason.chars().take(MAX_REASON).collect()),
        ..told.clone()
    }
}
