//! Work that outlives its client, on JetStream: tasks are made here, looked up, answered, cancelled, and worked on.
//!
//! What is promised: a task that was accepted is worked on until it has ended, whichever process dies; what a worker has committed of it
//! is never done again; and what it does outside is done at least once, or once where the other side knows the idempotency key.

mod adopting;
mod context;
mod driving;
mod following;
mod hand;
mod hearing;
pub mod hosted;
mod listing;
mod pulling;
mod store;
mod telling;

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    Body, Principal, Token,
    subject::{EventKind, Subject, TaskPlace},
    task::{self, APPROVAL, Happened, Illegal, Order, State, Task, TaskId, Word},
};
use tracing::debug;

use crate::{bus::Bus, moment};

pub use adopting::{Adopted, RENEW_EVERY};
pub use context::{Question, TaskContext};
pub use driving::{Ended, Later, Work};
pub use following::Following;
pub use hearing::WatchedTasks;
pub use listing::{Page, Wanted};
pub use pulling::{Worker, WorkerOptions};
pub use store::Kept;
pub use telling::{created, told};

use hearing::Hearing;
use store::Store;

/// How often a write is tried again that met another one.
const ATTEMPTS: usize = 8;
/// The most bytes that the call of a task may have: it is written down whole.
pub const MAX_CALL_BYTES: usize = 512 * 1024;

