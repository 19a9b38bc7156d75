//! A worker: takes words of a group from the queue, as many as it has room for, and works on them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{self, AckKind, consumer::PullConsumer};
use bus_schema::{
    ContentType, Token,
    subject::{self, EventKind, TaskPlace},
    task::{Happened, Priority, TaskId},
};
use futures::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    TaskError, Tasks,
    driving::{Driver, Work},
};

/// How many words are asked for at once.
const BATCH: usize = 64;
/// How long a question for words stands when there are none.
const STANDS_FOR: Duration = Duration::from_secs(30);
/// The pause after the broker gave nothing but an error.
const PAUSE: Duration = Duration::from_secs(1);

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Whose words it takes.
    pub group: String,
    /// How many tasks it works on at once.
    pub slots: usize,
    /// How long it goes on with what it has when it is to end; what is not done then, another worker takes.
    pub drain_time: Duration,
}

impl WorkerOptions {
    /// A worker of a group.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            slots: 256,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// A worker at work.
pub struct Worker {
    stop: CancellationToken,
    giving_back: CancellationToken,
    pulling: Vec<JoinHandle<()>>,
    running: TaskTracker,
    drain_time: Duration,
}

/// The tasks that a worker has, so that it can be told to stop one. Held only to look or to change it.
#[derive(Default)]
struct Taken(Mutex<HashMap<TaskId, CancellationToken>>);

struct Shared {
    driver: Driver,
    taken: Taken,
    room: Arc<Semaphore>,
    running: TaskTracker,
    stop: CancellationToken,
}

impl Worker {
    /// Begins to take words. Without a broker that keeps tasks, it begins when there is one.
    ///
    /// # Errors
    /// When the bus refuses that it hears of cancelled tasks.
    pub async fn start(
        tasks: Tasks,
        work: Arc<dyn Work>,
        options: WorkerOptions,
    ) -> Result<Self, crate::bus::BusError> {
        let bus = tasks.0.bus.clone();
        let (stop, giving_back) = (CancellationToken::new(), CancellationToken::new());
        let running = TaskTracker::new();
        let group = Token::encode(&options.group);
        let mut stops = bus
            .subscribe(subject::all_events_of(&group, EventKind::TaskStop))
            .await?;
        let shared = Arc::new(Shared {
            driver: Driver {
                tasks,
                work,
                worker: bus.instance().to_owned(),
                giving_back: giving_back.clone(),
            },
            taken: Taken::default(),
            room: Arc::new(Semaphore::new(options.slots)),
            running: running.clone(),
            stop: stop.clone(),
        });
        let mut pulling: Vec<_> = Priority::ALL
            .into_iter()
            .map(|priority| {
                let pull = Pull {
                    shared: shared.clone(),
                    group: group.clone(),
                    priority,
                    share: Arc::new(Semaphore::new(share(priority, options.slots))),
                };
                tokio::spawn(pull.run())
            })
            .collect();
        let hearing = async move {
            loop {
                let message = tokio::select! {
                    message = stops.next() => message,
                    () = shared.stop.cancelled() => None,
                };
                let Some(message) = message else { return };
                if let Ok(happened) = ContentType::Json.decode::<Happened>(&message.payload) {
                    shared.taken.stop(&happened.id);
                }
            }
        };
        pulling.push(tokio::spawn(hearing));
        Ok(Self {
            stop,
            giving_back,
            pulling,
            running,
            drain_time: options.drain_time,
        })
    }

    /// Takes no more, goes on with what it has for a while, and gives the rest to others.
    pub async fn stop(self) {
        self.stop.cancel();
        for pulling in self.pulling {
            let _ = pulling.await;
        }
        self.running.close();
        if timeout(self.drain_time, self.running.wait()).await.is_err() {
            info!(
                tasks = self.running.len(),
                "tasks that are not done are given to other workers"
            );
            self.giving_back.cancel();
            self.running.wait().await;
        }
    }
}

/// How many tasks of a priority a worker has at once at most: some room is left for those before it.
fn share(priority: Priority, slots: usize) -> usize {
    let left = match priority {
        Priority::High => 0,
        Priority::Normal => slots / 8,
        Priority::Low => slots / 2,
    };
    (slots - left).max(1)
}

impl Taken {
    fn add(&self, id: &TaskId) -> CancellationToken {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.entry(id.clone()).or_default().clone()
    }

