//! How many calls of a window are left at a moment, from two counts: what was used in this window, and in the one before.
//!
//! Windows stand side by side, so that every process counts in the same ones without asking. One that slides counts the calls of the window
//! before it as well, by the part of that which is less than a window ago, so that the border between two does not allow twice as many. At
//! no moment are there more than `calls` at once, and in any stretch of time of `d` windows at most `calls × (1 + d)`, like a bucket of
//! tokens that is filled at that rate.

use super::{DAY_SECS, Limit};

/// The calls of a limit in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many there may be.
    pub calls: u64,
    /// How long it is.
    pub length_ms: u64,
    /// Whether the window before counts.
    pub slides: bool,
}

impl Window {
    /// The window of a limit's rate.
    #[must_use]
    pub fn of_rate(limit: &Limit) -> Option<Self> {
        Some(Self {
            calls: limit.calls?,
            length_ms: limit.window_secs * 1_000,
            slides: true,
        })
    }

    /// The day of a limit's quota.
    #[must_use]
    pub fn of_day(limit: &Limit) -> Option<Self> {
        Some(Self {
            calls: limit.daily?,
            length_ms: DAY_SECS * 1_000,
            slides: false,
        })
    }

    /// When the window began that a moment is in. Times are milliseconds since 1970.
    #[must_use]
    pub const fn start(&self, now_ms: u64) -> u64 {
        now_ms - now_ms % self.length_ms
    }

    /// How many calls may have been made in this window by a moment.
    #[must_use]
    pub fn allowed(&self, previous: u64, now_ms: u64) -> u64 {
        if !self.slides {
            return self.calls;
        }
        let left = self.length_ms - now_ms % self.length_ms;
        let weight = (u128::from(previous) * u128::from(left)).div_ceil(u128::from(self.length_ms));
        let weight = u64::try_from(weight).unwrap_or(u64::MAX);
        self.calls.saturating_sub(weight)
    }

    /// The first moment from now on at which one call more than `used` may be made, if nobody makes another.
    #[must_use]
    pub fn free_at(&self, previous: u64, used: u64, now_ms: u64) -> u64 {
        let start = self.start(now_ms);
        if let Some(at) = self.free_within(previous, used, start) {
            return at.max(now_ms);
        }
        let next = start + self.length_ms;
        if !self.slides {
            return next;
        }
        self.free_within(used, 0, next).unwrap_or(next + self.length_ms)
    }

    /// The same within one window.
    fn free_within(&self, previous: u64, used: u64, start: u64) -> Option<u64> {
        let room = self.calls.checked_sub(used + 1)?;
        if !self.slides || previous == 0 {
            return Some(start);
        }
        let left = u128::from(room) * u128::from(self.length_ms) / u128::from(previous);
        let left = u64::try_from(left).unwrap_or(u64::MAX).min(self.length_ms);
        (left > 0).then(|| start + self.length_ms - left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Window = Window {
        calls: 60,
        length_ms: 60_000,
        slides: true,
    };

    #[test]
    fn what_was_used_in_the_window_before_comes_back_little_by_little() {
        for (previous, at, expected) in [
            (0, 0, 60),
            (60, 0, 0),
            (60, 999, 0),
            (60, 1_000, 1),
            (60, 30_000, 30),
            (60, 59_999, 59),
            (30, 0, 30),
            (600, 59_999, 59),
            (600, 0, 0),
        ] {
            assert_eq!(
                MINUTE.allowed(previous, 120_000 + at),
                expected,
                "{previous} {at}"
            );
        }
        let day = Window {
            slides: false,
            ..MINUTE
        };
        assert_eq!(
            day.allowed(60, 120_000),
            60,
            "a day does not count the one before"
        );
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        for (previous, used, at, expected) in [
            (0, 59, 5_000, 5_000),
            (0, 60, 5_000, 61_000),
            (60, 0, 0, 1_000),
            (60, 30, 30_000, 31_000),
            (60, 60, 30_000, 61_000),
        ] {
            assert_eq!(
                MINUTE.free_at(previous, used, at),
                expected,
                "{previous} {used} {at}"
            );
        }
        let one = Window { calls: 1, ..MINUTE };
        assert_eq!(one.free_at(0, 1, 5_000), 120_000);
        let day = Window {
            slides: false,
            ..MINUTE
        };
        assert_eq!(day.free_at(9, 60, 5_000), 60_000);
    }

    fn window() -> impl Strategy<Value = Window> {
        (1..500u64, 1_000..100_000u64, any::<bool>()).prop_map(|(calls, length_ms, slides)| Window {
            calls,
            length_ms,
            slides,
        })
    }

    proptest! {
        #[test]
        fn the_told_moment_is_the_first_one(window in window(), previous in 0..1_000u64, used in 0..600u64, now in 0..1_000_000u64) {
            let at = window.free_at(previous, used, now);
            let room = |at: u64| {
                let windows = (window.start(at) - window.start(now)) / window.length_ms;
                match windows {
                    0 => window.allowed(previous, at) > used,
                    1 => window.allowed(used, at) > 0,
                    _ => window.allowed(0, at) > 0,
                }
            };
            prop_assert!(room(at));
            prop_assert!(at == now || !room(at - 1));
        }

        #[test]
        fn what_is_allowed_only_grows_within_a_window(window in window(), previous in 0..1_000u64, one in 0..100_000u64, other in 0..100_000u64) {
            let (early, late) = (one.min(other) % window.length_ms, one.max(other) % window.length_ms);
            if early <= late {
                prop_assert!(window.allowed(previous, early) <= window.allowed(previous, late));
            }
        }

        /// Callers that come whenever they like, each taking what it gets.
        #[test]
        fn no_stretch_of_time_has_more_than_the_rate_and_one_burst(
            calls in 1..50u64,
            length_ms in 100..5_000u64,
            steps in prop::collection::vec((0..800u64, 1..60u64), 1..80),
        ) {
            let window = Window { calls, length_ms, slides: true };
            let (mut now, mut start, mut previous, mut used) = (0u64, 0u64, 0u64, 0u64);
            let mut made: Vec<u64> = Vec::new();
            for (pause, wanted) in steps {
                now += pause;
                let own = window.start(now);
                if own != start {
                    previous = if own == start + length_ms { used } else { 0 };
                    (start, used) = (own, 0);
                }
                for _ in 0..wanted {
                    if used < window.allowed(previous, now) {
                        used += 1;
                        made.push(now);
                    }
                }
            }
            for (first, from) in made.iter().enumerate() {
                for (last, until) in made.iter().enumerate().skip(first) {
                    let count = u128::from((last - first + 1) as u64);
                    let stretch = u128::from(until - from);
                    let bound = u128::from(calls) * (u128::from(length_ms) + stretch);
                    prop_assert!(count * u128::from(length_ms) <= bound + u128::from(length_ms), "{count} in {stretch}");
                }
            }
        }
    }
}
