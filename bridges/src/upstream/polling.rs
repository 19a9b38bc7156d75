//! Asks a server's health page from time to time, and tells the bus how the server is.
//!
//! A page that changes its mind all the time is believed more slowly, so that lists do not change with it.

use std::{collections::VecDeque, convert::Infallible, future::pending, time::Duration};

use runtime::{HostHealth, host::Source};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::connection::Connector;

/// Changes of mind that are younger than this count.
const REMEMBERED: Duration = Duration::from_secs(600);
/// After so many changes of mind the server is said to be well only when the page has said so as often in a row.
const FLAPS: usize = 3;

/// Watches the page for as long as the server is served.
pub(super) async fn watch(connector: &dyn Connector, health: HostHealth) -> Infallible {
    let Some(every) = connector.health_every() else {
        return pending().await;
    };
    let mut judge = Judge::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = connector.ask_health().await;
        let trouble = judge.hear(answer, Instant::now());
        health.set(Source::Page, trouble).await;
    }
}

/// What is made of the page's answers.
#[derive(Default)]
struct Judge {
    trouble: Option<String>,
    /// How many good answers came in a row.
    good: usize,
    /// When it changed its mind.
    changes: VecDeque<Instant>,
}

impl Judge {
    /// Hears an answer, and says what troubles the server.
    fn hear(&mut self, answer: Result<(), String>, at: Instant) -> Option<String> {
        while self
            .changes
            .front()
            .is_some_and(|change| at.duration_since(*change) > REMEMBERED)
        {
            self.changes.pop_front();
        }
        match answer {
            Ok(()) => {
                self.good += 1;
                let needed = if self.changes.len() >= FLAPS { FLAPS } else { 1 };
                if self.trouble.is_some() && self.good >= needed {
                    self.trouble = None;
                    self.changes.push_back(at);
                }
            }
            Err(why) => {
                self.good = 0;
                if self.trouble.replace(why).is_none() {
                    self.changes.push_back(at);
                }
            }
        }
        self.trouble.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_answer_is_trouble_and_one_good_one_ends_it() {
        let (mut judge, now) = (Judge::default(), Instant::now());
        assert_eq!(judge.hear(Ok(()), now), None);
        assert_eq!(judge.hear(Err("a".to_owned()), now).as_deref(), Some("a"));
        assert_eq!(judge.hear(Err("b".to_owned()), now).as_deref(), Some("b"));
        assert_eq!(judge.hear(Ok(()), now), None);
    }

    #[test]
    fn a_page_that_changes_its_mind_is_believed_when_it_stays_with_it() {
        let (mut judge, mut now) = (Judge::default(), Instant::now());
        let mut hear = |good: bool| {
            now += Duration::from_secs(30);
            judge
                .hear(if good { Ok(()) } else { Err("bad".to_owned()) }, now)
                .is_none()
        };
        let answers = [false, true, false, true, true, true, false, true];
        assert_eq!(
            answers.map(&mut hear),
            [false, true, false, false, false, true, false, false]
        );
        // Later it has a clean slate again.
        for _ in 0..30 {
            hear(true);
        }
        assert_eq!([false, true].map(&mut hear), [false, true]);
    }
}
