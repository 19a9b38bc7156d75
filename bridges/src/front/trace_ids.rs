//! Fresh trace and span ids.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use bus_schema::{TraceContext, trace::Sampled};

/// Fresh trace and span ids: keyed hashes of a counter, as they must be unlike each other and need not be secret.
#[derive(Default)]
pub(super) struct Ids {
    key: RandomState,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> u64 {
        self.key.hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn next_trace(&self, outside: Option<&TraceContext>) -> TraceContext {
        match outside {
            Some(context) => context.child(self.next()),
            None => {
                let trace_id = (u128::from(self.next()) << 64) | u128::from(self.next());
                TraceContext::root(trace_id, self.next(), Sampled::No)
            }
        }
    }
}
