//! The counts that one process has to do with: a budget for each, bought for all who wait by one of them, and forgotten when it is over.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::{
    Token,
    limits::{Limit, window::Window},
    subject::Subject,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{
    budget::{Bought, Budget, Left, Purchase, Spent},
    counters::{Counters, span},
    places::{Name, Place, Places, Row, Writer},
};
use crate::{bus::Bus, moment};

/// How many counts a process remembers. Beyond, new ones are counted together, limit by limit: who invents names gains nothing by it.
const MAX_COUNTS: usize = 50_000;
/// After how many new counts those are forgotten that are over.
const SWEEP_EVERY: usize = 1_024;
/// How often refusals of one count are told of at most.
const TELL_EVERY_MS: u64 = 60_000;
/// Bytes of the digest that a count is known by on the bus.
const KEY_BYTES: usize = 16;
/// What all counts are called together that are too many.
const OTHERS: &str = "others";

/// All counts of a process.
#[derive(Default)]
pub(super) struct Counts {
    /// Held only to look up, insert or sweep.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_key: HashMap<String, Arc<Count>>,
    since_sweep: usize,
}

/// One count.
pub(super) struct Count {
    /// What it is called on the bus.
    key: Token,
    /// Held only to look and to change it.
    state: Mutex<State>,
    /// Tells those who wait that calls were bought.
    bought: Notify,
    waiting: AtomicU64,
    /// Where running calls are counted.
    places: Arc<Places>,
    /// By what they are written down, and how many there may be, once a limit has said so.
    row: Mutex<Option<Row>>,
    /// When it was last told of a refusal, in milliseconds since 1970.
    told_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    budget: Budget,
    /// The window that the budget was last about.
    window: Option<Window>,
}

/// The places that a call takes of limits on how many run at once. They are free again when this is dropped.
#[derive(Default)]
pub struct Running(Vec<(Arc<Count>, Place)>);

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Running").field(&self.0.len()).finish()
    }
}

impl Running {
    /// Takes a place, unless all are taken.
    pub(super) async fn take_place(
        &mut self,
        count: &Arc<Count>,
        limit: &Token,
        most: u32,
        writer: &Writer,
    ) -> bool {
        let row = Row {
            places: Arc::clone(&count.places),
            name: Name {
                limit: limit.clone(),
                key: count.key.clone(),
            },
            most: u64::from(most),
            writer: writer.clone(),
        };
        *count.row() = Some(row.clone());
        let place = row.take().await;
        let is_taken = place.is_some();
        self.0.extend(place.map(|place| (Arc::clone(count), place)));
        is_taken
    }
}

impl Counts {
    /// The count of what belongs together.
    pub(super) fn of(&self, pieces: &[&str], kind: &str) -> Arc<Count> {
        let name = joined(pieces, kind);
        let mut known = self.lock();
        if let Some(count) = known.by_key.get(&name) {
            return Arc::clone(count);
        }
        known.since_sweep += 1;
        let is_full = known.by_key.len() >= MAX_COUNTS;
        if known.since_sweep >= SWEEP_EVERY {
            known.since_sweep = 0;
            let now_ms = moment::now_ms();
            known.by_key.retain(|_, count| !count.is_over(now_ms));
        }
        let name = if is_full && known.by_key.len() >= MAX_COUNTS {
            joined(&[pieces.first().copied().unwrap_or_default(), OTHERS], kind)
        } else {
            name
        };
        let made = || Arc::new(Count::new(&name));
        Arc::clone(known.by_key.entry(name.clone()).or_insert_with(made))
    }

    /// The places that calls have, or that are kept for the next ones.
    pub(super) fn rows(&self) -> Vec<Row> {
        let counts = self.lock();
        let used = counts.by_key.values().filter(|count| !count.places.are_empty());
        used.filter_map(|count| count.row().clone()).collect()
    }

