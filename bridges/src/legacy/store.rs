//! The sessions of the HTTP door, in a bucket that every bridge reads: any of them serves any request of a session.
//!
//! A session is kept under digests of its principal and of both it and its id, so that an id alone is worth nothing, and what one
//! principal has can be counted. It is read anew for each request,
//! and so what one bridge has changed holds at once at all of them.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Mutex as StdMutex, PoisonError},
    time::Duration,
};

use bus_schema::{Principal, RpcError, Token};
use runtime::{
    Bus,
    moment::now_ms,
    store::{Bucket, BucketOptions, StoreError},
};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};
use uuid::Uuid;

use super::session::{MAX_RECORD_BYTES, Session};
use crate::front::Endpoint;

/// How long a session may be idle: an hour, and the five minutes for which a use need not be written down.
const MAX_IDLE: Duration = Duration::from_secs(65 * 60);
/// How many sessions a principal may have, unless the operator says otherwise. Until callers have identities all of a door are one.
pub const MAX_PER_PRINCIPAL: u64 = 10_000;
/// How long a count holds for principals that are far from the most: for less than an eighth of it.
const COUNT_HOLDS: Duration = Duration::from_secs(1);
const FAR: u64 = 8;
/// How many bytes all sessions may take; a usual one takes less than a thousand.
const MAX_BYTES: i64 = 256 * 1024 * 1024;
/// What the broker counts beside a record itself.
const RECORD_HEAD_BYTES: usize = 4 * 1024;
/// No id of ours is longer.
const MAX_ID_BYTES: usize = 128;
/// How long a read or write may take, with the opening of the bucket.
const STORE_LIMIT: Duration = Duration::from_secs(10);
/// How often a change is tried again that another bridge came before.
const MAX_TRIES: u32 = 10;

/// The sessions of the HTTP door.
pub(crate) struct Sessions {
    bus: Bus,
    /// How many one principal may have.
    most: u64,
    /// How many principals had when they were counted, and those of this process since. Held only to look or change.
    counted: StdMutex<HashMap<String, Counted>>,
    /// Opened at first use, and anew after the broker has failed. Held only to look, and while it is opened.
    bucket: Mutex<Option<Bucket>>,
}

struct Counted {
    at: Instant,
    sessions: u64,
}

/// Why a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The request names none.
    #[error(
        "header Mcp-Session-Id is missing: open a session with `initialize`, or send the metadata of protocol version 2026-07-28"
    )]
    Missing,
    /// There is none of that name for this client, here.
    #[error("the session is unknown or has ended; open a new one with `initialize`")]
    Unknown,
    /// The client asks for more than a session holds.
    #[error(transparent)]
    TooLarge(RpcError),
    /// The server does not do what the client wants kept in its session.
    #[error(transparent)]
    Refused(RpcError),
    /// The principal has as many sessions as it may.
    #[error(
        "{0} sessions are open for this caller, and more are not given: end those that are done with DELETE, or use protocol version \
         2026-07-28, which needs none; a session that nobody uses ends by itself after an hour"
    )]
    TooMany(u64),
    /// There are as many sessions as there may be.
    #[error(
        "no more sessions can be kept at the moment; try again later, or use protocol version 2026-07-28, which needs none"
    )]
    Full,
    /// Sessions cannot be kept at all.
    #[error(
        "no sessions can be kept here, as the platform's NATS has no JetStream; protocol version 2026-07-28 needs none"
    )]
    Nowhere(#[source] StoreError),
    /// The broker does not tell.
    #[error("sessions cannot be read or written at the moment; try again shortly")]
    Store(#[source] StoreError),
    /// It did not tell in time, or is not there.
    #[error(
        "sessions cannot be read or written at the moment, as the bus does not answer; try again shortly"
    )]
    Silent,
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            error @ StoreError::Open { .. } => Self::Nowhere(error),
            error => Self::Store(error),
        }
    }
}

impl Sessions {
    pub(super) fn new(bus: Bus, most: u64) -> Self {
        Self {
            bus,
            most,
            counted: StdMutex::default(),
            bucket: Mutex::default(),
        }
    }

