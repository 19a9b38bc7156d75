//! What operators decide over tools, and what is told of them.

use serde::{Deserialize, Serialize};

use super::{APPROVE, REJECT};
use crate::ServerId;

/// Something that has become of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Whose tool.
    pub server: ServerId,
    /// Which tool.
    pub tool: String,
    /// What has become of it.
    pub what: What,
    /// The digest of its definition now.
    pub digest: String,
    /// The digest of what was approved before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Who has decided, if somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Which fields are not what was approved, as JSON Pointers; the first 32. Empty when that cannot be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Whether it is neither shown nor called from now on.
    pub withheld: bool,
}

/// What has become of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It is the first definition that was seen, or one of a new tool where those are approved.
    Pinned,
    /// Its definition is not what was approved.
    Changed,
    /// A tool has come that was never approved.
    New,
    /// Its definition is what was approved again.
    Restored,
    /// Somebody has approved it.
    Approved,
    /// Somebody has rejected it.
    Rejected,
}

/// What an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The tool may be used as it is now.
    Approve,
    /// It may not, whatever the policy.
    Reject,
}

impl Decision {
    /// The method that asks for it.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Approve => APPROVE,
            Self::Reject => REJECT,
        }
    }
}

/// A wish that tools be approved or rejected as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decide {
    /// Whose tools.
    pub server: ServerId,
    /// Which; all that wait for a decision if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The digest of what is meant, so that nothing is decided that nobody has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The tools that it has changed anything for.
    pub tools: Vec<String>,
}

/// Says why there is nothing to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// No such tool was ever seen.
    #[error("no such tool was seen")]
    Unknown,
    /// It is not as it was meant.
    #[error("it has changed again since it was looked at")]
    Otherwise,
    /// It waits for no decision.
    #[error("it is as it was approved, and there is nothing to reject")]
    NothingPending,
}
