//! A task in somebody's hands, to be written down by nobody else.

use std::time::Duration;

use bus_schema::{
    Body, RpcError,
    subject::TaskPlace,
    task::{Illegal, State, Task},
};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Ended, Kept, TaskError, Tasks};
use crate::moment;

/// The pauses between writes that the broker did not take.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The task is somebody else's by now, or has ended.
pub(super) struct Lost;

/// A task, and the last that was written of it.
pub(super) struct Hand {
    pub(super) tasks: Tasks,
    pub(super) place: TaskPlace,
    pub(super) kept: Kept,
    /// Cancelled when it is not tried any more to write it down.
    pub(super) giving_up: CancellationToken,
}

impl Hand {
    /// Writes the task down, however long the broker takes.
    pub(super) async fn write(&mut self) -> Result<(), Lost> {
        let mut pause = PAUSES.0;
        loop {
            let written = async {
                if let State::Held { why } = &self.kept.task.state {
                    hold(&self.tasks, &self.place, &self.kept.task, why).await?;
                }
                self.tasks.write_resting(&self.place, &mut self.kept).await
            };
            match written.await {
                Ok(()) => {
                    self.tasks.tell(&self.kept.task).await;
                    return Ok(());
                }
                Err(TaskError::Conflict) => return Err(Lost),
                Err(TaskError::TooLarge) => self.is_too_large()?,
                Err(error) => {
                    debug!(task.id = %self.place.id, %error, "a task cannot be written down at the moment");
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.giving_up.cancelled() => return Err(Lost),
                    }
                    pause = PAUSES.1.min(pause * 2);
                }
            }
        }
    }

    /// Writes down what the work on it has come to.
    pub(super) async fn end(&mut self, ended: Ended) -> Result<(), Lost> {
        let (now, attempt) = (moment::now_ms(), self.kept.task.attempt);
        let task = &mut self.kept.task;
        let moved = match ended {
            Ended::Completed(result) => task.complete(attempt, Body(result), now),
            Ended::Failed(error) => task.fail(attempt, Body(error), now),
            Ended::Later(later) => {
                let after = u64::try_from(later.after.as_millis()).unwrap_or(u64::MAX);
                let until = now.saturating_add(after);
                if later.begun {
                    task.put_off(attempt, later.why, until, now)
                } else {
                    task.sleep(attempt, until, Some(later.why), now)
                }
            }
        };
        self.write_if(moved).await
    }

    /// Writes the task down if the move could be made.
    pub(super) async fn write_if(&mut self, moved: Result<(), Illegal>) -> Result<(), Lost> {
        match moved {
            Ok(()) => self.write().await,
            Err(_) => Err(Lost),
        }
    }

    /// What cannot be kept ends it: the same would come of it again.
    fn is_too_large(&mut self) -> Result<(), Lost> {
        if matches!(self.kept.task.state, State::Failed { .. }) {
            return Err(Lost);
        }
        let error = RpcError::internal("what the task has come to is larger than what can be kept of it");
        let json = serde_json::to_vec(&error).expect("an error is always JSON");
        self.kept.task.state = State::Failed { error: json.into() };
        self.kept.task.steps.clear();
        Ok(())
    }
}

/// Writes down for operators that a task is held.
async fn hold(tasks: &Tasks, place: &TaskPlace, task: &Task, why: &str) -> Result<(), TaskError> {
    let request = &task.order.request;
    let told = json!({
        "taskId": task.order.id.as_str(),
        "server": request.server,
        "tool": request.name,
        "principal": request.principal.subject,
        "tenant": request.principal.tenant,
        "why": why,
        "attempts": task.attempt,
        "heldAt": moment::of_ms(task.changed_ms),
    });
    warn!(task.id = %place.id, server.id = request.server, why, "a task is held for an operator");
    let id = format!("{}-{}", place.id, task.attempt);
    tasks
        .0
        .store
        .tell_held(place, told.to_string().into_bytes(), &id)
        .await
}
