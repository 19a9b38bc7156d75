//! How the replicas of a server do at this moment, as they say by the NATS services protocol (ADR-32).

use std::{collections::BTreeMap, time::Duration};

use bus_schema::{
    ServerId, subject,
    upstream::{BreakerKnob, RetryKnob},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::bus::{Bus, BusError};

/// How long is waited for the replicas that are known.
const LIMIT: Duration = Duration::from_millis(500);

/// How one replica does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Which process.
    pub instance: String,
    /// How many calls run in it.
    pub in_flight: u64,
    /// How many calls it takes at once.
    pub max_in_flight: u64,
    /// How many calls it has answered since it started.
    pub calls: u64,
    /// How many of them with an error.
    pub errors: u64,
    /// How long a call took on average, in microseconds.
    pub average_us: u64,
    /// Whether its calls go to the server: `closed` when they do, `open` when none does, `half-open` when one is tried. `None` where
    /// nothing stops them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// What holds in it; `None` of an older process, which does not say.
    #[serde(skip)]
    pub limits: Option<Limits>,
}

/// What bounds the harm that a server can do, as a replica of it was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// How many calls it takes at once.
    pub max_in_flight: u32,
    /// The longest that a call may take, in milliseconds; `None` for as long as its caller waits.
    pub call_timeout_ms: Option<u64>,
    /// The longest that calls of single tools may take, in milliseconds, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tool_timeouts_ms: BTreeMap<String, u64>,
    /// When calls are stopped because they keep failing; `None` for never.
    pub breaker: Option<BreakerKnob>,
    /// How often calls are made that were lost; `None` for the platform's own servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryKnob>,
}

#[derive(Deserialize)]
struct Stats {
    id: String,
    metadata: Metadata,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Metadata {
    tenant: String,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    num_requests: u64,
    #[serde(default)]
    num_errors: u64,
    #[serde(default)]
    average_processing_time: u64,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    in_flight: u64,
    max_in_flight: u64,
    breaker: Option<String>,
    limits: Option<Limits>,
}

impl Bus {
    /// Asks the replicas of a tenant's server how they do, and waits for so many as are known; half a second at most.
    ///
    /// # Errors
    /// [`BusError`] when the bus does not take the question.
    pub async fn load(
        &self,
        tenant: &str,
        server: &ServerId,
        replicas: usize,
    ) -> Result<Vec<Load>, BusError> {
        let inbox = self.new_library_inbox();
        let mut answers = self.subscribe(inbox.clone()).await?;
        self.publish_with_reply(subject::ask_stats(server.as_str()), inbox, Vec::new())
            .await?;
        let limit = Instant::now() + LIMIT;
        let mut loads = Vec::new();
        while loads.len() < replicas
            && let Ok(Some(message)) = timeout_at(limit, answers.next()).await
        {
            // The broker says so when nobody is there.
            if message.status.is_some() {
                break;
            }
            if let Ok(stats) = serde_json::from_slice::<Stats>(&message.payload) {
                let is_ours = stats.metadata.tenant == tenant;
                // By that name other tenants' servers answer as well.
                loads.extend(read(stats).filter(|_| is_ours));
            }
        }
        loads.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(loads)
    }
}

fn read(stats: Stats) -> Option<Load> {
    let endpoint = stats.endpoints.into_iter().next()?;
    Some(Load {
        instance: stats.id,
        in_flight: endpoint.data.in_flight,
        max_in_flight: endpoint.data.max_in_flight,
        calls: endpoint.num_requests,
        errors: endpoint.num_errors,
        average_us: endpoint.average_processing_time / 1_000,
        breaker: endpoint.data.breaker,
        limits: endpoint.data.limits,
    })
}
