//! How a server's calls are spread: over its versions, to a copy on trial, and over places.
//!
//! A rule says what an operator wants; who is on the bus is not known here. Whoever makes a call picks by the rule, and falls back as
//! [`Traffic::order`] says.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    ServerId,
    card::version_numbers,
    registry::{BadDeclaration, Over},
};

/// The door that copies of calls come through.
pub const MIRROR_DOOR: &str = "mirror";
/// How many bytes a rule may have as JSON.
pub const MAX_RULE_BYTES: usize = 16 * 1024;

/// The method by which the registry is asked to keep a rule; its parameters are a [`Set`], its result is a
/// [`Keeping`](crate::registry::Keeping) of a [`Kept`].
pub const SET: &str = "traffic/set";
/// The method by which it is asked to forget one; its parameters are a [`Remove`](crate::registry::Remove).
pub const CLEAR: &str = "traffic/clear";

const MAX_VERSIONS: usize = 16;
const MAX_VERSION: usize = 64;
const MAX_WEIGHT: u32 = 10_000;
const ALL: u8 = 100;

/// The rule for the calls of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// Which server.
    pub id: ServerId,
    /// The share of each version, by the version as its replicas tell it: 9 and 1 mean as much as 90 and 10. A version with 0 gets
    /// nothing new, and keeps what has begun on it; one that is not named gets something only when no named one is there. Empty, all
    /// versions are one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, u32>,
    /// What is counted when calls are shared out.
    #[serde(default, skip_serializing_if = "Sharing::is_default")]
    pub share_by: Sharing,
    /// Which version gets copies of calls, on trial. Which versions answer is said by shares.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub mirror: Option<Mirror>,
    /// Which replicas come first.
    #[serde(default, skip_serializing_if = "Locality::is_default")]
    pub locality: Locality,
}

/// What is counted when calls are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// Single calls; legacy sessions, which stay together.
    #[default]
    Call,
    /// Principals: all calls of one go to the same version, for as long as the shares stay the same.
    Principal,
}

/// Which replicas come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Locality {
    /// Whichever the broker chooses.
    #[default]
    Any,
    /// One in the caller's own process, then on its node, then in its region, then any.
    Nearest,
}

/// Where copies of calls go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// To which version.
    pub version: String,
    /// Of how many in a hundred of those calls that may be copied.
    #[serde(default = "all")]
    pub percent: u8,
}

/// A wish that a rule be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Set {
    /// The rule.
    pub rule: Traffic,
    /// What it may replace.
    pub over: Over,
}

/// A rule as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The rule.
    pub rule: Traffic,
    /// Since when its versions have had shares, or since when there is a rule, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it was last changed, as RFC 3339.
    pub updated_at: String,
    /// Who changed it last.
    pub updated_by: String,
}

/// A member that says something, if it is there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mirror>, D::Error> {
    Mirror::deserialize(deserializer).map(Some)
}

const fn all() -> u8 {
    ALL
}

impl Sharing {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Locality {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Mirror {
    /// Whether the call of a turn is copied: of any hundred turns in a row as many as it says, spread evenly.
    #[must_use]
    pub fn copies(&self, turn: u64) -> bool {
        let share = u64::from(self.percent.min(ALL));
        let turn = turn % u64::from(ALL);
        (turn + 1) * share / u64::from(ALL) > turn * share / u64::from(ALL)
    }
}

impl Traffic {
    /// Finds what cannot be used whoever is on the bus.
    ///
    /// # Errors
    /// [`BadDeclaration`] that names the member and what would be right.
    pub fn check(&self) -> Result<(), BadDeclaration> {
        if self.versions.len() > MAX_VERSIONS {
            let count = self.versions.len();
            return Err(bad(
                "versions",
                format!("names {count} versions; use at most {MAX_VERSIONS}"),
            ));
        }
        for (version, weight) in &self.versions {
            check_version("versions", version)?;
            if *weight > MAX_WEIGHT {
                let why = format!("gives `{version}` the share {weight}; use at most {MAX_WEIGHT}");
                return Err(bad("versions", why));
            }
        }
        if !self.versions.is_empty() && self.versions.values().all(|weight| *weight == 0) {
            let why =
                "gives every version the share 0, so that nobody could be called; give one of them more";
            return Err(bad("versions", why.to_owned()));
        }
        if let Some(mirror) = &self.mirror {
            check_version("mirror", &mirror.version)?;
            if !(1..=ALL).contains(&mirror.percent) {
                let why = format!(
                    "has {} percent; use 1 to 100, or leave `mirror` out",
                    mirror.percent
                );
                return Err(bad("mirror", why));
            }
            if !self.splits() {
                let why = "needs `versions`: say which version answers, as all share the calls otherwise, also the one on trial";
                return Err(bad("mirror", why.to_owned()));
            }
        }
        if !self.splits() && self.locality.is_default() {
            let why = "is missing, and so is `locality`; a rule says at least one of them";
            return Err(bad("versions", why.to_owned()));
        }
        Ok(())
    }

