//! The places that running calls take of limits on how many run at once, over all processes: [`Slots`] with what writes their changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bus_schema::{
    Token,
    subject::{Span, Subject},
};
use tokio::{
    sync::oneshot,
    time::{Duration, MissedTickBehavior, interval},
};

use super::{
    counters::Counters,
    counts::Counts,
    slots::{Change, Slots, Taken, WINDOW_MS},
};
use crate::{bus::Bus, moment};

/// Where the counters of places are kept: a window is much shorter than what those streams keep.
const SPAN: Span = Span::Minute;
/// How often processes look whether the next window is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One process's places in one count.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Held only to look and to change it.
    slots: Mutex<Slots>,
}

/// What writes changes of places to the broker.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) bus: Bus,
    pub(super) counters: Arc<Counters>,
}

/// What places are counted by: which limit, and what of it is counted together.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) limit: Token,
    pub(super) key: Token,
}

/// The places of one count, with how many there are for all.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) places: Arc<Places>,
    pub(super) name: Name,
    pub(super) most: u64,
    pub(super) writer: Writer,
}

/// The place of one call. It is free again when this is dropped.
pub(super) struct Place(Row);

impl Places {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place without asking anybody.
    #[cfg(test)]
    pub(super) fn occupy(&self, now_ms: u64) {
        let mut slots = self.lock();
        assert!(slots.answered((0, None), 1, now_ms, &mut Vec::new()));
    }

    /// Whether no call has a place, and none is kept for the next one.
    pub(super) fn are_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Row {
    /// Takes a place; `None` when all are taken.
    pub(super) async fn take(&self) -> Option<Place> {
        let mut changes = Vec::new();
        let taken = self.places.lock().take(moment::now_ms(), &mut changes);
        self.write(changes);
        match taken {
            Taken::Yes => Some(Place(self.clone())),
            Taken::No => None,
            Taken::Ask { start_ms } => {
                let (told, answer) = oneshot::channel();
                let row = self.clone();
                // A caller that goes away in the meantime leaves no place behind: it is dropped with what nobody takes.
                self.writer.bus.spawn(async move {
                    let _ = told.send(row.ask(start_ms).await);
                });
                answer.await.ok().flatten()
            }
        }
    }

    async fn ask(self, start_ms: u64) -> Option<Place> {
        let subject = self.name.counter(start_ms);
        let answer = self.writer.counters.add(SPAN, &subject, 1, None).await;
        let mut changes = Vec::new();
        let has_place = self.places.lock().answered(
            (start_ms, answer.map(|(sum, _)| sum)),
            self.most,
            moment::now_ms(),
            &mut changes,
        );
        self.write(changes);
        // Made only then, as one that is dropped gives a place back.
        has_place.then(|| Place(self))
    }

    /// Writes the next window, when it is time.
    fn renew(&self) {
        let mut changes = Vec::new();
        self.places.lock().renew(moment::now_ms(), &mut changes);
        self.write(changes);
    }

    fn write(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let row = self.clone();
        self.writer.bus.spawn(async move {
            for Change { start_ms, by } in changes {
                let subject = row.name.counter(start_ms);
                row.writer.counters.change(SPAN, &subject, by).await;
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut changes = Vec::new();
        let row = &self.0;
        row.places
            .lock()
            .give_back(row.most, moment::now_ms(), &mut changes);
        row.write(changes);
    }
}

impl Name {
    fn counter(&self, start_ms: u64) -> String {
        let counter = Subject::Counter {
            span: SPAN,
            limit: self.limit.clone(),
            key: self.key.clone(),
            window: start_ms / 1_000,
        };
        counter.to_string()
    }
}

/// Writes the places of calls that go on into each next window, for as long as there are counts.
pub(super) async fn keep(counts: Weak<Counts>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(counts) = counts.upgrade() else { return };
        counts.rows().iter().for_each(Row::renew);
    }
}

// A process looks several times before the next window begins.
const _: () = assert!(LOOK_EVERY.as_millis() * 4 <= (WINDOW_MS / 2) as u128);
