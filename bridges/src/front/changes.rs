//! What has changed on an endpoint, for clients that want to be told: its lists, and resources that they name.
//!
//! Every notice says that something is not what it was, and not what it has become; so notices of one thing that wait for a slow
//! client are one notice, and what waits is bounded by what the client has asked for. Lists are compared by the digests in the
//! servers' cards; resources are listened for at their servers, see `keeper`.

mod hearing;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{Principal, RpcError, ServerId, card::ListDigests, mcp::resource};
use runtime::{
    Bus, Directory, directory::Snapshot, guardrails::AllGuardrails, policies::Policies, virtuals::Virtuals,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use hearing::Hearing;

use super::{Endpoint, faces::digests_of, keeper::Keepers};

/// How long a change of lists waits for others, and for the other doors to hear of it: a client may list anew at any of them.
const SETTLE: Duration = Duration::from_millis(50);
/// How many changed parts of resources wait for one client one by one; beyond, the resource that it has named stands for them.
const MAX_PARTS: usize = 1_000;

/// What a client wants to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The lists.
    pub lists: Lists,
    /// Resources, by URI.
    pub uris: BTreeSet<String>,
}

/// A choice among the three lists that can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Tools.
    pub tools: bool,
    /// Prompts.
    pub prompts: bool,
    /// Resources and resource templates.
    pub resources: bool,
}

impl Lists {
    fn both(self, other: Self) -> Self {
        Self {
            tools: self.tools && other.tools,
            prompts: self.prompts && other.prompts,
            resources: self.resources && other.resources,
        }
    }

    fn either(self, other: Self) -> Self {
        Self {
            tools: self.tools || other.tools,
            prompts: self.prompts || other.prompts,
            resources: self.resources || other.resources,
        }
    }
}

/// One thing that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The list of tools.
    Tools,
    /// The list of prompts.
    Prompts,
    /// The list of resources or of templates.
    Resources,
    /// A resource, by URI.
    Updated(String),
}

/// The watchers of one process.
pub(super) struct Changes {
    directory: Directory,
    virtuals: Virtuals,
    policies: Policies,
    guardrails: AllGuardrails,
    keepers: Keepers,
    last: AtomicU64,
    /// Held only to look up, insert or remove.
    watchers: Mutex<HashMap<u64, Arc<Watcher>>>,
}

/// One client that wants to be told.
struct Watcher {
    hearing: Hearing,
    endpoint: Endpoint,
    wanted: Wanted,
    /// Whose resources it watches.
    servers: BTreeSet<ServerId>,
    /// Held only to add or take.
    waiting: Mutex<Waiting>,
    filled: Notify,
}

struct Waiting {
    lists: Lists,
    /// Resources by URI, each with its server.
    updated: BTreeSet<(String, ServerId)>,
    /// The lists that the client knows, or is about to be told of.
    known: ListDigests,
}

/// A client's place among the watchers, until it is dropped.
pub struct Watching {
    changes: Arc<Changes>,
    number: u64,
    watcher: Arc<Watcher>,
    /// The resources by the server that has them.
    owned: Vec<(ServerId, BTreeSet<String>)>,
    /// Told when another policy is in force.
    policies: watch::Receiver<u64>,
}

impl Changes {
    /// Begins to compare lists.
    pub(super) fn start(bus: &Bus, directory: &Directory, virtuals: &Virtuals) -> Arc<Self> {
        let changes = Arc::new(Self {
            directory: directory.clone(),
            virtuals: virtuals.clone(),
            policies: bus.policies(),
            guardrails: bus.guardrails(),
            keepers: Keepers::new(bus.clone(), directory.clone()),
            last: AtomicU64::new(0),
            watchers: Mutex::default(),
        });
        let mut policies = bus.policies().changes();
        let (comparing, mut changed) = (Arc::downgrade(&changes), directory.changes());
        let mut defined = virtuals.changes();
        tokio::spawn(async move {
            loop {
                let there = tokio::select! {
                    there = changed.changed() => there,
                    there = defined.changed() => there,
                    there = policies.changed() => there,
                };
                if there.is_err() {
                    return;
                }
                sleep(SETTLE).await;
                changed.mark_unchanged();
                defined.mark_unchanged();
                policies.mark_unchanged();
                match comparing.upgrade() {
                    Some(changes) => changes.compare(),
                    None => return,
                }
            }
        });
        changes
    }

