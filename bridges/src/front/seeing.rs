//! Which servers are worth being shown to somebody.

use bus_schema::{Principal, ServerId};

use super::Front;

impl Front {
    /// Whether somebody may use anything of a server.
    #[must_use]
    pub fn may_use(&self, principal: &Principal, server: &ServerId) -> bool {
        let in_force = self.in_force(principal);
        in_force.policy().opens_server(principal, server.as_str())
    }
}
