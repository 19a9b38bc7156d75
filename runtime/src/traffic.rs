//! Spreads the calls of a server as its operator wants: over versions, to a copy on trial, to replicas that are near.
//!
//! Rules are kept in a bucket that every process with a directory mirrors, so a change holds everywhere as soon as it is told, and choosing
//! asks nobody. A server without a rule costs a look into a table.

mod mirror;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    Principal, Request, ServerCard, ServerId, Token,
    card::Place,
    mcp::method,
    traffic::{Kept, Locality, Sharing},
};
use sha2::{Digest as _, Sha256};

pub(crate) use mirror::MAX_COPIES;

use crate::{
    bus::Bus,
    call::{Call, Retry, To, Way},
    directory::Snapshot,
    store::{BucketOptions, Live, Named},
};

/// Where rules are kept.
pub(crate) const BUCKET: BucketOptions = BucketOptions {
    name: "traffic",
    max_age: Duration::ZERO,
    max_bytes: 32 * 1024 * 1024,
    max_record_bytes: 32 * 1024,
};

/// The rule of a server as this process applies it.
#[derive(Debug)]
pub struct Rule {
    /// What is kept.
    pub kept: Kept,
    /// Which write it was.
    pub revision: u64,
    /// Whose turn it is: to be shared out, to be copied, to go to a near replica. Each begins somewhere, as every process that makes only a few
    /// calls would send them all to the same version otherwise.
    turns: AtomicU64,
    copies: AtomicU64,
    nears: AtomicU64,
}

impl Live for Kept {}

/// The rules of a tenant, to write them.
pub type Rules = Named<Kept>;

