//! What a task's handler has in hand: its call, what was done before, and the ways to go on, to wait, and to tell.
//!
//! A handler is run from its beginning each time: after a worker's death, after a sleep, after an answer. What it has committed is given
//! back to it instead of being done again, so it comes to where it was.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    Body, Principal, Request, RpcError,
    task::{Asked, Illegal, Task, TaskId},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::moment;

/// How long a question waits for its answer if nothing else is said, in milliseconds.
const ANSWERED_WITHIN_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// What a handler wants of the one who drives it.
pub(super) enum Wish {
    /// To have something written down before it goes on.
    Commit {
        name: String,
        value: Body,
        done: oneshot::Sender<Result<(), Illegal>>,
    },
    /// To be let go until there are answers.
    Ask {
        requests: BTreeMap<String, Body>,
        until_ms: u64,
        refused: oneshot::Sender<Illegal>,
    },
    /// To be let go until a time.
    Sleep { until_ms: u64 },
    /// To tell how far it is.
    Tell {
        note: Option<String>,
        fraction: Option<f64>,
    },
}

/// A task in the hands of its handler.
#[derive(Clone)]
pub struct TaskContext(Arc<Inner>);

struct Inner {
    id: TaskId,
    request: Request,
    created_ms: u64,
    attempt: u32,
    at_most_once: bool,
    asked: BTreeMap<String, Asked>,
    /// What was committed, also in this run. Held only to look or to add.
    steps: Mutex<BTreeMap<String, Body>>,
    wishes: mpsc::Sender<Wish>,
    cancelled: CancellationToken,
}

/// A question to a person: a form, as `elicitation/create` has it.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub message: String,
    /// The form, a JSON Schema of an object with flat members.
    pub schema: Value,
    /// Until when the answer counts, in milliseconds since 1970; a week from now when it is `None`.
    pub until_ms: Option<u64>,
}

impl TaskContext {
    pub(super) fn new(task: &Task, wishes: mpsc::Sender<Wish>, cancelled: CancellationToken) -> Self {
        let steps = task
            .steps
            .iter()
            .map(|(name, step)| (name.clone(), step.value.clone()));
        Self(Arc::new(Inner {
            id: task.order.id.clone(),
            request: task.order.request.clone(),
            created_ms: task.order.created_ms,
            attempt: task.attempt,
            at_most_once: task.order.at_most_once,
            asked: task.asked.clone(),
            steps: Mutex::new(steps.collect()),
            wishes,
            cancelled,
        }))
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.0.id
    }