    /// Whether versions are told apart.
    #[must_use]
    pub fn splits(&self) -> bool {
        !self.versions.is_empty()
    }

    /// The version that gets a call. Of as many turns in a row as the shares add up to, each version gets its share, spread over them.
    #[must_use]
    pub fn pick(&self, turn: u64) -> Option<&str> {
        let total: u64 = self.versions.values().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        let mut point = spread(turn % total, total);
        self.versions.iter().find_map(|(version, weight)| {
            let weight = u64::from(*weight);
            if point < weight {
                return Some(version.as_str());
            }
            point -= weight;
            None
        })
    }

    /// The version that somebody has who draws a number for each: of those who draw at random each version gets its share, and when shares change
    /// nobody moves but to a version that has got more, or from one that has got less.
    #[must_use]
    pub fn pick_drawn(&self, draw: impl Fn(&str) -> u64) -> Option<&str> {
        // Rendezvous hashing with weights: the shortest of exponential waits, each as much shorter as its version has more.
        let wait = |version: &str, weight: u32| {
            let drawn = (draw(version) >> 11) as f64 / (1_u64 << 53) as f64;
            -(1.0 - drawn).ln() / f64::from(weight)
        };
        let shares = self.versions.iter().filter(|(_, weight)| **weight > 0);
        let waits = shares.map(|(version, weight)| (version.as_str(), wait(version, *weight)));
        waits
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(version, _)| version)
    }

    /// The version that stands for the server where one has to: the one with the greatest share, and the newest of those.
    #[must_use]
    pub fn main(&self) -> Option<&str> {
        self.by_share().next()
    }

    /// The versions that a call may go to: first the one that it belongs to, then those that have shares, the greatest first, and when none of these is
    /// there those that the rule does not name. `present` are the versions on the bus.
    pub fn order<'a>(
        &'a self,
        first: Option<&'a str>,
        present: impl IntoIterator<Item = &'a str>,
    ) -> Vec<&'a str> {
        let unnamed = present
            .into_iter()
            .filter(|version| !self.versions.contains_key(*version));
        let mut order: Vec<&str> = Vec::new();
        for version in first.into_iter().chain(self.by_share()).chain(unnamed) {
            if !order.contains(&version) {
                order.push(version);
            }
        }
        order
    }

    /// How much rather than others a version stands for its server.
    #[must_use]
    pub fn rank(&self, version: &str) -> u32 {
        self.versions.get(version).map_or(1, |weight| match weight {
            0 => 0,
            weight => weight + 1,
        })
    }

    fn by_share(&self) -> impl Iterator<Item = &str> {
        let mut shares: Vec<_> = self.versions.iter().filter(|(_, weight)| **weight > 0).collect();
        shares
            .sort_by_cached_key(|(version, weight)| Reverse((**weight, version_numbers(version), *version)));
        shares.into_iter().map(|(version, _)| version.as_str())
    }
}

