//! Durable records by key, in a JetStream bucket: what must outlive a process, such as the sessions of legacy clients.
//!
//! Reads ask the stream's leader, so that whoever reads after an acknowledged write sees it; direct reads were seen to be stale.
//! Writes are fenced by the revision that was read.

mod following;
mod mirror;
mod named;
pub mod objects;

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, Info, pull},
    context::CreateStreamErrorKind,
    kv::{self, CreateErrorKind, UpdateErrorKind},
    stream::{Config, DiscardPolicy},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tracing::debug;

use crate::bus::Bus;

pub use following::{Change, Changes};
pub use mirror::{Mirror, Mirrored, Picture};
pub use named::{KeepError, Live, Named};

/// How long the broker may take over one read or write.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// How long the broker keeps what was made for a count and not cleared away.
const COUNTING: Duration = Duration::from_secs(5);

/// What a bucket is for.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// Its name: letters, digits, `-` and `_`.
    pub name: &'static str,
    /// How long a record lives after its last write; zero for ever.
    pub max_age: Duration,
    /// How many bytes all records may take.
    pub max_bytes: i64,
    /// How many bytes one record may take.
    pub max_record_bytes: i32,
}

/// A bucket of records.
#[derive(Clone)]
pub struct Bucket {
    kv: kv::Store,
    bus: Bus,
}

/// One record as it was read.
#[derive(Clone, Debug)]
pub struct Record {
    /// What was written.
    pub value: Bytes,
    /// Which write it was; [`Bucket::update`] takes it.
    pub revision: u64,
}

/// Says why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The bucket cannot be made.
    #[error("cannot open the bucket `{name}`; the platform needs a NATS with JetStream enabled")]
    Open {
        /// Which bucket.
        name: &'static str,
        /// What the broker says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What stands under its name is something else, which somebody has made to come by what others write.
    #[error(
        "the stream of the bucket `{name}` is not as this platform makes it; look who has made it, and delete it"
    )]
    Foreign {
        /// Which bucket.
        name: &'static str,
    },
    /// Somebody else wrote in between.
    #[error("the record was changed by another process in between")]
    Conflict,
    /// The bucket is full.
    #[error("the bucket is full")]
    Full,
    /// The broker did not answer, or refused.
    #[error("the broker did not take or give the record")]
    Broker(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether there is nothing to open: this NATS keeps no records at all.
    #[must_use]
    pub fn is_no_jetstream(&self) -> bool {
        let Self::Open { source, .. } = self else {
            return false;
        };
        let error = source.downcast_ref::<jetstream::context::CreateStreamError>();
        error.is_some_and(|error| match error.kind() {
            CreateStreamErrorKind::JetStreamUnavailable => true,
            CreateStreamErrorKind::JetStream(error) => {
                let code = error.error_code();
                code == ErrorCode::JETSTREAM_NOT_ENABLED
                    || code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            }
            _ => false,
        })
    }
}

impl Bucket {
    /// Opens a bucket, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the broker has no JetStream, or refuses.
    pub async fn open(bus: &Bus, options: BucketOptions) -> Result<Self, StoreError> {
        let name = options.name;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open { name, source };
        let mut context = jetstream::new(bus.client().clone());
        context.set_timeout(REPLY_LIMIT);
        let config = Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            max_age: options.max_age,
            max_bytes: options.max_bytes,
            max_message_size: options.max_record_bytes,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: false,
            ..Config::default()
        };
        match context.create_stream(config).await {
            Ok(_) => {}
            // Made by an older version with other limits; what it holds counts more.
            Err(error) if is_there(&error) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let kv = context
            .get_key_value(name)
            .await
            .map_err(|error| failed(error.into()))?;
        check_made_by_us(&kv.stream.cached_info().config, name)?;
        Ok(Self { kv, bus: bus.clone() })
    }

