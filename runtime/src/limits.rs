//! Keeps limits: every call is counted with the calls of all processes, and most of them without asking the broker.
//!
//! A process buys a hundredth of a limit at a time from the count that all share, and spends that by itself. Who is refused is remembered
//! until it can succeed, so refusals cost nobody anything. Nothing here knows of doors; what a limit is stands in `bus_schema::limits`.

mod budget;
mod counters;
mod counts;
mod places;
mod slots;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bus_schema::{
    Token,
    limits::{Limit, Work, window::Window},
};
use tracing::info;

use crate::{bus::Bus, moment};
use budget::Left;
use counters::Counters;
use counts::{Count, Counts};
use places::Writer;

pub use counts::Running;

/// After how long somebody may come again who has as many calls running as it may: nobody knows when one ends.
const BUSY_RETRY_MS: u64 = 1_000;

/// Keeps the limits of one process.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    bus: Bus,
    limits: ArcSwap<Vec<Limit>>,
    counters: Arc<Counters>,
    counts: Arc<Counts>,
    /// Writes down which calls run.
    writer: Writer,
}

/// A call that may be made.
#[derive(Debug, Default)]
pub struct Passed {
    /// The limit that is nearest to its end, if any counts the call.
    pub standing: Option<Standing>,
    /// Keeps the call's places for as long as it runs.
    pub running: Running,
}

/// How a limit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which limit.
    pub limit: String,
    /// How many calls it allows in its window.
    pub calls: u64,
    /// How many of them are left, as far as this process knows.
    pub remaining: u64,
    /// In how many milliseconds the window ends.
    pub reset_ms: u64,
}

/// A call that may not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit `{}` allows {}; come again in {} s", standing.limit, words, retry_after_ms.div_ceil(1_000))]
pub struct Exceeded {
    /// How the limit stands.
    pub standing: Standing,
    /// In how many milliseconds it is worth coming again.
    pub retry_after_ms: u64,
    /// What the limit allows, in words.
    words: String,
}

/// A call that has been spent of one count, and may still be given back.
struct Spending {
    count: Arc<Count>,
    start_ms: u64,
}

impl Limits {
    /// The limits that hold when nobody says otherwise.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        let (counters, counts) = (Arc::new(Counters::new(bus)), Arc::<Counts>::default());
        bus.spawn(places::keep(Arc::downgrade(&counts)));
        Self(Arc::new(Inner {
            limits: ArcSwap::from_pointee(vec![Limit::default_of_users()]),
            writer: Writer {
                bus: bus.clone(),
                counters: Arc::clone(&counters),
            },
            counters,
            counts,
            bus: bus.clone(),
        }))
    }

    /// Takes other limits, which were checked. What was counted goes on to count for limits of the same name.
    pub fn configure(&self, limits: Vec<Limit>) {
        self.0.limits.store(Arc::new(limits));
        self.0.counts.reopen();
    }

    /// Counts a call by every limit that is for it.
    ///
    /// # Errors
    /// [`Exceeded`] of the first limit that does not allow it; it then counts for none.
    pub async fn pass(&self, work: &Work<'_>) -> Result<Passed, Exceeded> {
        let limits = self.0.limits.load_full();
        let mut passed = Passed::default();
        let (mut spent, mut counted) = (Vec::new(), Vec::new());
        for limit in limits.iter().filter(|limit| limit.is_for(work)) {
            if let Err(exceeded) = self.spend(limit, work, &mut passed, &mut spent).await {
                spent.iter().for_each(Spending::give_back);
                self.0.bus.metrics().limited(&limit.name, "refused");
                return Err(*exceeded);
            }
            counted.push(limit);
        }
        for limit in counted {
            self.0.bus.metrics().limited(&limit.name, "allowed");
        }
        Ok(passed)
    }

    async fn spend(
        &self,
        limit: &Limit,
        work: &Work<'_>,
        passed: &mut Passed,
        spent: &mut Vec<Spending>,
    ) -> Result<(), Box<Exceeded>> {
        let pieces = limit.counts_with(work);
        if let Some(most) = limit.concurrent {
            let count = self.0.counts.of(&pieces, "running");
            let named = Token::encode(&limit.name);
            let writer = &self.0.writer;
            if !passed.running.take_place(&count, &named, most, writer).await {
                let standing = standing(limit, u64::from(most), 0, BUSY_RETRY_MS);
                let words = format!("{most} calls at once");
                return Err(self.exceeded(&count, work, standing, BUSY_RETRY_MS, words));
            }
        }
        let windows = [(Window::of_rate(limit), "window"), (Window::of_day(limit), "day")];
        for (window, kind) in windows {
            let Some(window) = window else { continue };
            let count = self.0.counts.of(&pieces, kind);
            let now_ms = moment::now_ms();
            match count.spend(&self.0.bus, &self.0.counters, limit, window).await {
                Ok(Left {
                    calls,
                    ends_ms,
                    start_ms,
                }) => {
                    let now = standing(limit, window.calls, calls, ends_ms.saturating_sub(now_ms));
                    if passed
                        .standing
                        .as_ref()
                        .is_none_or(|before| now.remaining < before.remaining)
                    {
                        passed.standing = Some(now);
                    }
                    spent.push(Spending { count, start_ms });
                }
                Err((free_at_ms, ends_ms)) => {
                    let standing = standing(limit, window.calls, 0, ends_ms.saturating_sub(now_ms));
                    let words = format!("{} calls in {} s", window.calls, window.length_ms / 1_000);
                    let retry = free_at_ms.saturating_sub(now_ms).max(1);
                    return Err(self.exceeded(&count, work, standing, retry, words));
                }
            }
        }
        Ok(())
    }

    /// A refusal, which is told of when it is the first of its count for a while.
    fn exceeded(
        &self,
        count: &Count,
        work: &Work<'_>,
        standing: Standing,
        retry_after_ms: u64,
        words: String,
    ) -> Box<Exceeded> {
        if count.is_worth_telling() {
            let (subject, tenant) = (&work.principal.subject, &work.principal.tenant);
            info!(
                limit = standing.limit,
                %subject, %tenant, server.id = work.server, name = work.name, retry_after_ms,
                "a limit is reached, and calls are refused"
            );
        }
        Box::new(Exceeded {
            standing,
            retry_after_ms,
            words,
        })
    }
}

impl Spending {
    fn give_back(&self) {
        self.count.give_back(self.start_ms);
    }
}

fn standing(limit: &Limit, calls: u64, remaining: u64, reset_ms: u64) -> Standing {
    Standing {
        limit: limit.name.clone(),
        calls,
        remaining,
        reset_ms,
    }
}
