//! Protocol versions and the two eras that they fall into.

use std::{fmt, str::FromStr};

/// How a peer speaks: with a handshake and a session, or with metadata on every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Versions up to 2025-11-25.
    Legacy,
    /// 2026-07-28 and later.
    Modern,
}

/// A version of the Model Context Protocol that Trunkline speaks, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// 2024-11-05
    V2024_11_05,
    /// 2025-03-26
    V2025_03_26,
    /// 2025-06-18
    V2025_06_18,
    /// 2025-11-25
    V2025_11_25,
    /// 2026-07-28
    V2026_07_28,
}

impl ProtocolVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];
    /// The version of the bus, and the newest for modern clients.
    pub const MODERN: Self = Self::V2026_07_28;
    /// What a legacy handshake settles on when the client asks for a version unknown here.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;

    /// The date that names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    #[must_use]
    pub fn era(self) -> Era {
        if self >= Self::V2026_07_28 {
            Era::Modern
        } else {
            Era::Legacy
        }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Says that a version is none of those spoken here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a protocol version that is spoken here")]
pub struct UnknownVersion(pub String);

impl FromStr for ProtocolVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|v| v.as_str() == text)
            .ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}