    /// Adds a watcher. `since` holds the digests that it knew when it was last told, if it was.
    pub(super) fn watch(
        self: &Arc<Self>,
        (principal, endpoint): (&Principal, Endpoint),
        wanted: Wanted,
        owned: Vec<(ServerId, BTreeSet<String>)>,
        since: Option<ListDigests>,
    ) -> Watching {
        let mut policies = self.policies.changes();
        // The resources are looked at once when they are first asked for, and then at each change.
        policies.mark_changed();
        let hearing = Hearing::new(&self.policies, principal);
        // What may have changed while nobody listened is told again.
        let missed = since.iter().flat_map(|_| &owned);
        let updated = missed.flat_map(|(server, uris)| uris.iter().map(|uri| (uri.clone(), server.clone())));
        let updated = updated.collect();
        let known = since.unwrap_or_else(|| {
            self.digests(&self.directory.snapshot(), &endpoint, &hearing)
                .unwrap_or_default()
        });
        let watcher = Arc::new(Watcher {
            hearing,
            waiting: Mutex::new(Waiting {
                lists: Lists::default(),
                updated,
                known,
            }),
            endpoint,
            wanted,
            servers: owned.iter().map(|(server, _)| server.clone()).collect(),
            filled: Notify::new(),
        });
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.watchers().insert(number, Arc::clone(&watcher));
        for (server, uris) in &owned {
            let weak = Arc::downgrade(self);
            self.keepers.add(server, uris, move |server, uri| {
                if let Some(changes) = weak.upgrade() {
                    changes.updated(server, uri);
                }
            });
        }
        // What has changed since, or while it was being added.
        self.compare_for(&watcher, &self.directory.snapshot());
        Watching {
            changes: Arc::clone(self),
            number,
            watcher,
            owned,
            policies,
        }
    }

    fn compare(&self) {
        let snapshot = self.directory.snapshot();
        let watchers: Vec<_> = self.watchers().values().cloned().collect();
        let mut by_endpoint: HashMap<&Endpoint, Option<ListDigests>> = HashMap::new();
        for watcher in &watchers {
            if !watcher.hearing.is_as_everybody() {
                self.compare_for(watcher, &snapshot);
                continue;
            }
            let now = by_endpoint
                .entry(&watcher.endpoint)
                .or_insert_with(|| self.digests(&snapshot, &watcher.endpoint, &watcher.hearing));
            if let Some(now) = now {
                watcher.compare(now);
            }
        }
    }

    fn compare_for(&self, watcher: &Watcher, snapshot: &Snapshot) {
        if let Some(now) = self.digests(snapshot, &watcher.endpoint, &watcher.hearing) {
            watcher.compare(&now);
        }
    }

    fn updated(&self, server: &ServerId, uri: &str) {
        let watchers: Vec<_> = self.watchers().values().cloned().collect();
        for watcher in watchers {
            if watcher.servers.contains(server) {
                watcher.updated(server, uri);
            }
        }
    }

    /// The lists of an endpoint at one moment; `None` while its server is away, which says nothing of its lists.
    fn digests(&self, snapshot: &Snapshot, endpoint: &Endpoint, hearing: &Hearing) -> Option<ListDigests> {
        let mut digests = self.digests_of_all(snapshot, endpoint, hearing)?;
        // Another policy may show something else, and guardrails may keep something out; whoever sees the same lists anew.
        let tenant = self.directory.tenant();
        let looked_by = self.guardrails.of(tenant);
        let looks = looked_by
            .rails()
            .is_ok_and(|guardrails| guardrails.look_at_lists());
        let mut marks = String::new();
        if let Some(version) = self.policies.of(tenant).version {
            marks = format!("-p{version}");
        }
        if let Some(version) = looked_by.version.filter(|_| looks) {
            marks.push_str(&format!("-g{version}"));
        }
        if !marks.is_empty() {
            let ListDigests {
                tools,
                prompts,
                resources,
            } = &mut digests;
            for digest in [tools, prompts, resources] {
                if !digest.is_empty() {
                    digest.push_str(&marks);
                }
            }
        }
        Some(digests)
    }

    fn digests_of_all(
        &self,
        snapshot: &Snapshot,
        endpoint: &Endpoint,
        hearing: &Hearing,
    ) -> Option<ListDigests> {
        let of_all = |snapshot, one: fn(&ListDigests) -> &String| of_all(snapshot, hearing, one);
        match endpoint {
            // Who may use nothing of a server has no lists of it that could change.
            Endpoint::Server(id) => digests_of(&self.virtuals, id, snapshot).or_else(|| {
                let card = snapshot.server(id)?;
                Some(match hearing.of_server(id) {
                    true => card.lists.clone(),
                    false => ListDigests::default(),
                })
            }),
            Endpoint::All | Endpoint::Search => Some(ListDigests {
                // The tools of a search are always the same two.
                tools: match endpoint {
                    Endpoint::Search => String::new(),
                    _ => of_all(snapshot, |lists| &lists.tools),
                },
                prompts: of_all(snapshot, |lists| &lists.prompts),
                resources: of_all(snapshot, |lists| &lists.resources),
            }),
        }
    }

