//! The check of what a caller may do, before anything is asked of a server.

use bus_schema::{
    Principal, ServerId,
    policy::{Action, Decision, decide},
};
use tracing::info;

use super::{Endpoint, Front};
use crate::request::Incoming;

impl Front {
    /// Whether somebody may do this; for whoever has no request in hand.
    pub(crate) fn permits(&self, principal: &Principal, action: &Action<'_>) -> bool {
        decide(&self.0.scopes, principal, action) == Decision::Allow
    }

    /// Whether everybody may do everything, also what is not there yet.
    pub(crate) fn permits_everything(&self) -> bool {
        self.0.scopes.is_empty()
    }

    /// Whether somebody may ask this. Doors with statuses of their own look before they ask; `ask` looks in any case.
    ///
    /// # Errors
    /// The scopes that are missing.
    pub fn authorize(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        incoming: &Incoming,
    ) -> Result<(), Vec<String>> {
        let name = incoming.name.as_ref().map(|name| name.value.as_str());
        let (server, name) = match endpoint {
            Endpoint::Server(id) => (id.clone(), name),
            // What belongs to no server is not found later.
            Endpoint::All | Endpoint::Search => match name.and_then(ServerId::split_prefixed) {
                Some((id, name)) => (id, Some(name)),
                None => return Ok(()),
            },
        };
        let action = Action {
            method: &incoming.method,
            server: server.as_str(),
            name,
        };
        match decide(&self.0.scopes, principal, &action) {
            Decision::Allow => Ok(()),
            Decision::NeedsScopes(scopes) => {
                let (subject, tool) = (&principal.subject, action.name);
                info!(%subject, server = %server, tool, ?scopes, "refused a call for want of a scope");
                Err(scopes)
            }
        }
    }
}
