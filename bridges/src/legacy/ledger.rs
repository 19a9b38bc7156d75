//! What the doors keep of legacy clients' tasks, in a bucket that every bridge reads: those that no server keeps, and those that a client
//! has cancelled.
//!
//! A server may answer a call at once that its client wanted as a task. The client was promised a task, so its result is kept here as
//! one. And a task that a client has cancelled stays so for this client, whatever the server makes of it. Each record belongs to one
//! principal and one server, so that a task's id alone is worth nothing.

use std::{future::Future, time::Duration};

use bus_schema::{Principal, RpcError, rpc};
use bytes::Bytes;
use runtime::{
    Bus,
    moment::{now, now_ms},
    store::{Bucket, BucketOptions, StoreError},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{sync::Mutex, time::timeout};
use tracing::warn;
use uuid::Uuid;

use super::{store, task::client::Augmentation};
use crate::front::Endpoint;

/// How long a record is kept.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a task is promised to be kept, which is also what a client gets that asks for nothing.
const LONGEST_TTL_MS: u64 = 60 * 60 * 1000;
/// How many bytes all records may take.
const MAX_BYTES: i64 = 256 * 1024 * 1024;
/// How long a result may be that is kept.
const MAX_RESULT_BYTES: usize = 1024 * 1024;
/// What the broker counts beside a result itself.
const RECORD_HEAD_BYTES: usize = 8 * 1024;
/// How long a read or write may take, with the opening of the bucket.
const STORE_LIMIT: Duration = Duration::from_secs(10);
/// No id that is longer is looked for.
const MAX_ID_BYTES: usize = 1024;

/// The tasks that the doors keep something of.
pub(crate) struct Ledger {
    bus: Bus,
    /// Opened at first use, and anew after the broker has failed. Held only to look, and while it is opened.
    bucket: Mutex<Option<Bucket>>,
}

/// What is kept of a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing: its server alone knows of it.
    Nothing,
    /// That the client has cancelled it.
    Cancelled,
    /// The whole task, as a modern server tells of it.
    Whole(String),
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    /// The client has cancelled the task.
    Cancelled,
    /// No server keeps the task.
    Whole {
        task: Box<RawValue>,
        /// Until when it was promised to be there, in milliseconds since 1970.
        until_ms: u64,
    },
}

/// Why the ledger does not tell.
#[derive(Debug, thiserror::Error)]
enum LedgerError {
    #[error("as many results are kept as there may be")]
    Full,
    #[error("the bus does not answer")]
    Silent,
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            error => Self::Store(error),
        }
    }
}

