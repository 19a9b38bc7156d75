//! Who serves what: every process's own picture of the servers on the bus.
//!
//! It is made of what instances announce, of the broker's word that a connection has ended, and of a sweep that asks everybody
//! from time to time. It is never on the way of a call: a call goes to a subject, and whoever is there answers.

mod looks;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use async_nats::{Message, StatusCode, Subscriber};
use bus_schema::{ServerCard, ServerId, card::version_numbers, subject};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tracing::{debug, info};

use crate::{
    bus::{Bus, BusError, Presence},
    store::Named,
    traffic::{self, Rule, Rules},
};

use looks::Looks;

/// How often everybody is asked.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How many sweeps an instance may leave unanswered.
const MISSED_SWEEPS: u64 = 2;
/// How long a newcomer waits for the first answer, and then until none has come for a while; never longer than the limit.
const SETTLE_FIRST: Duration = Duration::from_secs(1);
const SETTLE_QUIET: Duration = Duration::from_millis(150);
const SETTLE_LIMIT: Duration = Duration::from_secs(3);
/// The servers on the bus at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up at each change.
    pub generation: u64,
    /// Counts up when lists may go out otherwise than before, though no server has changed: guardrails look at them, or do no more.
    pub(crate) looks: u64,
    servers: BTreeMap<ServerId, Vec<ServerCard>>,
    /// How the calls of servers are spread, where that is not left to the broker.
    rules: Table,
}

type Table = Arc<BTreeMap<ServerId, Arc<Rule>>>;

impl Snapshot {
    /// All servers in the order of their ids, each with the card that stands for its replicas.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerId, &ServerCard)> {
        self.servers
            .iter()
            .filter_map(|(id, replicas)| replicas.last().map(|card| (id, card)))
    }

    /// The servers that are well: those with a replica that is.
    pub fn well(&self) -> impl Iterator<Item = (&ServerId, &ServerCard)> {
        self.servers().filter(|(id, _)| self.trouble(id).is_none())
    }

    /// Why a server should not be used now: what troubles its replicas, if none of them is well.
    #[must_use]
    pub fn trouble(&self, id: &ServerId) -> Option<&str> {
        let mut troubles = self.replicas(id).iter().map(|card| card.trouble.as_deref());
        let first = troubles.next()??;
        troubles.all(|trouble| trouble.is_some()).then_some(first)
    }

    /// How the calls of a server are spread, if somebody has said so.
    #[must_use]
    pub fn rule(&self, id: &ServerId) -> Option<&Arc<Rule>> {
        self.rules.get(id)
    }

    /// All that is said so, in the order of the servers' ids.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// Whether a server's versions are told apart: they have shares, or there are several at this moment.
    #[must_use]
    pub fn tells_apart(&self, id: &ServerId) -> bool {
        let has_shares = self.rule(id).is_some_and(|rule| rule.kept.rule.splits());
        has_shares
            || self
                .replicas(id)
                .windows(2)
                .any(|pair| pair[0].version != pair[1].version)
    }

    /// A replica of a version.
    #[must_use]
    pub fn of_version(&self, id: &ServerId, version: &str) -> Option<&ServerCard> {
        self.replicas(id).iter().find(|card| card.version == version)
    }

    /// The card that stands for a server's replicas: the one of the version with the greatest share of its calls, and else of the newest.
    #[must_use]
    pub fn server(&self, id: &ServerId) -> Option<&ServerCard> {
        self.servers.get(id).and_then(|replicas| replicas.last())
    }

    /// The cards of a server's replicas.
    #[must_use]
    pub fn replicas(&self, id: &ServerId) -> &[ServerCard] {
        self.servers.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A process's picture of the servers on the bus.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("tenant", &self.0.tenant)
            .finish_non_exhaustive()
    }
}

