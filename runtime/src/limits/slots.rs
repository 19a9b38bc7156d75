//! The places of one process in one count of calls that run at once, over all processes. Nothing here waits or asks: the clock and the sums
//! of the broker are arguments, and what is to be written is given back.
//!
//! A place is a one in a counter of the present window. A process that lives writes its places into the next window's counter before that
//! begins; one that has died does not, and so its places are free when the last window ends that it has written into.

/// How long a window is.
pub(super) const WINDOW_MS: u64 = 8_000;
/// When the next window is written, after the beginning of this one: clocks may be apart by what is left.
const AHEAD_MS: u64 = WINDOW_MS / 2;
/// The part of a limit that a process may keep for its next calls.
const SPARE: u64 = 100;
/// How long a process does not ask again after it was told that all places are taken, unless one of its own calls ends.
const CLOSED_MS: u64 = 50;

/// A change of the counter of a window: when that begins, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) start_ms: u64,
    pub(super) by: i64,
}

/// One process's places in one count.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// When the window began that the places are written into.
    start_ms: u64,
    /// How many places are written there for this process.
    held: u64,
    /// How many calls of this process run.
    running: u64,
    /// Whether they are written into the next window, too.
    is_ahead: bool,
    /// Until when there are none to be had.
    closed_until_ms: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It has a place.
    Yes,
    /// All are taken.
    No,
    /// One has to be asked for, in the counter of the window that begins then.
    Ask {
        /// When it begins.
        start_ms: u64,
    },
}

impl Slots {
    /// Takes a place, of which there are `most`. The changes are made whatever comes of it.
    pub(super) fn take(&mut self, now_ms: u64, changes: &mut Vec<Change>) -> Taken {
        self.renew(now_ms, changes);
        if self.running < self.held {
            self.running += 1;
            return Taken::Yes;
        }
        if now_ms < self.closed_until_ms {
            return Taken::No;
        }
        Taken::Ask {
            start_ms: self.start_ms,
        }
    }

    /// Takes the answer: the sum with the place that was asked for, or `None` where nobody could be asked, and this process goes by what it
    /// knows. Says whether the call has its place.
    pub(super) fn answered(
        &mut self,
        (start_ms, sum): (u64, Option<u64>),
        most: u64,
        now_ms: u64,
        changes: &mut Vec<Change>,
    ) -> bool {
        self.renew(now_ms, changes);
        let is_free = match sum {
            Some(sum) => sum <= most,
            None => self.running < most,
        };
        if !is_free {
            changes.extend(sum.map(|_| Change { start_ms, by: -1 }));
            self.closed_until_ms = now_ms + CLOSED_MS;
            return false;
        }
        self.held += 1;
        self.running += 1;
        if start_ms != self.start_ms && sum.is_some() {
            // The window has ended meanwhile.
            changes.push(self.change(1));
        }
        if self.is_ahead {
            changes.push(self.change_ahead(1));
        } else {
            self.look_ahead(now_ms, changes);
        }
        true
    }

    /// Gives a call's place back.
    pub(super) fn give_back(&mut self, most: u64, now_ms: u64, changes: &mut Vec<Change>) {
        self.renew(now_ms, changes);
        self.running = self.running.saturating_sub(1);
        self.closed_until_ms = 0;
        self.shrink(most / SPARE, changes);
    }

    /// Goes on to the window of a moment, and writes the next one when it is time.
    pub(super) fn renew(&mut self, now_ms: u64, changes: &mut Vec<Change>) {
        let start_ms = now_ms - now_ms % WINDOW_MS;
        if start_ms != self.start_ms {
            let is_written = self.is_ahead && start_ms == self.start_ms + WINDOW_MS;
            self.start_ms = start_ms;
            self.is_ahead = false;
            if !is_written && self.held > 0 {
                // Nobody has looked in time; the places are written late.
                self.held = self.running;
                changes.push(self.change(i64::try_from(self.held).unwrap_or(i64::MAX)));
            }
        }
        self.look_ahead(now_ms, changes);
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0 && self.running == 0
    }

    fn look_ahead(&mut self, now_ms: u64, changes: &mut Vec<Change>) {
        if self.is_ahead || self.held == 0 || now_ms < self.start_ms + AHEAD_MS {
            return;
        }
        // What nobody has used for so long goes back.
        self.shrink(0, changes);
        if self.held > 0 {
            self.is_ahead = true;
            let by = i64::try_from(self.held).unwrap_or(i64::MAX);
            changes.push(self.change_ahead(by));
        }
    }

    /// Gives back all places that no call has but so many.
    fn shrink(&mut self, spare: u64, changes: &mut Vec<Change>) {
        let over = self.held.saturating_sub(self.running + spare);
        if over == 0 {
            return;
        }
        self.held -= over;
        let by = -i64::try_from(over).unwrap_or(i64::MAX);
        changes.push(self.change(by));
        if self.is_ahead {
            changes.push(self.change_ahead(by));
        }
    }

    fn change(&self, by: i64) -> Change {
        Change {
            start_ms: self.start_ms,
            by,
        }
    }

