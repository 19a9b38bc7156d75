//! What bounds the harm that a server can do: what its replicas say that they keep, or what was declared while there are none.

use std::collections::BTreeMap;

use bus_schema::registry::Declaration;
use runtime::load::{Limits, Load};
use serde_json::{Value, json};

/// The limits in effect, for callers whose doors wait for `call_timeout_ms` at most; `None` where nobody says any.
pub(super) fn in_effect(
    declared: Option<&Declaration>,
    loads: &[Load],
    call_timeout_ms: u64,
) -> Option<Value> {
    let kept = loads.iter().find_map(|load| load.limits.clone());
    let limits = kept.or_else(|| declared.map(of_declaration))?;
    let millis = limits
        .call_timeout_ms
        .map_or(call_timeout_ms, |own| own.min(call_timeout_ms));
    Some(json!(Limits {
        call_timeout_ms: Some(millis),
        ..limits
    }))
}

fn of_declaration(declared: &Declaration) -> Limits {
    Limits {
        max_in_flight: declared.max_in_flight,
        call_timeout_ms: declared.call_timeout_ms,
        tool_timeouts_ms: BTreeMap::new(),
        breaker: (declared.breaker.failures > 0).then_some(declared.breaker),
        retry: Some(declared.retry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_keeps_counts_before_what_was_declared_and_doors_wait_no_longer() {
        let mut declared = Declaration::new("a".parse().expect("an id"), "https://a.example");
        assert_eq!(in_effect(None, &[], 9), None);
        let usual = json!({
            "maxInFlight": 64, "callTimeoutMs": 9000, "breaker": { "failures": 5, "withinSecs": 30, "openSecs": 10 },
            "retry": { "attempts": 2, "backoffMs": 100 }
        });
        assert_eq!(in_effect(Some(&declared), &[], 9_000), Some(usual));
        declared.call_timeout_ms = Some(100);
        declared.breaker.failures = 0;
        let told = in_effect(Some(&declared), &[], 9_000).expect("limits");
        assert_eq!(
            told,
            json!({ "maxInFlight": 64, "callTimeoutMs": 100, "breaker": null, "retry": { "attempts": 2, "backoffMs": 100 } })
        );
        let load = Load {
            instance: "i".to_owned(),
            in_flight: 0,
            max_in_flight: 7,
            calls: 0,
            errors: 0,
            average_us: 0,
            breaker: None,
            limits: Some(Limits {
                max_in_flight: 7,
                call_timeout_ms: None,
                tool_timeouts_ms: BTreeMap::from([("slow".to_owned(), 5)]),
                breaker: None,
                retry: None,
            }),
        };
        assert_eq!(
            in_effect(Some(&declared), &[load], 9_000),
            Some(
                json!({ "maxInFlight": 7, "callTimeoutMs": 9000, "toolTimeoutsMs": { "slow": 5 }, "breaker": null })
            )
        );
    }
}
