//! Further conversations with a legacy server, for callers that declare what the shared one does not.
//!
//! A legacy server hears once, in its handshake, what its client can be asked for; modern callers say so with each request. So callers
//! that can be asked have conversations of their own, keyed by who they are and what they declare. Where the transport does not tell
//! which call a question of the server belongs to, such a conversation has one call at a time that may be asked.

mod wanted;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{RpcError, ServerId};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{Association, Connector, Opening},
    error::UpstreamError,
    hearing::Hearing,
    lane,
    link::Link,
    options::LaneLimits,
    park::Parks,
};

pub(super) use wanted::{Key, Manner, Owner, Wanted};

/// How long a call waits for a place before calls of its caller that wait for input give way.
const PATIENCE: Duration = Duration::from_secs(2);

/// All lanes of one server.
pub(super) struct Lanes {
    pub(super) server: ServerId,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) limits: LaneLimits,
    pub(super) parks: Arc<Parks>,
    /// Held only to look, add, change or remove.
    table: Mutex<Table>,
    /// What is heard on lanes.
    pub(super) hearing: Hearing,
    /// Rung whenever a lane is ready, free or gone.
    pub(super) changed: Notify,
    running: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Table {
    last: u64,
    lanes: Vec<Lane>,
    /// Calls that wait to be alone on a lane, in the order of their coming.
    waiting: Vec<(u64, Key)>,
    closed: bool,
}

struct Lane {
    number: u64,
    key: Key,
    state: LaneState,
    /// How many calls it has.
    turns: u32,
    /// One of them is alone.
    taken: bool,
    idle_since: Instant,
    end: CancellationToken,
}

enum LaneState {
    Starting,
    Ready(Arc<Link>),
    /// It takes no more calls, and ends after its last.
    Leaving,
}

/// A call's place on a lane; given back when this is dropped.
pub(super) struct Turn {
    lanes: Arc<Lanes>,
    number: u64,
    manner: Manner,
    pub(super) link: Arc<Link>,
}

impl Turn {
    /// The call need not be the only one any more that may be asked: what the server asks for it says so.
    pub(super) fn share(&mut self) {
        if self.manner == Manner::Alone {
            self.manner = Manner::Along;
            if let Some(lane) = self.lanes.table().lane(self.number) {
                lane.taken = false;
            }
            self.lanes.changed.notify_waiters();
        }
    }

    /// What the server may still ask for this call must not be taken for a question of the next: the lane takes no more calls.
    pub(super) fn spoil(&self) {
        if self.manner == Manner::Alone
            && let Some(lane) = self.lanes.table().lane(self.number)
        {
            lane.state = LaneState::Leaving;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lane) = self.lanes.table().lane(self.number) {
            lane.turns -= 1;
            lane.taken &= self.manner == Manner::Along;
            lane.idle_since = Instant::now();
            if lane.turns == 0 && matches!(lane.state, LaneState::Leaving) {
                lane.end.cancel();
            }
        }
        self.lanes.changed.notify_waiters();
    }
}

/// A call's place among those that wait; given up when this is dropped.
struct Place<'a> {
    lanes: &'a Lanes,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.lanes
            .table()
            .waiting
            .retain(|(number, _)| *number != self.number);
        self.lanes.changed.notify_waiters();
    }
}

/// What a call that wants a lane finds.
enum Found {
    Turn(Turn),
    /// A new lane was entered, and is to be started.
    New(u64, CancellationToken),
    /// A lane that may do is being started.
    Soon,
    Full,
    Closed,
}