/// Another order of the numbers below `total`, in which those that are close to each other are far apart.
fn spread(turn: u64, total: u64) -> u64 {
    // Near the golden section of the whole, and without a common divisor, so that every number has its turn.
    let near = total * 618 / 1_000;
    let step = (near..total).find(|step| gcd(*step, total) == 1).unwrap_or(1);
    turn * step % total
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn check_version(field: &'static str, version: &str) -> Result<(), BadDeclaration> {
    let length = version.chars().count();
    if (1..=MAX_VERSION).contains(&length) {
        return Ok(());
    }
    let why = format!("names a version of {length} characters; use 1 to {MAX_VERSION}");
    Err(bad(field, why))
}

fn bad(field: &'static str, why: String) -> BadDeclaration {
    BadDeclaration { field, why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule(versions: &[(&str, u32)]) -> Traffic {
        Traffic {
            id: "a".parse().unwrap(),
            versions: versions
                .iter()
                .map(|(version, weight)| ((*version).to_owned(), *weight))
                .collect(),
            share_by: Sharing::Call,
            mirror: None,
            locality: Locality::Any,
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (rule, says) in [
            (json!({ "id": "a" }), "`versions` is missing"),
            (
                json!({ "id": "a", "mirror": { "version": "1" }, "locality": "nearest" }),
                "needs `versions`",
            ),
            (json!({ "id": "a", "versions": { "1": 0 } }), "every version"),
            (json!({ "id": "a", "versions": { "1": 10_001 } }), "at most 10000"),
            (json!({ "id": "a", "versions": { "": 1 } }), "1 to 64"),
            (
                json!({ "id": "a", "versions": { "2": 1 }, "mirror": { "version": "1", "percent": 0 } }),
                "1 to 100",
            ),
            (
                json!({ "id": "a", "versions": { "2": 1 }, "mirror": { "version": "1", "percent": 101 } }),
                "1 to 100",
            ),
        ] {
            let rule: Traffic = serde_json::from_value(rule).unwrap();
            let error = rule.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for unread in [
            json!({ "id": "a", "version": { "1": 1 } }),
            json!({ "id": "a", "versions": { "1": -1 } }),
            json!({ "id": "a", "locality": "moon" }),
            json!({ "id": "a", "versions": { "1": 1 }, "mirror": null }),
        ] {
            assert!(serde_json::from_value::<Traffic>(unread).is_err());
        }
    }

    #[test]
    fn a_call_falls_back_to_greater_shares_and_never_to_a_version_that_is_off() {
        let equal = rule(&[("9.0", 1), ("10.0", 1)]);
        let rule = rule(&[("1", 90), ("2", 10), ("0", 0)]);
        assert_eq!(rule.main(), Some("1"));
        assert_eq!(rule.order(Some("2"), ["0", "1", "2", "3"]), ["2", "1", "3"]);
        assert_eq!(rule.order(None, ["0"]), ["1", "2"]);
        // Of equal shares the newest comes first, however it is spelled.
        assert_eq!(equal.main(), Some("10.0"));
        let ranks = ["1", "2", "3", "0"].map(|version| rule.rank(version));
        assert!(ranks.is_sorted_by(|a, b| a > b), "{ranks:?}");
    }

    proptest! {
        #[test]
        fn every_version_gets_just_its_share(weights in prop::collection::vec(0_u32..40, 1..5), from in 0_u64..1_000) {
            let named: Vec<_> = weights.iter().enumerate().map(|(at, weight)| (at.to_string(), *weight)).collect();
            let named: Vec<_> = named.iter().map(|(version, weight)| (version.as_str(), *weight)).collect();
            let rule = rule(&named);
            let total: u32 = weights.iter().sum();
            let mut got: BTreeMap<&str, u32> = BTreeMap::new();
            for turn in from..from + u64::from(total) {
                *got.entry(rule.pick(turn).unwrap()).or_default() += 1;
            }
            for (version, weight) in named {
                prop_assert_eq!(got.get(version).copied().unwrap_or_default(), weight);
            }
        }

        #[test]
        fn a_greater_share_moves_somebody_only_to_the_version_that_has_it(
            weights in prop::collection::vec(0_u32..40, 2..5), more in 1_u32..40, which in 0_usize..5, seed in any::<u64>(),
        ) {
            let which = which % weights.len();
            let named = |weights: &[u32]| -> Vec<(String, u32)> {
                weights.iter().enumerate().map(|(at, weight)| (at.to_string(), *weight)).collect()
            };
            let of = |weights: &[u32]| {
                let named = named(weights);
                let named: Vec<_> = named.iter().map(|(version, weight)| (version.as_str(), *weight)).collect();
                let draw = |version: &str| {
                    let mixed = (seed ^ version.as_bytes()[0] as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
                };
                rule(&named).pick_drawn(draw).map(str::to_owned)
            };
            let mut raised = weights.clone();
            raised[which] += more;
            let (before, after) = (of(&weights), of(&raised));
            prop_assert!(before == after || after == Some(which.to_string()), "{before:?} {after:?}");
        }

        #[test]
        fn as_many_calls_are_copied_as_a_mirror_says(percent in 1_u8..=100, from in 0_u64..1_000) {
            let mirror = Mirror { version: "2".to_owned(), percent };
            let copied = (from..from + 100).filter(|turn| mirror.copies(*turn)).count();
            prop_assert_eq!(copied, usize::from(percent));
        }
    }

    #[test]
    fn a_tenth_is_spread_over_the_calls() {
        let rule = rule(&[("1", 90), ("2", 10)]);
        let second: Vec<u64> = (0..100).filter(|turn| rule.pick(*turn) == Some("2")).collect();
        let gaps: Vec<u64> = second.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (2..=30).contains(gap)), "{second:?}");
    }
}