    /// Reads a record; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let entry = self.kv.entry(key).await.map_err(broker)?;
        Ok(entry
            .filter(|entry| entry.operation == kv::Operation::Put)
            .map(|entry| Record {
                value: entry.value,
                revision: entry.revision,
            }))
    }

    /// Writes a record that was not there, and gives its revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was there.
    pub async fn create(&self, key: &str, value: Bytes) -> Result<u64, StoreError> {
        self.kv
            .create(key, value)
            .await
            .map_err(|error| match error.kind() {
                CreateErrorKind::AlreadyExists => StoreError::Conflict,
                _ => full_or_broker(error),
            })
    }

    /// Writes a record over the revision that was read, and gives the new one. Its life begins anew.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has another revision by now.
    pub async fn update(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, StoreError> {
        self.kv
            .update(key, value, revision)
            .await
            .map_err(|error| match error.kind() {
                UpdateErrorKind::WrongLastRevision => StoreError::Conflict,
                _ => full_or_broker(error),
            })
    }

    /// Reads a record that is JSON, with its revision; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer, or the record cannot be read.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>, StoreError> {
        let Some(record) = self.get(key).await? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&record.value).map_err(broker)?;
        Ok(Some((value, record.revision)))
    }

    /// Writes a record as JSON: over the revision that was read, or where none was. Gives the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written or removed it in between.
    ///
    /// # Panics
    /// When the value cannot be JSON.
    pub async fn write(
        &self,
        key: &str,
        value: &impl Serialize,
        over: Option<u64>,
    ) -> Result<u64, StoreError> {
        let value = serde_json::to_vec(value).expect("a record is always JSON").into();
        match over {
            Some(revision) => self.update(key, value, revision).await,
            None => self.create(key, value).await,
        }
    }

    /// Removes a record if it still has the revision that was read. Mirrors hear of it by a marker that stays in its place.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has another revision by now.
    pub async fn remove_at(&self, key: &str, revision: u64) -> Result<(), StoreError> {
        self.kv
            .purge_expect_revision(key, Some(revision))
            .await
            .map_err(|error| match error.kind() {
                UpdateErrorKind::WrongLastRevision => StoreError::Conflict,
                _ => broker(error),
            })
    }

    /// Removes a record for good. Nothing of it stays that would be counted, and no mirror hears of it.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let subject = format!("{}{key}", self.kv.prefix);
        let purged = self.kv.stream.purge().filter(subject).await;
        purged.map(drop).map_err(broker)
    }

    /// How many records there are whose keys begin with this and a dot.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        // What a consumer would have to read is a number that the broker keeps at hand; names of subjects would be told one by one.
        let config = pull::Config {
            filter_subject: format!("{}{prefix}.>", self.kv.prefix),
            ack_policy: AckPolicy::None,
            inactive_threshold: COUNTING,
            memory_storage: true,
            ..pull::Config::default()
        };
        let counting = self.kv.stream.create_consumer(config).await.map_err(broker)?;
        let Info {
            name, num_pending, ..
        } = counting.cached_info();
        // The broker forgets it soon anyway.
        if let Err(error) = self.kv.stream.delete_consumer(name).await {
            debug!(%error, "a count was not cleared away");
        }
        Ok(*num_pending)
    }
}

/// Whoever needs a bucket first makes it, so one who may do that and means harm could make one that takes in other subjects, or hands on
/// what is written.
fn check_made_by_us(config: &Config, name: &'static str) -> Result<(), StoreError> {
    let takes_its_own = config.subjects == [format!("$KV.{name}.>")];
    let hands_nothing_on = config.republish.is_none() && config.mirror.is_none();
    let takes_in_nothing = config.sources.as_ref().is_none_or(Vec::is_empty);
    if takes_its_own && hands_nothing_on && takes_in_nothing && !config.no_ack {
        Ok(())
    } else {
        Err(StoreError::Foreign { name })
    }
}

fn is_there(error: &jetstream::context::CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

fn broker(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Broker(error.into())
}

/// A full bucket says so only in words.
fn full_or_broker(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&source.to_string());
        cause = source.source();
    }
    if text.contains("maximum bytes exceeded") {
        StoreError::Full
    } else {
        broker(error)
    }
}
