//! Some of the records of a bucket: those that are there, and how they change, by a filter over their keys.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, pull},
        kv,
    },
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Bucket, COUNTING, REPLY_LIMIT, Record, StoreError, broker};

/// How long a watch that has ended is left before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// How the broker marks a record that is gone.
const OPERATION: &str = "KV-Operation";

/// A change of a record.
#[derive(Clone, Debug)]
pub struct Change {
    /// Under which key.
    pub key: String,
    /// What was written; `None` when it was removed by [`Bucket::remove_at`].
    pub value: Option<Bytes>,
}

/// The changes of a bucket's records since it was opened, the newest of each record at least.
pub struct Changes {
    bucket: Bucket,
    filter: String,
    /// The first write that was not told of.
    from: u64,
    watching: Option<kv::Watch>,
}

impl Bucket {
    /// The records whose keys fit, at most so many. A `*` in the filter stands for any one piece between dots.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not give them in its time.
    pub async fn list(&self, filter: &str, most: usize) -> Result<Vec<(String, Record)>, StoreError> {
        let config = pull::Config {
            filter_subject: format!("{}{filter}", self.kv.prefix),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            inactive_threshold: COUNTING,
            memory_storage: true,
            ..pull::Config::default()
        };
        let reading = async {
            let reader = self.kv.stream.create_consumer(config).await.map_err(broker)?;
            let info = reader.cached_info();
            let there = usize::try_from(info.num_pending).unwrap_or(usize::MAX).min(most);
            let mut records = Vec::with_capacity(there);
            if there > 0 {
                let batch = reader.fetch().max_messages(there).messages().await;
                let mut batch = batch.map_err(broker)?;
                while let Some(message) = batch.next().await {
                    let message = message.map_err(StoreError::Broker)?;
                    let revision = message.info().map_err(StoreError::Broker)?.stream_sequence;
                    let key = message.subject.strip_prefix(self.kv.prefix.as_str());
                    if let Some(key) = key.filter(|_| is_there(message.headers.as_ref())) {
                        let value = message.payload.clone();
                        records.push((key.to_owned(), Record { value, revision }));
                    }
                }
            }
            if let Err(error) = self.kv.stream.delete_consumer(&info.name).await {
                debug!(%error, "what has read a list was not cleared away");
            }
            Ok(records)
        };
        timeout(REPLY_LIMIT, reading)
            .await
            .unwrap_or_else(|_| Err(StoreError::Broker("it did not give what is there in time".into())))
    }

    /// Tells how the records change whose keys fit, as [`Bucket::list`] has it.
    #[must_use]
    pub fn changes(&self, filter: &str) -> Changes {
        Changes {
            filter: filter.to_owned(),
            from: self.kv.stream.cached_info().state.last_sequence + 1,
            bucket: self.clone(),
            watching: None,
        }
    }
}

impl Changes {
    /// Waits for the next. A watch that ends is opened again where it was.
    pub async fn next(&mut self) -> Change {
        loop {
            if self.watching.is_none() {
                self.watching = open(&self.bucket, &self.filter, self.from).await;
            }
            let told = match &mut self.watching {
                Some(watching) => watching.next().await,
                None => None,
            };
            match told {
                Some(Ok(entry)) => {
                    self.from = entry.revision + 1;
                    return Change {
                        key: entry.key,
                        value: (entry.operation == kv::Operation::Put).then_some(entry.value),
                    };
                }
                Some(Err(error)) => debug!(%error, "the watch on some records has failed"),
                None => debug!("there is no watch on some records"),
            }
            self.watching = None;
            sleep(REOPEN_AFTER).await;
        }
    }
}

async fn open(bucket: &Bucket, filter: &str, from: u64) -> Option<kv::Watch> {
    let opening = bucket.kv.watch_from_revision(filter, from);
    timeout(REPLY_LIMIT, opening).await.ok()?.ok()
}

fn is_there(headers: Option<&HeaderMap>) -> bool {
    headers.is_none_or(|headers| headers.get(OPERATION).is_none())
}
