//! How policies are kept and asked for: numbered versions, each with who wrote it, when and why.

use serde::{Deserialize, Serialize};

use super::Document;

/// The method by which the registry is asked to take a document; its parameters are a [`Set`], its result is a [`Version`].
pub const SET: &str = "policy/set";
/// The method by which it is asked to take an earlier one again; its parameters are a [`Rollback`], its result is a [`Version`].
pub const ROLLBACK: &str = "policy/rollback";

/// One version of a tenant's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
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
    pub document: Document,
}

/// A wish to have a document kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// What it is to say.
    pub document: Document,
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
