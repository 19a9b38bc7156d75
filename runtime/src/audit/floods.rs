//! Who is refused very often is counted: so many refusals of one caller and kind are written out within a minute, and one record stands for the
//! others. Of those that nobody vouches for, all together have a bound as well, as addresses cost an attacker little.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    time::Duration,
};

use bus_schema::audit::{Kind, Record};
use tokio::time::Instant;

/// How long refusals are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// How many callers are told apart; more are one.
const MAX_CALLERS: usize = 4_096;
/// How many times as many as one caller all unknown callers together have written out.
const UNKNOWN_TOGETHER: u32 = 10;

/// What is counted.
pub(super) struct Floods {
    singles: u32,
    callers: HashMap<(Kind, Caller), Count>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    /// One, by a digest of who or where it is.
    One(u64),
    /// All that nobody vouches for.
    Unknown,
    /// All that there was no place for.
    Others,
}

struct Count {
    since: Instant,
    written: u32,
    /// The last one that was not written out, which tells how many there were and since when.
    held: Option<Record>,
}

impl Floods {
    pub(super) fn new(singles: u32) -> Self {
        Self {
            singles,
            callers: HashMap::new(),
        }
    }

    pub(super) fn allow(&mut self, singles: u32) {
        self.singles = singles;
    }

    /// Gives a record back that is to be written out; counts it otherwise.
    pub(super) fn pass(&mut self, record: Record, now: Instant) -> Option<Record> {
        let is_unknown = record.principal.is_none();
        let kind = record.kind;
        let caller = self.place((kind, Caller::of(&record)));
        let singles = match caller {
            Caller::Others => self.singles.saturating_mul(UNKNOWN_TOGETHER),
            _ => self.singles,
        };
        let own = self.count((kind, caller), now);
        if own.written >= singles {
            own.hold(record);
            return None;
        }
        own.written += 1;
        if is_unknown {
            let together = self.singles.saturating_mul(UNKNOWN_TOGETHER);
            let all = self.count((kind, Caller::Unknown), now);
            if all.written >= together {
                all.hold(record);
                return None;
            }
            all.written += 1;
        }
        Some(record)
    }

    /// What is to be told of windows that are over.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<Record> {
        let mut told = Vec::new();
        self.callers.retain(|_, count| {
            let is_over = now.saturating_duration_since(count.since) >= WINDOW;
            if is_over {
                told.extend(count.held.take());
            }
            !is_over
        });
        told
    }

    /// What is to be told of all, as nothing more will be counted.
    pub(super) fn all(&mut self) -> Vec<Record> {
        self.callers
            .drain()
            .filter_map(|(_, mut count)| count.held.take())
            .collect()
    }

    fn place(&self, (kind, caller): (Kind, Caller)) -> Caller {
        if self.callers.len() < MAX_CALLERS || self.callers.contains_key(&(kind, caller)) {
            caller
        } else {
            Caller::Others
        }
    }

    fn count(&mut self, of: (Kind, Caller), now: Instant) -> &mut Count {
        self.callers.entry(of).or_insert_with(|| Count {
            since: now,
            written: 0,
            held: None,
        })
    }
}

impl Caller {
    fn of(record: &Record) -> Self {
        let mut hasher = DefaultHasher::new();
        match &record.principal {
            Some(who) => (&record.tenant, &who.issuer, &who.subject).hash(&mut hasher),
            None => (&record.source, &record.door).hash(&mut hasher),
        }
        Self::One(hasher.finish())
    }
}

impl Count {
    fn hold(&mut self, record: Record) {
        let at_ms = record.at_ms;
        self.held = Some(match self.held.take() {
            None => record,
            Some(held) => Record {
                count: held.count + 1,
                at_ms: held.at_ms,
                until_ms: Some(at_ms),
                ..record
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: u32) -> Record {
        Record::refused(Kind::Auth, "no_token").from(&source.to_string())
    }

    #[test]
    fn a_flood_is_a_few_records_and_one_that_counts() {
        let mut floods = Floods::new(3);
        let start = Instant::now();
        let written = (0..100)
            .filter(|at_ms| {
                let record = Record {
                    at_ms: *at_ms,
                    ..from(1)
                };
                floods.pass(record, start).is_some()
            })
            .count();
        assert_eq!(written, 3);
        assert!(floods.pass(from(2), start).is_some(), "another address");
        assert!(floods.ended(start + WINDOW / 2).is_empty());
        let told = floods.ended(start + WINDOW);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].count, told[0].at_ms, told[0].until_ms),
            (97, 3, Some(99))
        );
        assert!(floods.pass(from(1), start + WINDOW).is_some(), "a new minute");
    }

    #[test]
    fn many_addresses_are_bounded_together_and_take_no_place_of_known_callers() {
        let mut floods = Floods::new(3);
        let start = Instant::now();
        let written = (0..20_000)
            .filter(|source| floods.pass(from(*source), start).is_some())
            .count();
        assert!(written <= 3 * UNKNOWN_TOGETHER as usize, "{written}");
        assert!(floods.callers.len() <= MAX_CALLERS + 2 * Kind::ALL.len());
        let ann = bus_schema::Principal::new("ann", "t");
        assert!(
            floods
                .pass(Record::refused(Kind::Policy, "r").by(&ann), start)
                .is_some()
        );
        let told: u64 = floods.all().iter().map(|record| record.count).sum();
        assert_eq!(told + written as u64, 20_000, "none is forgotten");
    }
}
