//! Puts on record what was refused: records wait in this process, go in batches to the stream `AUDIT`, and are there when it has acknowledged them.
//!
//! Nothing waits for a record. While the broker is away they are kept here up to a bound; what is lost beyond that is counted, and a
//! record of the gap says so. Floods are counted instead of written out one by one (`floods`). Reading is in `trail`.

mod floods;
mod stream;
mod trail;

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::audit::{Kind, Outcome, Record};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{bus::Bus, moment, telemetry::Metrics};

use floods::Floods;
use stream::{Batch, Keeper};
pub use trail::{Filter, Trail, TrailError};

/// How many records wait for the broker at most; at some 500 bytes each they take 4 MiB.
const MAX_WAITING: usize = 8_192;
/// How many records one message holds.
const MAX_BATCH: usize = 64;
/// How long a record waits for others to go with.
const LINGER: Duration = Duration::from_millis(100);
/// After how long the broker is asked again that did not take a batch.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often floods are looked at that are over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the end of a process waits for its last records.
const FINISH_LIMIT: Duration = Duration::from_secs(3);

/// How records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// How many refusals of one kind each caller, or each address, has written out within a minute; more are counted.
    pub singles_per_minute: u32,
    /// How long records are kept. Counts for a stream that is not there yet.
    pub max_age: Duration,
    /// How many bytes they take of the broker's disk at most; the oldest go first. Counts for a stream that is not there yet.
    pub max_bytes: i64,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            singles_per_minute: 60,
            max_age: Duration::from_secs(90 * 24 * 60 * 60),
            max_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Where records go. Cloning is cheap.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    instance: String,
    metrics: Metrics,
    /// Held only to look or to change it.
    state: Mutex<State>,
    wake: Notify,
    /// Cancelled when the process ends and nothing lingers any more.
    finishing: CancellationToken,
    /// Whether everything was acknowledged; changed under the lock of the state.
    idle: watch::Sender<bool>,
}

struct State {
    options: AuditOptions,
    waiting: VecDeque<Record>,
    floods: Floods,
    lost: Option<Lost>,
}

/// Records that nobody will read.
struct Lost {
    count: u64,
    since_ms: u64,
    until_ms: u64,
}

impl Audit {
    pub(crate) fn new(instance: &str, metrics: &Metrics) -> Self {
        let options = AuditOptions::default();
        Self(Arc::new(Inner {
            instance: instance.to_owned(),
            metrics: metrics.clone(),
            state: Mutex::new(State {
                options,
                waiting: VecDeque::new(),
                floods: Floods::new(options.singles_per_minute),
                lost: None,
            }),
            wake: Notify::new(),
            finishing: CancellationToken::new(),
            idle: watch::Sender::new(true),
        }))
    }

    /// How records are kept from now on.
    pub fn configure(&self, options: AuditOptions) {
        let mut state = self.state();
        state.options = options;
        state.floods.allow(options.singles_per_minute);
    }

    /// Puts something on record. Never waits; the record gets its id, its time and its process here.
    pub fn put(&self, record: Record) {
        self.0.metrics.audited(record.kind);
        let at_ms = moment::now_ms();
        let record = Record {
            id: Uuid::now_v7().to_string(),
            at_ms,
            instance: self.0.instance.clone(),
            ..record
        };
        let mut state = self.state();
        if let Some(record) = state.floods.pass(record, Instant::now()) {
            self.push(&mut state, record);
        }
        drop(state);
        self.0.wake.notify_one();
    }

    fn push(&self, state: &mut State, record: Record) {
        if state.waiting.len() < MAX_WAITING {
            self.0.idle.send_replace(false);
            state.waiting.push_back(record);
            return;
        }
        let lost = state.lost.get_or_insert_with(|| {
            warn!("records of what was refused cannot be kept, as the broker takes none and no more can wait; they are counted");
            Lost {
                count: 0,
                since_ms: record.at_ms,
                until_ms: record.at_ms,
            }
        });
        lost.count += record.count;
        lost.until_ms = record.at_ms;
        self.0.metrics.audit_lost(record.count);
    }

