//! Stops calls to a server that keeps failing, and finds out when it does not any more.
//!
//! What counts is what the way to the server does: connections that are lost, answers that are none, calls that take too long. An
//! error that the server itself answers is an answer. A breaker outlives the hosts of its server, so that a server which fails at
//! each call does not begin anew with each start. Whom the calls go to meanwhile is decided in [`super::admission`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::upstream::BreakerKnob;
use tokio::{sync::watch, time::Instant};

/// The window is so many slots, and moves by one of them at a time.
const SLOTS: usize = 10;
/// The longest that a server which fails again and again is left alone, unless its own setting says longer.
const LONGEST_OPEN: Duration = Duration::from_secs(300);
/// How soon a call is worth another try while one of them is tried.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);

/// The breaker of one server.
#[derive(Clone, Debug)]
pub struct Breaker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    knob: BreakerKnob,
    /// Held only to look or change.
    state: Mutex<State>,
    /// Counts the changes of phase.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Counts the phases; what began in another than the present one says nothing about this one.
    number: u64,
    window: Window,
    /// How often in a row it has opened.
    opened: u32,
    /// Why it opened.
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All calls go.
    Closed,
    /// None goes, and at this time the server is asked whether it is there.
    Open(Instant),
    /// It is there. One call goes, since this time if it has begun, and decides.
    Trial(Option<Instant>),
}

/// What is counted, slot by slot.
#[derive(Debug)]
struct Window {
    began: Instant,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which slot of all time it is.
    number: u128,
    failed: u32,
    answered: u32,
}

/// How a call went, as far as it says something of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// There was an answer.
    Well,
    /// There was none, and why.
    Badly(String),
}

/// Says that a call does not go to the server now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// When it is worth another try.
    pub(super) again_in: Duration,
    /// What is wrong with the server.
    pub(super) why: String,
}

/// A call that goes. Dropped without a word it says nothing.
#[derive(Debug)]
pub(super) struct Admitted {
    breaker: Breaker,
    number: u64,
}

impl Window {
    fn new(began: Instant) -> Self {
        Self {
            began,
            slots: Default::default(),
        }
    }

    fn number(&self, at: Instant, length: Duration) -> u128 {
        at.duration_since(self.began).as_nanos() / length.as_nanos().max(1)
    }

    fn count(&mut self, went: &Went, at: Instant, length: Duration) {
        let number = self.number(at, length);
        let slot = &mut self.slots[usize::try_from(number % SLOTS as u128).unwrap_or_default()];
        if slot.number != number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        let count = match went {
            Went::Well => &mut slot.answered,
            Went::Badly(_) => &mut slot.failed,
        };
        *count = count.saturating_add(1);
    }

    /// How many calls have failed lately, and how many were answered.
    fn sums(&self, at: Instant, length: Duration) -> (u32, u32) {
        let now = self.number(at, length);
        let recent = self.slots.iter().filter(|slot| slot.number + SLOTS as u128 > now);
        recent.fold((0, 0), |(failed, answered), slot| {
            (
                slot.failed.saturating_add(failed),
                slot.answered.saturating_add(answered),
            )
        })
    }
}

impl Breaker {
    /// A breaker with these settings; none when they say that there is to be none.
    #[must_use]
    pub fn new(knob: BreakerKnob) -> Option<Self> {
        (knob.failures > 0).then(|| {
            Self(Arc::new(Inner {
                knob,
                state: Mutex::new(State {
                    phase: Phase::Closed,
                    number: 0,
                    window: Window::new(Instant::now()),
                    opened: 0,
                    why: String::new(),
                }),
                changed: watch::Sender::new(0),
            }))
        })
    }

    /// Lets a call go to the server, or not.
    ///
    /// # Errors
    /// [`Refused`] when it does not.
    pub(super) fn admit(&self) -> Result<Admitted, Refused> {
        let now = Instant::now();
        let mut state = self.state();
        let refused = |again_in, state: &State| {
            Err(Refused {
                again_in,
                why: state.why.clone(),
            })
        };
        match state.phase {
            Phase::Closed => {}
            // Until the server has said that it is there, which may take a moment longer.
            Phase::Open(until) => {
                let left = until.saturating_duration_since(now);
                return refused(left.max(TRIAL_PAUSE), &state);
            }
            Phase::Trial(Some(since)) if now.duration_since(since) < self.open() => {
                return refused(TRIAL_PAUSE, &state);
            }
            // The one before may take long and still be answered; it is not waited for alone.
            Phase::Trial(_) => state.phase = Phase::Trial(Some(now)),
        }
        Ok(Admitted {
            breaker: self.clone(),
            number: state.number,
        })
    }

