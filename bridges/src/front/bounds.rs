//! What holds callers back: limits on how often they may have servers work, and a full stop for single callers.
//!
//! Every door passes here. What is counted is the call of the server itself, whatever endpoint it came by; lists and discovery are not.

use std::sync::{Arc, OnceLock};

use bus_schema::{
    Principal, RpcError,
    limits::{Limit, Work},
    rpc,
};
use runtime::{
    Bus,
    blocks::Blocks,
    limits::{Exceeded, Limits, Passed, Running, Standing},
    traffic,
};
use serde_json::json;

use super::{Caller, Fault, Final, Front, route::Route};

/// What holds callers back.
#[derive(Clone)]
pub struct Bounds {
    /// How often they may call.
    pub limits: Limits,
    /// Who may not call at all.
    pub blocks: Blocks,
}

impl Bounds {
    /// These limits, and the blocks of a bus.
    pub async fn open(bus: &Bus, limits: Vec<Limit>) -> Self {
        let bounds = Self {
            limits: Limits::new(bus),
            blocks: Blocks::open(bus).await,
        };
        bounds.limits.configure(limits);
        bounds
    }
}

/// How the limits stood that a call has met, for doors that can tell of them beside the answer.
#[derive(Clone, Debug, Default)]
pub struct Met(Arc<OnceLock<(Standing, Option<u64>)>>);

impl Met {
    /// The limit that was nearest to its end, and when to come again if it has refused the call, in milliseconds.
    pub(crate) fn standing(&self) -> Option<(&Standing, Option<u64>)> {
        self.0.get().map(|(standing, retry)| (standing, *retry))
    }

    fn note(&self, standing: Standing, retry_after_ms: Option<u64>) {
        // Of several calls the first is told of.
        let _ = self.0.set((standing, retry_after_ms));
    }
}

/// What ends everything that a caller has running.
pub(super) struct Stop {
    blocks: Blocks,
    principal: Principal,
}

impl Stop {
    pub(super) fn is_pulled(&self) -> bool {
        self.blocks.stops(&self.principal)
    }

    /// Waits until the caller is stopped.
    pub(super) async fn pulled(&self) {
        self.blocks.stopped(&self.principal).await;
    }
}

impl Front {
    /// What holds callers back.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.0.bounds
    }

    /// How often callers may have servers work.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.bounds.limits
    }

    /// Who may not call at all.
    #[must_use]
    pub fn blocks(&self) -> &Blocks {
        &self.0.bounds.blocks
    }

    pub(super) fn stop(&self, principal: &Principal) -> Stop {
        Stop {
            blocks: self.blocks().clone(),
            principal: principal.clone(),
        }
    }

    /// Counts a call that is about to go out. Gives the places that it takes for as long as it runs.
    pub(super) async fn pass(&self, caller: &Caller, route: &Route) -> Result<Running, Exceeded> {
        if !traffic::is_work(&route.method) {
            return Ok(Running::default());
        }
        let work = Work {
            principal: &caller.principal,
            server: route.server.as_str(),
            method: &route.method,
            name: route.name.as_deref(),
        };
        match self.limits().pass(&work).await {
            Ok(Passed { standing, running }) => {
                if let Some(standing) = standing {
                    caller.met.note(standing, None);
                }
                Ok(running)
            }
            Err(exceeded) => {
                caller
                    .met
                    .note(exceeded.standing.clone(), Some(exceeded.retry_after_ms));
                Err(exceeded)
            }
        }
    }
}

impl Final {
    /// A limit does not allow the call now.
    pub(super) fn rate_limited(id: Option<&str>, exceeded: &Exceeded) -> Self {
        let fault = Fault::RateLimited;
        let error = RpcError::internal(exceeded.to_string()).with_data(json!({
            "reason": fault.as_str(),
            "limit": exceeded.standing.limit,
            "retryAfterMs": exceeded.retry_after_ms,
        }));
        Self::refusal(id, fault, &error)
    }

    /// The caller is stopped.
    pub(super) fn blocked(id: Option<&str>) -> Self {
        Self::refusal(id, Fault::Blocked, &blocked())
    }

    fn refusal(id: Option<&str>, fault: Fault, error: &RpcError) -> Self {
        Self {
            code: Some(error.code),
            body: rpc::error_response(id, error).into(),
            fault: Some(fault),
        }
    }
}

/// What a caller hears who is stopped. Why stays with the operators.
pub(crate) fn blocked() -> RpcError {
    RpcError::invalid_request("this caller is blocked; ask the platform's operators")
        .with_data(json!({ "reason": Fault::Blocked.as_str() }))
}
