//! Tasks that a client listens for: it is told each as it is, first, and then whenever that has changed.

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{Principal, RpcError, task::TaskId};
use runtime::tasks::{Tasks, WatchedTasks, place_of, told};

use crate::front::{Caller, Front};

/// The most tasks that one client may listen for in one request.
const MAX_TASKS: usize = 1_000;

/// The tasks of one listener.
pub(in crate::front) struct HeardTasks {
    tasks: Tasks,
    watched: WatchedTasks,
    principal: Principal,
    /// What was last told of each; empty before that.
    known: BTreeMap<TaskId, String>,
    /// Those to be looked at.
    open: BTreeSet<TaskId>,
}

impl Front {
    /// Listens for those of the tasks that are the caller's on its endpoint. `None` when there are none.
    pub(in crate::front) async fn hear_tasks(
        &self,
        caller: &Caller,
        wanted: &[String],
    ) -> Result<Option<HeardTasks>, RpcError> {
        if wanted.len() > MAX_TASKS {
            return Err(RpcError::invalid_params(format!(
                "`taskIds` may name at most {MAX_TASKS} tasks; listen in several requests"
            )));
        }
        let mut open = BTreeSet::new();
        for id in wanted.iter().filter_map(|id| TaskId::parse(id)) {
            if self
                .task_of(&caller.principal, &caller.endpoint, &id)
                .await
                .is_ok()
            {
                open.insert(id);
            }
        }
        if open.is_empty() {
            return Ok(None);
        }
        let tasks = self.0.tasks.clone();
        let watched = tasks.watch(open.iter().cloned().collect()).await;
        Ok(Some(HeardTasks {
            watched: watched.map_err(|error| RpcError::internal(format!("cannot hear of tasks: {error}")))?,
            tasks,
            principal: caller.principal.clone(),
            known: open.iter().map(|id| (id.clone(), String::new())).collect(),
            open,
        }))
    }
}

impl HeardTasks {
    /// Which tasks they are.
    pub(in crate::front) fn ids(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(TaskId::as_str)
    }

    /// Waits for the next that is to be told: a task as `tasks/get` tells it. It may be dropped and asked again.
    pub(in crate::front) async fn next(&mut self) -> String {
        loop {
            while let Some(id) = self.open.first().cloned() {
                let kept = self.tasks.get(&place_of(&self.principal, &id)).await;
                self.open.remove(&id);
                // One that cannot be read now is looked at again.
                let Ok(Some(kept)) = kept else { continue };
                let now = told(&kept.task);
                if self.known.get(&id).is_some_and(|known| *known != now) {
                    self.known.insert(id, now.clone());
                    return now;
                }
            }
            let happened = self.watched.next().await;
            if happened.is_empty() {
                self.open.extend(self.known.keys().cloned());
            }
            self.open.extend(happened.into_iter().map(|happened| happened.id));
        }
    }
}
