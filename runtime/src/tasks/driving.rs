//! One word from the queue, worked on to where the task ends, waits, or is somebody else's.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use async_nats::jetstream::{self, AckKind};
use bus_schema::{
    RpcError,
    subject::TaskPlace,
    task::{Delivery, Illegal, State, Task, Turn, Word},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Kept, TaskError, Tasks,
    context::{TaskContext, Wish},
    store::{LEASE, decode},
};
use crate::moment;

/// How often a worker says that it is still at it.
const BEAT: Duration = Duration::from_secs(5);
/// The least time between two writes that only say how far a task is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long a handler may clean up after its task was cancelled.
const GRACE: Duration = Duration::from_secs(5);
/// How many wishes of a handler may wait.
const MAX_WISHES: usize = 16;
/// The pauses between writes that the broker did not take.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What works on the tasks of a group.
pub trait Work: Send + Sync + 'static {
    /// Works on a task from its beginning. It is dropped where it waits when the task is cancelled, or somebody else's by now.
    fn run(self: Arc<Self>, task: TaskContext) -> BoxFuture<'static, Ended>;
}

/// What a handler comes to.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The result, as JSON.
    Completed(Bytes),
    /// A JSON-RPC error, as JSON.
    Failed(Bytes),
    /// It is to be tried again.
    Later(Later),
}

/// Why a task is to be tried again, and when.
#[derive(Clone, Debug)]
pub struct Later {
    /// How long from now.
    pub after: Duration,
    /// Why, for people.
    pub why: String,
    /// Whether it had begun: such attempts are counted, and too many have it held.
    pub begun: bool,
}

impl Ended {
    /// The end with an error.
    #[must_use]
    pub fn error(error: &RpcError) -> Self {
        let json = serde_json::to_vec(error).expect("an error is always JSON");
        Self::Failed(json.into())
    }
}

/// Who drives the tasks of one worker.
pub(super) struct Driver {
    pub(super) tasks: Tasks,
    pub(super) work: Arc<dyn Work>,
    /// What the worker is called in records.
    pub(super) worker: String,
    /// Cancelled when what is not done by now is given back.
    pub(super) giving_back: CancellationToken,
}

/// The task is not this worker's any more.
struct Lost;

/// One task at work.
struct Drive<'d> {
    driver: &'d Driver,
    place: TaskPlace,
    kept: Kept,
    message: jetstream::Message,
    /// When something was last written, and whether there is more to tell.
    written: Instant,
    is_told: bool,
}

impl Driver {
    /// Works on what a word is about. `cancelled` says that somebody has cancelled the task.
    pub(super) async fn drive(
        &self,
        message: jetstream::Message,
        place: TaskPlace,
        cancelled: CancellationToken,
    ) {
        let Some((word, sequence, count)) = read(&message) else {
            warn!(subject = %message.subject, "a word about a task cannot be read, and is dropped");
            return settle(&message, AckKind::Term).await;
        };
        loop {
            let kept = match self.tasks.0.store.read_record(&place).await {
                Ok(Some(kept)) => kept,
                Ok(None) => match &word {
                    Word::Run(order) => Kept {
                        task: Task::new((**order).clone()),
                        revision: 0,
                    },
                    // It was forgotten.
                    _ => return settle(&message, AckKind::Ack).await,
                },
                // The word comes again.
                Err(error) => return debug!(task.id = %place.id, %error, "cannot read a task"),
            };
            let mut drive = Drive {
                driver: self,
                place: place.clone(),
                kept,
                message: message.clone(),
                written: Instant::now(),
                is_told: true,
            };
            let delivery = Delivery {
                worker: &self.worker,
                sequence,
                count,
                now_ms: moment::now_ms(),
            };
            let turn = drive.kept.task.hear(&word, &delivery);
            let written = match turn {
                Turn::Drop => return settle(&message, AckKind::Ack).await,
                Turn::First => Ok(()),
                Turn::Work | Turn::Write => drive.write().await,
            };
            return match (written, turn) {
                // What is there now decides.
                (Err(Lost), _) if self.giving_back.is_cancelled() => {}
                (Err(Lost), _) => continue,
                (Ok(()), Turn::Write) => settle(&message, AckKind::Ack).await,
                (Ok(()), _) => drive.run(cancelled).await,
            };
        }
    }
}

