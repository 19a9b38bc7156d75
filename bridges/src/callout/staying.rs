//! Whom the callout has let in, for as long as they stay: who may do less than when they came is sent away, and comes back with what is open now.
//!
//! A broker gives grants once, when a client comes. Nothing is asked of it here before something changes that grants are made of; who gains
//! by a change hears of it when they come the next time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::Principal;
use runtime::{
    callout::{Answerer, Connection},
    moment,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::grants::{self, Ground};
use crate::front::Front;

/// How long a client may stay that is not followed, in seconds.
pub(super) const SHORT_STAY_SECS: u64 = 60;
/// How much is remembered of all clients together, in things that were granted.
const MOST_GRANTS: usize = 500_000;
/// What a client counts for beside what it was granted.
const OF_EACH: usize = 16;
/// How many are sent away in [`AWAY_FOR`], so that not all come back at once.
const SENT_AT_ONCE: usize = 64;
const AWAY_FOR: Duration = Duration::from_millis(100);

/// Those who are in.
#[derive(Clone)]
pub(super) struct Staying(Arc<Inner>);

struct Inner {
    room: Arc<Semaphore>,
    sending: Semaphore,
    /// Told when a connection ends by itself. Held only to look, insert or remove.
    known: Mutex<HashMap<Connection, CancellationToken>>,
}

/// What grants are made of may have changed since this was made.
pub(super) struct Changes {
    policies: watch::Receiver<u64>,
    guardrails: watch::Receiver<u64>,
}

/// A client that is followed.
pub(super) struct Stay {
    all: Staying,
    connection: Connection,
    left: CancellationToken,
    _room: OwnedSemaphorePermit,
}

/// What a client was let in for.
pub(super) struct LetIn {
    pub(super) front: Front,
    pub(super) principal: Principal,
    pub(super) grounds: Vec<Ground>,
    pub(super) expires_at: u64,
}

impl Default for Staying {
    fn default() -> Self {
        Self(Arc::new(Inner {
            room: Arc::new(Semaphore::new(MOST_GRANTS)),
            sending: Semaphore::new(SENT_AT_ONCE),
            known: Mutex::default(),
        }))
    }
}

impl Changes {
    /// From now on.
    pub(super) fn of(front: &Front) -> Self {
        let bus = front.bus();
        Self {
            policies: bus.policies().changes(),
            guardrails: bus.guardrails().changes(),
        }
    }

    async fn next(&mut self) {
        let changed = tokio::select! {
            changed = self.policies.changed() => changed,
            changed = self.guardrails.changed() => changed,
        };
        if changed.is_err() {
            // The bus connection has ended, and with it everything that could change.
            std::future::pending::<()>().await;
        }
    }
}

impl Staying {
    /// Makes room for a client; `None` when there is none, so that it should not stay for long.
    pub(super) fn begin(&self, connection: Connection, grounds: &[Ground]) -> Option<Stay> {
        let weight = u32::try_from(grounds.len() + OF_EACH).ok()?;
        let room = Arc::clone(&self.0.room).try_acquire_many_owned(weight).ok()?;
        let left = CancellationToken::new();
        self.known().insert(connection.clone(), left.clone());
        Some(Stay {
            all: self.clone(),
            connection,
            left,
            _room: room,
        })
    }

    /// Forgets a client that has left.
    pub(super) fn left(&self, connection: &Connection) {
        if let Some(left) = self.known().remove(connection) {
            left.cancel();
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Connection, CancellationToken>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay {
    /// Follows a client until it has left, its time is over, or it is sent away.
    pub(super) async fn follow(
        self,
        who: LetIn,
        mut changes: Changes,
        answers: &Answerer,
        stop: &CancellationToken,
    ) {
        let left_secs = who.expires_at.saturating_sub(moment::now_secs());
        let over = sleep(Duration::from_secs(left_secs));
        tokio::pin!(over);
        let why = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.left.cancelled() => return,
                () = &mut over => return,
                () = who.front.blocks().stopped(&who.principal) => break "it is blocked",
                () = changes.next() => {}
            }
            if !grants::would_hold(&who.front, &who.principal, &who.grounds).await {
                break "it may do less than when it came";
            }
        };
        let Ok(_pace) = self.all.0.sending.acquire().await else {
            return;
        };
        let Principal { subject, tenant, .. } = &who.principal;
        match answers.send_away(&self.connection).await {
            Ok(()) => info!(%subject, %tenant, why, "sent a plain NATS client away, to come again"),
            Err(error) if self.left.is_cancelled() => {
                debug!(error, "a client was gone before it was sent away")
            }
            Err(error) => {
                warn!(%subject, %tenant, why, error, "could not send a plain NATS client away; it keeps its grants until it has to come again");
            }
        }
        sleep(AWAY_FOR).await;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.all.known().remove(&self.connection);
    }
}
