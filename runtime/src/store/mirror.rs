//! A process's own picture of a bucket, kept up to date by one watch, so that reading costs nobody anything.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::kv;
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{Bucket, REPLY_LIMIT, StoreError, broker};

/// How long the broker may be silent while it still has something to tell.
const QUIET: Duration = Duration::from_secs(1);
/// How long a watch that has ended is left before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// A record in a picture.
#[derive(Clone, Debug)]
pub struct Mirrored<T> {
    /// What it says.
    pub value: T,
    /// Which write it was.
    pub revision: u64,
    /// When this process heard of that write.
    pub heard: Instant,
}

/// All records of a bucket that can be read, by key.
pub type Picture<T> = BTreeMap<String, Mirrored<T>>;

/// A picture of a bucket of JSON records. What expires by its age stays in it, as the broker does not tell of that.
#[derive(Clone)]
pub struct Mirror<T>(watch::Receiver<Arc<Picture<T>>>);

impl<T: Clone + DeserializeOwned + Send + Sync + 'static> Mirror<T> {
    /// Takes the picture, and keeps it for as long as the bus connection stands.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not give what is there.
    pub async fn of(bucket: Bucket) -> Result<Self, StoreError> {
        let (changes, picture) = watch::channel(Arc::default());
        let watching = Box::pin(open(&bucket, &changes)).await?;
        let bus = bucket.bus.clone();
        bus.spawn(keep(bucket, watching, changes));
        Ok(Self(picture))
    }

    /// What is there at this moment.
    #[must_use]
    pub fn picture(&self) -> Arc<Picture<T>> {
        Arc::clone(&self.0.borrow())
    }

    /// Tells of each change, with the picture after it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Picture<T>>> {
        self.0.clone()
    }
}

/// Opens a watch, and reads what is there already into a fresh picture.
async fn open<T: Clone + DeserializeOwned>(
    bucket: &Bucket,
    changes: &watch::Sender<Arc<Picture<T>>>,
) -> Result<kv::Watch, StoreError> {
    let reading = async {
        let mut watching = bucket.kv.watch_with_history(">").await.map_err(broker)?;
        let mut picture = Picture::new();
        // An empty bucket tells of nothing, not even that it is empty.
        let mut left = bucket.kv.status().await.map_err(broker)?.values();
        while left > 0 {
            let entry = match timeout(QUIET, watching.next()).await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Err(StoreError::Broker("the watch ended at once".into())),
                // What was counted has expired before it was told.
                Err(_) => break,
            };
            let entry = entry.map_err(broker)?;
            left = entry.delta;
            apply(&mut picture, entry);
        }
        changes.send_replace(Arc::new(picture));
        Ok(watching)
    };
    timeout(REPLY_LIMIT, reading)
        .await
        .unwrap_or_else(|_| Err(StoreError::Broker("it did not give what is there in time".into())))
}

async fn keep<T: Clone + DeserializeOwned>(
    bucket: Bucket,
    mut watching: kv::Watch,
    changes: watch::Sender<Arc<Picture<T>>>,
) {
    loop {
        while let Some(Ok(entry)) = watching.next().await {
            changes.send_modify(|picture| apply(Arc::make_mut(picture), entry));
        }
        debug!("the watch on a bucket has ended");
        watching = loop {
            sleep(REOPEN_AFTER).await;
            match Box::pin(open(&bucket, &changes)).await {
                Ok(watching) => break watching,
                Err(error) => debug!(%error, "cannot watch a bucket yet"),
            }
        };
    }
}

fn apply<T: DeserializeOwned>(picture: &mut Picture<T>, entry: kv::Entry) {
    if entry.operation != kv::Operation::Put {
        picture.remove(&entry.key);
        return;
    }
    match serde_json::from_slice(&entry.value) {
        Ok(value) => {
            let record = Mirrored {
                value,
                revision: entry.revision,
                heard: Instant::now(),
            };
            picture.insert(entry.key, record);
        }
        Err(error) => {
            warn!(%error, key = entry.key, "left out a record that cannot be read");
            picture.remove(&entry.key);
        }
    }
}
