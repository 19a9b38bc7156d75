//! Reads what is on record: the last records, and those that come.

use std::collections::{HashSet, VecDeque};

use async_nats::{Subscriber, jetstream::stream::RawMessageErrorKind};
use bus_schema::{
    audit::{Outcome, Record},
    subject,
};
use futures::StreamExt as _;
use tracing::debug;

use super::stream;
use crate::bus::{Bus, BusError};

/// How many messages are looked at for the last records of somebody.
const MAX_LOOKED_AT: u64 = 20_000;
/// How many records are remembered, as one may come twice.
const MAX_SEEN: usize = 4_096;

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one tenant.
    pub tenant: Option<String>,
    /// Of one subject.
    pub user: Option<String>,
    /// Of one outcome.
    pub outcome: Option<Outcome>,
}

impl Filter {
    /// Whether a record is wanted.
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        let subject = record.principal.as_ref().map(|who| who.subject.as_str());
        self.tenant.as_ref().is_none_or(|tenant| *tenant == record.tenant)
            && self.user.as_deref().is_none_or(|user| subject == Some(user))
            && self.outcome.is_none_or(|outcome| outcome == record.outcome)
    }
}

/// Says why records cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrailError {
    /// The broker does not let this process hear them.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The stream cannot be read.
    #[error(
        "the records on the stream AUDIT cannot be read; who reads them needs the user `cli` or `observer` of nats.conf"
    )]
    Stream(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is on record.
pub struct Trail {
    bus: Bus,
    filter: Filter,
    live: Subscriber,
    ahead: VecDeque<Record>,
    seen: HashSet<String>,
}

impl Trail {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`TrailError::Bus`] when the broker does not take the subscription.
    pub async fn open(bus: &Bus, filter: Filter) -> Result<Self, TrailError> {
        let live = bus.subscribe(subject::all_audit()).await?;
        // What comes from here on is heard, so that nothing is missed between what is there and what comes.
        bus.round_trip().await?;
        Ok(Self {
            bus: bus.clone(),
            filter,
            live,
            ahead: VecDeque::new(),
            seen: HashSet::new(),
        })
    }

    /// The last records that are wanted, the oldest first. Looks at no more than the last 20,000 messages.
    ///
    /// # Errors
    /// [`TrailError::Stream`] when the broker does not give them.
    pub async fn last(&mut self, most: usize) -> Result<Vec<Record>, TrailError> {
        let Some(stream) = stream::open(&self.bus).await.map_err(TrailError::Stream)? else {
            return Ok(Vec::new());
        };
        let state = &stream.cached_info().state;
        let first = state
            .first_sequence
            .max(state.last_sequence.saturating_sub(MAX_LOOKED_AT));
        let mut found = VecDeque::new();
        let mut at = state.last_sequence;
        while at >= first && at > 0 && found.len() < most {
            match stream.get_raw_message(at).await {
                Ok(message) => {
                    for record in read(&message.payload).into_iter().rev() {
                        if found.len() < most && self.is_new(&record) {
                            found.push_front(record);
                        }
                    }
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
                Err(error) => return Err(TrailError::Stream(error.into())),
            }
            at -= 1;
        }
        Ok(found.into())
    }

    /// The next record that is wanted; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.ahead.pop_front() {
                return Some(record);
            }
            let message = self.live.next().await?;
            for record in read(&message.payload) {
                if self.is_new(&record) {
                    self.ahead.push_back(record);
                }
            }
        }
    }

    fn is_new(&mut self, record: &Record) -> bool {
        if !self.filter.takes(record) {
            return false;
        }
        if self.seen.len() == MAX_SEEN {
            self.seen.clear();
        }
        self.seen.insert(record.id.clone())
    }
}

fn read(payload: &[u8]) -> Vec<Record> {
    serde_json::from_slice(payload).unwrap_or_else(|error| {
        debug!(%error, "records cannot be read here, as another version has written them");
        Vec::new()
    })
}
