//! How documents of a tenant are kept and asked for, such as its policy: numbered versions, each with who wrote it, when and why.

use serde::{Deserialize, Serialize};

/// One version of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version<D> {
    /// Its number; the first is 1.
    pub version: u64,
    /// When it was written, as RFC 3339.
    pub at: String,
    /// By whom.
    pub by: String,
    /// Why, in the words of who wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What it says.
    pub document: D,
}

/// A wish to have a document kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set<D> {
    /// What it is to say.
    pub document: D,
    /// Which version it takes the place of: 0 for none. `None` for whichever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A wish to have an earlier version again. It becomes a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Which.
    pub to: u64,
    /// Which version it takes the place of. `None` for whichever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}
