//! What a platform puts on record, read as the command line reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus_schema::{audit::Record, subject::CallerClass};
use runtime::audit::{Filter, Trail};
use trunkline::node::{NatsChoice, Node};

use crate::{eventually, platform::Platform};

/// What has been put on record since it was started.
pub struct Recorded {
    node: Node,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Recorded {
    /// Begins to read.
    ///
    /// # Panics
    /// When the broker does not let it.
    pub async fn start(platform: &Platform) -> Self {
        let url = platform.node.nats_url().map(str::to_owned);
        let node = Node::connect(&platform.config, CallerClass::Cli, NatsChoice::Join(url))
            .await
            .expect("it connects");
        let mut trail = Trail::open(node.bus(), Filter::default())
            .await
            .expect("it may listen");
        let records = Arc::<Mutex<Vec<Record>>>::default();
        let kept = Arc::clone(&records);
        tokio::spawn(async move {
            while let Some(record) = trail.next().await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            }
        });
        Self { node, records }
    }

    /// What has come.
    pub fn all(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until such a record has come.
    ///
    /// # Panics
    /// When none comes.
    pub async fn comes(&self, what: &str, is_it: impl Fn(&Record) -> bool) {
        eventually(what, async || self.all().iter().any(&is_it)).await;
    }

    /// Reads no more.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}
