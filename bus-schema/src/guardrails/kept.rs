//! How guardrails are kept and asked for: one numbered document for each tenant.

use serde::{Deserialize, Serialize};

use super::Document;

/// The method by which the registry is asked to take a document; its parameters are a [`Set`], its result is a [`Version`].
pub const SET: &str = "guardrails/set";

/// One version of a tenant's guardrails.
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
