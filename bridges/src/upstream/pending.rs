//! The calls that a child works on, found by the number that each has on its pipe.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus_schema::{RpcError, mcp::Era};
use runtime::Outcome;

use super::request::Asked;
use crate::outbox::Outbox;

/// One call in flight.
pub(super) struct Entry {
    pub(super) from: Origin,
    /// What the child has said about it.
    pub(super) outbox: Outbox<Outcome>,
}

/// Where a call came from, which decides what its answer is made into.
pub(super) enum Origin {
    /// A caller on the bus, to be answered in the modern era.
    Bus { asked: Asked, era: Era },
    /// This room itself; the answer stays as it came.
    Room,
}

impl Entry {
    pub(super) fn new(from: Origin) -> Self {
        Self {
            from,
            outbox: Outbox::default(),
        }
    }

    /// Answers with an error of this side.
    pub(super) fn fail(&self, error: &RpcError) {
        let id = match &self.from {
            Origin::Bus { asked, .. } => Some(asked.id.as_str()),
            Origin::Room => None,
        };
        self.outbox.put_answer(Outcome::error(id, error));
    }
}

#[derive(Default)]
pub(super) struct Pending(Mutex<Table>);

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Arc<Entry>>,
    /// Why there are no more calls.
    closed: Option<RpcError>,
}

impl Pending {
    /// Adds a call.
    ///
    /// # Errors
    /// Why there are no more calls.
    pub(super) fn insert(&self, id: u64, entry: Arc<Entry>) -> Result<(), RpcError> {
        let mut table = self.table();
        match &table.closed {
            Some(error) => Err(error.clone()),
            None => {
                table.entries.insert(id, entry);
                Ok(())
            }
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Entry>> {
        self.table().entries.get(&id).cloned()
    }

    pub(super) fn remove(&self, id: u64) -> Option<Arc<Entry>> {
        self.table().entries.remove(&id)
    }

    /// Whether a call still waits for its answer.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.table().entries.contains_key(&id)
    }

    /// The one call from the bus, when there is exactly one.
    pub(super) fn only_one(&self) -> Option<Arc<Entry>> {
        let table = self.table();
        let mut calls = table
            .entries
            .values()
            .filter(|entry| matches!(entry.from, Origin::Bus { .. }));
        calls.next().filter(|_| calls.next().is_none()).cloned()
    }

    /// Answers every call with one error, and later ones with the other.
    pub(super) fn close(&self, running: &RpcError, later: RpcError) {
        let entries = {
            let mut table = self.table();
            table.closed.get_or_insert(later);
            std::mem::take(&mut table.entries)
        };
        for entry in entries.into_values() {
            entry.fail(running);
        }
    }

    /// Held only to look up, insert or remove.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
