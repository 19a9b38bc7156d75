//! Who is stopped: a bucket of blocks, of which every process holds a picture, so that asking costs nothing and a change holds everywhere
//! as soon as it is told.

use std::{fmt, sync::Arc, time::Duration};

use bus_schema::{
    Principal,
    block::{BadBlock, Block, Blocked, LONGEST_SECS, MAX_TEXT_CHARS},
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    bus::Bus,
    moment,
    store::{Bucket, BucketOptions, Mirror, Picture, StoreError},
};

const BUCKET: BucketOptions = BucketOptions {
    name: "blocks",
    max_age: Duration::ZERO,
    max_bytes: 32 * 1024 * 1024,
    max_record_bytes: 128 * 1024,
};
/// How often a write is tried again that met another one.
const ATTEMPTS: usize = 8;

/// Says why somebody is not stopped, or not let go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Nobody can be stopped by these words.
    #[error(transparent)]
    Bad(#[from] BadBlock),
    /// Nobody of that name is stopped.
    #[error("`{subject}` is not blocked{}", issuer.as_ref().map_or(String::new(), |issuer| format!(" as a subject of {issuer}")))]
    Unknown {
        /// Who was named.
        subject: String,
        /// Of which issuer.
        issuer: Option<String>,
    },
    /// Blocks cannot be read or written at this moment.
    #[error("blocks cannot be read or written at the moment")]
    Store(#[from] StoreError),
}

/// The blocks of a bus.
#[derive(Clone)]
pub struct Blocks(Arc<Inner>);

struct Inner {
    /// `None` on a bus without JetStream, where nobody can be stopped.
    bucket: Option<Bucket>,
    picture: watch::Receiver<Arc<Picture<Block>>>,
    /// Keeps the picture of a bus without JetStream open.
    _nowhere: Option<watch::Sender<Arc<Picture<Block>>>>,
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}

impl Blocks {
    /// Reads who is stopped, and goes on to do so for as long as the bus connection stands.
    pub async fn open(bus: &Bus) -> Self {
        let kept = async {
            let bucket = Bucket::open(bus, BUCKET).await?;
            let mirror = Mirror::of(bucket.clone()).await?;
            Ok::<_, StoreError>((bucket, mirror))
        };
        let inner = match kept.await {
            Ok((bucket, mirror)) => Inner {
                bucket: Some(bucket),
                picture: mirror.changes(),
                _nowhere: None,
            },
            Err(error) => {
                warn!(%error, "nobody can be blocked on this bus");
                let (nowhere, picture) = watch::channel(Arc::default());
                Inner {
                    bucket: None,
                    picture,
                    _nowhere: Some(nowhere),
                }
            }
        };
        Self(Arc::new(inner))
    }

    /// Whether a caller is stopped at this moment.
    #[must_use]
    pub fn stops(&self, principal: &Principal) -> bool {
        self.block_of(principal).is_some()
    }

    /// The block by which a caller is stopped at this moment.
    #[must_use]
    pub fn block_of(&self, principal: &Principal) -> Option<Block> {
        let picture = self.0.picture.borrow();
        if picture.is_empty() {
            return None;
        }
        let now_ms = moment::now_ms();
        [None, principal.issuer.clone()].into_iter().find_map(|issuer| {
            let who = blocked(principal, issuer);
            let block = picture.get(&who.key()).map(|record| &record.value);
            let holds = block.filter(|block| block.who.is(principal) && block.holds(now_ms));
            holds.cloned()
        })
    }

    /// Waits until a caller is stopped.
    pub async fn stopped(&self, principal: &Principal) {
        let mut picture = self.0.picture.clone();
        loop {
            picture.mark_unchanged();
            if self.stops(principal) {
                return;
            }
            if picture.changed().await.is_err() {
                // The bus connection has ended, and with it everything that could be stopped.
                return std::future::pending().await;
            }
        }
    }

    /// Who is stopped in a tenant at this moment, by subject.
    #[must_use]
    pub fn all(&self, tenant: &str) -> Vec<Block> {
        let now_ms = moment::now_ms();
        let picture = Arc::clone(&self.0.picture.borrow());
        let blocks = picture.values().map(|record| &record.value);
        let mut blocks: Vec<_> = blocks
            .filter(|block| block.who.tenant == tenant && block.holds(now_ms))
            .cloned()
            .collect();
        blocks.sort_by(|one, other| one.who.subject.cmp(&other.who.subject));
        blocks
    }

    /// Stops somebody, for a number of seconds or for good. What was said of the same caller before is replaced.
    ///
    /// # Errors
    /// [`BlockError`] when nobody can be meant, or the broker does not take it.
    pub async fn block(
        &self,
        by: &Principal,
        who: Blocked,
        for_secs: Option<u64>,
        reason: Option<String>,
    ) -> Result<Block, BlockError> {
        who.check()?;
        if let Some(secs) = for_secs
            && !(1..=LONGEST_SECS).contains(&secs)
        {
            return Err(BadBlock::Time(secs).into());
        }
        if reason
            .as_ref()
            .is_some_and(|reason| reason.chars().count() > MAX_TEXT_CHARS)
        {
            return Err(BadBlock::TooLong("reason").into());
        }
        let key = who.key();
        let block = Block {
            who,
            until_ms: for_secs.map(|secs| moment::now_ms() + 1_000 * secs),
            reason,
            since: moment::now(),
            by: by.subject.clone(),
        };
        let bucket = self.bucket()?;
        for _ in 0..ATTEMPTS {
            let over = bucket.get(&key).await?.map(|record| record.revision);
            match bucket.write(&key, &block, over).await {
                Ok(_) => {
                    let Blocked { subject, issuer, .. } = &block.who;
                    info!(%subject, issuer, by = block.by, until_ms = block.until_ms, "blocked a caller");
                    self.forget_past(bucket).await;
                    return Ok(block);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Lets somebody go.
    ///
    /// # Errors
    /// [`BlockError::Unknown`] when there is no such block.
    pub async fn unblock(&self, by: &Principal, who: &Blocked) -> Result<(), BlockError> {
        let (bucket, key) = (self.bucket()?, who.key());
        for _ in 0..ATTEMPTS {
            let Some(record) = bucket.get(&key).await? else {
                return Err(BlockError::Unknown {
                    subject: who.subject.clone(),
                    issuer: who.issuer.clone(),
                });
            };
            match bucket.remove_at(&key, record.revision).await {
                Ok(()) => {
                    info!(
                        subject = who.subject,
                        issuer = who.issuer,
                        by = by.subject,
                        "unblocked a caller"
                    );
                    return Ok(());
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Removes blocks that have come to their end, so that they do not add up.
    async fn forget_past(&self, bucket: &Bucket) {
        let now_ms = moment::now_ms();
        let picture = Arc::clone(&self.0.picture.borrow());
        for (key, record) in picture.iter().filter(|(_, record)| !record.value.holds(now_ms)) {
            // Whoever was quicker has said something newer.
            let _ = bucket.remove_at(key, record.revision).await;
        }
    }

    fn bucket(&self) -> Result<&Bucket, StoreError> {
        let missing =
            || StoreError::Broker("this NATS has no JetStream, or had none when this process started".into());
        self.0.bucket.as_ref().ok_or_else(missing)
    }
}

fn blocked(principal: &Principal, issuer: Option<String>) -> Blocked {
    Blocked {
        tenant: principal.tenant.clone(),
        issuer,
        subject: principal.subject.clone(),
    }
}