impl Drive<'_> {
    async fn run(mut self, cancelled: CancellationToken) {
        let (wishes, mut wished) = mpsc::channel(MAX_WISHES);
        let context = TaskContext::new(&self.kept.task, wishes, cancelled.clone());
        let mut handler = Handler(tokio::spawn(self.driver.work.clone().run(context)));
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        let mut telling = interval(TELL_EVERY);
        telling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        telling.reset();
        let outcome = loop {
            let gone_on = tokio::select! {
                biased;
                () = cancelled.cancelled() => {
                    // It may clean up. What it comes to does not count.
                    let _ = timeout(GRACE, &mut handler.0).await;
                    break Err(Lost);
                }
                () = self.driver.giving_back.cancelled() => return self.give_back().await,
                Some(wish) = wished.recv() => self.grant(wish).await,
                ended = &mut handler.0 => break self.end(ended).await.map(|()| AckKind::Ack),
                _ = beat.tick() => self.beat().await,
                _ = telling.tick(), if !self.is_told => self.write().await.map(ControlFlow::Continue),
            };
            match gone_on {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break Ok(AckKind::Ack),
                Err(Lost) => break Err(Lost),
            }
        };
        drop(handler);
        match outcome {
            Ok(ack) => settle(&self.message, ack).await,
            Err(Lost) => self.lost().await,
        }
    }

    /// Does what the handler wants. Breaks when the task is let go.
    async fn grant(&mut self, wish: Wish) -> Result<ControlFlow<()>, Lost> {
        let (now, attempt) = (moment::now_ms(), self.kept.task.attempt);
        match wish {
            Wish::Commit { name, value, done } => {
                if let Err(why) = self.kept.task.commit(attempt, &name, value, now) {
                    // Who has given up waiting has ended.
                    let _ = done.send(Err(why));
                    return Ok(ControlFlow::Continue(()));
                }
                self.write().await?;
                let _ = done.send(Ok(()));
                Ok(ControlFlow::Continue(()))
            }
            Wish::Ask {
                requests,
                until_ms,
                refused,
            } => match self.kept.task.ask(attempt, requests, until_ms, now) {
                Err(why) => {
                    let _ = refused.send(why);
                    Ok(ControlFlow::Continue(()))
                }
                Ok(()) => self.write().await.map(ControlFlow::Break),
            },
            Wish::Sleep { until_ms } => {
                let note = self.kept.task.note.clone();
                let slept = self.kept.task.sleep(attempt, until_ms, note, now);
                self.write_if(slept).await.map(ControlFlow::Break)
            }
            Wish::Tell { note, fraction } => {
                let told = self.kept.task.tell(attempt, note, fraction, now);
                if told.is_ok() {
                    self.is_told = false;
                    self.driver.tasks.tell(&self.kept.task).await;
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Writes down what the handler has come to.
    async fn end(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Lost> {
        let (now, attempt) = (moment::now_ms(), self.kept.task.attempt);
        let task = &mut self.kept.task;
        let ended = ended.unwrap_or_else(|error| {
            warn!(task.id = %self.place.id, %error, "the handler of a task has panicked");
            Ended::Later(Later {
                after: Duration::from_secs(1),
                why: "the handler of the task has panicked".to_owned(),
                begun: true,
            })
        });
        let moved = match ended {
            Ended::Completed(result) => task.complete(attempt, bus_schema::Body(result), now),
            Ended::Failed(error) => task.fail(attempt, bus_schema::Body(error), now),
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

    async fn write_if(&mut self, moved: Result<(), Illegal>) -> Result<(), Lost> {
        match moved {
            Ok(()) => self.write().await,
            Err(_) => Err(Lost),
        }
    }

    /// Says that it is still at it, and looks whether it still may be.
    async fn beat(&mut self) -> Result<ControlFlow<()>, Lost> {
        settle(&self.message, AckKind::Progress).await;
        let now = moment::now_ms();
        if self.kept.task.needs_renewal(now) {
            let renewed = self.kept.task.renew(self.kept.task.attempt, now);
            return self.write_if(renewed).await.map(ControlFlow::Continue);
        }
        match self.driver.tasks.0.store.read_record(&self.place).await {
            Ok(Some(kept)) if kept.revision != self.kept.revision => Err(Lost),
            Ok(None) if self.kept.revision != 0 => Err(Lost),
            // It goes on while the broker is away: whether that counts is seen when it is written down.
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    /// Writes the task down, however long the broker takes.
    async fn write(&mut self) -> Result<(), Lost> {
        let tasks = &self.driver.tasks;
        let mut pause = PAUSES.0;
        loop {
            let written = async {
                if let State::Held { why } = &self.kept.task.state {
                    hold(tasks, &self.place, &self.kept.task, why).await?;
                }
                tasks.write_resting(&self.place, &mut self.kept).await
            };
            match written.await {
                Ok(()) => {
                    self.written = Instant::now();
                    self.is_told = true;
                    tasks.tell(&self.kept.task).await;
                    return Ok(());
                }
                Err(TaskError::Conflict) => return Err(Lost),
                Err(TaskError::TooLarge) => self.is_too_large()?,
                Err(error) => {
                    debug!(task.id = %self.place.id, %error, "a task cannot be written down at the moment");
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.driver.giving_back.cancelled() => return Err(Lost),
                    }
                    pause = PAUSES.1.min(pause * 2);
                }
            }
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

    /// Hands the task to another worker, as this one ends.
    async fn give_back(self) {
        settle(&self.message, AckKind::Nak(None)).await;
    }

    async fn lost(self) {
        let now = self.driver.tasks.0.store.read_record(&self.place).await;
        let has_ended = match now {
            Ok(Some(kept)) => kept.task.has_ended(),
            Ok(None) => self.kept.revision != 0,
            Err(_) => false,
        };
        info!(task.id = %self.place.id, has_ended, "stopped work on a task that is not this worker's any more");
        if has_ended {
            settle(&self.message, AckKind::Ack).await;
        }
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

/// A handler that ends with whoever drives it.
struct Handler(JoinHandle<Ended>);

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn read(message: &jetstream::Message) -> Option<(Word, u64, u32)> {
    let info = message.info().ok()?;
    let (sequence, count) = (info.stream_sequence, u32::try_from(info.delivered).ok()?);
    Some((decode(&message.payload).ok()?, sequence, count))
}

/// Tells the broker what has become of a word. It comes again if it does not hear so in time.
async fn settle(message: &jetstream::Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        debug!(%error, lease = ?LEASE, "the broker was not told what has become of a word");
    }
}
