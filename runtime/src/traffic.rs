//! Spreads the calls of a server as its operator wants: over versions, to a copy on trial, to replicas that are near.
//!
//! Rules are kept in a bucket that every process with a directory mirrors, so a change holds everywhere as soon as it is told, and choosing
//! asks nobody. A server without a rule costs a look into a table.

mod mirror;

use std::{
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
    store::{BucketOptions, Named},
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
    /// How many calls have been shared out by it here.
    turns: AtomicU64,
    /// How many calls might have been copied by it here.
    copies: AtomicU64,
}

/// The rules of a tenant, to write them.
pub type Rules = Named<Kept>;

impl Rule {
    pub(crate) fn new(kept: Kept, revision: u64) -> Self {
        Self {
            kept,
            revision,
            turns: AtomicU64::new(0),
            copies: AtomicU64::new(0),
        }
    }

    /// The version whose turn it is to take a caller's work; `None` when versions are not told apart.
    #[must_use]
    pub fn choose(&self, principal: &Principal) -> Option<&str> {
        let rule = &self.kept.rule;
        let turn = match rule.share_by {
            Sharing::Call => self.turns.fetch_add(1, Ordering::Relaxed),
            Sharing::Principal => place_of(principal, &rule.id),
        };
        rule.pick(turn)
    }

    /// The version for somebody who stays with it from now on, and has been here since then.
    #[must_use]
    pub fn choose_to_stay(&self, principal: &Principal, since_ms: u64) -> Option<&str> {
        if since_ms < self.kept.since_ms {
            // It has been served before there was anything to choose.
            return self.kept.rule.main();
        }
        self.choose(principal)
    }
}

/// A number that is the same for a principal in every process.
fn place_of(principal: &Principal, server: &ServerId) -> u64 {
    let mut digest = Sha256::new();
    for piece in principal.identity().pieces().into_iter().chain([server.as_str()]) {
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

/// Prepares a call to whichever replica its server's rule says. `version` is the one that the caller has begun on, if it has.
#[must_use]
pub fn call(bus: &Bus, snapshot: &Snapshot, request: Request, retry: Retry, version: Option<&str>) -> Call {
    let rule = request.server.parse().ok().and_then(|id| snapshot.rule(&id));
    let Some(rule) = rule else {
        return bus.call(request, retry);
    };
    let works = is_work(&request.method);
    let version = match version {
        Some(version) => Some(version),
        None if works => rule.choose(&request.principal),
        None => rule.kept.rule.main(),
    };
    let way = way(bus, snapshot, rule, version);
    let copy = (works && retry == Retry::Reads).then(|| request.clone());
    let mut call = bus.call_along(way, request, retry);
    if let Some(copy) = copy {
        mirror::begin(bus, rule, copy, &mut call);
    }
    call
}

fn way(bus: &Bus, snapshot: &Snapshot, rule: &Rule, version: Option<&str>) -> Way {
    let rule_of = &rule.kept.rule;
    let replicas = snapshot.replicas(&rule_of.id);
    let order = if rule_of.splits() {
        // The newest of what the rule does not name first.
        rule_of.order(version, replicas.iter().rev().map(|card| card.version.as_str()))
    } else {
        Vec::new()
    };
    let near = match rule_of.locality {
        Locality::Any => Vec::new(),
        Locality::Nearest => {
            let first = order.first().copied();
            let meant = |card: &&ServerCard| {
                card.trouble.is_none() && first.is_none_or(|version| card.version == version)
            };
            let turn = rule.turns.load(Ordering::Relaxed);
            nearest(replicas.iter().filter(meant), bus.instance(), bus.place(), turn)
        }
    };
    let version = order.first().map(|version| Arc::from(*version));
    let versions = order.into_iter().map(|version| To::Version(Arc::from(version)));
    let anywhere = (!rule_of.splits()).then_some(To::Group);
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
        .map(|card| To::Instance(Token::encode(&card.instance)))
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
            To::Instance(token) => token.to_string(),
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
    fn a_principal_has_one_place_at_a_server_and_principals_are_spread() {
        let server: ServerId = "a".parse().unwrap();
        let places: Vec<u64> = (0..1_000)
            .map(|n| place_of(&Principal::new(format!("p{n}"), "t"), &server) % 100)
            .collect();
        let tenth = places.iter().filter(|place| **place < 10).count();
        assert!((60..140).contains(&tenth), "{tenth} of 1000");
        let again = place_of(&Principal::new("p0", "t"), &server) % 100;
        assert_eq!(again, places[0]);
    }
}
