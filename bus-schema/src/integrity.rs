//! What was approved of each server's tools, and what is to be thought of a tool that is otherwise now.
//!
//! The registry keeps a record of each server; hosts act by it. A definition is known by its digest: of everything that the server
//! says of the tool, in one spelling ([`canonical`](crate::canonical)). Nothing here reads a clock or knows where records are kept.

mod decision;
mod diff;
mod hidden;
mod skeleton;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::{
    ServerId,
    canonical::{Node, Numbers},
    principal::DEFAULT_TENANT,
    rpc,
};

pub use decision::{Decide, Decided, Decision, Event, Undecided, What};
pub use diff::{Change, diff};
pub use hidden::{Hidden, find as hidden, in_text as hidden_in};
pub use skeleton::{Lookalikes, skeleton};

/// The method by which the platform asks a host for all tools that its server offers, approved or not; its result is an [`Offered`].
/// Hosts answer it to the platform's own processes only.
pub const OFFERED: &str = "integrity/offered";
/// The method by which the registry is asked to approve tools; its parameters are a [`Decide`], its result is a [`Decided`].
pub const APPROVE: &str = "integrity/approve";
/// The method by which it is asked to reject tools; likewise.
pub const REJECT: &str = "integrity/reject";

/// How many bytes a definition may have that is kept for comparison. Of a larger one there is the digest only.
pub const MAX_DEFINITION_BYTES: usize = 256 * 1024;
/// How many bytes the names and digests of a server's tools may take together; what comes beyond is not known as approved.
const MAX_PINS_BYTES: usize = 440 * 1024;
/// What a pin takes beside its tool's name and its flags, at most.
const PIN_BYTES: usize = 640;
/// How many rejected definitions of a tool are remembered.
const MAX_REJECTED: usize = 4;
/// How many flags of a definition are kept.
const MAX_FLAGS: usize = 4;
/// How many characters of a flag's path are kept, and how many of the characters that it tells of.
const MAX_FLAG_PATH: usize = 200;
const MAX_FLAG_CHARACTERS: usize = 16;

/// What is done about a tool that is not as it was approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing; changes are not even noticed.
    Off,
    /// It is told, and the tool goes on. Tools that are new are approved.
    #[default]
    Warn,
    /// It is told, and the tool is hidden and not called until somebody approves it. So is a tool that is new.
    Quarantine,
}

/// The policies of a platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Of all servers that have none of their own.
    #[serde(default)]
    pub policy: Policy,
    /// Of single servers of the tenant `default`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<ServerId, Policy>,
    /// Of other tenants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, PoliciesOfTenant>,
}

/// The policies of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoliciesOfTenant {
    /// Of all its servers that have none of their own; the platform's when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Of single servers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<ServerId, Policy>,
}

impl Policies {
    /// That of one server.
    #[must_use]
    pub fn of(&self, tenant: &str, server: &ServerId) -> Policy {
        if tenant == DEFAULT_TENANT {
            return self.servers.get(server).copied().unwrap_or(self.policy);
        }
        let Some(own) = self.tenants.get(tenant) else {
            return self.policy;
        };
        let of_server = own.servers.get(server).copied();
        of_server.or(own.policy).unwrap_or(self.policy)
    }
}

/// What is kept under one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Record {
    /// The policies of the platform.
    Policies(Policies),
    /// What was approved of one server's tools.
    Pins(Pins),
}

/// What was approved of one server's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Every tool that was ever seen, by name.
    pub tools: BTreeMap<String, Pin>,
}

/// What was approved of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What was approved last; `None` for a tool that never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// What the server offers instead, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// The digests of definitions that were rejected, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<String>,
}

/// A definition that is approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Which.
    pub digest: String,
    /// Since when, as RFC 3339.
    pub at: String,
    /// By whom; `None` when it was the first that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Where it has hidden characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Hidden>,
}

/// A definition that waits for a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Which.
    pub digest: String,
    /// Since when, as RFC 3339.
    pub seen_at: String,
    /// Where it has hidden characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Hidden>,
}

/// All tools that a server offers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// In the server's order.
    pub tools: Vec<Tool>,
}

/// A tool as its server defines it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The digest of its definition.
    pub digest: String,
    /// The definition in its one spelling; `None` when it is too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

