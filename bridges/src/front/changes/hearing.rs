//! What of changes somebody may hear of, by the policy that is in force when it is told: what a client was let hear of once may be hidden from
//! it by now.

use std::collections::BTreeSet;

use bus_schema::{
    Principal, ServerId,
    policy::{Action, Decision},
};
use runtime::policies::Policies;

/// Somebody who is told of changes.
pub(super) struct Hearing {
    policies: Policies,
    principal: Principal,
}

impl Hearing {
    pub(super) fn new(policies: &Policies, principal: &Principal) -> Self {
        Self {
            policies: policies.clone(),
            principal: principal.clone(),
        }
    }

    /// Whether it may read a resource, and so hear of it.
    pub(super) fn of_resource(&self, server: &ServerId, uri: &str) -> bool {
        let in_force = self.policies.of(&self.principal.tenant);
        let action = Action::resource(server.as_str(), uri);
        in_force.policy().allows_all() || in_force.decide(&self.principal, &action) == Decision::Allow
    }

    /// The same of all resources of some servers.
    pub(super) fn of_all(&self, owned: &[(ServerId, BTreeSet<String>)]) -> bool {
        let mut each = owned
            .iter()
            .flat_map(|(server, uris)| uris.iter().map(move |uri| (server, uri)));
        each.all(|(server, uri)| self.of_resource(server, uri))
    }

    /// Whether it may use anything of a server, and so hear of its lists.
    pub(super) fn of_server(&self, server: &ServerId) -> bool {
        let in_force = self.policies.of(&self.principal.tenant);
        in_force.policy().opens_server(&self.principal, server.as_str())
    }

    /// Whether everybody hears the same of lists, so that they need be compared once only.
    pub(super) fn is_as_everybody(&self) -> bool {
        self.policies.of(&self.principal.tenant).policy().allows_all()
    }
}
