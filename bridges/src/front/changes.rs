//! What has changed on an endpoint, for clients that want to be told: its lists, and resources that they name.
//!
//! Every notice says that something is not what it was, and not what it has become; so notices of one thing that wait for a slow
//! client are one notice, and what waits is bounded by what the client has asked for. Lists are compared by the digests in the
//! servers' cards; resources are listened for at their servers, see `keeper`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{RpcError, ServerId, card::ListDigests, mcp::resource};
use runtime::{Bus, Directory, directory::Snapshot, policies::Policies, virtuals::Virtuals};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, time::sleep};

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
    keepers: Keepers,
    last: AtomicU64,
    /// Held only to look up, insert or remove.
    watchers: Mutex<HashMap<u64, Arc<Watcher>>>,
}

/// One client that wants to be told.
struct Watcher {
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
    updated: BTreeSet<String>,
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
}

impl Changes {
    /// Begins to compare lists.
    pub(super) fn start(bus: &Bus, directory: &Directory, virtuals: &Virtuals) -> Arc<Self> {
        let changes = Arc::new(Self {
            directory: directory.clone(),
            virtuals: virtuals.clone(),
            policies: bus.policies(),
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
        endpoint: Endpoint,
        wanted: Wanted,
        owned: Vec<(ServerId, BTreeSet<String>)>,
        since: Option<ListDigests>,
    ) -> Watching {
        let missed = since.is_some();
        let known = since.unwrap_or_else(|| {
            self.digests(&self.directory.snapshot(), &endpoint)
                .unwrap_or_default()
        });
        let watcher = Arc::new(Watcher {
            waiting: Mutex::new(Waiting {
                lists: Lists::default(),
                // What may have changed while nobody listened is told again.
                updated: if missed {
                    wanted.uris.clone()
                } else {
                    BTreeSet::new()
                },
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
        }
    }

    fn compare(&self) {
        let snapshot = self.directory.snapshot();
        let watchers: Vec<_> = self.watchers().values().cloned().collect();
        let mut by_endpoint: HashMap<&Endpoint, Option<ListDigests>> = HashMap::new();
        for watcher in &watchers {
            let now = by_endpoint
                .entry(&watcher.endpoint)
                .or_insert_with(|| self.digests(&snapshot, &watcher.endpoint));
            if let Some(now) = now {
                watcher.compare(now);
            }
        }
    }

    fn compare_for(&self, watcher: &Watcher, snapshot: &Snapshot) {
        if let Some(now) = self.digests(snapshot, &watcher.endpoint) {
            watcher.compare(&now);
        }
    }

    fn updated(&self, server: &ServerId, uri: &str) {
        let watchers: Vec<_> = self.watchers().values().cloned().collect();
        for watcher in watchers {
            if watcher.servers.contains(server) {
                watcher.updated(uri);
            }
        }
    }

    /// The lists of an endpoint at one moment; `None` while its server is away, which says nothing of its lists.
    fn digests(&self, snapshot: &Snapshot, endpoint: &Endpoint) -> Option<ListDigests> {
        let mut digests = self.digests_of_all(snapshot, endpoint)?;
        // Another policy may show something else; whoever sees the same lists anew.
        if let Some(version) = self.policies.of(self.directory.tenant()).version {
            let ListDigests {
                tools,
                prompts,
                resources,
            } = &mut digests;
            for digest in [tools, prompts, resources] {
                if !digest.is_empty() {
                    digest.push_str(&format!("-p{version}"));
                }
            }
        }
        Some(digests)
    }

    fn digests_of_all(&self, snapshot: &Snapshot, endpoint: &Endpoint) -> Option<ListDigests> {
        match endpoint {
            Endpoint::Server(id) => digests_of(&self.virtuals, id, snapshot)
                .or_else(|| snapshot.server(id).map(|card| card.lists.clone())),
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

    fn updated(&self, uri: &str) {
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
        waiting.updated.insert(told.to_owned());
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
        waiting.updated.pop_first().map(Notice::Updated)
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

fn of_all(snapshot: &Snapshot, one: impl Fn(&ListDigests) -> &String) -> String {
    let mut digest = Sha256::new();
    for (id, card) in snapshot.well() {
        let list = one(&card.lists);
        if !list.is_empty() {
            digest.update(format!("{id}={list};"));
        }
    }
    digest.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
