//! Records of a tenant, each under the id of a server: every process that asks holds a picture of them, and writes are fenced by revision.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bus_schema::{
    ServerId, Token,
    registry::{Over, Was},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::sleep};
use tracing::debug;

use super::{Bucket, BucketOptions, Mirror, Mirrored, Picture, StoreError};
use crate::bus::Bus;

/// How often a write is tried again that may replace anything and met another one.
const ATTEMPTS: usize = 8;

/// Says why a record is not kept, or not forgotten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// There is one already that says something else.
    #[error("{what} `{id}` is defined already, and otherwise; replace it with PUT, or choose another id")]
    Exists {
        /// What it is a record of.
        what: &'static str,
        /// Under which id.
        id: ServerId,
    },
    /// There is none.
    #[error("no {what} `{id}` is defined")]
    Unknown {
        /// What it would be a record of.
        what: &'static str,
        /// Under which id.
        id: ServerId,
    },
    /// It has another revision.
    #[error("{what} `{id}` has revision {is} and not {wanted}; read it again")]
    Changed {
        /// What it is a record of.
        what: &'static str,
        /// Under which id.
        id: ServerId,
        /// Its revision.
        is: u64,
        /// The one that was meant.
        wanted: u64,
    },
    /// It cannot be read or written at this moment.
    #[error("what is kept cannot be read or written at the moment")]
    Store(#[from] StoreError),
}

/// What is kept under an id.
pub trait Live {
    /// Whether it says that something is there, and not what is left of it.
    fn is_there(&self) -> bool {
        true
    }
}

/// How long a bucket that cannot be opened is left alone.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// The records of a tenant.
#[derive(Clone)]
pub struct Named<T> {
    what: &'static str,
    prefix: String,
    /// Empty as long as it cannot be opened, as on a bus without JetStream; then nothing is kept.
    bucket: Arc<OnceLock<Bucket>>,
    picture: watch::Receiver<Arc<Picture<T>>>,
}

impl<T: Live + Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Named<T> {
    /// Reads what is kept, and goes on to do so for as long as the bus connection stands. What cannot be read now is tried again. `what` says
    /// what these are records of.
    pub async fn open(bus: &Bus, tenant: &str, what: &'static str, options: BucketOptions) -> Self {
        let (pictures, named) = Self::nowhere(tenant, what);
        match open(bus, &options).await {
            Ok((bucket, mirror)) => {
                pictures.send_replace(mirror.picture());
                let _ = named.bucket.set(bucket);
                bus.spawn(follow(mirror, pictures));
            }
            Err(error) => {
                debug!(%error, what, "nothing is kept of these yet");
                let (bus_again, bucket) = (bus.clone(), Arc::clone(&named.bucket));
                bus.spawn(async move {
                    let (opened, mirror) = loop {
                        sleep(OPEN_AGAIN).await;
                        if let Ok(opened) = open(&bus_again, &options).await {
                            break opened;
                        }
                    };
                    let _ = bucket.set(opened);
                    follow(mirror, pictures).await;
                });
            }
        }
        named
    }

    /// Records of which none is kept, and the way to tell of some.
    pub(crate) fn nowhere(tenant: &str, what: &'static str) -> (watch::Sender<Arc<Picture<T>>>, Self) {
        let (pictures, picture) = watch::channel(Arc::default());
        let named = Self {
            what,
            prefix: prefix(tenant),
            bucket: Arc::default(),
            picture,
        };
        (pictures, named)
    }

    /// The same for another tenant, from the same picture.
    #[must_use]
    pub fn of_another(&self, tenant: &str) -> Self {
        Self {
            prefix: prefix(tenant),
            ..self.clone()
        }
    }

