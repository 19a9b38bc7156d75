//! Which process runs a declared server: each place of a server has one owner at any moment, and another soon after that has died.
//!
//! A process says that it is alive for as long as it is (`lease`), and takes places by writing its name over the record that it
//! read (`owners`). It stops what it runs before the broker forgets it, and nobody takes a place whose owner is not forgotten. The
//! revision of the record by which a place was taken grows with each owner; a server behind can be told it, and refuse what is older.

mod lease;
mod owners;
mod part;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bus_schema::{
    Token,
    card::name_of,
    registry::{Entry, Record},
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    bus::Bus,
    registry::Registry,
    store::{Picture, StoreError},
    supervise::{self, Kept, Part, PartError, Status},
};

use lease::{Hold, Nodes};
use owners::place;
pub use owners::{Owner, Owners};
use part::Placed;

/// How often a process looks for places whose owner has gone.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How much longer than the process before it one waits with a free place.
const TURN: Duration = Duration::from_millis(1_500);

/// Makes the part that runs a tenant's declared server, given the number that grows with each owner.
pub type Make = Arc<dyn Fn(&str, &Entry, u64) -> Result<Arc<dyn Part>, PartError> + Send + Sync>;

/// This process's share of the declared servers.
pub struct Placement {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Placement {
    /// Begins to take declared servers of these tenants, and to run them.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn start(
        bus: Bus,
        (registry, owners): (Registry, Owners),
        tenants: &[String],
        make: Make,
    ) -> Result<Self, StoreError> {
        let by_prefix = tenants.iter().map(|tenant| (prefix(tenant), tenant.clone()));
        let nodes = Nodes::open(&bus).await?;
        let stop = CancellationToken::new();
        let placing = Placing {
            hold: nodes.renew(&bus),
            tenants: by_prefix.collect(),
            bus,
            registry,
            owners,
            nodes,
            make,
            running: BTreeMap::new(),
            ending: JoinSet::new(),
            ending_places: HashSet::new(),
            free_since: HashMap::new(),
        };
        Ok(Self {
            task: tokio::spawn(placing.run(stop.clone())),
            stop,
        })
    }

