//! Large results that outlive a call: what is too large for a message or a record, such as exported files.
//!
//! An object is written at its end only, and read from anywhere. Its bytes stand in pieces of one size in the bucket `results`, beside one small
//! record that says how many of them count, what their SHA-256 is so far, and a note of whoever writes. That record is written last and over
//! the revision that was read: so bytes and note are committed together or not at all, a writer that was replaced commits nothing more, and who
//! takes over goes on where the last commit ended. What no commit counts is overwritten, or goes by its age.
//!
//! JetStream's usual layout of objects is not used: it puts an object only as a whole, reads it only from its beginning, and pushes up to 32 MiB
//! ahead of a slow reader. Here a reader asks for one piece after the other.

mod checksum;
mod error;
mod reading;
mod writing;

use std::{ops::Range, sync::Arc, time::Duration};

use bus_schema::{Principal, Token};
use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Mutex, time::timeout};
use tracing::warn;

use super::{Bucket, BucketOptions, StoreError};
use crate::{bus::Bus, moment::now_ms};

pub use checksum::Checksum;
pub use error::ObjectError;
pub use reading::Reading;
pub use writing::{Opened, Writing};

/// How many bytes a piece has; the last one of an object may have fewer. As much as the bus puts into one message.
pub const PIECE_BYTES: usize = 256 * 1024;
/// The largest object that is given in one piece of memory.
pub const WHOLE_BYTES: u64 = 64 * 1024 * 1024;
/// What a piece or the record of an object may take, with what the broker writes beside it.
const MAX_RECORD_BYTES: i32 = 512 * 1024;
/// How many bytes of text what is told of an object may have, and how many a note.
const ABOUT_BYTES: usize = 1024;
const NOTE_BYTES: usize = 64 * 1024;
/// What is gathered of a stream before it is committed.
const GATHERED_BYTES: usize = 4 * PIECE_BYTES;
/// How long one read or write of a record may take, with the opening of the bucket.
const STORE_LIMIT: Duration = Duration::from_secs(10);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLimits {
    /// How long an object is kept after it was finished. It may take as long again to write it.
    pub kept: Duration,
    /// How many bytes all objects may take. Counts for a bucket that is not there yet.
    pub max_bytes: i64,
    /// How many bytes those of one tenant may take, in whole pieces.
    pub tenant_bytes: u64,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self {
            kept: Duration::from_secs(24 * 60 * 60),
            max_bytes: 2 * 1024 * 1024 * 1024,
            tenant_bytes: 3 * 512 * 1024 * 1024,
        }
    }
}

/// Which object of whom. Whoever has another owner has another key for the same id, so nobody comes by what is somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    tenant: String,
    /// Tenant, owner and id, as subjects have them.
    path: String,
}

impl ObjectKey {
    /// The key of somebody's object.
    #[must_use]
    pub fn new(owner: &Principal, id: &str) -> Self {
        let tenant = Token::encode(&owner.tenant).as_str().to_owned();
        let owned = digest(&owner.identity().pieces());
        let path = format!("{tenant}.{owned}.{}", digest(&[id]));
        Self { tenant, path }
    }

    fn record(&self) -> String {
        format!("o.{}", self.path)
    }

    fn piece(&self, number: u64) -> String {
        format!("p.{}.{number}", self.path)
    }
}

/// Texts as one token. Their lengths keep two of them from running into each other.
fn digest(texts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    }
    hex(&digest.finalize()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an object is, for whoever gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Its media type, such as `text/csv`.
    pub media_type: String,
    /// What to call it where it is saved as a file.
    pub file_name: String,
}

/// An object that is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it is.
    pub about: About,
    /// How many bytes it has.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// What its writer has noted last.
    pub note: Value,
    /// When it was finished, in milliseconds since 1970.
    pub finished_ms: u64,
    /// Until when it can be read, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// What is kept of an object beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    about: About,
    /// Of the bytes that count; it knows how many they are.
    checksum: Checksum,
    note: Value,
    begun_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_ms: Option<u64>,
}

impl Manifest {
    fn bytes(&self) -> u64 {
        self.checksum.bytes()
    }

    /// The object, if it is finished.
    fn info(&self, kept: Duration) -> Option<Info> {
        let finished_ms = self.finished_ms?;
        let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        // Its first piece is as old as its beginning, and goes after twice that time.
        let last = self.begun_ms.saturating_add(kept.saturating_mul(2));
        Some(Info {
            about: self.about.clone(),
            bytes: self.bytes(),
            sha256: self.checksum.finish(),
            note: self.note.clone(),
            finished_ms,
            expires_ms: finished_ms.saturating_add(kept).min(last),
        })
    }
}

