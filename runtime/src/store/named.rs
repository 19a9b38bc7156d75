//! Records of a tenant, each under the id of a server: every process that asks holds a picture of them, and writes are fenced by revision.

use std::sync::Arc;

use bus_schema::{
    ServerId, Token,
    registry::{Over, Was},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;
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

/// The records of a tenant.
#[derive(Clone)]
pub struct Named<T> {
    what: &'static str,
    prefix: String,
    /// `None` on a bus without JetStream, where nothing is kept.
    bucket: Option<Bucket>,
    picture: watch::Receiver<Arc<Picture<T>>>,
}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Named<T> {
    /// Reads what is kept, and goes on to do so for as long as the bus connection stands. `what` says what these are records of.
    pub async fn open(bus: &Bus, tenant: &str, what: &'static str, options: BucketOptions) -> Self {
        let kept = async {
            let bucket = Bucket::open(bus, options).await?;
            let mirror = Mirror::of(bucket.clone()).await?;
            Ok::<_, StoreError>((bucket, mirror))
        };
        let nowhere = Self::nowhere(tenant, what);
        match kept.await {
            Ok((bucket, mirror)) => Self {
                bucket: Some(bucket),
                picture: mirror.changes(),
                ..nowhere
            },
            Err(error) => {
                debug!(%error, what, "nothing is kept of these on this bus");
                nowhere
            }
        }
    }

    /// Records of which none can be kept.
    pub(crate) fn nowhere(tenant: &str, what: &'static str) -> Self {
        Self {
            what,
            prefix: format!("{}.", Token::encode(tenant)),
            bucket: None,
            picture: watch::channel(Arc::default()).1,
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
            let known = self.read(id).await?;
            match (&known, over) {
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
            let record = make(known.as_ref().map(|(record, _)| record));
            let over = known.as_ref().map(|(_, revision)| *revision);
            match self.bucket()?.write(&self.key(id), &record, over).await {
                Ok(revision) => {
                    let was = if known.is_some() { Was::Changed } else { Was::New };
                    return Ok((record, revision, was));
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
        let (what, named) = (self.what, || id.clone());
        let known = self.read(id).await?;
        let (_, is) = known.ok_or_else(|| KeepError::Unknown { what, id: named() })?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            let id = named();
            return Err(KeepError::Changed { what, id, is, wanted });
        }
        Ok(self.bucket()?.remove_at(&self.key(id), is).await?)
    }

    fn bucket(&self) -> Result<&Bucket, StoreError> {
        let missing =
            || StoreError::Broker("this NATS has no JetStream, or had none when this process started".into());
        self.bucket.as_ref().ok_or_else(missing)
    }

    fn key(&self, id: &ServerId) -> String {
        format!("{}{id}", self.prefix)
    }
}