    /// Tells of each change, also of other tenants' records.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Picture<T>>> {
        self.picture.clone()
    }

    /// Those of the tenant in a picture.
    pub fn of_tenant<'a>(
        &'a self,
        picture: &'a Picture<T>,
    ) -> impl Iterator<Item = (ServerId, &'a Mirrored<T>)> {
        picture.iter().filter_map(|(key, record)| {
            let id = key.strip_prefix(&self.prefix)?.parse().ok()?;
            Some((id, record))
        })
    }

    /// Reads a record as it is kept, with its revision.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn read(&self, id: &ServerId) -> Result<Option<(T, u64)>, StoreError> {
        self.bucket()?.read(&self.key(id)).await
    }

    /// Keeps a record that `make` makes of the one that is there: where that may be replaced, and unless it says the same already. Gives the
    /// record with its revision.
    ///
    /// # Errors
    /// [`KeepError`] when what is there may not be replaced.
    pub async fn keep(
        &self,
        id: &ServerId,
        over: Over,
        is_same: impl Fn(&T) -> bool,
        make: impl Fn(Option<&T>) -> T,
    ) -> Result<(T, u64, Was), KeepError> {
        let (what, named) = (self.what, || id.clone());
        for _ in 0..ATTEMPTS {
            let record = self.read(id).await?;
            let known = record.as_ref().filter(|(record, _)| record.is_there());
            match (known, over) {
                (Some((_, is)), Over::Revision(wanted)) if *is != wanted => {
                    let (id, is) = (named(), *is);
                    return Err(KeepError::Changed { what, id, is, wanted });
                }
                (Some((record, revision)), _) if is_same(record) => {
                    return Ok((record.clone(), *revision, Was::Same));
                }
                (Some(_), Over::Nothing) => return Err(KeepError::Exists { what, id: named() }),
                (None, Over::Revision(_)) => return Err(KeepError::Unknown { what, id: named() }),
                _ => {}
            }
            let made = make(known.map(|(record, _)| record));
            let over = record.as_ref().map(|(_, revision)| *revision);
            match self.bucket()?.write(&self.key(id), &made, over).await {
                Ok(revision) => {
                    let was = if known.is_some() { Was::Changed } else { Was::New };
                    return Ok((made, revision, was));
                }
                // Somebody else was quicker; what is there now decides.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Forgets a record; only that of a revision, if one is given.
    ///
    /// # Errors
    /// [`KeepError`] when there is none, or another.
    pub async fn forget(&self, id: &ServerId, wanted: Option<u64>) -> Result<(), KeepError> {
        let (_, is) = self.meant(id, wanted).await?;
        Ok(self.remove_at(id, is).await?)
    }

    /// The same, which keeps in its place what `leave` makes of it.
    ///
    /// # Errors
    /// [`KeepError`] when there is none, or another.
    pub async fn forget_but(
        &self,
        id: &ServerId,
        wanted: Option<u64>,
        leave: impl FnOnce(&T) -> T,
    ) -> Result<(), KeepError> {
        let (record, is) = self.meant(id, wanted).await?;
        let left = leave(&record);
        self.bucket()?.write(&self.key(id), &left, Some(is)).await?;
        Ok(())
    }

    /// Clears away whatever stands under an id at a revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has another revision by now.
    pub async fn remove_at(&self, id: &ServerId, revision: u64) -> Result<(), StoreError> {
        self.bucket()?.remove_at(&self.key(id), revision).await
    }

    /// The record that is there, if it is the one that is meant.
    async fn meant(&self, id: &ServerId, wanted: Option<u64>) -> Result<(T, u64), KeepError> {
        let (what, id) = (self.what, id.clone());
        let known = self.read(&id).await?.filter(|(record, _)| record.is_there());
        let Some((record, is)) = known else {
            return Err(KeepError::Unknown { what, id });
        };
        match wanted.filter(|wanted| *wanted != is) {
            Some(wanted) => Err(KeepError::Changed { what, id, is, wanted }),
            None => Ok((record, is)),
        }
    }

    fn bucket(&self) -> Result<&Bucket, StoreError> {
        let missing = || StoreError::Broker("this NATS has no JetStream, or has not answered yet".into());
        self.bucket.get().ok_or_else(missing)
    }

    fn key(&self, id: &ServerId) -> String {
        format!("{}{id}", self.prefix)
    }
}

/// What the keys of a tenant's records begin with.
fn prefix(tenant: &str) -> String {
    format!("{}.", Token::encode(tenant))
}

async fn open<T: Clone + DeserializeOwned + Send + Sync + 'static>(
    bus: &Bus,
    options: &BucketOptions,
) -> Result<(Bucket, Mirror<T>), StoreError> {
    let bucket = Bucket::open(bus, options.clone()).await?;
    let mirror = Mirror::of(bucket.clone()).await?;
    Ok((bucket, mirror))
}

/// Tells of what a mirror tells, as long as anybody wants to hear it.
async fn follow<T: Clone + DeserializeOwned + Send + Sync + 'static>(
    mirror: Mirror<T>,
    pictures: watch::Sender<Arc<Picture<T>>>,
) {
    let mut changes = mirror.changes();
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        let picture = Arc::clone(&changes.borrow_and_update());
        if pictures.send(picture).is_err() {
            return;
        }
    }
}