impl Lanes {
    pub(super) fn new(
        server: ServerId,
        connector: Arc<dyn Connector>,
        limits: LaneLimits,
        parks: Arc<Parks>,
    ) -> Arc<Self> {
        Arc::new(Self {
            server,
            connector,
            limits,
            parks,
            table: Mutex::default(),
            hearing: Hearing::default(),
            changed: Notify::new(),
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Waits for a place on a lane, and makes the lane if there is none. `None` when the shared conversation has to do.
    ///
    /// # Errors
    /// The error for a caller that got none in its time, or whose lane could not be made.
    pub(super) async fn turn(self: &Arc<Self>, mut wanted: Wanted) -> Result<Option<Turn>, RpcError> {
        if self.connector.association() == Association::Streams {
            wanted.manner = Manner::Along;
        }
        let place = self.queue(&wanted);
        let waited = timeout(wanted.limit, self.wait(&wanted, place.number)).await;
        drop(place);
        match waited {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) if wanted.may_share() => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(RpcError::internal(format!(
                "all connections that server `{}` may have for this caller are in use, some perhaps by calls that wait for input; \
                 answer those, or try again later",
                self.server
            ))),
        }
    }

    async fn wait(self: &Arc<Self>, wanted: &Wanted, place: u64) -> Result<Option<Turn>, RpcError> {
        let mut failed = None;
        loop {
            let changed = self.changed.notified();
            match self.look(wanted, place) {
                Found::Turn(turn) => return Ok(Some(turn)),
                Found::New(number, end) => failed = Some(self.start(number, wanted.opening.clone(), end)),
                Found::Full if wanted.may_share() => return Ok(None),
                Found::Soon | Found::Full => {}
                Found::Closed => {
                    return Err(RpcError::internal(format!(
                        "server `{}` is being stopped",
                        self.server
                    )));
                }
            }
            tokio::select! {
                () = changed => {}
                error = failure(&mut failed) => {
                    tracing::warn!(%error, server.id = %self.server, "could not open a connection for a caller");
                    return Err(RpcError::internal(format!(
                        "server `{}` could not be started for what this caller declares; the platform's log says why",
                        self.server
                    )));
                }
                // Clients need not come back with the input that they were asked for, and then nothing tells so.
                () = sleep(PATIENCE) => if let Some(owner) = &wanted.key.owner {
                    self.parks.give_way(owner);
                }
            }
        }
    }

    fn queue(&self, wanted: &Wanted) -> Place<'_> {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        if wanted.manner == Manner::Alone {
            table.waiting.push((number, wanted.key.clone()));
        }
        Place { lanes: self, number }
    }

    fn look(self: &Arc<Self>, wanted: &Wanted, place: u64) -> Found {
        let mut table = self.table();
        if table.closed {
            return Found::Closed;
        }
        if table.is_first(wanted, place)
            && let Some(lane) = table.free(wanted)
            && let LaneState::Ready(link) = &lane.state
        {
            let link = Arc::clone(link);
            lane.turns += 1;
            lane.taken |= wanted.manner == Manner::Alone;
            return Found::Turn(Turn {
                lanes: Arc::clone(self),
                number: lane.number,
                manner: wanted.manner,
                link,
            });
        }
        if !table.needs_another(wanted, self.limits.per_key) {
            return Found::Soon;
        }
        if table.lanes.len() >= self.limits.total {
            table.make_room();
            return Found::Full;
        }
        table.last += 1;
        let (number, end) = (table.last, self.stop.child_token());
        table.lanes.push(Lane {
            number,
            key: wanted.key.clone(),
            state: LaneState::Starting,
            turns: 0,
            taken: false,
            idle_since: Instant::now(),
            end: end.clone(),
        });
        Found::New(number, end)
    }

    /// Starts a lane; whoever wanted it hears when that fails.
    fn start(
        self: &Arc<Self>,
        number: u64,
        opening: Opening,
        end: CancellationToken,
    ) -> oneshot::Receiver<UpstreamError> {
        let (failed, failure) = oneshot::channel();
        self.running
            .spawn(lane::run(Arc::clone(self), number, opening, end, failed));
        failure
    }