/// The objects of the bus. Cloning is cheap.
#[derive(Clone)]
pub struct Objects(Arc<Shared>);

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects")
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

struct Shared {
    bus: Bus,
    limits: ObjectLimits,
    /// Opened at first use, and anew after the broker has failed. Held only to look, and while it is opened.
    bucket: Mutex<Option<Bucket>>,
}

impl Objects {
    /// The objects of a bus; nothing is asked of it yet.
    #[must_use]
    pub fn new(bus: &Bus, limits: ObjectLimits) -> Self {
        Self(Arc::new(Shared {
            bus: bus.clone(),
            limits,
            bucket: Mutex::default(),
        }))
    }

    /// Keeps some bytes. The same again is kept already.
    ///
    /// # Errors
    /// [`ObjectError::Exists`] when there are others under the key; what else [`Writing::append`] says.
    pub async fn put(&self, key: &ObjectKey, about: About, bytes: Bytes) -> Result<Info, ObjectError> {
        let mut writing = match self.write(key, about).await? {
            Opened::Finished(info) => return the_same(info, &bytes),
            Opened::Unfinished(writing) => writing,
        };
        let done = usize::try_from(writing.bytes()).unwrap_or(usize::MAX);
        let Some(committed) = bytes.get(..done) else {
            return Err(ObjectError::Exists);
        };
        if writing.checksum() != &Checksum::of(committed) {
            return Err(ObjectError::Exists);
        }
        if done < bytes.len() {
            writing.append(bytes.slice(done..), Value::Null).await?;
        }
        writing.finish().await
    }

    /// Keeps what a stream gives, of which no more than a mebibyte and one of its chunks are held at a time. What an earlier attempt has left
    /// under the key is forgotten.
    ///
    /// # Errors
    /// [`ObjectError::Exists`] when there is a finished one, [`ObjectError::Source`] when the stream fails; what else [`Writing::append`] says.
    pub async fn put_stream<E>(
        &self,
        key: &ObjectKey,
        about: About,
        mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Info, ObjectError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut opened = self.write(key, about.clone()).await?;
        if matches!(&opened, Opened::Unfinished(writing) if writing.bytes() > 0) {
            self.delete(key).await?;
            opened = self.write(key, about).await?;
        }
        let Opened::Unfinished(mut writing) = opened else {
            return Err(ObjectError::Exists);
        };
        let mut gathered = BytesMut::new();
        while let Some(chunk) = chunks
            .try_next()
            .await
            .map_err(|error| ObjectError::Source(error.into()))?
        {
            gathered.extend_from_slice(&chunk);
            if gathered.len() >= GATHERED_BYTES {
                writing.append(gathered.split().freeze(), Value::Null).await?;
            }
        }
        if !gathered.is_empty() {
            writing.append(gathered.freeze(), Value::Null).await?;
        }
        writing.finish().await
    }