struct Inner {
    tenant: String,
    snapshot: ArcSwap<Snapshot>,
    /// Held only to apply one change.
    known: Mutex<Replicas>,
    rules: Rules,
    /// The rules as they were told last.
    table: ArcSwap<BTreeMap<ServerId, Arc<Rule>>>,
    /// When each server was heard of, also those that are gone. Held only to read or write.
    seen: Mutex<BTreeMap<ServerId, Seen>>,
    changed: watch::Sender<u64>,
    /// What [`Snapshot::looks`] says.
    looks: AtomicU64,
}

/// By server and instance.
type Replicas = BTreeMap<(ServerId, String), Known>;

struct Known {
    card: ServerCard,
    seen_in_sweep: u64,
}

/// When a server was heard of by this process, and since when it is what it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The first time.
    pub first: SystemTime,
    /// When it first had its present version, title and instructions.
    pub changed: SystemTime,
    /// The last time.
    pub last: SystemTime,
    /// A digest of what it says of itself.
    said: u64,
}

impl Directory {
    /// The tenant whose servers these are.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// Starts to watch one tenant's servers, and waits until those that are there have answered.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses a subscription.
    pub async fn start(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        let rules = Named::open(bus, tenant, "traffic rule", traffic::BUCKET).await;
        let directory = Self::of(tenant, rules);
        watch_all(bus, vec![directory.clone()]).await?;
        Ok(directory)
    }

    /// The same for several tenants: all of them are asked for at once, however many they are.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses a subscription.
    pub async fn start_each(bus: &Bus, tenants: &[String]) -> Result<Vec<Self>, BusError> {
        let Some(first) = tenants.first() else {
            return Ok(Vec::new());
        };
        let rules = Named::open(bus, first, "traffic rule", traffic::BUCKET).await;
        let each = tenants.iter();
        let directories: Vec<_> = each
            .map(|tenant| Self::of(tenant, rules.of_another(tenant)))
            .collect();
        watch_all(bus, directories.clone()).await?;
        Ok(directories)
    }

    fn of(tenant: &str, rules: Rules) -> Self {
        let directory = Self(Arc::new(Inner {
            tenant: tenant.to_owned(),
            snapshot: ArcSwap::default(),
            known: Mutex::default(),
            rules,
            table: ArcSwap::default(),
            seen: Mutex::default(),
            changed: watch::channel(0).0,
            looks: AtomicU64::new(0),
        }));
        directory.take_rules();
        directory
    }

    /// The servers at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// How the calls of servers are spread, to write it. What holds stands in the snapshot.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// When a server was last heard of by this process, if it ever was.
    #[must_use]
    pub fn last_seen(&self, id: &ServerId) -> Option<SystemTime> {
        self.seen(id).map(|seen| seen.last)
    }

    /// When a server was heard of by this process, if it ever was.
    #[must_use]
    pub fn seen(&self, id: &ServerId) -> Option<Seen> {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(id).copied()
    }

    /// Tells of changes; the value is the snapshot's generation.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Applies the rules as they are told now. One that stays the same goes on counting.
    fn take_rules(&self) {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.0.table.load();
        let picture = self.0.rules.changes().borrow().clone();
        let rules = self.0.rules.of_tenant(&picture).map(|(id, record)| {
            let same = old.get(&id).filter(|rule| rule.revision == record.revision);
            let rule = same.map_or_else(
                || Arc::new(Rule::new(record.value.clone(), record.revision)),
                Arc::clone,
            );
            (id, rule)
        });
        self.0.table.store(Arc::new(rules.collect()));
        self.publish(&known);
    }

