//! Forgets what a tenant has removed long ago. Any number of registries do so; each record is forgotten at the revision that was seen.

use std::time::Duration;

use bus_schema::registry::GONE_FOR_DAYS;
use runtime::{moment, registry::Registry};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// How often is looked. What is older is told of by nobody in any case.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// Looks until it is stopped.
pub(super) async fn run(registry: Registry, tenant: String, stop: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let forgetting = async {
            registry
                .forget_before(&tenant, &moment::days_ago(GONE_FOR_DAYS))
                .await
        };
        let forgotten = tokio::select! {
            () = stop.cancelled() => return,
            forgotten = forgetting => forgotten,
        };
        match forgotten {
            Ok(0) => {}
            Ok(servers) => info!(servers, "forgot servers that were removed long ago"),
            Err(error) => debug!(%error, "could not forget removed servers"),
        }
    }
}
