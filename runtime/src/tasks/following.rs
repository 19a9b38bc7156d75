//! One task as it changes, until it has ended.

use std::time::Duration;

use bus_schema::{
    subject::TaskPlace,
    task::{Happened, State, Task},
};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{TaskError, Tasks, WatchedTasks};

/// The least time between two looks at a task that has much to tell.
const PACE: Duration = Duration::from_millis(100);
/// How long to wait for a broker that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// A task that is followed, until this is dropped. Whoever is slow to ask misses what was in between, and holds up nobody.
pub struct Following {
    tasks: Tasks,
    place: TaskPlace,
    watched: WatchedTasks,
    /// As it was told last.
    told: Task,
    is_begun: bool,
    /// What was heard and not looked at yet; `Some(None)` when nothing was heard for a while.
    heard: Option<Option<Happened>>,
    /// When it may be looked at again.
    not_before: Instant,
}

impl Tasks {
    /// Follows a task. `None` when there is none.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses that this process hears of tasks.
    pub async fn follow(&self, place: TaskPlace) -> Result<Option<Following>, TaskError> {
        let watched = self.watch(vec![place.id.clone()]).await;
        let watched = watched.map_err(|error| TaskError::Broker(error.into()))?;
        let found = self.get(&place).await?;
        Ok(found.map(|kept| Following {
            tasks: self.clone(),
            place,
            watched,
            told: kept.task,
            is_begun: false,
            heard: None,
            not_before: Instant::now(),
        }))
    }
}

impl Following {
    /// The task as it was found, and after that whenever it is another than it was. `None` once its end was told, or when it was forgotten.
    /// Dropping this loses nothing.
    pub async fn next(&mut self) -> Option<Task> {
        if !self.is_begun {
            self.is_begun = true;
            return Some(self.told.clone());
        }
        while !self.told.has_ended() {
            if self.heard.is_none() {
                self.heard = Some(self.watched.next().await.pop());
            }
            sleep_until(self.not_before).await;
            match self.tasks.get(&self.place).await {
                Ok(Some(kept)) => {
                    self.not_before = Instant::now() + PACE;
                    let heard = self.heard.take().flatten();
                    let task = with_heard(kept.task, heard);
                    if task != self.told {
                        self.told = task.clone();
                        return Some(task);
                    }
                }
                Ok(None) => return None,
                Err(error) => {
                    debug!(task.id = %self.place.id, %error, "a task that is followed cannot be read at the moment");
                    self.not_before = Instant::now() + PAUSE;
                }
            }
        }
        None
    }
}

/// A worker tells how far it is before it writes that down, and that it has begun without writing it at all.
fn with_heard(mut task: Task, heard: Option<Happened>) -> Task {
    let Some(heard) = heard.filter(|_| matches!(task.state, State::Ready | State::Working)) else {
        return task;
    };
    let written = std::mem::replace(&mut task.state, State::Working);
    if heard.standing == task.standing() {
        task.note = heard.note;
        task.fraction = heard.fraction;
    } else {
        task.state = written;
    }
    task
}