    /// Begins to ask anew for each.
    pub(super) fn reopen(&self) {
        for count in self.lock().by_key.values() {
            count.lock().budget.reopen();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn new(name: &str) -> Self {
        let digest = Sha256::digest(name);
        let mut key = String::with_capacity(2 * KEY_BYTES);
        for byte in &digest[..KEY_BYTES] {
            let _ = write!(key, "{byte:02x}");
        }
        Self {
            key: Token::encode(&key),
            state: Mutex::default(),
            bought: Notify::new(),
            waiting: AtomicU64::new(0),
            places: Arc::default(),
            row: Mutex::default(),
            told_ms: AtomicU64::new(0),
        }
    }

    /// Spends one call, and waits for it to be bought if need be; else says when one is free and when the window ends.
    pub(super) async fn spend(
        self: &Arc<Self>,
        bus: &Bus,
        counters: &Arc<Counters>,
        limit: &Limit,
        window: Window,
    ) -> Result<Left, (u64, u64)> {
        match self.look(window) {
            Spent::Yes(left) => Ok(left),
            Spent::No { free_at_ms, ends_ms } => Err((free_at_ms, ends_ms)),
            // Boxed, as most calls need none of it.
            spent => Box::pin(self.wait(spent, bus, counters, limit, window)).await,
        }
    }

    async fn wait(
        self: &Arc<Self>,
        mut spent: Spent,
        bus: &Bus,
        counters: &Arc<Counters>,
        limit: &Limit,
        window: Window,
    ) -> Result<Left, (u64, u64)> {
        let _waiting = Waiting::of(&self.waiting);
        loop {
            // Made before the look, so that nothing is told in between.
            let bought = self.bought.notified();
            if matches!(spent, Spent::Wait) {
                spent = self.look(window);
            }
            match spent {
                Spent::Yes(left) => return Ok(left),
                Spent::No { free_at_ms, ends_ms } => return Err((free_at_ms, ends_ms)),
                Spent::Buy(purchase) => {
                    let buying = buy(
                        Arc::clone(self),
                        bus.clone(),
                        Arc::clone(counters),
                        Token::encode(&limit.name),
                        window,
                        purchase,
                    );
                    // A caller that goes away takes nobody's calls with it.
                    bus.spawn(buying);
                }
                Spent::Wait => {}
            }
            bought.await;
            spent = Spent::Wait;
        }
    }

    fn look(&self, window: Window) -> Spent {
        let mut state = self.lock();
        state.window = Some(window);
        let waiting = self.waiting.load(Ordering::Relaxed);
        state.budget.spend(&window, moment::now_ms(), waiting)
    }

    /// Whether a refusal is the first for a while, so that it is told of.
    pub(super) fn is_worth_telling(&self) -> bool {
        let now_ms = moment::now_ms();
        let is_due = |told: u64| (now_ms.saturating_sub(told) >= TELL_EVERY_MS).then_some(now_ms);
        self.told_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due)
            .is_ok()
    }

    pub(super) fn give_back(&self, start_ms: u64) {
        self.lock().budget.give_back(start_ms);
    }

    fn is_over(&self, now_ms: u64) -> bool {
        let state = self.lock();
        let is_used = !self.places.are_empty() || self.waiting.load(Ordering::Relaxed) > 0;
        let is_over = |window: Window| state.budget.is_over(&window, now_ms);
        !is_used && state.window.is_none_or(is_over)
    }

    fn row(&self) -> MutexGuard<'_, Option<Row>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buys calls for all who wait.
async fn buy(
    count: Arc<Count>,
    bus: Bus,
    counters: Arc<Counters>,
    limit: Token,
    window: Window,
    purchase: Purchase,
) {
    let span = span(window.length_ms);
    let subject = |start_ms: u64| {
        let counter = Subject::Counter {
            span,
            limit: limit.clone(),
            key: count.key.clone(),
            window: start_ms / 1_000,
        };
        counter.to_string()
    };
    let own = subject(purchase.start_ms);
    let before = purchase
        .needs_previous
        .then(|| subject(purchase.start_ms.saturating_sub(window.length_ms)));
    let answer = counters.add(span, &own, purchase.calls, before.as_deref()).await;
    let over = {
        let mut state = count.lock();
        let now_ms = moment::now_ms();
        match answer {
            Some((sum, previous)) => {
                let bought = Bought {
                    before: sum.saturating_sub(purchase.calls),
                    previous,
                };
                state.budget.take(&window, purchase, bought, now_ms)
            }
            None => {
                let uncounted = state.budget.take_unasked(&window, purchase, now_ms);
                counters.owe(&bus, span, &own, uncounted);
                0
            }
        }
    };
    count.bought.notify_waiters();
    if over > 0 {
        // Nobody waits for it.
        bus.spawn(async move { counters.give_back(&own, over).await });
    }
}

/// One who waits for calls to be bought.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Texts as one, so that no others give the same.
fn joined(pieces: &[&str], kind: &str) -> String {
    let mut name = String::with_capacity(96);
    for piece in pieces.iter().copied().chain([kind]) {
        let _ = write!(name, "{}:", piece.len());
        name.push_str(piece);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_pieces_are_another_count_and_the_same_are_the_same() {
        let counts = Counts::default();
        let one = counts.of(&["a", "bc"], "window");
        assert!(Arc::ptr_eq(&one, &counts.of(&["a", "bc"], "window")));
        for other in [
            counts.of(&["ab", "c"], "window"),
            counts.of(&["a", "bc"], "day"),
            counts.of(&["a", "bc", ""], "window"),
        ] {
            assert_ne!(one.key, other.key);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_over_is_forgotten() {
        let counts = Counts::default();
        let kept = counts.of(&["a", "busy"], "running");
        kept.places.occupy(moment::now_ms());
        for at in 0..MAX_COUNTS + SWEEP_EVERY {
            counts.of(&["a", &at.to_string()], "window");
        }
        assert!(counts.lock().by_key.len() <= MAX_COUNTS);
        assert!(
            Arc::ptr_eq(&kept, &counts.of(&["a", "busy"], "running")),
            "a call that runs is not forgotten"
        );
    }

    #[test]
    fn counts_that_are_too_many_are_counted_together() {
        let counts = Counts::default();
        let window = Window {
            calls: 1,
            length_ms: 60_000,
            slides: true,
        };
        for at in 0..MAX_COUNTS {
            let count = counts.of(&["a", &at.to_string()], "window");
            let mut state = count.lock();
            state.window = Some(window);
            state.budget.spend(&window, moment::now_ms(), 0);
        }
        let one = counts.of(&["a", "one more"], "window");
        assert!(Arc::ptr_eq(&one, &counts.of(&["a", "and another"], "window")));
        assert!(!Arc::ptr_eq(&one, &counts.of(&["b", "one more"], "window")));
    }
}