/// What a call has to do with a version of its server from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun<'a> {
    /// Nothing.
    Nowhere,
    /// Its caller is served by that one, and by others when it is gone.
    On(&'a str),
    /// It is about what only that one knows, such as a task: it waits for it while it may come back.
    Bound(&'a str),
}

impl Rule {
    pub(crate) fn new(kept: Kept, revision: u64) -> Self {
        Self {
            kept,
            revision,
            turns: AtomicU64::new(somewhere()),
            copies: AtomicU64::new(somewhere()),
            nears: AtomicU64::new(somewhere()),
        }
    }

    /// The version whose turn it is to take a caller's work; `None` when versions have no shares.
    fn choose(&self, principal: &Principal) -> Option<&str> {
        let rule = &self.kept.rule;
        match rule.share_by {
            Sharing::Call => rule.pick(self.turns.fetch_add(1, Ordering::Relaxed)),
            Sharing::Principal => rule.pick_drawn(|version| drawn(principal, &rule.id, version)),
        }
    }
}

/// Any number.
fn somewhere() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The number that a principal draws for a version: the same in every process.
fn drawn(principal: &Principal, server: &ServerId, version: &str) -> u64 {
    let mut digest = Sha256::new();
    let pieces = principal.identity().pieces();
    for piece in pieces.into_iter().chain([server.as_str(), version]) {
        digest.update(piece.len().to_be_bytes());
        digest.update(piece);
    }
    let digest = digest.finalize();
    digest[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a method has a server work, in the place of telling what it has: that is what is shared out.
#[must_use]
pub fn is_work(called: &str) -> bool {
    matches!(
        called,
        method::TOOLS_CALL | method::PROMPTS_GET | method::RESOURCES_READ
    ) || method::is_custom(called)
}

/// The version of a server for somebody who stays with it from now on, and who has been here since that moment (milliseconds since 1970);
/// `None` while its versions are not told apart.
#[must_use]
pub fn choose_to_stay(
    snapshot: &Snapshot,
    server: &ServerId,
    principal: &Principal,
    since_ms: u64,
) -> Option<String> {
    if !snapshot.tells_apart(server) {
        return None;
    }
    let Some(rule) = snapshot.rule(server).filter(|rule| rule.kept.rule.splits()) else {
        // What the broker would do, done once.
        let replicas = snapshot.replicas(server);
        let any = usize::try_from(somewhere() % replicas.len().max(1) as u64).unwrap_or_default();
        return replicas.get(any).map(|card| card.version.clone());
    };
    let version = if since_ms < rule.kept.since_ms {
        // It has been served before there was anything to choose.
        rule.kept.rule.main()
    } else {
        rule.choose(principal)
    };
    version.map(str::to_owned)
}

/// Where a call goes, worked out before it is made.
#[derive(Debug)]
pub struct Plan {
    rule: Option<Arc<Rule>>,
    way: Way,
    /// Which version gets a copy if it is the call's turn.
    trial: Option<String>,
}

impl Plan {
    /// Plans a call of a method by its server's rule.
    #[must_use]
    pub fn new(
        bus: &Bus,
        snapshot: &Snapshot,
        server: &ServerId,
        called: &str,
        principal: &Principal,
        begun: Begun<'_>,
    ) -> Self {
        let rule = snapshot.rule(server);
        let works = is_work(called);
        let order = match (begun, rule.filter(|rule| rule.kept.rule.splits())) {
            (Begun::Nowhere, None) => Vec::new(),
            (Begun::Nowhere, Some(rule)) => {
                let first = if works {
                    rule.choose(principal)
                } else {
                    rule.kept.rule.main()
                };
                order(snapshot, server, Some(rule), first)
            }
            (Begun::On(version), rule) => order(snapshot, server, rule, Some(version)),
            (Begun::Bound(version), rule) => {
                let is_named = rule.is_some_and(|rule| rule.kept.rule.versions.contains_key(version));
                if is_named || snapshot.of_version(server, version).is_some() {
                    vec![version]
                } else {
                    order(snapshot, server, rule, Some(version))
                }
            }
        };
        let goes_to = order.first().copied();
        let trial = rule
            .filter(|_| works)
            .and_then(|rule| rule.kept.rule.mirror.as_ref())
            // A version is not compared with itself.
            .filter(|mirror| Some(mirror.version.as_str()) != goes_to)
            .map(|mirror| mirror.version.clone());
        Self {
            way: way(bus, snapshot, server, rule, &order),
            trial,
            rule: rule.cloned(),
        }
    }

    /// The version that the call is for, where versions are told apart.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.way.version().map(AsRef::as_ref)
    }

    /// The version that gets a copy of it, if there is one on trial and the call only reads there and here.
    #[must_use]
    pub fn trial(&self) -> Option<&str> {
        self.trial.as_deref()
    }

    /// Prepares the call. `copy` is what the version on trial gets of it, if it is the call's turn.
    #[must_use]
    pub fn call(self, bus: &Bus, request: Request, retry: Retry, copy: Option<Request>) -> Call {
        let mut call = bus.call_along(self.way, request, retry);
        if let (Some(rule), Some(copy)) = (&self.rule, copy) {
            mirror::begin(bus, rule, copy, &mut call);
        }
        call
    }
}

/// The versions that a call may go to. Those that are not there come last, so that looking for them holds nobody up.
fn order<'a>(
    snapshot: &'a Snapshot,
    server: &ServerId,
    rule: Option<&'a Arc<Rule>>,
    first: Option<&'a str>,
) -> Vec<&'a str> {
    // The newest first.
    let present = snapshot.replicas(server).iter().rev();
    let present = present.map(|card| card.version.as_str());
    let mut order = match rule {
        Some(rule) => rule.kept.rule.order(first, present),
        None => first.into_iter().collect(),
    };
    order.sort_by_key(|version| snapshot.of_version(server, version).is_none());
    order
}

