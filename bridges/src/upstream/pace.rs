//! How fast a server is read that says more than answers: one that floods must not take the time that others need.
//!
//! What it says beyond the pace stays with it, as it finds its pipe or connection full.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

/// How many notifications and requests of one server are read in a second.
const A_SECOND: u64 = 2_000;
/// A long one counts for as many as it has pieces of so many bytes.
const PIECE: usize = 16 * 1024;
/// After so many in a row others have their turn.
const TURN: u64 = 32;
const SECOND: Duration = Duration::from_secs(1);

/// The pace of one server.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// When the present second has begun.
    since: Option<Instant>,
    count: u64,
    /// In the present turn.
    in_turn: u64,
}

/// What a reader does before it reads on.
enum Next {
    Goes,
    Yields,
    Waits(Instant),
}

impl Pace {
    /// Notes a message that is no answer.
    pub(super) fn note(&self, bytes: usize) {
        let now = Instant::now();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.since.is_none_or(|since| now >= since + SECOND) {
            said.since = Some(now);
            said.count = 0;
        }
        said.count += 1 + (bytes / PIECE) as u64;
        said.in_turn += 1;
    }

    /// Waits until the server may be read on.
    pub(super) async fn rest(&self) {
        match self.next() {
            Next::Goes => {}
            Next::Yields => yield_now().await,
            Next::Waits(until) => sleep_until(until).await,
        }
    }

    fn next(&self) -> Next {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.count >= A_SECOND
            && let Some(since) = said.since
        {
            said.in_turn = 0;
            return Next::Waits(since + SECOND);
        }
        if said.in_turn >= TURN {
            said.in_turn = 0;
            return Next::Yields;
        }
        Next::Goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pace: &Pace, messages: u64, bytes: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..messages {
            pace.note(bytes);
            pace.rest().await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_floods_is_read_at_its_pace_and_any_other_at_once() {
        let pace = Pace::default();
        assert_eq!(read(&pace, A_SECOND - 1, 100).await, Duration::ZERO);
        let took = read(&pace, 5 * A_SECOND, 100).await;
        assert!(took >= 5 * SECOND && took < 6 * SECOND, "{took:?}");
        // Long ones count for more.
        let took = read(&pace, A_SECOND, 9 * PIECE).await;
        assert!(took >= 9 * SECOND && took < 11 * SECOND, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn others_have_their_turn_while_much_is_read_at_once() {
        let pace = Pace::default();
        let turns = async {
            let mut turns = 0;
            loop {
                turns += 1;
                yield_now().await;
                if turns == 20 {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = read(&pace, A_SECOND - 1, 1) => panic!("nobody else had a turn"),
            () = turns => {}
        }
    }
}
