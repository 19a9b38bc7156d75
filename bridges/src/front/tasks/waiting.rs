//! A client that knows nothing of tasks and whose call is one: it waits for the end. When it goes, the task goes on.

use bus_schema::{
    RpcError, rpc,
    subject::TaskPlace,
    task::{State as TaskState, Task},
};
use runtime::tasks::{Tasks, WatchedTasks, place_of_order};
use tokio::time::{Instant, timeout_at};

use super::{Final, unavailable};
use crate::{
    front::{Caller, Front},
    request::Incoming,
};

/// A call that waits for its task.
pub(in crate::front) struct Waiting {
    tasks: Tasks,
    place: TaskPlace,
    watched: WatchedTasks,
    until: Instant,
    id: String,
}

impl Waiting {
    pub(super) async fn new(
        front: &Front,
        _caller: &Caller,
        incoming: &Incoming,
        task: &Task,
    ) -> Result<Self, RpcError> {
        let tasks = front.0.tasks.clone();
        let watched = tasks.watch(vec![task.order.id.clone()]).await;
        Ok(Self {
            watched: watched.map_err(|error| RpcError::internal(format!("cannot hear of tasks: {error}")))?,
            place: place_of_order(&task.order),
            until: Instant::now() + front.call_timeout(),
            id: incoming.id.clone().unwrap_or_else(|| "null".to_owned()),
            tasks,
        })
    }

    /// Waits for what the task comes to. It may be dropped and asked again.
    pub(in crate::front) async fn next(&mut self) -> Final {
        loop {
            match self.tasks.get(&self.place).await.map_err(unavailable) {
                Ok(Some(kept)) => {
                    if let Some(end) = self.end(&kept.task) {
                        return end;
                    }
                }
                Ok(None) => return self.error(&RpcError::internal("the task was forgotten before it ended")),
                // It is looked at again.
                Err(_) => {}
            }
            if timeout_at(self.until, self.watched.next()).await.is_err() {
                return self.error(&RpcError::internal(format!(
                    "the call goes on as the task `{}`, which has not ended in the time that this platform lets calls wait",
                    self.place.id
                )));
            }
        }
    }

    fn end(&self, task: &Task) -> Option<Final> {
        match &task.state {
            TaskState::Completed { result } => Some(Final {
                code: None,
                body: rpc::result_response(&self.id, &result.0).into(),
                fault: None,
            }),
            TaskState::Failed { error } => {
                let error = serde_json::from_slice(&error.0);
                Some(self.error(&error.unwrap_or_else(|_| RpcError::internal("the task has failed"))))
            }
            TaskState::Cancelled => {
                Some(self.error(&RpcError::internal("the task of this call was cancelled")))
            }
            _ => None,
        }
    }

    fn error(&self, error: &RpcError) -> Final {
        Final {
            code: Some(error.code),
            body: rpc::error_response(Some(&self.id), error).into(),
            fault: None,
        }
    }
}