    fn insert(&self, card: &ServerCard, sweep: u64) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get_mut(&card.id) {
            seen.last = SystemTime::now();
        }
        drop(seen);
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (card.id.clone(), card.instance.clone());
        let old = known.insert(
            key,
            Known {
                card: card.clone(),
                seen_in_sweep: sweep,
            },
        );
        if old.as_ref().map(|known| &known.card) != Some(card) {
            if old.is_none() {
                debug!(server.id = %card.id, instance = %card.instance, "found a replica");
            }
            self.publish(&known);
        }
    }

    fn remove(&self, gone: impl Fn(&ServerCard) -> bool) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|_, known| !gone(&known.card));
        if known.len() != before {
            self.publish(&known);
        }
    }

    fn forget_silent(&self, sweep: u64) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|(id, instance), known| {
            let silent = sweep.saturating_sub(known.seen_in_sweep) >= MISSED_SWEEPS;
            if silent {
                info!(server.id = %id, %instance, "a replica does not answer any more");
            }
            !silent
        });
        if known.len() != before {
            self.publish(&known);
        }
    }

    fn publish(&self, known: &Replicas) {
        let mut servers: BTreeMap<ServerId, Vec<ServerCard>> = BTreeMap::new();
        for known in known.values() {
            servers
                .entry(known.card.id.clone())
                .or_default()
                .push(known.card.clone());
        }
        let rules = self.0.table.load_full();
        for (id, replicas) in &mut servers {
            let rule = rules.get(id).map(|rule| &rule.kept.rule);
            replicas.sort_by_cached_key(|card| {
                let rank = rule.map_or(0, |rule| rule.rank(&card.version));
                (
                    rank,
                    version_numbers(&card.version),
                    card.version.clone(),
                    card.instance.clone(),
                )
            });
        }
        self.note_changes(&servers);
        let generation = self.0.snapshot.load().generation + 1;
        self.0.snapshot.store(Arc::new(Snapshot {
            generation,
            looks: self.0.looks.load(Ordering::Relaxed),
            servers,
            rules,
        }));
        self.0.changed.send_replace(generation);
    }

    fn note_changes(&self, servers: &BTreeMap<ServerId, Vec<ServerCard>>) {
        let now = SystemTime::now();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, replicas) in servers {
            let Some(said) = replicas.last().map(said) else {
                continue;
            };
            let noted = seen.entry(id.clone()).or_insert(Seen {
                first: now,
                changed: now,
                last: now,
                said,
            });
            if noted.said != said {
                (noted.said, noted.changed) = (said, now);
            }
        }
    }
}

/// Fills the pictures of several tenants, and goes on to do so for as long as the bus connection stands. Returns when those that are there have
/// answered.
async fn watch_all(bus: &Bus, directories: Vec<Directory>) -> Result<(), BusError> {
    let presence = bus.presence();
    let inbox = bus.new_library_inbox();
    let mut answers = bus.subscribe(inbox.clone()).await?;
    let watching = Watching {
        bus: bus.clone(),
        directories,
        inbox,
    };
    watching.ask_everybody().await?;
    let limit = Instant::now() + SETTLE_LIMIT;
    let mut patience = SETTLE_FIRST;
    while let Ok(Some(message)) = timeout_at(limit.min(Instant::now() + patience), answers.next()).await {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            break;
        }
        watching.take_answer(&message, 0);
        patience = SETTLE_QUIET;
    }
    bus.spawn(watching.run(presence, answers));
    Ok(())
}

/// What keeps the pictures of a process up to date, each with what is its tenant's.
struct Watching {
    bus: Bus,
    directories: Vec<Directory>,
    inbox: String,
}

