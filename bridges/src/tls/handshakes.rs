//! How many handshakes are under way. One more than there may be ends the oldest, so that clients which never finish keep nobody out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// Those that are under way, in the order in which they have begun.
#[derive(Clone)]
pub(super) struct Handshakes {
    at_once: usize,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    begun: u64,
    turns: VecDeque<(u64, CancellationToken)>,
}

/// One of them.
pub(super) struct Turn {
    number: u64,
    over: CancellationToken,
    of: Handshakes,
}

impl Handshakes {
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            running: Arc::default(),
        }
    }

    pub(super) fn begin(&self) -> Turn {
        let over = CancellationToken::new();
        let mut running = self.running();
        if running.turns.len() >= self.at_once
            && let Some((_, oldest)) = running.turns.pop_front()
        {
            oldest.cancel();
        }
        running.begun += 1;
        let number = running.begun;
        running.turns.push_back((number, over.clone()));
        drop(running);
        Turn {
            number,
            over,
            of: self.clone(),
        }
    }

    /// Held only to read or change it.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until newer ones need its place.
    pub(super) async fn gives_way(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of
            .running()
            .turns
            .retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_ends_the_oldest_and_a_finished_one_makes_room() {
        let all = Handshakes::new(2);
        let (first, second) = (all.begin(), all.begin());
        let third = all.begin();
        assert!(first.over.is_cancelled() && !second.over.is_cancelled());
        drop(second);
        let fourth = all.begin();
        assert!(!third.over.is_cancelled() && !fourth.over.is_cancelled());
        drop((first, third, fourth));
        assert!(all.running().turns.is_empty());
    }
}
