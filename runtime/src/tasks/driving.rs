//! One word from the queue, worked on to where the task ends, waits, or is somebody else's.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use async_nats::jetstream::{self, AckKind};
use bus_schema::{
    RpcError,
    subject::TaskPlace,
    task::{Delivery, Illegal, Task, Turn, Word},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Kept, Tasks,
    context::{TaskContext, Wish},
    hand::{Hand, Lost},
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

/// One task at work.
struct Drive<'d> {
    driver: &'d Driver,
    hand: Hand,
    message: jetstream::Message,
    /// Whether all that the handler told is written down.
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
                hand: Hand {
                    tasks: self.tasks.clone(),
                    place: place.clone(),
                    kept,
                    giving_up: self.giving_back.clone(),
                },
                message: message.clone(),
                is_told: true,
            };
            let delivery = Delivery {
                worker: &self.worker,
                sequence,
                count,
                now_ms: moment::now_ms(),
            };
            let turn = drive.hand.kept.task.hear(&word, &delivery);
            let written = match turn {
                Turn::Drop => return settle(&message, AckKind::Ack).await,
                Turn::First => Ok(()),
                Turn::Work | Turn::Write => drive.write().await,
            };
            return match (written, turn) {
                (Err(Lost), _) if self.giving_back.is_cancelled() => {}
                // What is there now decides.
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
        let context = TaskContext::new(&self.hand.kept.task, wishes, cancelled.clone());
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
        let (now, attempt) = (moment::now_ms(), self.hand.kept.task.attempt);
        match wish {
            Wish::Commit { name, value, done } => {
                if let Err(why) = self.hand.kept.task.commit(attempt, &name, value, now) {
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
            } => match self.hand.kept.task.ask(attempt, requests, until_ms, now) {
                Err(why) => {
                    let _ = refused.send(why);
                    Ok(ControlFlow::Continue(()))
                }
                Ok(()) => self.write().await.map(ControlFlow::Break),
            },
            Wish::Sleep { until_ms } => {
                let note = self.hand.kept.task.note.clone();
                let slept = self.hand.kept.task.sleep(attempt, until_ms, note, now);
                self.write_if(slept).await.map(ControlFlow::Break)
            }
            Wish::Tell { note, fraction } => {
                let told = self.hand.kept.task.tell(attempt, note, fraction, now);
                if told.is_ok() {
                    self.is_told = false;
                    self.driver.tasks.tell(&self.hand.kept.task).await;
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Writes down what the handler has come to.
    async fn end(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Lost> {
        let ended = ended.unwrap_or_else(|error| {
            warn!(task.id = %self.hand.place.id, %error, "the handler of a task has panicked");
            Ended::Later(Later {
                after: Duration::from_secs(1),
                why: "the handler of the task has panicked".to_owned(),
                begun: true,
            })
        });
        self.hand.end(ended).await
    }

    async fn write_if(&mut self, moved: Result<(), Illegal>) -> Result<(), Lost> {
        self.hand.write_if(moved).await?;
        self.is_told = true;
        Ok(())
    }

    /// Says that it is still at it, and looks whether it still may be.
    async fn beat(&mut self) -> Result<ControlFlow<()>, Lost> {
        settle(&self.message, AckKind::Progress).await;
        let now = moment::now_ms();
        if self.hand.kept.task.needs_renewal(now) {
            let renewed = self.hand.kept.task.renew(self.hand.kept.task.attempt, now);
            return self.write_if(renewed).await.map(ControlFlow::Continue);
        }
        match self.driver.tasks.0.store.read_record(&self.hand.place).await {
            Ok(Some(kept)) if kept.revision != self.hand.kept.revision => Err(Lost),
            Ok(None) if self.hand.kept.revision != 0 => Err(Lost),
            // It goes on while the broker is away: whether that counts is seen when it is written down.
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    async fn write(&mut self) -> Result<(), Lost> {
        self.hand.write().await?;
        self.is_told = true;
        Ok(())
    }

    /// Hands the task to another worker, as this one ends.
    async fn give_back(self) {
        settle(&self.message, AckKind::Nak(None)).await;
    }

    async fn lost(self) {
        let now = self.driver.tasks.0.store.read_record(&self.hand.place).await;
        let has_ended = match now {
            Ok(Some(kept)) => kept.task.has_ended(),
            Ok(None) => self.hand.kept.revision != 0,
            Err(_) => false,
        };
        info!(task.id = %self.hand.place.id, has_ended, "stopped work on a task that is not this worker's any more");
        if has_ended {
            settle(&self.message, AckKind::Ack).await;
        }
    }
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