impl Watching {
    async fn run(self, mut presence: broadcast::Receiver<Presence>, mut answers: Subscriber) {
        let mut sweeps = interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweeps.reset();
        let mut sweep = 0;
        // All of them are told of all rules, and take those of their tenant.
        let Some(mut rules) = self.directories.first().map(|first| first.0.rules.changes()) else {
            return;
        };
        let mut looks = Looks::new(&self.bus);
        loop {
            tokio::select! {
                () = looks.are_others(&self.directories) => self.directories.iter().for_each(Directory::look_anew),
                Ok(()) = rules.changed() => self.directories.iter().for_each(Directory::take_rules),
                Ok(presence) = presence.recv() => self.take_presence(&presence, sweep),
                Some(message) = answers.next() => self.take_answer(&message, sweep),
                _ = sweeps.tick() => {
                    // While the connection is down nobody can answer, which says nothing about them.
                    if self.bus.is_connected() {
                        self.directories.iter().for_each(|directory| directory.forget_silent(sweep));
                        sweep += 1;
                    }
                    if self.ask_everybody().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn ask_everybody(&self) -> Result<(), BusError> {
        self.bus
            .publish_with_reply(subject::ask_all_services(), self.inbox.clone(), Vec::new())
            .await
    }

    fn of(&self, tenant: &str) -> Option<&Directory> {
        let mut all = self.directories.iter();
        all.find(|directory| directory.tenant() == tenant)
    }

    fn take_presence(&self, presence: &Presence, sweep: u64) {
        match presence {
            Presence::Up(card) => {
                if let Some(directory) = self.of(&card.tenant) {
                    directory.insert(card, sweep);
                }
            }
            Presence::Down(gone) => {
                if let Some(directory) = self.of(&gone.tenant) {
                    directory.remove(|known| known.id == gone.id && known.instance == gone.instance);
                }
            }
            Presence::Lost(instance) => {
                for directory in &self.directories {
                    directory.remove(|known| *known.instance == **instance);
                }
            }
        }
    }

    fn take_answer(&self, message: &Message, sweep: u64) {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            metadata: BTreeMap<String, String>,
        }
        let Ok(info) = serde_json::from_slice::<Info>(&message.payload) else {
            return;
        };
        let Some(card) = info.metadata.get(crate::host::CARD_KEY) else {
            return;
        };
        match serde_json::from_str::<ServerCard>(card) {
            Ok(card) => {
                if let Some(directory) = self.of(&card.tenant) {
                    directory.insert(&card, sweep);
                }
            }
            Err(error) => debug!(%error, "ignored a server whose card cannot be read"),
        }
    }
}

/// A digest of what a server says of itself, beside its lists.
fn said(card: &ServerCard) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&card.version, &card.title, &card.instructions).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn card(instance: &str, version: &str) -> ServerCard {
        let card = json!({
            "id": "a", "instance": instance, "tenant": "t", "title": "A", "version": version,
            "protocol_version": "2026-07-28", "revision": "1", "max_in_flight": 1
        });
        serde_json::from_value(card).unwrap()
    }

    #[test]
    fn a_server_has_changed_when_it_says_something_else_of_itself_and_not_when_it_is_heard_again() {
        let directory = Directory(Arc::new(Inner {
            tenant: "t".to_owned(),
            snapshot: ArcSwap::default(),
            known: Mutex::default(),
            rules: Named::nowhere("t", "traffic rule").1,
            table: ArcSwap::default(),
            seen: Mutex::default(),
            changed: watch::channel(0).0,
            looks: AtomicU64::new(0),
        }));
        let id: ServerId = "a".parse().unwrap();
        assert_eq!(directory.seen(&id), None);
        directory.insert(&card("one", "1.0.0"), 0);
        let first = directory.seen(&id).unwrap();
        // The same again, another replica of it, and one of an older version.
        for card in [card("one", "1.0.0"), card("two", "1.0.0"), card("three", "0.9.0")] {
            directory.insert(&card, 1);
        }
        let again = directory.seen(&id).unwrap();
        assert_eq!((again.first, again.changed), (first.first, first.changed));
        assert!(again.last >= first.last);
        directory.remove(|_| true);
        directory.insert(&card("one", "1.0.0"), 2);
        assert_eq!(directory.seen(&id).unwrap().changed, first.changed);
        directory.insert(&card("two", "1.1.0"), 2);
        let newer = directory.seen(&id).unwrap();
        assert_eq!(newer.first, first.first);
        assert_ne!(newer.changed, first.changed);
    }
}