    fn watchers(&self) -> MutexGuard<'_, HashMap<u64, Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare(&self, now: &ListDigests) {
        let mut waiting = self.waiting();
        let changed = Lists {
            tools: now.tools != waiting.known.tools,
            prompts: now.prompts != waiting.known.prompts,
            resources: now.resources != waiting.known.resources,
        };
        waiting.known = now.clone();
        waiting.lists = waiting.lists.either(changed.both(self.wanted.lists));
        drop(waiting);
        self.filled.notify_one();
    }

    fn updated(&self, server: &ServerId, uri: &str) {
        let mut named = self.wanted.uris.iter();
        let Some(named) = named.find(|wanted| resource::covers(wanted, uri)) else {
            return;
        };
        let mut waiting = self.waiting();
        let told = if waiting.updated.len() < MAX_PARTS {
            uri
        } else {
            named
        };
        waiting.updated.insert((told.to_owned(), server.clone()));
        drop(waiting);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Notice> {
        let mut waiting = self.waiting();
        let lists = &mut waiting.lists;
        for (changed, notice) in [
            (&mut lists.tools, Notice::Tools),
            (&mut lists.prompts, Notice::Prompts),
            (&mut lists.resources, Notice::Resources),
        ] {
            if std::mem::take(changed) {
                return Some(notice);
            }
        }
        // What has waited may be hidden by now.
        while let Some((uri, server)) = waiting.updated.pop_first() {
            if self.hearing.of_resource(&server, &uri) {
                return Some(Notice::Updated(uri));
            }
        }
        None
    }
}

impl Watching {
    /// The resources that the client will be told of; known once their servers have said so.
    pub async fn honoured(&self) -> BTreeSet<String> {
        let mut honoured = BTreeSet::new();
        for (server, uris) in &self.owned {
            honoured.extend(self.changes.keepers.honoured(server, uris).await);
        }
        honoured
    }

    /// The error by which a server refuses to tell of one of the resources, if one does. Known once it has said so.
    pub(super) async fn refusal(&self) -> Option<RpcError> {
        for (server, uris) in &self.owned {
            for uri in uris {
                let refusal = self.changes.keepers.refusal(server, uri).await;
                if refusal.is_some() {
                    return refusal;
                }
            }
        }
        None
    }

    /// Waits for the next notice.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.watcher.take() {
                return notice;
            }
            self.watcher.filled.notified().await;
        }
    }

    /// The same; `None` once the policy does not let the client hear of something that it has asked for.
    pub(super) async fn next_as_granted(&mut self) -> Option<Notice> {
        loop {
            if self.policies.has_changed().unwrap_or_default() {
                self.policies.mark_unchanged();
                if !self.watcher.hearing.of_all(&self.owned) {
                    return None;
                }
            }
            if let Some(notice) = self.watcher.take() {
                return Some(notice);
            }
            tokio::select! {
                () = self.watcher.filled.notified() => {}
                Ok(()) = self.policies.changed() => self.policies.mark_changed(),
            }
        }
    }

    /// What the client knows of the lists once it has been told what was given out: three digests, separated by dots.
    #[must_use]
    pub fn digests(&self) -> String {
        let waiting = self.watcher.waiting();
        let ListDigests {
            tools,
            prompts,
            resources,
        } = &waiting.known;
        format!("{tools}.{prompts}.{resources}")
    }
}

/// Reads what [`Watching::digests`] wrote.
pub(super) fn parse_digests(text: &str) -> Option<ListDigests> {
    let mut parts = text.split('.').map(str::to_owned);
    let digests = ListDigests {
        tools: parts.next()?,
        prompts: parts.next()?,
        resources: parts.next()?,
    };
    parts.next().is_none().then_some(digests)
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.changes.watchers().remove(&self.number);
        for (server, uris) in &self.owned {
            self.changes.keepers.remove(server, uris);
        }
    }
}

fn of_all(snapshot: &Snapshot, hearing: &Hearing, one: fn(&ListDigests) -> &String) -> String {
    let mut digest = Sha256::new();
    for (id, card) in snapshot.well() {
        let list = one(&card.lists);
        if !list.is_empty() && hearing.of_server(id) {
            digest.update(format!("{id}={list};"));
        }
    }
    digest.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