    /// A lane is ready for calls.
    pub(super) fn ready(&self, number: u64, link: &Arc<Link>) {
        if let Some(lane) = self.table().lane(number)
            && matches!(lane.state, LaneState::Starting)
        {
            lane.state = LaneState::Ready(Arc::clone(link));
            lane.idle_since = Instant::now();
        }
        self.changed.notify_waiters();
    }

    /// A lane is no more.
    pub(super) fn gone(&self, number: u64) {
        self.table().lanes.retain(|lane| lane.number != number);
        self.changed.notify_waiters();
    }

    /// Since when a lane has had no call; `None` while it has one.
    pub(super) fn idle_since(&self, number: u64) -> Option<Instant> {
        let mut table = self.table();
        let lane = table.lane(number)?;
        (lane.turns == 0).then_some(lane.idle_since)
    }

    /// Lets a lane go that has no call. Whether it goes.
    pub(super) fn let_go(&self, number: u64) -> bool {
        let mut table = self.table();
        let Some(lane) = table.lane(number).filter(|lane| lane.turns == 0) else {
            return false;
        };
        lane.state = LaneState::Leaving;
        true
    }

    /// Lets no call begin on the lanes that there are; each ends after its last.
    pub(super) fn retire(&self) {
        for lane in &mut self.table().lanes {
            lane.state = LaneState::Leaving;
            if lane.turns == 0 {
                lane.end.cancel();
            }
        }
        self.changed.notify_waiters();
    }

    /// Ends all lanes in order.
    pub(super) async fn close(&self) {
        self.stop();
        self.running.close();
        self.running.wait().await;
    }

    /// Asks all lanes to end.
    pub(super) fn stop(&self) {
        self.table().closed = true;
        self.stop.cancel();
        self.changed.notify_waiters();
    }

    /// How many lanes there are, and how many of them could take a call.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table().lanes.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn lane(&mut self, number: u64) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.number == number)
    }

    /// Whether nobody who wants the same has waited for longer.
    fn is_first(&self, wanted: &Wanted, place: u64) -> bool {
        let mut before = self.waiting.iter().take_while(|(number, _)| *number != place);
        wanted.manner == Manner::Along || !before.any(|(_, key)| *key == wanted.key)
    }

    /// A lane that can take the call now.
    fn free(&mut self, wanted: &Wanted) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| {
            lane.key == wanted.key
                && matches!(lane.state, LaneState::Ready(_))
                && (wanted.manner == Manner::Along || !lane.taken)
        })
    }

    /// Whether a call has to have another lane, and may.
    fn needs_another(&self, wanted: &Wanted, per_key: usize) -> bool {
        let own = self.lanes.iter().filter(|lane| lane.key == wanted.key);
        if own.clone().count() >= per_key {
            return false;
        }
        match wanted.manner {
            Manner::Along => own.clone().all(|lane| matches!(lane.state, LaneState::Leaving)),
            Manner::Alone => {
                let starting = own.filter(|lane| matches!(lane.state, LaneState::Starting));
                let waiting = self.waiting.iter().filter(|(_, key)| *key == wanted.key);
                starting.count() < waiting.count()
            }
        }
    }

    /// Ends the lane that has been without a call for the longest time, unless one is leaving already.
    fn make_room(&mut self) {
        if self
            .lanes
            .iter()
            .any(|lane| matches!(lane.state, LaneState::Leaving))
        {
            return;
        }
        let idle = self
            .lanes
            .iter_mut()
            .filter(|lane| lane.turns == 0 && matches!(lane.state, LaneState::Ready(_)))
            .min_by_key(|lane| lane.idle_since);
        if let Some(lane) = idle {
            lane.state = LaneState::Leaving;
            lane.end.cancel();
        }
    }
}

/// Waits for the failure of a lane that was started; for ever when there is none.
async fn failure(failed: &mut Option<oneshot::Receiver<UpstreamError>>) -> UpstreamError {
    if let Some(failure) = failed {
        if let Ok(error) = failure.await {
            *failed = None;
            return error;
        }
        *failed = None;
    }
    std::future::pending().await
}