    /// The call that has become the task.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.0.request
    }

    /// In whose name it works.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.0.request.principal
    }

    /// How long ago it was made, in milliseconds.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        moment::now_ms().saturating_sub(self.0.created_ms)
    }

    /// How often a worker has taken the task, with this time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Whether what may have taken effect must not be done again.
    #[must_use]
    pub fn at_most_once(&self) -> bool {
        self.0.at_most_once
    }

    /// The key by which whoever is asked in a step knows that it is asked again: the same each time.
    #[must_use]
    pub fn idempotency_key(&self, step: &str) -> String {
        format!("{}:{step}", self.0.id)
    }

    /// Does something that is committed once: when it was, what it came to is given back, and it is not done again. The effect gets the
    /// idempotency key. An effect may be done more than once if its worker dies before it is written down.
    ///
    /// # Errors
    /// What the effect gives, which is not committed; and when its result cannot be kept.
    pub async fn step<T, F>(&self, name: &str, effect: impl FnOnce(String) -> F) -> Result<T, RpcError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, RpcError>>,
    {
        if let Some(value) = self.resume(name)? {
            return Ok(value);
        }
        let value = effect(self.idempotency_key(name)).await?;
        self.checkpoint(name, &value).await?;
        Ok(value)
    }

    /// Writes something down under a name, in place of what was there. When this returns it is on disk.
    ///
    /// # Errors
    /// When it is too large.
    pub async fn checkpoint<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RpcError> {
        let json = serde_json::to_vec(value).map_err(|error| {
            RpcError::internal(format!("step `{name}` has no JSON for its result: {error}"))
        })?;
        let (done, written) = oneshot::channel();
        let value = Body::from(json);
        let wish = Wish::Commit {
            name: name.to_owned(),
            value: value.clone(),
            done,
        };
        self.wish(wish).await;
        match written.await {
            Ok(Ok(())) => {
                self.steps().insert(name.to_owned(), value);
                Ok(())
            }
            Ok(Err(Illegal::TooMuch(why))) => Err(RpcError::internal(why)),
            // Somebody else has the task by now, and this run ends where it is.
            _ => pending().await,
        }
    }

    /// What was written down under a name, in this run or before.
    ///
    /// # Errors
    /// When it is there and something else than expected, such as after a change of the program.
    pub fn resume<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RpcError> {
        let steps = self.steps();
        let Some(value) = steps.get(name) else {
            return Ok(None);
        };
        serde_json::from_slice(&value.0).map(Some).map_err(|error| {
            RpcError::internal(format!(
                "what step `{name}` has committed cannot be read: {error}"
            ))
        })
    }

    /// Tells how far it is, and at what. Nobody waits for it, and only the newest is kept.
    pub fn progress(&self, message: impl Into<String>, fraction: Option<f64>) {
        let note = Some(message.into());
        // With so much to tell, the next will say more.
        let _ = self.0.wishes.try_send(Wish::Tell { note, fraction });
    }

    /// Asks the task's client, and waits for days if need be: nothing is held in memory, and the handler is run anew when the answer is
    /// there. `key` names the question within the task. Gives what the client answered, as `elicitation/create` has it.
    ///
    /// # Errors
    /// When the task has asked too much, or the answer is no JSON.
    pub async fn elicit(&self, key: &str, question: Question) -> Result<Value, RpcError> {
        if let Some(answer) = self.answer(key) {
            return serde_json::from_slice(&answer.0)
                .map_err(|error| RpcError::internal(format!("the answer to `{key}` is no JSON: {error}")));
        }
        let request = json!({
            "method": bus_schema::mcp::method::ELICIT,
            "params": { "mode": "form", "message": question.message, "requestedSchema": question.schema },
        });
        let requests = BTreeMap::from([(key.to_owned(), request.to_string().into_bytes().into())]);
        self.ask(requests, question.until_ms).await
    }

    /// What was answered to a question, as JSON; `None` as long as nothing was.
    #[must_use]
    pub fn answer(&self, key: &str) -> Option<&Body> {
        self.0.asked.get(key)?.answer.as_ref()
    }

    /// All that it has asked, in this life and before.
    #[must_use]
    pub fn asked(&self) -> &BTreeMap<String, Asked> {
        &self.0.asked
    }

    /// Asks all of this, each a request as JSON under a key that was never used. Comes back only to say that it cannot be asked: when all is
    /// answered, the handler is run anew.
    ///
    /// # Errors
    /// When the task has asked too much, or a key was used before.
    pub async fn ask<T>(
        &self,
        requests: BTreeMap<String, Body>,
        until_ms: Option<u64>,
    ) -> Result<T, RpcError> {
        let until_ms = until_ms.unwrap_or_else(|| moment::now_ms() + ANSWERED_WITHIN_MS);
        let (refused, refusal) = oneshot::channel();
        self.wish(Wish::Ask {
            requests,
            until_ms,
            refused,
        })
        .await;
        match refusal.await {
            Ok(why) => Err(RpcError::internal(why.to_string())),
            Err(_) => pending().await,
        }
    }

    /// Waits until a time, in milliseconds since 1970, and costs nothing while it does: the handler is run anew then. `name` names the wait
    /// within the task; the time that counts is the one that was first given.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub async fn sleep_until(&self, name: &str, at_ms: u64) -> Result<(), RpcError> {
        let until_ms = self.step(name, |_| async move { Ok(at_ms) }).await?;
        if until_ms <= moment::now_ms() {
            return Ok(());
        }
        self.wish(Wish::Sleep { until_ms }).await;
        pending().await
    }

    /// Comes back when somebody has cancelled the task. The handler then has a few seconds to clean up.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    async fn wish(&self, wish: Wish) {
        if self.0.wishes.send(wish).await.is_err() {
            // Nobody drives it any more.
            pending().await
        }
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Body>> {
        self.0.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
