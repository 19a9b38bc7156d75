//! The time in which calls count.

use std::{
    sync::atomic::{AtomicI64, AtomicU8, Ordering},
    time::Instant,
};

use tokio::sync::Notify;

const SHUT: u8 = 0;
const OPEN: u8 = 1;
const OVER: u8 = 2;

/// Tells callers whether what they measure counts, and whether to go on.
pub(super) struct Window {
    phase: AtomicU8,
    /// How many calls are still to be begun, where their number ends the measurement and not the time.
    left: AtomicI64,
    used_up: Notify,
}

impl Window {
    /// One that is opened and closed by the clock.
    pub(super) fn shut() -> Self {
        Self {
            phase: AtomicU8::new(SHUT),
            left: AtomicI64::new(i64::MAX),
            used_up: Notify::new(),
        }
    }

    /// One that is open until that many calls have ended.
    pub(super) fn of_calls(calls: u64) -> Self {
        Self {
            phase: AtomicU8::new(OPEN),
            left: AtomicI64::new(i64::try_from(calls).unwrap_or(i64::MAX)),
            used_up: Notify::new(),
        }
    }

    pub(super) fn open(&self) {
        self.phase.store(OPEN, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.phase.store(OVER, Ordering::Relaxed);
    }

    pub(super) async fn used_up(&self) {
        self.used_up.notified().await;
    }

    /// Counts a call that has ended, and tells whether its caller makes another.
    pub(super) fn count(&self, begun: Instant, latencies: &mut Vec<u64>) -> bool {
        match self.phase.load(Ordering::Relaxed) {
            SHUT => true,
            OPEN => {
                latencies.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
                if self.left.fetch_sub(1, Ordering::Relaxed) > 1 {
                    return true;
                }
                self.close();
                self.used_up.notify_one();
                false
            }
            _ => false,
        }
    }
}