    fn remove(&self, id: &TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn stop(&self, id: &TaskId) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = taken.get(id) {
            token.cancel();
        }
    }
}

/// Takes the words of one priority.
struct Pull {
    shared: Arc<Shared>,
    group: Token,
    priority: Priority,
    share: Arc<Semaphore>,
}

/// Room for tasks, of a worker and of a priority in it.
struct Room {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Room {
    fn one(&mut self) -> Option<Self> {
        Some(Self {
            share: self.share.split(1)?,
            all: self.all.split(1)?,
        })
    }
}

impl Pull {
    async fn run(self) {
        let stop = self.shared.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.pull() => {}
        }
    }

    async fn pull(&self) {
        let mut consumer = None;
        let mut was_away = false;
        loop {
            let pulled = self.round(&mut consumer).await;
            if let Err(error) = pulled {
                consumer = None;
                if !was_away {
                    was_away = true;
                    warn!(%error, group = %self.group, "no tasks can be taken at the moment");
                }
                sleep(PAUSE).await;
            } else {
                was_away = false;
            }
        }
    }

    /// Takes what is there; waits for one when nothing is.
    async fn round(&self, consumer: &mut Option<PullConsumer>) -> Result<(), TaskError> {
        let consumer = match consumer {
            Some(consumer) => consumer,
            None => {
                let made = self
                    .shared
                    .driver
                    .tasks
                    .0
                    .store
                    .consumer(&self.group, self.priority);
                consumer.insert(made.await?)
            }
        };
        let mut room = self.room(BATCH).await;
        let wanted = room.all.num_permits();
        let broker = |error: Box<dyn std::error::Error + Send + Sync>| TaskError::Broker(error);
        let fetched = consumer.fetch().max_messages(wanted).messages().await;
        let mut messages = fetched.map_err(|error| broker(error.into()))?;
        let mut taken = 0;
        while let Some(message) = messages.next().await {
            self.take(message.map_err(broker)?, &mut room).await;
            taken += 1;
        }
        drop(room);
        if taken > 0 {
            return Ok(());
        }
        // One place is kept for what comes.
        let mut room = self.room(1).await;
        let waiting = consumer
            .batch()
            .max_messages(1)
            .expires(STANDS_FOR)
            .messages()
            .await;
        let mut messages = waiting.map_err(|error| broker(error.into()))?;
        while let Some(message) = messages.next().await {
            self.take(message.map_err(broker)?, &mut room).await;
        }
        Ok(())
    }

    /// Waits for room for one task, and takes what more there is.
    async fn room(&self, most: usize) -> Room {
        let open = "the room of a worker is never closed";
        let mut room = Room {
            share: self.share.clone().acquire_owned().await.expect(open),
            all: self.shared.room.clone().acquire_owned().await.expect(open),
        };
        while room.all.num_permits() < most {
            let more = self.share.clone().try_acquire_owned().ok();
            let Some(share) = more else { break };
            let Ok(all) = self.shared.room.clone().try_acquire_owned() else {
                break;
            };
            room.share.merge(share);
            room.all.merge(all);
        }
        room
    }

    async fn take(&self, message: jetstream::Message, room: &mut Room) {
        let Some(place) = TaskPlace::of_word(&message.subject) else {
            warn!(subject = %message.subject, "what is in the queue of tasks is no word about one, and is dropped");
            if let Err(error) = message.ack_with(AckKind::Term).await {
                debug!(%error, "it comes again");
            }
            return;
        };
        let room = room.one();
        let shared = self.shared.clone();
        let cancelled = shared.taken.add(&place.id);
        self.shared.running.spawn(async move {
            let id = place.id.clone();
            shared.driver.drive(message, place, cancelled).await;
            shared.taken.remove(&id);
            drop(room);
        });
    }
}
