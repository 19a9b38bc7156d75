//! What guardrails find in lists on their way out: descriptions and titles speak to models before anybody has called anything.
//!
//! An item that a step flags says so in its own `_meta`, so that it does in every list that is made of this one; one that is blocked is left
//! out. The lists that doors put together are made of these, so nobody is skipped here, the platform's own processes neither.

use bus_schema::{
    RpcError,
    guardrails::{Side, Target},
    rpc::splice,
};
use tracing::{debug, info};

use super::{Outcome, authorize::read_list, run::Shared};
use crate::catalogue::Listed;

/// The answer to a request for a list, as guardrails let it go out.
pub(super) fn looked_at(
    shared: &Shared,
    (tenant, list): (&str, Listed),
    request: &[u8],
    outcome: Outcome,
) -> Outcome {
    let Some(rails) = &shared.rails else {
        return outcome;
    };
    if outcome.code.is_some() {
        return outcome;
    }
    let in_force = rails.of(tenant);
    let guardrails = match in_force.rails() {
        Ok(guardrails) if !guardrails.look_at_lists() => return outcome,
        Ok(guardrails) => guardrails,
        Err(why) => {
            let why = format!("{why}, and until then no list goes out; try again shortly");
            return Outcome::error_for(request, &RpcError::internal(why));
        }
    };
    let Some((whole, items)) = read_list(&outcome.body, list) else {
        let why = "the server's list cannot be read, so guardrails cannot say what stands in it";
        return Outcome::error_for(request, &RpcError::internal(why));
    };
    let mut kept = Vec::with_capacity(items.len());
    let mut is_changed = false;
    for item in items {
        let key = list.key_of(item);
        let target = Target {
            server: shared.options.id.as_str(),
            name: key.as_deref(),
        };
        let course = guardrails.course_beside(&target, Side::Lists);
        match course.map_or(Ok(None), |course| course.look_at_item(item)) {
            Ok(None) => kept.push(item.get().to_owned()),
            Ok(Some((noted, notes))) => {
                is_changed = true;
                for note in notes {
                    shared.bus.metrics().guardrail(&note.step, "flagged");
                    debug!(
                        server.id = %shared.options.id, item = key.as_deref(), step = note.step, found = ?note.found,
                        "a guardrail has found something in a list"
                    );
                }
                kept.push(noted);
            }
            Err(refusal) => {
                is_changed = true;
                shared.bus.metrics().guardrail(&refusal.step, "blocked");
                info!(
                    server.id = %shared.options.id, item = key.as_deref(), step = refusal.step,
                    "a guardrail keeps something out of a list"
                );
            }
        }
    }
    if !is_changed {
        return outcome;
    }
    let body = splice(&outcome.body, whole.get(), &format!("[{}]", kept.join(",")));
    Outcome {
        body: body.into(),
        ..outcome
    }
}
