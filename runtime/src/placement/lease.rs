//! This process's word that it is alive, renewed for as long as it is.
//!
//! The broker forgets the word some time after the last renewal, and others may then take what this process held. So that nothing
//! is held twice, this process lets go earlier than that: it counts from before each renewal, and the broker from after it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    bus::Bus,
    store::{Bucket, BucketOptions, Mirror, StoreError},
};

/// How long the broker keeps the word of a process after its last renewal.
const LIFE: Duration = Duration::from_secs(6);
/// How long a process holds what it has after it began its last successful renewal. The rest of the life is for letting go.
const HOLD: Duration = Duration::from_secs(4);
const RENEW_EVERY: Duration = Duration::from_millis(1_250);

const BUCKET: BucketOptions = BucketOptions {
    name: "nodes",
    max_age: LIFE,
    max_bytes: 16 * 1024 * 1024,
    max_record_bytes: 4 * 1024,
};

/// What a process says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Alive {
    /// Which version of the platform it runs.
    version: String,
}

/// The words of all processes that take servers.
#[derive(Clone)]
pub(super) struct Nodes {
    bucket: Bucket,
    mirror: Mirror<Alive>,
}

/// Cancelled when this process must let go; `None` while it may hold nothing.
pub(super) type Hold = watch::Receiver<Option<CancellationToken>>;

impl Nodes {
    pub(super) async fn open(bus: &Bus) -> Result<Self, StoreError> {
        let bucket = Bucket::open(bus, BUCKET).await?;
        Ok(Self {
            mirror: Mirror::of(bucket.clone()).await?,
            bucket,
        })
    }

    /// The instances that were heard of within the life of a word.
    pub(super) fn alive(&self) -> Vec<String> {
        let picture = self.mirror.picture();
        let heard = picture.iter().filter(|(_, node)| node.heard.elapsed() < LIFE);
        heard.map(|(instance, _)| instance.clone()).collect()
    }

    /// Whether the broker has forgotten an instance. It is asked only for one of which nothing was heard for long.
    pub(super) async fn is_forgotten(&self, instance: &str) -> Result<bool, StoreError> {
        let picture = self.mirror.picture();
        if picture
            .get(instance)
            .is_some_and(|node| node.heard.elapsed() < LIFE)
        {
            return Ok(false);
        }
        Ok(self.bucket.get(instance).await?.is_none())
    }

    /// Begins to renew this process's word.
    pub(super) fn renew(&self, bus: &Bus) -> Hold {
        let (holds, hold) = watch::channel(None);
        bus.spawn(renew(self.bucket.clone(), bus.instance().to_owned(), holds));
        hold
    }

    /// Takes the word back, so that nobody waits for its end.
    pub(super) async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        match self.bucket.get(instance).await? {
            Some(record) => self.bucket.remove_at(instance, record.revision).await,
            None => Ok(()),
        }
    }
}

async fn renew(bucket: Bucket, instance: String, holds: watch::Sender<Option<CancellationToken>>) {
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut revision = None;
    let mut until: Option<Instant> = None;
    loop {
        let mut began = Instant::now();
        let renewal = async {
            ticks.tick().await;
            began = Instant::now();
            say(&bucket, &instance, revision).await
        };
        let said = tokio::select! {
            // A process that was held up learns first that it has lost what it held.
            biased;
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                warn!("the bus has not heard this process in time; it lets its registered servers go");
                until = None;
                if let Some(token) = holds.send_replace(None) {
                    token.cancel();
                }
                continue;
            }
            said = renewal => said,
        };
        match said {
            Ok(new) => {
                revision = Some(new);
                until = Some(began + HOLD);
                holds.send_if_modified(|hold| {
                    let is_new = hold.is_none();
                    hold.get_or_insert_default();
                    is_new
                });
            }
            Err(error) => {
                debug!(%error, "could not renew this process's word");
                revision = None;
            }
        }
    }
}

/// Writes the word over the revision that is known, or finds out which there is. Nobody else writes under this instance's key.
async fn say(bucket: &Bucket, instance: &str, revision: Option<u64>) -> Result<u64, StoreError> {
    let alive = Alive {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let revision = match revision {
        Some(revision) => Some(revision),
        None => bucket.get(instance).await?.map(|record| record.revision),
    };
    bucket.write(instance, &alive, revision).await
}