    /// Writes records until the connection ends.
    pub(crate) async fn keep(self, bus: Bus) {
        let mut keeper = Keeper::new(&bus);
        let mut sweep = Instant::now() + SWEEP_EVERY;
        let mut is_down = false;
        loop {
            let Some(batch) = self.next_batch() else {
                tokio::select! {
                    () = self.0.wake.notified() => {}
                    () = tokio::time::sleep_until(sweep) => {}
                }
                self.sweep(&mut sweep);
                tokio::select! {
                    () = self.0.finishing.cancelled() => {}
                    () = sleep(LINGER) => {}
                }
                continue;
            };
            while let Err(error) = keeper.write(&batch, self.options()).await {
                if !is_down {
                    warn!(%error, "records of what was refused wait, as the broker does not take them");
                }
                is_down = true;
                sleep(AGAIN_AFTER).await;
            }
            if is_down {
                info!("records of what was refused are kept again");
                is_down = false;
            }
            self.sweep(&mut sweep);
        }
    }

    /// The next records that go to one subject, in their order.
    fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state();
        if state.waiting.len() < MAX_WAITING
            && let Some(lost) = state.lost.take()
        {
            let gap = self.gap(&lost);
            state.waiting.push_back(gap);
        }
        let Some(first) = state.waiting.pop_front() else {
            self.0.idle.send_replace(true);
            return None;
        };
        let mut records = vec![first];
        while records.len() < MAX_BATCH
            && let Some(next) = state.waiting.front()
            && next.kind == records[0].kind
            && next.tenant == records[0].tenant
        {
            records.extend(state.waiting.pop_front());
        }
        Some(Batch::new(records))
    }

    fn gap(&self, lost: &Lost) -> Record {
        Record {
            id: Uuid::now_v7().to_string(),
            at_ms: lost.since_ms,
            until_ms: Some(lost.until_ms),
            count: lost.count,
            outcome: Outcome::Lost,
            instance: self.0.instance.clone(),
            ..Record::refused(Kind::Gap, "lost")
                .because("records were lost, as the broker was away for longer than they could wait")
        }
    }

    fn sweep(&self, next: &mut Instant) {
        let now = Instant::now();
        if now < *next {
            return;
        }
        *next = now + SWEEP_EVERY;
        let mut state = self.state();
        for record in state.floods.ended(now) {
            self.push(&mut state, record);
        }
    }

    fn options(&self) -> AuditOptions {
        self.state().options
    }

    /// Waits until everything is on record, at most for a short while; what is left then is lost.
    pub(crate) async fn finish(&self) {
        {
            let mut state = self.state();
            for record in state.floods.all() {
                self.push(&mut state, record);
            }
        }
        self.0.finishing.cancel();
        self.0.wake.notify_one();
        let mut idle = self.0.idle.subscribe();
        let waited = timeout(FINISH_LIMIT, idle.wait_for(|idle| *idle)).await;
        let left = self.state().waiting.len();
        match waited {
            Ok(_) if left == 0 => {}
            _ => warn!(
                records = left,
                "records of what was refused are lost, as the broker did not take them before the end"
            ),
        }
        debug!("records are kept");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address as records tell of it, and count by it: of IPv6 a network, as everybody has as many addresses there as they like.
#[must_use]
pub fn source(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: Kind) -> Record {
        Record::refused(kind, "r")
    }

    #[test]
    fn a_batch_is_of_one_subject_and_in_order() {
        let audit = Audit::new("i", &Metrics::new());
        for kind in [Kind::Auth, Kind::Auth, Kind::Policy, Kind::Auth] {
            audit.put(refused(kind));
        }
        let batches: Vec<usize> = std::iter::from_fn(|| audit.next_batch())
            .map(|batch| batch.records().len())
            .collect();
        assert_eq!(batches, [2, 1, 1]);
    }

    #[test]
    fn what_cannot_wait_is_counted_and_a_record_says_so() {
        let audit = Audit::new("i", &Metrics::new());
        audit.configure(AuditOptions {
            singles_per_minute: u32::MAX,
            ..AuditOptions::default()
        });
        for number in 0..MAX_WAITING + 7 {
            // Each of another caller.
            audit.put(refused(Kind::Policy).from(&number.to_string()));
        }
        let all: Vec<Record> = std::iter::from_fn(|| audit.next_batch())
            .flat_map(|batch| batch.records().to_vec())
            .collect();
        let lost: u64 = all
            .iter()
            .filter(|record| record.kind == Kind::Gap)
            .map(|record| record.count)
            .sum();
        assert_eq!((lost, all.len()), (7, MAX_WAITING + 1));
        let gap = all.iter().find(|record| record.kind == Kind::Gap).expect("a gap");
        assert_eq!(gap.outcome, Outcome::Lost);
    }

    #[test]
    fn an_address_of_many_counts_as_its_network() {
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(source(address.parse().expect("an address")), expected);
        }
    }
}
