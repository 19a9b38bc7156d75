//! Who asks: the verified identity that travels with every request.
//!
//! A door makes it from what it has checked; nobody else may publish where it is believed, so nothing a client
//! puts into a message can change it.

use serde::{Deserialize, Serialize};

/// The tenant of a platform that serves only one.
pub const DEFAULT_TENANT: &str = "default";

/// A caller whose identity a door has established.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Who it is, unique within the tenant.
    pub subject: String,
    /// Whose servers it may see.
    pub tenant: String,
    /// The program it came with, for display and logs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Principal {
    /// The developer on a loopback bind without authentication.
    #[must_use]
    pub fn developer() -> Self {
        Self {
            subject: "developer".to_owned(),
            tenant: DEFAULT_TENANT.to_owned(),
            client: None,
        }
    }
}
