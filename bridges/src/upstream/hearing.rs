//! What processes of single callers say that others have to hear of: changed resources and lists.
//!
//! A lane of a child is a process of its own, and what its calls change only that process tells. So every such lane is subscribed to what
//! anybody wants to hear of, before its first call, and what it tells is told to all who listen. A list that has changed on a lane has
//! changed for its callers; the platform's own look at the lists may show nothing, so the change is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::mcp::method;
use futures::future::join_all;
use tokio::sync::{broadcast, watch};

use super::{connection::Session, link::Link, subscriptions::Subscriptions};

/// How many changes of resources may wait; whoever misses some takes all as changed.
const UPDATES: usize = 256;

/// Counts how often a server has said that its lists of tools, of prompts and of resources have changed.
#[derive(Default)]
pub(super) struct ListChanges([AtomicU64; 3]);

impl ListChanges {
    /// Counts a notification that says so.
    pub(super) fn count(&self, called: &str) {
        let methods = [
            method::TOOLS_CHANGED,
            method::PROMPTS_CHANGED,
            method::RESOURCES_CHANGED,
        ];
        for (_, count) in methods
            .iter()
            .zip(&self.0)
            .filter(|(method, _)| **method == called)
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> [u64; 3] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// What all lanes of one server hear.
pub(super) struct Hearing {
    /// Held only to look or change.
    inner: Mutex<Inner>,
    updates: broadcast::Sender<Arc<str>>,
    lists: watch::Sender<[u64; 3]>,
}

#[derive(Default)]
struct Inner {
    /// The resources that anybody wants to hear of.
    wanted: BTreeSet<String>,
    lanes: BTreeMap<u64, Arc<Subscriptions>>,
}

impl Default for Hearing {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            updates: broadcast::channel(UPDATES).0,
            lists: watch::Sender::default(),
        }
    }
}

impl Hearing {
    /// Subscribes all lanes to these resources and no others.
    pub(super) async fn watch(&self, wanted: BTreeSet<String>) {
        let lanes: Vec<_> = {
            let mut inner = self.inner();
            inner.wanted.clone_from(&wanted);
            inner.lanes.values().cloned().collect()
        };
        join_all(lanes.iter().map(|lane| lane.watch(wanted.clone()))).await;
    }

    /// Subscribes a lane that has no calls yet to what is wanted.
    pub(super) async fn enter(&self, number: u64, link: &Arc<Link>, session: &Session) -> Arc<Subscriptions> {
        let lane = Arc::new(Subscriptions::new(Arc::clone(link), session));
        self.inner().lanes.insert(number, Arc::clone(&lane));
        loop {
            let wanted = self.inner().wanted.clone();
            lane.watch(wanted.clone()).await;
            // What is wanted may have changed while the server was asked.
            if self.inner().wanted == wanted {
                return lane;
            }
        }
    }

    /// A lane is no more.
    pub(super) fn leave(&self, number: u64) {
        self.inner().lanes.remove(&number);
    }

    /// Hears a lane for as long as it is waited for.
    pub(super) async fn listen(&self, link: &Link, lane: &Subscriptions) -> Infallible {
        tokio::select! {
            never = self.hear(link) => never,
            never = lane.keep() => never,
        }
    }

    async fn hear(&self, link: &Link) -> Infallible {
        let (mut updates, mut changes) = (link.updates.subscribe(), link.list_changes.subscribe());
        let mut told = [0; 3];
        loop {
            tokio::select! {
                update = updates.recv() => match update {
                    Ok(uri) => self.tell(uri),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.tell_all(),
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                },
                changed = changes.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let counts = link.changes.counts();
                    self.lists.send_modify(|all| {
                        for (sum, (count, before)) in all.iter_mut().zip(counts.iter().zip(told)) {
                            *sum += count - before;
                        }
                    });
                    told = counts;
                }
            }
        }
    }

    fn tell(&self, uri: Arc<str>) {
        // Nobody may be listening.
        let _ = self.updates.send(uri);
    }

    fn tell_all(&self) {
        let wanted = self.inner().wanted.clone();
        for uri in wanted {
            self.tell(uri.into());
        }
    }

    /// How often lists have changed on lanes.
    pub(super) fn list_changes(&self) -> [u64; 3] {
        *self.lists.borrow()
    }

    /// Passes what lanes tell on to who hears the conversation that all share, for as long as it is waited for.
    pub(super) async fn pass_on(&self, shared: &Link) -> Infallible {
        let (mut updates, mut lists) = (self.updates.subscribe(), self.lists.subscribe());
        loop {
            tokio::select! {
                update = updates.recv() => match update {
                    Ok(uri) => { let _ = shared.updates.send(uri); }
                    Err(_) => self.tell_all(),
                },
                // The sender is this one's own.
                Ok(()) = lists.changed() => shared.list_changes.send_modify(|count| *count += 1),
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