impl Ledger {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            bucket: Mutex::default(),
        }
    }

    /// Keeps what a call came to as a task, and gives that as a modern server tells of it. The result is JSON.
    ///
    /// # Errors
    /// The error that the client gets in place of the task.
    pub(super) async fn keep(
        &self,
        owner: Owner<'_>,
        wanted: &Augmentation,
        result: &str,
    ) -> Result<String, RpcError> {
        if result.len() > MAX_RESULT_BYTES {
            return Err(not_kept(format!(
                "its result has {} bytes, and {MAX_RESULT_BYTES} are the most",
                result.len()
            )));
        }
        let id = format!("{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple());
        let ttl_ms = wanted.ttl_ms.unwrap_or(LONGEST_TTL_MS).min(LONGEST_TTL_MS);
        let (quoted, now) = (rpc::quote(&id), rpc::quote(&now()));
        let task = format!(
            r#"{{"taskId":{quoted},"status":"completed","createdAt":{now},"lastUpdatedAt":{now},"ttlMs":{ttl_ms},"result":{result}}}"#
        );
        let record = Record::Whole {
            task: RawValue::from_string(task.clone()).map_err(|_| not_kept("its result is no JSON"))?,
            until_ms: now_ms().saturating_add(ttl_ms),
        };
        self.write(&owner.key(&id), &record).await.map_err(not_kept)?;
        Ok(task)
    }

    /// Notes that the client has cancelled a task.
    ///
    /// # Errors
    /// The error that the client gets: it may try again.
    pub(super) async fn cancel(&self, owner: Owner<'_>, id: &str) -> Result<(), RpcError> {
        match self.write(&owner.key(id), &Record::Cancelled).await {
            // Somebody has cancelled it at the same time.
            Ok(()) | Err(LedgerError::Store(StoreError::Conflict)) => Ok(()),
            Err(error) => Err(RpcError::internal(format!(
                "the server was told to cancel the task, but that could not be written down: {error}; try again"
            ))),
        }
    }

    /// What is kept of a task.
    ///
    /// # Errors
    /// The error that the client gets.
    pub(super) async fn find(&self, owner: Owner<'_>, id: &str) -> Result<Kept, RpcError> {
        if id.len() > MAX_ID_BYTES {
            return Ok(Kept::Nothing);
        }
        let key = owner.key(id);
        let found = self.within(async {
            let bucket = self.bucket().await?;
            self.checked(bucket.get(&key).await).await
        });
        let found = found
            .await
            .map_err(|error| RpcError::internal(format!("tasks cannot be looked up: {error}; try again")))?;
        Ok(found.map_or(Kept::Nothing, |record| read(&record.value)))
    }

    async fn write(&self, key: &str, record: &Record) -> Result<(), LedgerError> {
        let record = serde_json::to_vec(record).expect("a record is always JSON");
        self.within(async {
            let bucket = self.bucket().await?;
            self.checked(bucket.create(key, record.into()).await).await
        })
        .await
        .map(drop)
    }

    async fn bucket(&self) -> Result<Bucket, LedgerError> {
        let mut bucket = self.bucket.lock().await;
        if let Some(bucket) = &*bucket {
            return Ok(bucket.clone());
        }
        let options = BucketOptions {
            name: "legacy_tasks",
            max_age: MAX_AGE,
            max_bytes: MAX_BYTES,
            max_record_bytes: i32::try_from(MAX_RESULT_BYTES + RECORD_HEAD_BYTES).unwrap_or(i32::MAX),
        };
        let opened = Bucket::open(&self.bus, options).await?;
        *bucket = Some(opened.clone());
        Ok(opened)
    }

    /// Passes on what the broker says. After a failure the bucket is opened anew: the broker may have lost it.
    async fn checked<T>(&self, said: Result<T, StoreError>) -> Result<T, LedgerError> {
        if let Err(StoreError::Broker(error)) = &said {
            warn!(%error, "the store of tasks has failed");
            *self.bucket.lock().await = None;
        }
        Ok(said?)
    }

    /// While the bus is down nothing is tried: a client hears so at once.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, LedgerError>> + Send,
    ) -> Result<T, LedgerError> {
        if !self.bus.is_connected() {
            return Err(LedgerError::Silent);
        }
        timeout(STORE_LIMIT, work)
            .await
            .unwrap_or(Err(LedgerError::Silent))
    }
}

/// Whose a task is, and where.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) principal: &'a Principal,
    pub(super) endpoint: &'a Endpoint,
}

impl Owner<'_> {
    fn key(self, id: &str) -> String {
        let server = match self.endpoint {
            Endpoint::All | Endpoint::Search => "",
            Endpoint::Server(id) => id.as_str(),
        };
        // No id of a server has a space.
        store::key(self.principal, &format!("{server} {id}"))
    }
}

fn read(record: &Bytes) -> Kept {
    match serde_json::from_slice::<Record>(record) {
        Ok(Record::Cancelled) => Kept::Cancelled,
        Ok(Record::Whole { task, until_ms }) if until_ms > now_ms() => Kept::Whole(task.get().to_owned()),
        // Its time is over, or a newer version has written what is not understood here.
        _ => Kept::Nothing,
    }
}

fn not_kept(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!(
        "the call was made and came to a result, which cannot be kept as a task: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_what_is_kept_for_as_long_as_was_promised() {
        let later = now_ms() + 60_000;
        for (record, expected) in [
            (
                format!(r#"{{"whole":{{"task":{{"n":1e400}},"until_ms":{later}}}}}"#),
                Kept::Whole(r#"{"n":1e400}"#.to_owned()),
            ),
            (
                r#"{"whole":{"task":{"n":1},"until_ms":7}}"#.to_owned(),
                Kept::Nothing,
            ),
            (r#""cancelled""#.to_owned(), Kept::Cancelled),
            (r#"{"of":"a newer version"}"#.to_owned(), Kept::Nothing),
            ("[]".to_owned(), Kept::Nothing),
        ] {
            assert_eq!(read(&Bytes::from(record.clone())), expected, "{record}");
        }
    }

    #[test]
    fn a_task_belongs_to_its_principal_at_its_server() {
        let principal = Principal::developer();
        let other = Principal {
            subject: "other".to_owned(),
            ..Principal::developer()
        };
        let [a, b] = ["a", "b"].map(|id| Endpoint::Server(id.parse().expect("an id")));
        let key = |principal, endpoint| Owner { principal, endpoint }.key("t");
        assert_eq!(key(&principal, &a), key(&principal, &a));
        assert_ne!(key(&principal, &a), key(&principal, &b));
        assert_ne!(key(&principal, &a), key(&other, &a));
    }
}