/// Why something could not be done with a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The streams cannot be made or found.
    #[error("tasks cannot be kept; the platform needs a NATS with JetStream enabled")]
    Open(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody else wrote in between.
    #[error("the task was changed by another process in between")]
    Conflict,
    /// Whoever made the call must not be the one who approves it.
    #[error("another person than the caller has to approve this call")]
    SecondPerson,
    /// It is larger than a record may be.
    #[error("the task is larger than what the broker takes in one message")]
    TooLarge,
    /// The bus is not connected.
    #[error("the bus does not answer")]
    Away,
    /// The broker did not answer, or refused.
    #[error("the broker did not take or give what is kept of a task")]
    Broker(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The tasks of the platform.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    bus: Bus,
    store: Store,
    hearing: Hearing,
}

/// An id that no task has.
#[must_use]
pub fn new_id() -> TaskId {
    TaskId::of(uuid::Uuid::new_v4().as_u128())
}

/// Where somebody's task is.
#[must_use]
pub fn place_of(principal: &Principal, id: &TaskId) -> TaskPlace {
    TaskPlace {
        tenant: Token::encode(&principal.tenant),
        owner: task::owner(principal.identity()),
        id: id.clone(),
    }
}

/// Where the task is that an order makes.
#[must_use]
pub fn place_of_order(order: &Order) -> TaskPlace {
    place_of(&order.request.principal, &order.id)
}

impl Tasks {
    /// The tasks on a bus. Nothing is asked of the broker before the first of them.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        let store = Store::new(bus.clone());
        Self(Arc::new(Inner {
            bus,
            store,
            hearing: Hearing::default(),
        }))
    }

    /// Makes a task. When this returns, it is on disk, and whoever looks it up finds it.
    ///
    /// # Errors
    /// Then it may have been made or not; the same order can be given again and makes one task.
    pub async fn create(&self, order: Order) -> Result<Task, TaskError> {
        let (place, now) = (place_of_order(&order), moment::now_ms());
        let mut task = Task::new(order.clone());
        if let Some(approval) = &order.approval {
            task.await_approval(approval.until_ms, now);
        } else if let Some(start) = order.start_ms.filter(|start| *start > now) {
            task.rest(start, now);
        }
        if task.state == State::Ready {
            let word = Word::Run(Box::new(order.clone()));
            let id = order.id.as_str();
            if self.0.store.put(&place, &order, &word, Some(id)).await.is_err() {
                // The broker knows it by its id, should it have taken it.
                self.0.store.put(&place, &order, &word, Some(id)).await?;
            }
        } else {
            let mut kept = Kept { task, revision: 0 };
            self.write_resting(&place, &mut kept).await?;
            task = kept.task;
        }
        self.tell(&task).await;
        Ok(task)
    }

    /// Looks a task up; `None` when there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn get(&self, place: &TaskPlace) -> Result<Option<Kept>, TaskError> {
        self.0.store.read(place).await
    }

    /// Where a task of a tenant is of which only the id is known, for operators.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn find(&self, tenant: &str, id: &TaskId) -> Result<Option<TaskPlace>, TaskError> {
        self.0.store.find(&Token::encode(tenant), id).await
    }

    /// Gives a task answers to what it asks, by keys; each is JSON. What it does not ask is passed over. They are taken when this returns,
    /// and the task goes on a little later.
    ///
    /// # Errors
    /// When another person has to answer, or the broker does not.
    pub async fn answer(
        &self,
        task: &Task,
        answers: BTreeMap<String, Body>,
        by: &Principal,
    ) -> Result<(), TaskError> {
        let place = place_of_order(&task.order);
        let approval = task.order.approval.as_ref();
        let is_own = place.owner == task::owner(by.identity());
        if is_own && approval.is_some_and(|approval| approval.second_person) && answers.contains_key(APPROVAL)
        {
            return Err(TaskError::SecondPerson);
        }
        let by = by.subject.clone();
        let word = Word::Answers { answers, by };
        self.0.store.put(&place, &task.order, &word, None).await
    }

    /// Cancels a task for good. One that has ended stays as it is. Gives the task as it is then; `None` when there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn cancel(&self, place: &TaskPlace) -> Result<Option<Task>, TaskError> {
        let cancelled = self.change(place, |task| task.cancel(moment::now_ms())).await?;
        if let Some(task) = cancelled.as_ref().filter(|task| task.state == State::Cancelled) {
            self.stop_worker(task).await;
        }
        Ok(cancelled)
    }

    /// Has a task that is held tried again. `None` when there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn retry(&self, place: &TaskPlace) -> Result<Option<Task>, TaskError> {
        let Some(kept) = self.get(place).await? else {
            return Ok(None);
        };
        if matches!(kept.task.state, State::Held { .. }) {
            let word = Word::Again;
            self.0.store.put(place, &kept.task.order, &word, None).await?;
        }
        Ok(Some(kept.task))
    }

    /// Gives up a task that is held. Any other stays as it is. `None` when there is none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn discard(&self, place: &TaskPlace, by: &str) -> Result<Option<Task>, TaskError> {
        self.change(place, |task| task.discard(by, moment::now_ms()))
            .await
    }

    /// Changes a task if that can be done, and gives it as it is then.
    async fn change(
        &self,
        place: &TaskPlace,
        made: impl Fn(&mut Task) -> Result<(), Illegal>,
    ) -> Result<Option<Task>, TaskError> {
        for _ in 0..ATTEMPTS {
            let Some(mut kept) = self.get(place).await? else {
                return Ok(None);
            };
            if made(&mut kept.task).is_err() {
                return Ok(Some(kept.task));
            }
            match self.0.store.write(place, &kept).await {
                Ok(_) => {
                    self.tell(&kept.task).await;
                    return Ok(Some(kept.task));
                }
                // Its worker was quicker; what is there now decides.
                Err(TaskError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(TaskError::Conflict)
    }

    /// Writes a task that waits for a time. The word by which it wakes comes first, so that it cannot be lost.
    async fn write_resting(&self, place: &TaskPlace, kept: &mut Kept) -> Result<(), TaskError> {
        if let State::Sleeping { until_ms, round } | State::Waiting { until_ms, round } = kept.task.state {
            let word = Word::Wake(round);
            let order = &kept.task.order;
            self.0.store.put_later(place, order, &word, until_ms).await?;
        }
        kept.revision = self.0.store.write(place, kept).await?;
        Ok(())
    }

    /// Tells whoever listens that something has happened to a task.
    async fn tell(&self, task: &Task) {
        self.publish(task, &task.order.request.server, EventKind::Task)
            .await;
    }

    /// Tells the worker of a task that it need not go on.
    async fn stop_worker(&self, task: &Task) {
        self.publish(task, &task.order.group, EventKind::TaskStop).await;
    }

    async fn publish(&self, task: &Task, server: &str, kind: EventKind) {
        let subject = Subject::Event {
            tenant: Token::encode(&task.order.request.principal.tenant),
            server: Token::encode(server),
            kind,
        };
        let payload = serde_json::to_vec(&Happened::to(task)).expect("an event is always JSON");
        if let Err(error) = self.0.bus.publish(subject.to_string(), payload).await {
            debug!(%error, %subject, "could not tell of a task");
        }
    }
}
