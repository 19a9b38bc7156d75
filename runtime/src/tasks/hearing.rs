//! Who wants to hear of tasks in this process: one subscription for all of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bus_schema::{
    ContentType, subject,
    task::{Happened, TaskId},
};
use futures::StreamExt as _;
use tokio::{
    sync::{Notify, OnceCell},
    time::timeout,
};
use tracing::debug;

use super::Tasks;
use crate::bus::BusError;

/// After how long without a word somebody who watches looks for himself: an event may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// All who watch tasks in a process.
#[derive(Default)]
pub(super) struct Hearing {
    is_on: OnceCell<()>,
    /// Held only to look or to change it.
    watchers: Mutex<HashMap<TaskId, Vec<Weak<Watcher>>>>,
}

/// One who watches some tasks.
#[derive(Default)]
struct Watcher {
    /// The newest of each. Held only to look or to change it.
    heard: Mutex<BTreeMap<TaskId, Happened>>,
    wake: Notify,
}

/// Tasks that are watched, until this is dropped.
pub struct WatchedTasks {
    ids: Vec<TaskId>,
    watcher: Arc<Watcher>,
    tasks: Tasks,
}

impl Tasks {
    /// Watches tasks. Whoever does so reads them once after this, as what happened before is not told.
    ///
    /// # Errors
    /// When the bus refuses that this process hears of tasks.
    pub async fn watch(&self, ids: Vec<TaskId>) -> Result<WatchedTasks, BusError> {
        self.0.hearing.is_on.get_or_try_init(|| self.hear()).await?;
        let watcher = Arc::new(Watcher::default());
        let mut watchers = self.0.hearing.watchers();
        for id in &ids {
            watchers
                .entry(id.clone())
                .or_default()
                .push(Arc::downgrade(&watcher));
        }
        drop(watchers);
        Ok(WatchedTasks {
            ids,
            watcher,
            tasks: self.clone(),
        })
    }

    async fn hear(&self) -> Result<(), BusError> {
        let mut events = self.0.bus.subscribe(subject::all_task_events()).await?;
        let inner = Arc::downgrade(&self.0);
        // It ends with the connection, or with the last who could watch.
        tokio::spawn(async move {
            while let Some(message) = events.next().await {
                let Some(inner) = inner.upgrade() else { return };
                match ContentType::Json.decode::<Happened>(&message.payload) {
                    Ok(happened) => inner.hearing.tell(&happened),
                    Err(error) => debug!(%error, "ignored an event of a task that cannot be read"),
                }
            }
        });
        Ok(())
    }
}

impl Hearing {
    fn watchers(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, Vec<Weak<Watcher>>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, happened: &Happened) {
        let watchers = self.watchers();
        for watcher in watchers.get(&happened.id).into_iter().flatten() {
            if let Some(watcher) = watcher.upgrade() {
                let mut heard = watcher.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.insert(happened.id.clone(), happened.clone());
                drop(heard);
                watcher.wake.notify_one();
            }
        }
    }
}

impl WatchedTasks {
    /// Waits until something has happened to one of the tasks, and gives the newest of each. An empty answer says that nothing was heard for
    /// a while: whoever must not miss anything looks for himself then.
    pub async fn next(&mut self) -> Vec<Happened> {
        let hearing = async {
            loop {
                let heard =
                    std::mem::take(&mut *self.watcher.heard.lock().unwrap_or_else(PoisonError::into_inner));
                if !heard.is_empty() {
                    return heard.into_values().collect();
                }
                self.watcher.wake.notified().await;
            }
        };
        timeout(LOOK_AGAIN, hearing).await.unwrap_or_default()
    }
}

impl Drop for WatchedTasks {
    fn drop(&mut self) {
        let mut watchers = self.tasks.0.hearing.watchers();
        for id in &self.ids {
            if let Some(all) = watchers.get_mut(id) {
                all.retain(|other| !other.ptr_eq(&Arc::downgrade(&self.watcher)));
                if all.is_empty() {
                    watchers.remove(id);
                }
            }
        }
    }
}
