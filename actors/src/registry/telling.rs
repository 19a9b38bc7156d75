//! Tells on the bus when a server is otherwise than it was: healthy, degraded or down.
//!
//! Any number of registries look. Who writes over what was told last tells of it, and nobody else. What does not last is not told: a server
//! that moves from one process to another is away for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bus_schema::{
    ServerId,
    registry::{Status, StatusEvent, Told},
};
use runtime::{
    Bus, Directory, moment,
    placement::Owners,
    registry::Registry,
    status::{Statuses, status_of},
    store::StoreError,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// How long a server has to be otherwise before that is told.
const LASTING: Duration = Duration::from_secs(1);
/// How often everything is held against what was told, whatever has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What is told of a server that nobody knows any more.
const GONE: &str = "it has left the bus and is not registered";

/// What there is to see, and to be told.
pub(super) struct Telling {
    pub(super) bus: Bus,
    pub(super) directory: Directory,
    pub(super) registry: Registry,
    pub(super) owners: Owners,
    pub(super) tenant: String,
}

/// How a server is seen to be; `None` when nobody knows it.
type Seen = Option<(Status, Option<String>)>;

struct Watched {
    seen: Seen,
    since: Instant,
    is_told: bool,
}

impl Telling {
    /// Tells until it is stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let opened = loop {
            match Statuses::open(&self.bus, &self.tenant).await {
                Ok(opened) => break opened,
                Err(error) => debug!(%error, "cannot read what was told of servers"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LASTING) => {}
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch(&opened) => {}
        }
    }

    async fn watch(&self, statuses: &Statuses) {
        let (mut servers, mut declared) = (self.directory.changes(), self.registry.changes());
        let mut owners = self.owners.changes();
        let mut again = interval(LOOK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = BTreeMap::new();
        let mut next = None;
        loop {
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = servers.changed() => {}
                Ok(()) = declared.changed() => {}
                Ok(()) = owners.changed() => {}
                // Another registry may have told what is not so any more.
                _ = again.tick() => watched.values_mut().for_each(|watched: &mut Watched| watched.is_told = false),
                () = due => {}
            }
            // Whoever is cut off sees everybody go.
            if self.bus.is_connected() {
                self.look(statuses, &mut watched);
                self.tell_what_lasts(statuses, &mut watched).await;
            }
            let waiting = watched.values().filter(|watched| !watched.is_told);
            next = waiting
                .map(|watched| watched.since + LASTING)
                .min()
                // What could not be told is tried again.
                .map(|due| due.max(Instant::now() + LASTING / 4));
        }
    }

    /// Notes how each server is now that is known or was told of.
    fn look(&self, statuses: &Statuses, watched: &mut BTreeMap<ServerId, Watched>) {
        let snapshot = self.directory.snapshot();
        let declared = self.registry.all(&self.tenant);
        let declared = declared.into_iter().map(|entry| entry.value.declaration.id);
        let mut known: BTreeSet<ServerId> = declared.collect();
        known.extend(snapshot.servers().map(|(id, _)| id.clone()));
        let mut ids = known.clone();
        ids.extend(statuses.all().into_keys());
        ids.extend(watched.keys().cloned());
        for id in ids {
            let owners = || self.owners.of(&self.tenant, &id);
            let seen = known.contains(&id).then(|| status_of(&snapshot, &id, owners));
            let status = |seen: &Seen| seen.as_ref().map(|(status, _)| *status);
            match watched.get_mut(&id) {
                Some(watched) if status(&watched.seen) == status(&seen) => watched.seen = seen,
                _ => {
                    let new = Watched {
                        seen,
                        since: Instant::now(),
                        is_told: false,
                    };
                    watched.insert(id, new);
                }
            }
        }
    }

    async fn tell_what_lasts(&self, statuses: &Statuses, watched: &mut BTreeMap<ServerId, Watched>) {
        let now = Instant::now();
        let told = statuses.all();
        for (id, watched) in watched.iter_mut() {
            if watched.is_told || watched.since + LASTING > now {
                continue;
            }
            match self.tell(statuses, id, watched.seen.as_ref(), told.get(id)).await {
                Ok(()) => watched.is_told = true,
                // Another registry was quicker; what it has told is heard before this is looked at again.
                Err(StoreError::Conflict) => {}
                Err(error) => debug!(%error, "could not keep what is to be told of a server"),
            }
        }
        watched.retain(|_, watched| !(watched.is_told && watched.seen.is_none()));
    }

    async fn tell(
        &self,
        statuses: &Statuses,
        id: &ServerId,
        seen: Option<&(Status, Option<String>)>,
        told: Option<&(Told, u64)>,
    ) -> Result<(), StoreError> {
        let was = told.map(|(told, _)| told.status);
        if seen.map(|(status, _)| *status) == was {
            return Ok(());
        }
        let now = Told {
            status: seen.map_or(Status::Down, |(status, _)| *status),
            reason: seen.map_or_else(|| Some(GONE.to_owned()), |(_, reason)| reason.clone()),
            since: moment::now(),
        };
        let over = told.map(|(_, revision)| *revision);
        statuses.keep(id, seen.is_some().then_some(&now), over).await?;
        if was == Some(now.status) {
            return Ok(());
        }
        info!(server.id = %id, status = now.status.as_str(), reason = now.reason, "a server is otherwise than it was");
        let server = id.clone();
        self.bus
            .tell(&self.tenant, &StatusEvent { server, was, now })
            .await;
        Ok(())
    }
}