impl Tool {
    /// Reads a tool of a list; `None` when it has no name.
    #[must_use]
    pub fn read(raw: &RawValue) -> Option<Self> {
        let node = Node::read(raw, Numbers::ByValue);
        let Node::Object(members) = &node else { return None };
        let name = members.iter().find(|(key, _)| key == r#""name""#)?.1.as_text()?;
        let definition = node.to_string();
        Some(Self {
            name,
            digest: digest(&definition),
            definition: Some(definition).filter(|text| text.len() <= MAX_DEFINITION_BYTES),
        })
    }

    /// Where it has hidden characters.
    #[must_use]
    pub fn hidden(&self) -> Vec<Hidden> {
        let node = self.definition.as_deref().and_then(read);
        let mut found = node.map(|node| hidden(&node)).unwrap_or_default();
        found.truncate(MAX_FLAGS);
        for place in &mut found {
            if let Some((end, _)) = place.path.char_indices().nth(MAX_FLAG_PATH) {
                place.path.truncate(end);
                place.path.push('…');
            }
            place.characters.truncate(MAX_FLAG_CHARACTERS);
        }
        found
    }
}

/// The digest of a definition in its one spelling.
fn digest(definition: &str) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(definition) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads a definition that was kept.
#[must_use]
pub fn read(definition: &str) -> Option<Node> {
    let raw: &RawValue = serde_json::from_str(definition).ok()?;
    Some(Node::read(raw, Numbers::ByValue))
}

/// What a tool is to what was approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The same.
    Approved,
    /// Not what was approved.
    Changed,
    /// Never approved.
    New,
    /// What somebody has rejected.
    Rejected,
}

impl Standing {
    /// Its name, as programs and people read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Changed => "changed",
            Self::New => "new",
            Self::Rejected => "rejected",
        }
    }

    /// Whether such a tool is neither shown nor called.
    #[must_use]
    pub fn is_withheld(self, policy: Policy) -> bool {
        match policy {
            Policy::Off => false,
            Policy::Warn => self == Self::Rejected,
            Policy::Quarantine => self != Self::Approved,
        }
    }
}

impl Pin {
    /// What a definition of the tool is to it.
    #[must_use]
    pub fn standing(&self, digest: &str) -> Standing {
        match &self.approved {
            Some(approved) if approved.digest == digest => Standing::Approved,
            _ if self.rejected.iter().any(|rejected| rejected == digest) => Standing::Rejected,
            Some(_) => Standing::Changed,
            None => Standing::New,
        }
    }

    /// What the tool is as it is offered now.
    #[must_use]
    pub fn now(&self) -> Standing {
        self.pending
            .as_ref()
            .map_or(Standing::Approved, |pending| self.standing(&pending.digest))
    }
}

impl Pins {
    /// What a definition is to what was approved of its server.
    #[must_use]
    pub fn standing(&self, tool: &str, digest: &str) -> Standing {
        self.tools
            .get(tool)
            .map_or(Standing::New, |pin| pin.standing(digest))
    }

    /// Takes in what a server offers now, from all its replicas, and gives what has become of its tools. `is_known` says whether
    /// anything of the server was seen before; the tools of one that is not are approved.
    pub fn take(
        &mut self,
        is_known: Known,
        offered: &[Offered],
        policy: Policy,
        now: &str,
    ) -> Vec<(String, What)> {
        if policy == Policy::Off {
            return Vec::new();
        }
        let mut became = Vec::new();
        let mut by_name: BTreeMap<&str, Vec<&Tool>> = BTreeMap::new();
        let mut order = Vec::new();
        for tool in offered.iter().flat_map(|offered| &offered.tools) {
            let tools = by_name.entry(&tool.name).or_default();
            if tools.is_empty() {
                order.push(tool.name.as_str());
            }
            if !tools.iter().any(|known| known.digest == tool.digest) {
                tools.push(tool);
            }
        }
        let trusts_new = is_known == Known::No || policy == Policy::Warn;
        let cost = |name: &str| rpc::quote(name).len() + PIN_BYTES;
        let mut bytes: usize = self.tools.keys().map(|name| cost(name)).sum();
        for name in order {
            let is_new = !self.tools.contains_key(name);
            if is_new {
                if bytes + cost(name) > MAX_PINS_BYTES {
                    continue;
                }
                bytes += cost(name);
            }
            let pin = self.tools.entry(name.to_owned()).or_default();
            if let Some(what) = pin.take(&by_name[name], trusts_new, now) {
                became.push((name.to_owned(), what));
            }
        }
        // What is not offered any more waits for nothing; what was approved of it stays, so that it cannot come back as another.
        for (name, pin) in &mut self.tools {
            if !by_name.contains_key(name.as_str()) {
                pin.pending = None;
            }
        }
        self.tools
            .retain(|_, pin| pin.approved.is_some() || pin.pending.is_some() || !pin.rejected.is_empty());
        if !became.is_empty() {
            self.fit();
        }
        became
    }