    fn change_ahead(&self, by: i64) -> Change {
        Change {
            start_ms: self.start_ms + WINDOW_MS,
            by,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The counters that all share, and processes that use them.
    #[derive(Default)]
    struct Fleet {
        counters: HashMap<u64, i64>,
        slots: Vec<Slots>,
    }

    impl Fleet {
        fn of(processes: usize) -> Self {
            Self {
                slots: (0..processes).map(|_| Slots::default()).collect(),
                ..Self::default()
            }
        }

        fn write(&mut self, changes: &[Change]) {
            for change in changes {
                *self.counters.entry(change.start_ms).or_default() += change.by;
            }
        }

        fn begin(&mut self, process: usize, most: u64, now_ms: u64) -> bool {
            let mut changes = Vec::new();
            let taken = self.slots[process].take(now_ms, &mut changes);
            self.write(&changes);
            let Taken::Ask { start_ms } = taken else {
                return taken == Taken::Yes;
            };
            let sum = self.counters.entry(start_ms).or_default();
            *sum += 1;
            let sum = u64::try_from(*sum).ok();
            let mut changes = Vec::new();
            let is_taken = self.slots[process].answered((start_ms, sum), most, now_ms, &mut changes);
            self.write(&changes);
            is_taken
        }

        fn end(&mut self, process: usize, most: u64, now_ms: u64) {
            let mut changes = Vec::new();
            self.slots[process].give_back(most, now_ms, &mut changes);
            self.write(&changes);
        }

        fn look(&mut self, process: usize, now_ms: u64) {
            let mut changes = Vec::new();
            self.slots[process].renew(now_ms, &mut changes);
            self.write(&changes);
        }
    }

    const START: u64 = 100 * WINDOW_MS;

    #[test]
    fn processes_together_run_no_more_than_there_may_be_in_any_window() {
        let mut fleet = Fleet::of(3);
        let mut running = Vec::new();
        // Calls begin and end all the time, over many windows.
        for step in 0..2_000_u64 {
            let now = START + step * 37;
            let process = usize::try_from(step % 3).expect("small");
            (0..3).for_each(|process| fleet.look(process, now));
            if step % 5 < 3 && fleet.begin(process, 4, now) {
                running.push(process);
            }
            assert!(running.len() <= 4, "{} run at step {step}", running.len());
            if step % 5 == 4 && !running.is_empty() {
                fleet.end(running.remove(0), 4, now);
            }
        }
        let end = START + 2_000 * 37;
        for process in running.drain(..) {
            fleet.end(process, 4, end);
        }
        let begun = (0..9)
            .filter(|step| fleet.begin(step % 3, 4, end + CLOSED_MS))
            .count();
        assert_eq!(begun, 4, "nothing was lost on the way");
    }

    #[test]
    fn what_a_process_held_that_has_died_is_free_after_twelve_seconds() {
        for died_after in [0, AHEAD_MS - 1, AHEAD_MS, WINDOW_MS - 1] {
            let mut fleet = Fleet::of(2);
            assert!((0..2).all(|_| fleet.begin(0, 2, START)));
            let died = START + died_after;
            (START..=died)
                .step_by(500)
                .chain([died])
                .for_each(|now| fleet.look(0, now));
            assert!(!fleet.begin(1, 2, died));
            let free = died + WINDOW_MS + AHEAD_MS;
            assert!(fleet.begin(1, 2, free), "died after {died_after} ms");
        }
    }

    #[test]
    fn who_looks_too_late_writes_what_runs_all_the_same() {
        let mut fleet = Fleet::of(2);
        assert!(fleet.begin(0, 1, START));
        let late = START + 3 * WINDOW_MS + 1;
        fleet.look(0, late);
        assert!(!fleet.begin(1, 1, late));
        fleet.end(0, 1, late);
        assert!(fleet.begin(1, 1, late + CLOSED_MS));
    }

    #[test]
    fn a_hundredth_of_a_large_limit_stays_at_hand_until_it_was_not_used_for_a_while() {
        let mut fleet = Fleet::of(1);
        assert!((0..3).all(|_| fleet.begin(0, 200, START)));
        (0..3).for_each(|_| fleet.end(0, 200, START));
        assert_eq!(fleet.counters[&START], 2);
        assert!(fleet.begin(0, 200, START) && fleet.begin(0, 200, START));
        assert_eq!(fleet.counters[&START], 2, "nothing had to be asked for");
        (0..2).for_each(|_| fleet.end(0, 200, START));
        fleet.look(0, START + AHEAD_MS);
        assert_eq!(fleet.counters[&START], 0);
        assert_eq!(fleet.counters.get(&(START + WINDOW_MS)), None);
    }

    #[test]
    fn a_process_that_can_ask_nobody_keeps_the_limit_by_itself() {
        let (mut slots, mut changes) = (Slots::default(), Vec::new());
        for expected in [true, true, false] {
            let Taken::Ask { start_ms } = slots.take(START, &mut changes) else {
                assert!(!expected);
                continue;
            };
            let taken = slots.answered((start_ms, None), 2, START, &mut changes);
            assert_eq!(taken, expected);
        }
    }
}