fn way(bus: &Bus, snapshot: &Snapshot, server: &ServerId, rule: Option<&Arc<Rule>>, order: &[&str]) -> Way {
    let near = match rule {
        Some(rule) if rule.kept.rule.locality == Locality::Nearest => {
            let first = order.first().copied();
            let replicas = snapshot
                .replicas(server)
                .iter()
                .filter(|card| card.trouble.is_none() && first.is_none_or(|version| card.version == version));
            let turn = rule.nears.fetch_add(1, Ordering::Relaxed);
            nearest(replicas, bus.instance(), bus.place(), turn)
        }
        _ => Vec::new(),
    };
    let version = order.first().map(|version| Arc::from(*version));
    let versions = order.iter().map(|version| To::Version(Arc::from(*version)));
    let has_shares = rule.is_some_and(|rule| rule.kept.rule.splits());
    // Where versions have shares, a call goes to none that has not.
    let anywhere = (!has_shares).then_some(To::Group);
    Way::through(near.into_iter().chain(versions).chain(anywhere), version)
}

/// One replica of each circle around the caller that has any: its process, its node, its region.
fn nearest<'a>(
    replicas: impl Iterator<Item = &'a ServerCard>,
    instance: &str,
    place: &Place,
    turn: u64,
) -> Vec<To> {
    let mut circles: [Vec<&ServerCard>; 3] = Default::default();
    for card in replicas {
        let is_at = |own: &str, other: &str| !own.is_empty() && own == other;
        let circle = if card.instance == instance {
            0
        } else if is_at(&place.node, &card.place.node) {
            1
        } else if is_at(&place.region, &card.place.region) {
            2
        } else {
            continue;
        };
        circles[circle].push(card);
    }
    let turn = usize::try_from(turn).unwrap_or_default();
    let chosen = circles
        .into_iter()
        .filter_map(|circle| Some(*circle.get(turn % circle.len().max(1))?));
    chosen
        .map(|card| To::Near(Token::encode(&card.instance)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn card(instance: &str, node: &str, region: &str) -> ServerCard {
        let card = json!({
            "id": "a", "instance": instance, "tenant": "t", "title": "A", "version": "1",
            "place": { "node": node, "region": region },
            "protocol_version": "2026-07-28", "revision": "1", "max_in_flight": 1
        });
        serde_json::from_value(card).unwrap()
    }

    fn instances(way: &[To]) -> Vec<String> {
        let name = |to: &To| match to {
            To::Near(token) => token.to_string(),
            other => format!("{other:?}"),
        };
        way.iter().map(name).collect()
    }

    #[test]
    fn the_nearest_come_first_and_share() {
        let cards = [
            card("far", "n3", "r2"),
            card("region", "n2", "r1"),
            card("node-a", "n1", "r1"),
            card("node-b", "n1", "r1"),
            card("nowhere", "", ""),
            card("own", "n1", "r1"),
        ];
        let place = Place {
            node: "n1".to_owned(),
            region: "r1".to_owned(),
        };
        let from = |instance: &str, turn| instances(&nearest(cards.iter(), instance, &place, turn));
        assert_eq!(from("own", 0), ["own", "node-a", "region"]);
        assert_eq!(from("other", 1), ["node-b", "region"]);
        assert_eq!(from("other", 2), ["own", "region"]);
        let nowhere = instances(&nearest(cards.iter(), "other", &Place::default(), 0));
        assert!(nowhere.is_empty(), "{nowhere:?}");
    }

    #[test]
    fn a_principal_draws_the_same_everywhere_and_principals_are_spread() {
        let rule: Kept = serde_json::from_value(json!({
            "rule": { "id": "a", "versions": { "1": 90, "2": 10 }, "shareBy": "principal" },
            "sinceMs": 0, "updatedAt": "", "updatedBy": "",
        }))
        .unwrap();
        let (one, other) = (Rule::new(rule.clone(), 1), Rule::new(rule, 2));
        let chosen = |rule: &Rule, n: u32| {
            let principal = Principal::new(format!("p{n}"), "t");
            rule.choose(&principal).map(str::to_owned)
        };
        let second = (0..1_000).filter(|n| {
            assert_eq!(chosen(&one, *n), chosen(&other, *n));
            chosen(&one, *n).as_deref() == Some("2")
        });
        let second = second.count();
        assert!((60..140).contains(&second), "{second} of 1000");
    }
}
