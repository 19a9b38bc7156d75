//! What a legacy client can be told: the version that its handshake settled on, and what this side offers beyond it.

use bus_schema::ProtocolVersion;

/// How to speak with one legacy client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The version that the handshake settled on.
    pub version: ProtocolVersion,
    /// What becomes of tasks; clients before 2025-11-25 never hear of them.
    pub tasks: Tasks,
}

/// What a client of 2025-11-25 is offered of that version's experimental tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// Nothing: it makes plain calls.
    Hidden,
    /// Calls that become tasks, to be asked for and cancelled.
    Offered,
    /// The same, and a list of them.
    Listed,
}

impl Dialect {
    /// The dialect of a client that is not offered tasks.
    #[must_use]
    pub const fn plain(version: ProtocolVersion) -> Self {
        Self {
            version,
            tasks: Tasks::Hidden,
        }
    }

    /// Whether the client may make a task of a call.
    #[must_use]
    pub fn has_tasks(self) -> bool {
        self.version == ProtocolVersion::V2025_11_25 && self.tasks != Tasks::Hidden
    }
}