    /// Gives the bytes of a finished object; `None` when there is none.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`] above [`WHOLE_BYTES`]; what else [`Reading::pieces`] says.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, ObjectError> {
        let Some(reading) = self.read(key).await? else {
            return Ok(None);
        };
        let bytes = reading.info().bytes;
        if bytes > WHOLE_BYTES {
            return Err(ObjectError::TooLarge(bytes));
        }
        let whole = reading.pieces(0..bytes);
        let whole = whole.try_fold(BytesMut::new(), async |mut whole, piece| {
            whole.extend_from_slice(&piece);
            Ok(whole)
        });
        Ok(Some(whole.await?.freeze()))
    }

    /// What a finished object is; `None` when there is none.
    ///
    /// # Errors
    /// [`ObjectError::Store`] when the broker does not answer.
    pub async fn info(&self, key: &ObjectKey) -> Result<Option<Info>, ObjectError> {
        let found = self.manifest(key).await?;
        let info = found.and_then(|(manifest, _)| manifest.info(self.0.limits.kept));
        Ok(info.filter(|info| info.expires_ms > now_ms()))
    }

    /// Begins to read a finished object; `None` when there is none.
    ///
    /// # Errors
    /// [`ObjectError::Store`] when the broker does not answer.
    pub async fn read(&self, key: &ObjectKey) -> Result<Option<Reading>, ObjectError> {
        let info = self.info(key).await?;
        Ok(info.map(|info| Reading::new(self.clone(), key.clone(), info)))
    }

    /// Begins to write an object, or takes over where its last writer has committed: that one commits nothing more.
    ///
    /// # Errors
    /// [`ObjectError::Taken`] when somebody else does so at the same moment, [`ObjectError::Quota`] when the tenant has no room for more.
    pub async fn write(&self, key: &ObjectKey, about: About) -> Result<Opened, ObjectError> {
        Writing::open(self, key, about).await
    }

    /// Forgets an object, finished or not. Whoever reads or writes it at that moment fails.
    ///
    /// # Errors
    /// [`ObjectError::Store`] when the broker does not answer.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let (record, pieces) = (key.record(), format!("p.{}.*", key.path));
        self.within(async |bucket| {
            bucket.remove(&record).await?;
            bucket.remove(&pieces).await
        })
        .await
    }

    async fn manifest(&self, key: &ObjectKey) -> Result<Option<(Manifest, u64)>, ObjectError> {
        let record = key.record();
        self.within(async |bucket| bucket.read(&record).await).await
    }

    /// The bytes of a range, which lies within the first `bytes` of the object and within one piece.
    async fn piece(&self, key: &ObjectKey, bytes: Range<u64>) -> Result<Bytes, ObjectError> {
        let size = PIECE_BYTES as u64;
        let number = bytes.start / size;
        let name = key.piece(number);
        let found = self.within(async |bucket| bucket.get(&name).await).await?;
        let piece = found.ok_or(ObjectError::Gone)?.value;
        let at = |place: u64| usize::try_from(place - number * size).unwrap_or(usize::MAX);
        let range = at(bytes.start)..at(bytes.end);
        if piece.len() < range.end {
            return Err(ObjectError::Gone);
        }
        Ok(piece.slice(range))
    }

    /// Whether a tenant has room for more.
    async fn check_quota(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let pieces = format!("p.{}", key.tenant);
        let pieces = self.within(async |bucket| bucket.count(&pieces).await).await?;
        match pieces.saturating_mul(PIECE_BYTES as u64) < self.0.limits.tenant_bytes {
            true => Ok(()),
            false => Err(ObjectError::Quota(self.0.limits.tenant_bytes)),
        }
    }

    async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&Bucket) -> Result<T, StoreError>,
    ) -> Result<T, ObjectError> {
        let silent = || StoreError::Broker("the bus does not answer".into());
        if !self.0.bus.is_connected() {
            return Err(silent().into());
        }
        let working = async { work(&self.bucket().await?).await };
        let done = timeout(STORE_LIMIT, working)
            .await
            .unwrap_or_else(|_| Err(silent()));
        if let Err(StoreError::Broker(error)) = &done {
            warn!(%error, "the store of results has failed");
            // The broker may have lost it.
            *self.0.bucket.lock().await = None;
        }
        done.map_err(Into::into)
    }

    async fn bucket(&self) -> Result<Bucket, StoreError> {
        let mut bucket = self.0.bucket.lock().await;
        if let Some(bucket) = &*bucket {
            return Ok(bucket.clone());
        }
        let options = BucketOptions {
            name: "results",
            max_age: self.0.limits.kept * 2,
            max_bytes: self.0.limits.max_bytes,
            max_record_bytes: MAX_RECORD_BYTES,
        };
        let opened = Bucket::open(&self.0.bus, options).await?;
        *bucket = Some(opened.clone());
        Ok(opened)
    }
}

fn the_same(info: Info, bytes: &[u8]) -> Result<Info, ObjectError> {
    match info.sha256 == Checksum::of(bytes).finish() {
        true => Ok(info),
        false => Err(ObjectError::Exists),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_belongs_to_its_owner_in_a_tenant() {
        let ann = Principal {
            issuer: Some("https://id.example".to_owned()),
            ..Principal::new("ann", "t")
        };
        let others = [
            Principal::new("ann", "t"),
            Principal {
                subject: "bob".to_owned(),
                ..ann.clone()
            },
            Principal {
                tenant: "u".to_owned(),
                ..ann.clone()
            },
        ];
        let key = ObjectKey::new(&ann, "1");
        assert_eq!(key, ObjectKey::new(&ann.clone(), "1"));
        assert_ne!(key, ObjectKey::new(&ann, "2"));
        for other in others {
            assert_ne!(key, ObjectKey::new(&other, "1"), "{other:?}");
        }
        let strange = ObjectKey::new(&ann, "../*.> é");
        assert_eq!(strange.piece(7).split('.').count(), 5);
    }

    #[test]
    fn an_object_is_read_no_longer_than_its_first_piece_is_there() {
        let hour = Duration::from_secs(3600);
        let of = |finished_ms| Manifest {
            about: About {
                media_type: "text/csv".to_owned(),
                file_name: "a.csv".to_owned(),
            },
            checksum: Checksum::default(),
            note: Value::Null,
            begun_ms: 0,
            finished_ms,
        };
        assert_eq!(of(None).info(hour), None);
        let expires = |finished_ms| of(Some(finished_ms)).info(hour).unwrap().expires_ms;
        assert_eq!(expires(1_000), 3_601_000);
        assert_eq!(expires(5_000_000), 7_200_000);
    }
}