    /// Why the server should not be used now.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state();
        matches!(state.phase, Phase::Open(_)).then(|| format!("its calls fail: {}", state.why))
    }

    /// Its settings.
    pub(super) fn knob(&self) -> BreakerKnob {
        self.0.knob
    }

    /// Whether calls go, in the word that is usual for breakers.
    pub(super) fn word(&self) -> &'static str {
        match self.state().phase {
            Phase::Closed => "closed",
            Phase::Open(_) => "open",
            Phase::Trial(_) => "half-open",
        }
    }

    /// When the server is to be asked whether it is there, if that is to be asked.
    pub(super) fn asks_at(&self) -> Option<Instant> {
        match self.state().phase {
            Phase::Open(until) => Some(until),
            Phase::Closed | Phase::Trial(_) => None,
        }
    }

    /// The server was asked, and this came of it.
    pub(super) fn asked(&self, went: &Went) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Open(_)) {
            return;
        }
        match went {
            Went::Well => self.enter(&mut state, Phase::Trial(None)),
            Went::Badly(_) => self.reopen(&mut state),
        }
    }

    /// Counts the changes of what a call would find.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn ended(&self, number: u64, went: Went) {
        let mut state = self.state();
        if state.number != number {
            return;
        }
        match (state.phase, went) {
            (Phase::Closed, went) => self.count(&mut state, went),
            (Phase::Trial(_), Went::Well) => {
                state.opened = 0;
                state.window = Window::new(Instant::now());
                self.enter(&mut state, Phase::Closed);
            }
            (Phase::Trial(_), Went::Badly(why)) => {
                state.why = format!("it was asked again, and failed again ({why})");
                self.reopen(&mut state);
            }
            (Phase::Open(_), _) => {}
        }
    }

    fn count(&self, state: &mut State, went: Went) {
        let (now, slot) = (Instant::now(), self.slot());
        state.window.count(&went, now, slot);
        let Went::Badly(why) = went else { return };
        let (failed, answered) = state.window.sums(now, slot);
        // A server that answers most of its calls is not to be stopped for a tool of it that does not work.
        if failed >= self.0.knob.failures && failed >= answered {
            state.why = format!(
                "{failed} of {} within {} s did, the last one so: {why}",
                failed.saturating_add(answered),
                self.0.knob.within_secs
            );
            self.reopen(state);
        }
    }

    /// Opens it, for longer each time in a row.
    fn reopen(&self, state: &mut State) {
        let open = self.open();
        let longer = open.saturating_mul(1 << state.opened.min(8));
        state.opened = state.opened.saturating_add(1);
        let until = Instant::now() + longer.min(LONGEST_OPEN.max(open));
        self.enter(state, Phase::Open(until));
    }

    fn enter(&self, state: &mut State, phase: Phase) {
        state.phase = phase;
        state.number += 1;
        self.0.changed.send_replace(state.number);
    }

    /// A call that was to decide ends without a word.
    fn dropped(&self, number: u64) {
        let mut state = self.state();
        if state.number == number && matches!(state.phase, Phase::Trial(_)) {
            state.phase = Phase::Trial(None);
        }
    }

    fn open(&self) -> Duration {
        Duration::from_secs(self.0.knob.open_secs.into())
    }

    fn slot(&self) -> Duration {
        Duration::from_secs(self.0.knob.within_secs.into()) / SLOTS as u32
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// The call has ended, and says this of the server.
    pub(super) fn ended(self, went: Went) {
        self.breaker.ended(self.number, went);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // After a word the phase is another, unless that is the one in which nothing depends on this.
        self.breaker.dropped(self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const KNOB: BreakerKnob = BreakerKnob {
        failures: 3,
        within_secs: 30,
        open_secs: 10,
    };

    fn breaker() -> Breaker {
        Breaker::new(KNOB).expect("it is on")
    }

    fn bad() -> Went {
        Went::Badly("lost".to_owned())
    }

    fn call(breaker: &Breaker, went: Went) {
        breaker.admit().expect("it goes").ended(went);
    }

    fn broken() -> Breaker {
        let breaker = breaker();
        for _ in 0..3 {
            call(&breaker, bad());
        }
        breaker
    }

    async fn secs(secs: u64) {
        advance(Duration::from_secs(secs)).await;
    }

    #[test]
    fn without_failures_to_count_there_is_none() {
        assert!(Breaker::new(BreakerKnob { failures: 0, ..KNOB }).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_last_failure_within_the_window() {
        let breaker = breaker();
        call(&breaker, bad());
        call(&breaker, bad());
        // These two are forgotten by then.
        secs(31).await;
        call(&breaker, bad());
        secs(20).await;
        call(&breaker, bad());
        assert_eq!(breaker.trouble(), None);
        call(&breaker, bad());
        let refused = breaker.admit().expect_err("it is open");
        assert_eq!(refused.again_in, Duration::from_secs(10));
        assert_eq!(refused.why, "3 of 3 within 30 s did, the last one so: lost");
        assert!(breaker.trouble().expect("trouble").contains("lost"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_most_of_its_calls_goes_on() {
        let breaker = breaker();
        for _ in 0..10 {
            for went in [Went::Well, Went::Well, bad()] {
                call(&breaker, went);
            }
        }
        assert!(breaker.admit().is_ok());
        // When it answers no more, that is found out all the same.
        secs(31).await;
        for _ in 0..3 {
            call(&breaker, bad());
        }
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_nobody_waits_for_say_nothing() {
        let breaker = breaker();
        for _ in 0..10 {
            drop(breaker.admit().expect("it goes"));
        }
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_decides_once_the_server_has_said_that_it_is_there() {
        let breaker = broken();
        let until = breaker.asks_at().expect("it will be asked");
        assert_eq!(until - Instant::now(), Duration::from_secs(10));
        secs(10).await;
        // Nothing goes before it was asked.
        assert!(breaker.admit().is_err());
        breaker.asked(&Went::Well);
        assert_eq!((breaker.trouble(), breaker.asks_at()), (None, None));
        let trial = breaker.admit().expect("one goes");
        assert_eq!(
            breaker.admit().expect_err("only one").again_in,
            Duration::from_secs(1)
        );
        // One that is cancelled decides nothing, and another may.
        drop(trial);
        let trial = breaker.admit().expect("another goes");
        trial.ended(Went::Well);
        for _ in 0..2 {
            call(&breaker, bad());
        }
        assert!(breaker.admit().is_ok(), "what was before is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_takes_long_does_not_keep_others_away() {
        let breaker = broken();
        breaker.asked(&Went::Well);
        let slow = breaker.admit().expect("one goes");
        secs(10).await;
        let other = breaker.admit().expect("another goes");
        other.ended(Went::Well);
        // What the slow one comes to says nothing about the phase after.
        for _ in 0..2 {
            call(&breaker, bad());
        }
        slow.ended(bad());
        assert!(breaker.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_in_a_row_leaves_it_open_for_longer_up_to_a_limit() {
        let breaker = broken();
        let mut open = Vec::new();
        for round in 0..8 {
            let until = breaker.asks_at().expect("it is open");
            open.push((until - Instant::now()).as_secs());
            tokio::time::sleep_until(until).await;
            if round % 2 == 0 {
                breaker.asked(&bad());
            } else {
                breaker.asked(&Went::Well);
                breaker.admit().expect("one goes").ended(bad());
            }
        }
        assert_eq!(open, [10, 20, 40, 80, 160, 300, 300, 300]);
        breaker.asked(&Went::Well);
        breaker.admit().expect("one goes").ended(Went::Well);
        for _ in 0..3 {
            call(&breaker, bad());
        }
        let until = breaker.asks_at().expect("it is open");
        assert_eq!(until - Instant::now(), Duration::from_secs(10), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_from_before_it_opened_change_nothing_afterwards() {
        let breaker = breaker();
        let (early, late) = (breaker.admit().expect("goes"), breaker.admit().expect("goes"));
        for _ in 0..3 {
            call(&breaker, bad());
        }
        early.ended(Went::Well);
        assert!(breaker.admit().is_err());
        breaker.asked(&Went::Well);
        let trial = breaker.admit().expect("one goes");
        late.ended(bad());
        assert!(
            breaker.trouble().is_none(),
            "only the one that was let go decides"
        );
        trial.ended(Went::Well);
        assert!(breaker.admit().is_ok());
    }
}