    /// Stops what runs here in order, and lets others take it.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// What runs here for one place.
struct Running {
    /// The revision of the declaration that it was made from.
    declared: u64,
    /// The revision of this process's record.
    revision: u64,
    kept: Kept,
    fence: CancellationToken,
    /// What its record says of why it does not run.
    told: Option<String>,
}

struct Placing {
    bus: Bus,
    /// The tenants whose servers this process runs, by what their places begin with.
    tenants: BTreeMap<String, String>,
    registry: Registry,
    owners: Owners,
    nodes: Nodes,
    hold: Hold,
    make: Make,
    running: BTreeMap<String, Running>,
    /// What is stopping; each gives its place when it has.
    ending: JoinSet<String>,
    ending_places: HashSet<String>,
    /// Since when a place was seen to be free.
    free_since: HashMap<String, Instant>,
}

/// What is to run, by place, with whose it is.
type Wanted = BTreeMap<String, (Arc<str>, Entry, u64)>;

impl Placing {
    async fn run(mut self, stop: CancellationToken) {
        let mut declared = self.registry.changes();
        let mut owned = self.owners.changes();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wanted = wanted(&self.tenants, &declared.borrow_and_update());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.bus.closed().cancelled() => break,
                _ = ticks.tick() => {}
                Ok(()) = declared.changed() => wanted = self::wanted(&self.tenants, &declared.borrow_and_update()),
                Ok(()) = owned.changed() => {}
                Ok(()) = self.hold.changed() => {}
                Some(ended) = self.ending.join_next() => if let Ok(place) = ended {
                    self.ending_places.remove(&place);
                },
            }
            if let Err(error) = self.look(&wanted).await {
                debug!(%error, "cannot look after the registered servers");
            }
        }
        self.leave().await;
    }

    /// Brings what runs here in line with what is declared and who owns it.
    async fn look(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let held = self.hold.borrow().clone();
        let places: Vec<_> = self.running.keys().cloned().collect();
        for place in places {
            self.look_after(&place, wanted.get(&place)).await?;
        }
        let Some(held) = held else { return Ok(()) };
        self.free_since.retain(|place, _| wanted.contains_key(place));
        let mut forgotten = HashMap::new();
        self.sweep(wanted, &mut forgotten).await?;
        for (place, (tenant, entry, declared)) in wanted {
            if self.running.contains_key(place) || self.ending_places.contains(place) {
                continue;
            }
            if let Some(over) = self.may_take(place, &mut forgotten).await? {
                let what = (Arc::clone(tenant), entry.clone(), *declared);
                self.take(place.clone(), what, over, &held).await?;
            }
        }
        Ok(())
    }

    /// Removes the records of servers that nobody wants any more and whose owner did not live to remove them.
    async fn sweep(&self, wanted: &Wanted, forgotten: &mut HashMap<String, bool>) -> Result<(), StoreError> {
        for (place, record) in self.owners.picture().iter() {
            let is_mine = self.running.contains_key(place) || self.ending_places.contains(place);
            // Of the servers of other tenants this process does not know which are wanted.
            if is_mine || wanted.contains_key(place) || tenant_of(&self.tenants, place).is_none() {
                continue;
            }
            let is_nobodys = match &record.value.instance {
                Some(owner) => owner == self.bus.instance() || self.is_forgotten(owner, forgotten).await?,
                None => true,
            };
            if is_nobodys {
                match self.owners.bucket.remove_at(place, record.revision).await {
                    Ok(()) | Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn is_forgotten(&self, owner: &str, known: &mut HashMap<String, bool>) -> Result<bool, StoreError> {
        if let Some(known) = known.get(owner) {
            return Ok(*known);
        }
        let is_forgotten = self.nodes.is_forgotten(owner).await?;
        known.insert(owner.to_owned(), is_forgotten);
        Ok(is_forgotten)
    }

    /// Ends what is no longer wanted, declared otherwise, or no longer this process's; tells why something does not run.
    async fn look_after(
        &mut self,
        place: &str,
        wanted: Option<&(Arc<str>, Entry, u64)>,
    ) -> Result<(), StoreError> {
        let Some(running) = self.running.get_mut(place) else {
            return Ok(());
        };
        let picture = self.owners.picture();
        let record = picture.get(place);
        let is_anothers = record.is_some_and(|record| {
            record.revision > running.revision
                && record.value.instance.as_deref() != Some(self.bus.instance())
        });
        if running.fence.is_cancelled() || is_anothers {
            self.end(place, After::Nothing);
            return Ok(());
        }
        match wanted {
            None => self.end(place, After::Forget),
            Some((.., declared)) if *declared != running.declared => self.end(place, After::Nothing),
            Some(_) => {
                let failure = match running.kept.status() {
                    Status::Failed(why) => Some(why),
                    Status::Up => None,
                    Status::Starting | Status::Stopped => running.told.clone(),
                };
                if failure != running.told {
                    let owner = Owner {
                        instance: Some(self.bus.instance().to_owned()),
                        failure: failure.clone(),
                    };
                    running.revision = self
                        .owners
                        .bucket
                        .write(place, &owner, Some(running.revision))
                        .await?;
                    running.told = failure;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, place: &str, after: After) {
        let Some(running) = self.running.remove(place) else {
            return;
        };
        self.ending_places.insert(place.to_owned());
        let (place, owners) = (place.to_owned(), self.owners.clone());
        self.ending.spawn(async move {
            running.kept.stop().await;
            let done = match after {
                After::Nothing => Ok(()),
                After::Forget => owners.bucket.remove_at(&place, running.revision).await,
                After::Release => {
                    let nobody = Owner::default();
                    owners
                        .bucket
                        .write(&place, &nobody, Some(running.revision))
                        .await
                        .map(|_| ())
                }
            };
            if let Err(error) = done {
                debug!(%error, place, "could not let a place go; it is free when this process is forgotten");
            }
            place
        });
    }

    /// Whether this process may take a place now: `Some` with the revision to write over.
    async fn may_take(
        &mut self,
        place: &str,
        forgotten: &mut HashMap<String, bool>,
    ) -> Result<Option<Option<u64>>, StoreError> {
        let picture = self.owners.picture();
        let over = match picture.get(place) {
            None => None,
            Some(record) => {
                match &record.value.instance {
                    // It ran here before this process was out of hearing, or before its declaration was changed.
                    Some(owner) if owner == self.bus.instance() => return Ok(Some(Some(record.revision))),
                    Some(owner) if !self.is_forgotten(owner, forgotten).await? => {
                        self.free_since.remove(place);
                        return Ok(None);
                    }
                    Some(_) | None => {}
                }
                Some(record.revision)
            }
        };
        // One process is one replica.
        let server = place.rsplit_once('.').map_or(place, |(server, _)| server);
        let runs_another = self
            .running
            .keys()
            .any(|other| other.rsplit_once('.').is_some_and(|(s, _)| s == server));
        if runs_another {
            return Ok(None);
        }
        let since = *self
            .free_since
            .entry(place.to_owned())
            .or_insert_with(Instant::now);
        let turn = TURN * turn(place, self.bus.instance(), &self.nodes.alive());
        Ok((since.elapsed() >= turn).then_some(over))
    }

    async fn take(
        &mut self,
        place: String,
        (tenant, entry, declared): (Arc<str>, Entry, u64),
        over: Option<u64>,
        held: &CancellationToken,
    ) -> Result<(), StoreError> {
        let owner = Owner {
            instance: Some(self.bus.instance().to_owned()),
            failure: None,
        };
        let revision = match self.owners.bucket.write(&place, &owner, over).await {
            Ok(revision) => revision,
            Err(StoreError::Conflict) => return Ok(()),
            Err(error) => return Err(error),
        };
        // Writing took its time; by now the place may be this process's no longer.
        if held.is_cancelled() {
            return Ok(());
        }
        self.free_since.remove(&place);
        info!(server.id = %entry.declaration.id, place, "runs a registered server");
        let fence = held.child_token();
        let part = Placed {
            name: name_of(&tenant, &entry.declaration.id),
            entry,
            epoch: revision,
            make: Arc::clone(&self.make),
            tenant,
            fence: fence.clone(),
            made: OnceLock::new(),
        };
        match supervise::keep(Arc::new(part), self.bus.metrics().clone()).await {
            Ok(kept) => {
                let running = Running {
                    declared,
                    revision,
                    kept,
                    fence,
                    told: None,
                };
                self.running.insert(place, running);
            }
            Err(error) => warn!(%error, place, "cannot keep a registered server"),
        }
        Ok(())
    }

    async fn leave(&mut self) {
        let places: Vec<_> = self.running.keys().cloned().collect();
        for place in places {
            self.end(&place, After::Release);
        }
        let ending = std::mem::take(&mut self.ending);
        ending.join_all().await;
        if let Err(error) = self.nodes.leave(self.bus.instance()).await {
            debug!(%error, "could not take back this process's word");
        }
    }
}

/// What becomes of a place's record when what ran there has ended.
#[derive(Clone, Copy)]
enum After {
    /// It stays; whoever it names goes on with it.
    Nothing,
    /// Nobody is to run the server any more.
    Forget,
    /// Others may take it at once.
    Release,
}

fn wanted(tenants: &BTreeMap<String, String>, declared: &Picture<Record>) -> Wanted {
    let there = declared.iter().filter_map(|(key, record)| {
        let tenant: Arc<str> = tenant_of(tenants, key)?.into();
        Some((key, tenant, record.value.entry()?, record.revision))
    });
    let places = there.flat_map(|(key, tenant, entry, revision)| {
        let what = (tenant, entry.clone(), revision);
        (0..entry.declaration.replicas).map(move |replica| (place(key, replica), what.clone()))
    });
    places.collect()
}

/// Whose the server of a key or a place is, if it is of one of these tenants.
fn tenant_of<'a>(tenants: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    let (of, _) = key.split_once('.')?;
    tenants.get(of).map(String::as_str)
}

fn prefix(tenant: &str) -> String {
    Token::encode(tenant).to_string()
}

/// How many processes come before one at a place. All of them agree, and places spread evenly.
fn turn(place: &str, instance: &str, alive: &[String]) -> u32 {
    let weight = |node: &str| {
        let mut hasher = DefaultHasher::new();
        (place, node).hash(&mut hasher);
        (hasher.finish(), node.to_owned())
    };
    let own = weight(instance);
    let before = alive
        .iter()
        .filter(|node| *node != instance && weight(node) > own);
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bus_schema::registry::Declaration;

    use super::*;
    use crate::store::Mirrored;

    #[test]
    fn a_process_runs_the_servers_of_its_own_tenants_only() {
        let record = |id: &str| {
            let declaration = Declaration::new(id.parse().expect("an id"), "https://a.example");
            let entry = Entry {
                declaration,
                registered_at: String::new(),
                updated_at: String::new(),
                registered_by: String::new(),
                gone: Vec::new(),
            };
            Mirrored {
                value: Record::Declared(Box::new(entry)),
                revision: 1,
                heard: Instant::now(),
            }
        };
        let declared: Picture<Record> = [("default.a", "a"), ("acme.a", "a"), ("acme-two.a", "a")]
            .into_iter()
            .map(|(key, id)| (key.to_owned(), record(id)))
            .collect();
        let tenants =
            BTreeMap::from(["default", "acme-two"].map(|tenant| (prefix(tenant), tenant.to_owned())));
        let wanted: Vec<(String, String)> = wanted(&tenants, &declared)
            .into_iter()
            .map(|(place, (tenant, ..))| (place, tenant.to_string()))
            .collect();
        let expected = [("acme-two.a.0", "acme-two"), ("default.a.0", "default")];
        assert_eq!(
            wanted,
            expected.map(|(place, tenant)| (place.to_owned(), tenant.to_owned()))
        );
    }

    #[test]
    fn every_process_has_its_own_turn_at_a_place_and_first_turns_are_spread() {
        let nodes: Vec<_> = ["a", "b", "c"].map(str::to_owned).into();
        let mut firsts = BTreeMap::new();
        for server in 0..300 {
            let place = format!("default.s{server}.0");
            let mut turns: Vec<_> = nodes
                .iter()
                .map(|node| (turn(&place, node, &nodes), node))
                .collect();
            turns.sort();
            assert_eq!(turns.iter().map(|(turn, _)| *turn).collect::<Vec<_>>(), [0, 1, 2]);
            *firsts.entry(turns[0].1.clone()).or_insert(0) += 1;
        }
        assert!(
            firsts.values().all(|count| (60..=140).contains(count)),
            "{firsts:?}"
        );
    }
}