    /// Gives up the flags when there are so many that the record could not be written.
    fn fit(&mut self) {
        let bytes = serde_json::to_vec(self).map_or(0, |record| record.len());
        if bytes <= MAX_PINS_BYTES {
            return;
        }
        for pin in self.tools.values_mut() {
            if let Some(approved) = &mut pin.approved {
                approved.hidden.clear();
            }
            if let Some(pending) = &mut pin.pending {
                pending.hidden.clear();
            }
        }
    }

    /// Takes an operator's decision over all tools that wait for one, or one of them.
    ///
    /// # Errors
    /// [`Undecided`] when there is nothing of the kind to decide.
    pub fn decide(
        &mut self,
        wish: &Decide,
        decision: Decision,
        by: &str,
        now: &str,
    ) -> Result<Vec<String>, Undecided> {
        if let Some(tool) = &wish.tool {
            let pin = self.tools.get_mut(tool).ok_or(Undecided::Unknown)?;
            let pending = pin.pending.as_ref();
            let is = pending
                .map(|pending| &pending.digest)
                .or(pin.approved.as_ref().map(|approved| &approved.digest));
            if wish.digest.is_some() && wish.digest.as_ref() != is {
                return Err(Undecided::Otherwise);
            }
            return match pin.decide(decision, by, now) {
                true => Ok(vec![tool.clone()]),
                // Made twice, it finds its own work.
                false if decision == Decision::Approve => Ok(Vec::new()),
                false => Err(Undecided::NothingPending),
            };
        }
        let mut decided = Vec::new();
        for (name, pin) in &mut self.tools {
            if pin.decide(decision, by, now) {
                decided.push(name.clone());
            }
        }
        Ok(decided)
    }

    /// The digests of all definitions that are worth keeping.
    #[must_use]
    pub fn digests(&self) -> BTreeSet<&str> {
        let approved = self.tools.values().filter_map(|pin| pin.approved.as_ref());
        let pending = self.tools.values().filter_map(|pin| pin.pending.as_ref());
        approved
            .map(|approved| approved.digest.as_str())
            .chain(pending.map(|pending| pending.digest.as_str()))
            .collect()
    }
}

impl Pin {
    fn take(&mut self, offered: &[&Tool], trusts_new: bool, now: &str) -> Option<What> {
        let is_approved = |tool: &&&Tool| self.standing(&tool.digest) == Standing::Approved;
        let Some(other) = offered.iter().rfind(|tool| !is_approved(tool)) else {
            return self.pending.take().map(|_| What::Restored);
        };
        if self.approved.is_none() && trusts_new && self.rejected.is_empty() {
            // A tool that is defined twice is the one that stands first.
            let first = offered.first()?;
            self.approved = Some(Approved {
                digest: first.digest.clone(),
                at: now.to_owned(),
                by: None,
                hidden: first.hidden(),
            });
            self.pending = None;
            if offered.len() > 1 {
                self.take(offered, false, now);
            }
            return Some(What::Pinned);
        }
        // While replicas disagree, what waits already goes on to wait.
        if let Some(pending) = &self.pending
            && offered.iter().any(|tool| tool.digest == pending.digest)
        {
            return None;
        }
        self.pending = Some(Pending {
            digest: other.digest.clone(),
            seen_at: now.to_owned(),
            hidden: other.hidden(),
        });
        Some(if self.approved.is_some() {
            What::Changed
        } else {
            What::New
        })
    }

    /// Whether there was something to decide.
    fn decide(&mut self, decision: Decision, by: &str, now: &str) -> bool {
        let Some(pending) = &self.pending else {
            return false;
        };
        let digest = pending.digest.clone();
        self.rejected.retain(|rejected| *rejected != digest);
        match decision {
            Decision::Approve => {
                self.approved = Some(Approved {
                    digest,
                    at: now.to_owned(),
                    by: Some(by.to_owned()),
                    hidden: pending.hidden.clone(),
                });
                self.pending = None;
            }
            Decision::Reject => {
                if self.rejected.len() == MAX_REJECTED {
                    self.rejected.remove(0);
                }
                self.rejected.push(digest);
            }
        }
        true
    }
}

/// Whether anything of a server was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// There is a record of it.
    Yes,
    /// This is the first of it.
    No,
}

#[cfg(test)]
mod tests;
