//! What one process may spend of one count: calls that it has bought for itself from the count of all, and when it may buy again.
//!
//! Nothing here waits or asks: the clock and the answers of the broker are arguments.

use bus_schema::limits::window::Window;

/// The part of a limit that is bought at once: under 1%, and so is what an idle process keeps from the others.
const LEASES: u64 = 100;

/// One process's part of one count.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the window began that all this is about.
    start_ms: u64,
    /// What all processes used in the window before; `None` until it was asked.
    previous: Option<u64>,
    /// The same as far as this process knows, for when nobody can be asked.
    heard_before: u64,
    /// What all processes have bought in this window, as last heard.
    used: u64,
    /// What this process has bought and not spent.
    held: u64,
    /// Until when there is nothing to be had.
    closed_until_ms: u64,
    /// Whether somebody buys at this moment.
    is_buying: bool,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// It may be made.
    Yes(Left),
    /// It may not.
    No {
        /// When it is worth coming again.
        free_at_ms: u64,
        /// When the window ends.
        ends_ms: u64,
    },
    /// Calls have to be bought first, which the one who hears this does for all.
    Buy(Purchase),
    /// Somebody buys.
    Wait,
}

/// What is left of a window, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// How many calls.
    pub(super) calls: u64,
    /// When the window ends.
    pub(super) ends_ms: u64,
    /// The window that the call was spent in.
    pub(super) start_ms: u64,
}

/// What is to be bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Purchase {
    /// In which window.
    pub(super) start_ms: u64,
    /// How many calls.
    pub(super) calls: u64,
    /// Whether the count of the window before is needed as well.
    pub(super) needs_previous: bool,
}

/// What the broker has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bought {
    /// The count before the purchase.
    pub(super) before: u64,
    /// The count of the window before, if it was asked.
    pub(super) previous: Option<u64>,
}

impl Budget {
    /// Spends one call. `waiting` is how many wait for calls here.
    pub(super) fn spend(&mut self, window: &Window, now_ms: u64, waiting: u64) -> Spent {
        self.turn(window, now_ms);
        let ends_ms = self.start_ms + window.length_ms;
        if self.held > 0 {
            self.held -= 1;
            return Spent::Yes(self.left(window, now_ms));
        }
        if now_ms < self.closed_until_ms {
            return Spent::No {
                free_at_ms: self.closed_until_ms,
                ends_ms,
            };
        }
        if self.is_buying {
            return Spent::Wait;
        }
        self.is_buying = true;
        Spent::Buy(Purchase {
            start_ms: self.start_ms,
            calls: (window.calls / LEASES).max(waiting).max(1),
            needs_previous: window.slides && self.previous.is_none(),
        })
    }

    /// Takes what was bought, and gives how many of it are more than there may be: they go back.
    pub(super) fn take(&mut self, window: &Window, purchase: Purchase, bought: Bought, now_ms: u64) -> u64 {
        self.is_buying = false;
        self.turn(window, now_ms);
        if self.start_ms != purchase.start_ms {
            // The window has ended meanwhile.
            return purchase.calls;
        }
        if let Some(previous) = bought.previous {
            self.previous = Some(previous);
        }
        let previous = self.previous.unwrap_or_default();
        let allowed = window.allowed(previous, now_ms);
        let granted = purchase.calls.min(allowed.saturating_sub(bought.before));
        self.held += granted;
        // What others have bought too many of goes back as well.
        self.used = bought.before.min(allowed) + granted;
        if granted == 0 {
            self.closed_until_ms = window.free_at(previous, self.used, now_ms).max(now_ms + 1);
        }
        purchase.calls - granted
    }

    /// Takes calls without asking anybody, by what this process knows, and gives how many: nobody has counted them yet.
    pub(super) fn take_unasked(&mut self, window: &Window, purchase: Purchase, now_ms: u64) -> u64 {
        let bought = Bought {
            before: self.used,
            previous: purchase.needs_previous.then_some(self.heard_before),
        };
        purchase.calls - self.take(window, purchase, bought, now_ms)
    }

    /// Takes back a call that was spent and not made.
    pub(super) fn give_back(&mut self, start_ms: u64) {
        if self.start_ms == start_ms {
            self.held += 1;
        }
    }

    /// Begins to ask anew, as another limit holds from now on. What was bought stays bought.
    pub(super) fn reopen(&mut self) {
        self.closed_until_ms = 0;
        self.held = 0;
    }

    /// Whether nothing of this can count any more.
    pub(super) fn is_over(&self, window: &Window, now_ms: u64) -> bool {
        !self.is_buying
            && now_ms >= self.start_ms.saturating_add(2 * window.length_ms)
            && now_ms >= self.closed_until_ms
    }

    /// Goes on to the window of a moment.
    fn turn(&mut self, window: &Window, now_ms: u64) {
        let start_ms = window.start(now_ms);
        if start_ms == self.start_ms {
            return;
        }
        let follows = start_ms == self.start_ms + window.length_ms;
        self.heard_before = if follows { self.used } else { 0 };
        self.start_ms = start_ms;
        self.previous = None;
        self.used = 0;
        self.held = 0;
    }

