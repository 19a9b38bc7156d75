//! Clients are told of changes: who watches what, and who may.

use std::collections::BTreeSet;

use bus_schema::{Principal, RpcError};

use super::{Endpoint, Front, Lists, Wanted, Watching, changes::parse_digests};
use crate::askable::Askable;

impl Front {
    /// Tells a client of changes on an endpoint, as far as it may hear of them then, until what this gives is dropped.
    pub async fn watch(&self, principal: &Principal, endpoint: &Endpoint, wanted: Wanted) -> Watching {
        let owned = self.owners(endpoint, &wanted.uris).await;
        let who = (principal, endpoint.clone());
        self.0.changes.watch(who, wanted, owned, None)
    }

    /// The same for a client that was told before: begins with what may have changed since. `digests` is what
    /// [`Watching::digests`] gave then; from any other text everything may have changed.
    pub async fn watch_since(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        wanted: Wanted,
        digests: &str,
    ) -> Watching {
        let owned = self.owners(endpoint, &wanted.uris).await;
        let since = parse_digests(digests).unwrap_or_default();
        let who = (principal, endpoint.clone());
        self.0.changes.watch(who, wanted, owned, Some(since))
    }

    /// Asks the server of a resource to tell of it, which it does as long as what this gives is not dropped. A server that is away, or
    /// takes its time, may still refuse later.
    ///
    /// # Errors
    /// The server's own, when it refuses; on the endpoint of all servers, that there is no such resource.
    pub async fn watch_resource(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        uri: &str,
    ) -> Result<Watching, RpcError> {
        let server = match endpoint {
            Endpoint::Server(id) => match self.virtual_server(endpoint) {
                Some(defined) => self.owner_of_chosen(&defined, uri).await?,
                None => id.clone(),
            },
            Endpoint::All | Endpoint::Search => self.owner_of_any(principal, Askable::default(), uri).await?,
        };
        self.authorize_resource(principal, &server, uri)?;
        let wanted = Wanted {
            lists: Lists::default(),
            uris: BTreeSet::from([uri.to_owned()]),
        };
        let owned = vec![(server, wanted.uris.clone())];
        let who = (principal, endpoint.clone());
        let watching = self.0.changes.watch(who, wanted, owned, None);
        match watching.refusal().await {
            Some(error) => Err(error),
            None => Ok(watching),
        }
    }
}
