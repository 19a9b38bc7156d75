//! A call that becomes a task while it runs: whoever has made the call goes on with it, and should that process die, a worker makes it again.

use std::{collections::BTreeMap, time::Duration};

use bus_schema::{
    Body,
    subject::TaskPlace,
    task::{Order, Task, Word},
};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::{Ended, Kept, TaskError, Tasks, hand::Hand, hosted::STATE, place_of_order};
use crate::moment;

/// How long a worker waits for a word of whoever has the call.
const LEASE: Duration = Duration::from_secs(60);
/// How often whoever has the call says that it is still there.
pub const RENEW_EVERY: Duration = Duration::from_secs(15);

/// A task that this process works on because it has begun the call.
pub struct Adopted(Hand);

impl Tasks {
    /// Makes a task of a call that runs. When this returns it is on disk.
    ///
    /// # Errors
    /// Then the broker may have the task all the same; it is cancelled before a worker takes it, if the broker answers by then.
    pub async fn adopt(&self, order: Order) -> Result<Adopted, TaskError> {
        let now = moment::now_ms();
        let mut task = Task::new(order);
        task.adopt(self.0.bus.instance(), now);
        let mut hand = Hand {
            tasks: self.clone(),
            place: place_of_order(&task.order),
            kept: Kept { task, revision: 0 },
            giving_up: CancellationToken::new(),
        };
        Adopted::renew_in(&hand).await?;
        match self.0.store.write(&hand.place, &hand.kept).await {
            Ok(revision) => hand.kept.revision = revision,
            Err(error) => {
                tokio::spawn(withdraw(self.clone(), hand.place));
                return Err(error);
            }
        }
        self.tell(&hand.kept.task).await;
        Ok(Adopted(hand))
    }
}

/// Cancels a task of which nobody knows, should it be there.
async fn withdraw(tasks: Tasks, place: TaskPlace) {
    let mut again = interval(LEASE / 12);
    for _ in 0..12 {
        again.tick().await;
        if tasks.cancel(&place).await.is_ok() {
            return;
        }
    }
}

impl Adopted {
    /// The task.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.0.kept.task
    }

    /// Says that this process still has the call. To be said every [`RENEW_EVERY`].
    ///
    /// # Errors
    /// When the broker does not answer; it can be said again.
    pub async fn renew(&mut self) -> Result<(), TaskError> {
        Self::renew_in(&self.0).await?;
        if self.0.kept.task.needs_renewal(moment::now_ms()) {
            let renewed = self.0.kept.task.renew(self.0.kept.task.attempt, moment::now_ms());
            let _ = self.0.write_if(renewed).await;
        }
        Ok(())
    }

    async fn renew_in(hand: &Hand) -> Result<(), TaskError> {
        let task = &hand.kept.task;
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let word = Word::Wake(task.round);
        let until = moment::now_ms() + lease;
        hand.tasks
            .0
            .store
            .put_later(&hand.place, &task.order, &word, until)
            .await
    }

    /// Tells those who watch how far it is.
    pub async fn tell(&mut self, note: Option<String>, fraction: Option<f64>) {
        let (attempt, now) = (self.0.kept.task.attempt, moment::now_ms());
        if self.0.kept.task.tell(attempt, note, fraction, now).is_ok() {
            self.0.tasks.tell(&self.0.kept.task).await;
        }
    }

    /// Writes down what the call has come to. What another process has come to before counts instead.
    pub async fn end(mut self, ended: Ended) {
        // Whoever has it by now writes it down.
        let _ = self.0.end(ended).await;
    }

    /// Leaves it to the workers, as the server asks its client: they make the call again when there are answers.
    pub async fn ask(mut self, requests: BTreeMap<String, Body>, state: &str, until_ms: u64) {
        let task = &mut self.0.kept.task;
        let (attempt, now) = (task.attempt, moment::now_ms());
        let moved = task
            .commit(attempt, STATE, state.as_bytes().to_vec().into(), now)
            .and_then(|()| task.ask(attempt, requests, until_ms, now));
        let _ = self.0.write_if(moved).await;
    }
}