    fn left(&self, window: &Window, now_ms: u64) -> Left {
        let allowed = window.allowed(self.previous.unwrap_or_default(), now_ms);
        Left {
            calls: allowed.saturating_sub(self.used) + self.held,
            ends_ms: self.start_ms + window.length_ms,
            start_ms: self.start_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const WINDOW: Window = Window {
        calls: 200,
        length_ms: 60_000,
        slides: true,
    };

    /// The counts that all share.
    #[derive(Default)]
    struct Counts {
        counts: HashMap<u64, u64>,
        round_trips: u64,
    }

    impl Counts {
        fn answer(&mut self, window: &Window, purchase: Purchase) -> Bought {
            self.round_trips += 1;
            let before = purchase.start_ms.checked_sub(window.length_ms);
            let previous = before.and_then(|start| self.counts.get(&start)).copied();
            let count = self.counts.entry(purchase.start_ms).or_default();
            *count += purchase.calls;
            Bought {
                before: *count - purchase.calls,
                previous: purchase.needs_previous.then(|| previous.unwrap_or_default()),
            }
        }

        fn call(&mut self, budget: &mut Budget, window: &Window, now_ms: u64) -> bool {
            loop {
                match budget.spend(window, now_ms, 0) {
                    Spent::Yes(_) => return true,
                    Spent::No { free_at_ms, .. } => {
                        assert!(free_at_ms > now_ms);
                        return false;
                    }
                    Spent::Buy(purchase) => {
                        let bought = self.answer(window, purchase);
                        let over = budget.take(window, purchase, bought, now_ms);
                        *self.counts.get_mut(&purchase.start_ms).expect("a count") -= over;
                    }
                    Spent::Wait => panic!("nobody else buys"),
                }
            }
        }
    }

    #[test]
    fn several_processes_together_use_a_limit_up_and_never_exceed_it() {
        let (mut counts, mut bridges) = (Counts::default(), [(); 3].map(|()| Budget::default()));
        let mut allowed = 0;
        for call in 0..600 {
            allowed += u64::from(counts.call(&mut bridges[call % 3], &WINDOW, 120_000));
        }
        assert_eq!(allowed, WINDOW.calls);
        assert!(
            counts.round_trips <= 100 + 3,
            "{} round trips",
            counts.round_trips
        );
        let before = counts.round_trips;
        for bridge in &mut bridges {
            assert!(!counts.call(bridge, &WINDOW, 130_000));
        }
        assert_eq!(
            counts.round_trips, before,
            "who is refused once is refused without asking"
        );
    }

    #[test]
    fn an_idle_process_keeps_at_most_a_hundredth_from_the_others() {
        let (mut counts, mut bridges) = (Counts::default(), [(); 3].map(|()| Budget::default()));
        assert!(counts.call(&mut bridges[0], &WINDOW, 0) && counts.call(&mut bridges[1], &WINDOW, 0));
        let mut allowed = 2;
        while counts.call(&mut bridges[2], &WINDOW, 0) {
            allowed += 1;
        }
        assert!(allowed >= WINDOW.calls - 2 * (WINDOW.calls / LEASES), "{allowed}");
    }

    #[test]
    fn over_the_border_of_two_windows_the_rate_holds() {
        let (mut counts, mut bridges) = (Counts::default(), [(); 3].map(|()| Budget::default()));
        let mut made = Vec::new();
        // Three times the rate, for three windows, at three processes.
        for tick in 0..1_800u64 {
            let now_ms = 60_000 * 10 + tick * 100;
            let bridge = &mut bridges[usize::try_from(tick % 3).expect("small")];
            if counts.call(bridge, &WINDOW, now_ms) {
                made.push(now_ms);
            }
        }
        for (at, from) in made.iter().enumerate() {
            let within = made[at..]
                .iter()
                .take_while(|until| **until < from + 1_000)
                .count();
            assert!(within <= 200);
        }
        let whole = made.len() as u64;
        assert!(whole <= 3 * WINDOW.calls, "{whole} in three windows");
        // The first window takes all of it; after that it comes back as the window slides.
        assert!(whole >= 3 * WINDOW.calls * 95 / 100, "{whole} in three windows");
    }

    #[test]
    fn without_a_broker_a_process_keeps_to_the_limit_by_itself() {
        let (mut budget, mut taken) = (Budget::default(), 0);
        let mut spend = |now_ms| {
            loop {
                match budget.spend(&WINDOW, now_ms, 0) {
                    Spent::Yes(_) => return true,
                    Spent::No { .. } => return false,
                    Spent::Buy(purchase) => taken += budget.take_unasked(&WINDOW, purchase, now_ms),
                    Spent::Wait => panic!("nobody else buys"),
                }
            }
        };
        let first = (0..300).filter(|_| spend(120_000)).count();
        let later = (0..300).filter(|_| spend(210_000)).count();
        assert_eq!((first, later), (200, 100), "and counts the window before");
        assert_eq!(taken, 300, "and knows what it has to tell");
    }

    #[test]
    fn what_was_not_made_can_be_spent_again_in_the_same_window() {
        let (mut counts, mut budget) = (Counts::default(), Budget::default());
        let one = Window { calls: 1, ..WINDOW };
        assert!(counts.call(&mut budget, &one, 120_000));
        budget.give_back(120_000);
        assert!(counts.call(&mut budget, &one, 120_001));
        assert!(!counts.call(&mut budget, &one, 120_002));
        budget.give_back(60_000);
        assert!(
            !counts.call(&mut budget, &one, 120_003),
            "what is of another window is gone"
        );
    }
}
