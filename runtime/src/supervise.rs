//! Keeps a part of the platform running: starts it, starts it again with back-off when it fails, stops it in order.
//!
//! Two ractor actors stand behind each part: the part's own, which fails when the part does, and a keeper that is linked to it
//! and makes a new one. A part that fails in a loop costs its keeper a timer and nobody else anything.

use std::{error::Error, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::Metrics;

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A part that ran for so long has recovered; its next failure is a first one.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// What a part fails with.
pub type PartError = Box<dyn Error + Send + Sync>;
/// A started part: ends with `Ok` after its stop token was cancelled, and with an error when it fails by itself.
pub type RunningPart = BoxFuture<'static, Result<(), PartError>>;

/// Something that runs until it is told to stop, such as a server or a bridge.
pub trait Part: Send + Sync + 'static {
    /// Its name in logs and meters.
    fn name(&self) -> &str;

    /// Starts it; ready when this returns. `stop` asks it to finish what it has begun and end.
    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>>;
}

/// How a part is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its first start has not ended yet.
    Starting,
    /// It runs.
    Up,
    /// It failed, and will be started again.
    Failed(String),
    /// It has stopped as it was told.
    Stopped,
}

/// A part under supervision.
pub struct Kept {
    name: String,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    keeper: ActorRef<Keep>,
    join: tokio::task::JoinHandle<()>,
}

impl Kept {
    /// The part's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is doing at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until its first start has ended, in either way.
    pub async fn started(&mut self) -> Status {
        match self.status.wait_for(|status| *status != Status::Starting).await {
            Ok(status) => status.clone(),
            Err(_) => Status::Stopped,
        }
    }

    /// Stops it in order, and waits until it has.
    pub async fn stop(self) {
        self.stop.cancel();
        // A keeper that is gone has nothing left to stop.
        let _ = self.keeper.cast(Keep::Stop);
        let _ = self.join.await;
    }
}

/// Puts a part under supervision and starts it.
///
/// # Errors
/// [`SpawnErr`] when the keeper itself cannot be made, which only a fault in the code can cause.
pub async fn keep(part: Arc<dyn Part>, metrics: Metrics) -> Result<Kept, SpawnErr> {
    let (status_in, status) = watch::channel(Status::Starting);
    let stop = CancellationToken::new();
    let name = part.name().to_owned();
    let state = Keeping {
        part,
        metrics,
        stop: stop.clone(),
        status: status_in,
        delay: FIRST_DELAY,
        up_since: None,
    };
    let (keeper, join) = Actor::spawn(None, Keeper, state).await?;
    let _ = keeper.cast(Keep::Start);
    Ok(Kept {
        name,
        status,
        stop,
        keeper,
        join,
    })
}

struct Keeper;

enum Keep {
    Start,
    Stop,
}

struct Keeping {
    part: Arc<dyn Part>,
    metrics: Metrics,
    stop: CancellationToken,
    status: watch::Sender<Status>,
    delay: Duration,
    /// When the part last came up; `None` while it is down.
    up_since: Option<Instant>,
}

impl Keeping {
    fn failed(&mut self, keeper: &ActorRef<Keep>, error: &str) {
        if self.stop.is_cancelled() {
            keeper.stop(None);
            return;
        }
        if self
            .up_since
            .take()
            .is_some_and(|since| since.elapsed() >= STEADY_AFTER)
        {
            self.delay = FIRST_DELAY;
        }
        let delay = self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        warn!(
            part = self.part.name(),
            error,
            retry_ms = delay.as_millis(),
            "part failed; it will be started again"
        );
        self.status.send_replace(Status::Failed(error.to_owned()));
        self.metrics.restarted(self.part.name());
        keeper.send_after(delay, || Keep::Start);
    }
}

impl Actor for Keeper {
    type Msg = Keep;
    type State = Keeping;
    type Arguments = Keeping;

    async fn pre_start(&self, _: ActorRef<Keep>, keeping: Keeping) -> Result<Keeping, ActorProcessingErr> {
        Ok(keeping)
    }

    async fn handle(
        &self,
        me: ActorRef<Keep>,
        message: Keep,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Keep::Start if keeping.stop.is_cancelled() => me.stop(None),
            Keep::Start => {
                let part = (Arc::clone(&keeping.part), keeping.stop.clone());
                match Actor::spawn_linked(None, Worker, part, me.get_cell()).await {
                    Ok(_) => {
                        keeping.up_since = Some(Instant::now());
                        keeping.status.send_replace(Status::Up);
                    }
                    Err(SpawnErr::StartupFailed(error)) => keeping.failed(&me, &chain(error.as_ref())),
                    Err(error) => keeping.failed(&me, &error.to_string()),
                }
            }
            Keep::Stop if keeping.up_since.is_none() => me.stop(None),
            // The part hears of it by its token; its end is what ends the keeper.
            Keep::Stop => {}
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Keep>,
        event: SupervisionEvent,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => keeping.failed(&me, &chain(error.as_ref())),
            SupervisionEvent::ActorTerminated(..) if keeping.stop.is_cancelled() => {
                keeping.up_since = None;
                me.stop(None);
            }
            SupervisionEvent::ActorTerminated(..) => keeping.failed(&me, "it ended without being told to"),
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Keep>, keeping: &mut Keeping) -> Result<(), ActorProcessingErr> {
        keeping.status.send_replace(Status::Stopped);
        info!(part = keeping.part.name(), "part has stopped");
        Ok(())
    }
}

/// The part's own actor: it fails when the part does.
struct Worker;

struct Ended(Result<(), PartError>);

impl Actor for Worker {
    type Msg = Ended;
    type State = ();
    type Arguments = (Arc<dyn Part>, CancellationToken);

    async fn pre_start(
        &self,
        me: ActorRef<Ended>,
        (part, stop): (Arc<dyn Part>, CancellationToken),
    ) -> Result<(), ActorProcessingErr> {
        let running = tokio::select! {
            started = part.start(stop.clone()) => started?,
            () = stop.cancelled() => return Err("it was stopped before it had started".into()),
        };
        tokio::spawn(async move {
            // A panic of the part is a failure of the part.
            let ended = match tokio::spawn(running).await {
                Ok(ended) => ended,
                Err(panic) => Err(panic.into()),
            };
            let _ = me.cast(Ended(ended));
        });
        Ok(())
    }

    async fn handle(
        &self,
        me: ActorRef<Ended>,
        Ended(ended): Ended,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        ended?;
        me.stop(None);
        Ok(())
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
