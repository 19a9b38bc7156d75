//! How a server is, and what is told when that has changed.

use serde::{Deserialize, Serialize};

use crate::ServerId;

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is there and well.
    Healthy,
    /// It is there, and should not be used now.
    Degraded,
    /// It is not there.
    Down,
}

impl Status {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Down];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// How a server was told to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// How it is.
    pub status: Status,
    /// Why it is not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, as RFC 3339.
    pub since: String,
}

/// A server is otherwise than it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusEvent {
    /// Which server.
    pub server: ServerId,
    /// How it was; `None` for one that is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Status>,
    /// How it is.
    #[serde(flatten)]
    pub now: Told,
}