    /// Opens the bucket ahead of its first use, so that an operator reads early what is wrong.
    pub(crate) async fn prepare(&self) {
        if let Err(error) = self.within(self.bucket()).await {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn!(%error, cause, "legacy clients cannot open sessions");
        }
    }

    /// Keeps a session under a fresh unguessable id, and gives the id.
    pub(crate) async fn keep(&self, mut session: Session) -> Result<String, SessionError> {
        // Version 7 carries 74 random bits; two of them leave nothing to guess.
        let id = format!("{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple());
        session.key = key(&session.principal, &id);
        let record = session.write().map_err(SessionError::TooLarge)?;
        self.within(async {
            let bucket = self.bucket().await?;
            self.checked(bucket.create(&session.key, record).await).await?;
            // Counted afterwards, so that those who open sessions at the same time all see each other's.
            if self.count(&bucket, &owner(&session.principal)).await? > self.most {
                self.checked(bucket.remove(&session.key).await).await?;
                return Err(SessionError::TooMany(self.most));
            }
            Ok(())
        })
        .await?;
        Ok(id)
    }

    /// How many sessions a principal has, with one that was just opened. Far from the most it may be less than there are for a moment,
    /// as what other bridges open meanwhile is not seen.
    async fn count(&self, bucket: &Bucket, owner: &str) -> Result<u64, SessionError> {
        let holds = |counted: &Counted| counted.at.elapsed() < COUNT_HOLDS;
        if let Some(counted) = self.counted().get_mut(owner).filter(|counted| holds(counted))
            && counted.sessions < self.most / FAR
        {
            counted.sessions += 1;
            return Ok(counted.sessions);
        }
        let sessions = self.checked(bucket.count(owner).await).await?;
        let at = Instant::now();
        let mut all = self.counted();
        all.retain(|_, counted| holds(counted));
        all.insert(owner.to_owned(), Counted { at, sessions });
        Ok(sessions)
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, HashMap<String, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a request. A foreign one is as unknown as none.
    pub(crate) async fn find(
        &self,
        id: Option<&str>,
        endpoint: &Endpoint,
        principal: &Principal,
    ) -> Result<Session, SessionError> {
        let id = id.ok_or(SessionError::Missing)?;
        if id.len() > MAX_ID_BYTES {
            return Err(SessionError::Unknown);
        }
        let session = self.at(&key(principal, id), principal).await?;
        if session.endpoint != *endpoint {
            return Err(SessionError::Unknown);
        }
        if !session.is_to_be_renewed() {
            return Ok(session);
        }
        match self.change(&session, |_| {}).await {
            Err(SessionError::Unknown) => Err(SessionError::Unknown),
            Ok(renewed) => Ok(renewed),
            Err(error) => {
                // It is as good as before; the next request tries again.
                debug!(%error, "the use of a session could not be written down");
                Ok(session)
            }
        }
    }

    /// Changes a session, as it is by now, and gives it. `edit` may be tried several times.
    pub(crate) async fn change(
        &self,
        session: &Session,
        edit: impl Fn(&mut Session) + Send + Sync,
    ) -> Result<Session, SessionError> {
        self.change_at(&session.key, &session.principal, edit).await
    }

    /// The same of the session of a key.
    pub(crate) async fn change_at(
        &self,
        key: &str,
        principal: &Principal,
        edit: impl Fn(&mut Session) + Send + Sync,
    ) -> Result<Session, SessionError> {
        self.within(async {
            let mut tries = 0;
            loop {
                tries += 1;
                let bucket = self.bucket().await?;
                let record = self.checked(bucket.get(key).await).await?;
                let record = record.ok_or(SessionError::Unknown)?;
                let mut changed =
                    Session::read(key, principal, &record.value).ok_or(SessionError::Unknown)?;
                edit(&mut changed);
                changed.used_ms = now_ms();
                let value = changed.write().map_err(SessionError::TooLarge)?;
                match bucket.update(key, value, record.revision).await {
                    Err(StoreError::Conflict) if tries < MAX_TRIES => {
                        sleep(Duration::from_millis(u64::from(tries))).await;
                    }
                    written => {
                        self.checked(written).await?;
                        return Ok(changed);
                    }
                }
            }
        })
        .await
    }

    /// The session of a key, as it is by now.
    pub(crate) async fn at(&self, key: &str, principal: &Principal) -> Result<Session, SessionError> {
        let record = self
            .within(async {
                let bucket = self.bucket().await?;
                self.checked(bucket.get(key).await).await
            })
            .await?;
        record
            .and_then(|record| Session::read(key, principal, &record.value))
            .ok_or(SessionError::Unknown)
    }

    /// Ends a session.
    pub(crate) async fn end(&self, session: &Session) -> Result<(), SessionError> {
        self.within(async {
            let bucket = self.bucket().await?;
            self.checked(bucket.remove(&session.key).await).await
        })
        .await
    }

    async fn bucket(&self) -> Result<Bucket, SessionError> {
        let mut bucket = self.bucket.lock().await;
        if let Some(bucket) = &*bucket {
            return Ok(bucket.clone());
        }
        let max_record_bytes = MAX_RECORD_BYTES + RECORD_HEAD_BYTES;
        let options = BucketOptions {
            name: "sessions",
            max_age: MAX_IDLE,
            max_bytes: MAX_BYTES,
            max_record_bytes: i32::try_from(max_record_bytes).unwrap_or(i32::MAX),
        };
        let opened = Bucket::open(&self.bus, options).await?;
        *bucket = Some(opened.clone());
        Ok(opened)
    }

    /// Passes on what the broker says. After a failure the bucket is opened anew: the broker may have lost it.
    async fn checked<T>(&self, said: Result<T, StoreError>) -> Result<T, SessionError> {
        if let Err(StoreError::Broker(error)) = &said {
            warn!(%error, "the store of sessions has failed");
            *self.bucket.lock().await = None;
        }
        Ok(said?)
    }

    /// While the bus is down nothing is tried: a client hears so at once.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, SessionError>> + Send,
    ) -> Result<T, SessionError> {
        if !self.bus.is_connected() {
            return Err(SessionError::Silent);
        }
        timeout(STORE_LIMIT, work)
            .await
            .unwrap_or(Err(SessionError::Silent))
    }
}

/// What a session is kept under.
pub(crate) fn key(principal: &Principal, id: &str) -> String {
    let mut digest = Sha256::new();
    // The lengths keep two texts from running into each other.
    for piece in principal.identity().pieces().into_iter().chain([id]) {
        digest.update(piece.len().to_be_bytes());
        digest.update(piece);
    }
    format!("{}.{}", owner(principal), hex(&digest.finalize()))
}

/// What all keys of a principal's sessions begin with.
fn owner(principal: &Principal) -> String {
    let mut digest = Sha256::new();
    for piece in principal.identity().pieces() {
        digest.update(piece.len().to_be_bytes());
        digest.update(piece);
    }
    format!(
        "{}.{}",
        Token::encode(&principal.tenant),
        hex(&digest.finalize()[..16])
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_principal_and_its_id_only() {
        let of = |subject: &str, tenant: &str, id: &str| key(&Principal::new(subject, tenant), id);
        let elsewhere = Principal {
            issuer: Some("https://id.example".to_owned()),
            ..Principal::new("a", "default")
        };
        let mine = of("a", "default", "bc");
        assert_eq!(mine, of("a", "default", "bc"));
        for other in [
            of("ab", "default", "c"),
            of("b", "default", "bc"),
            of("a", "other", "bc"),
            of("a", "default", "bd"),
            key(&elsewhere, "bc"),
        ] {
            assert_ne!(mine, other);
        }
        assert!(mine.starts_with("default.") && mine.len() == "default.".len() + 32 + 1 + 64);
        assert!(of("a", "x y.z", "b").starts_with("x_20y_2Ez."));
    }
}
