//! The endpoints of virtual servers: a request is answered from their lists, or goes to the member that it is for, in that one's words.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use bus_schema::{RpcError, ServerId, mcp::method, rpc};
use runtime::{
    catalogue::Listed,
    policies::Sight,
    virtuals::{Virtual, Virtuals},
};
use serde_json::{Map, Value, json};

use super::{
    Caller, Endpoint, Final, Front,
    answering::State,
    entrance::{Entrance, exchanged},
};
use crate::request::{Incoming, Piece, Reference};

impl Front {
    /// The virtual servers.
    #[must_use]
    pub fn virtuals(&self) -> &Virtuals {
        &self.0.faces.virtuals
    }

    /// The virtual server that an endpoint shows, if it is one.
    pub(crate) fn virtual_server(&self, endpoint: &Endpoint) -> Option<Arc<Virtual>> {
        match endpoint {
            Endpoint::Server(id) => self.virtuals().get(id),
            Endpoint::All | Endpoint::Search => None,
        }
    }

    /// What stands in the lists of a virtual server: each name or URI that is shown with its owner and its own name there, and which
    /// members could not be asked.
    pub(crate) async fn lists_of(&self, defined: &Arc<Virtual>) -> Map<String, Value> {
        let mut lists = Map::new();
        let mut missing = BTreeSet::new();
        for list in Listed::ALL {
            let merged = self.0.faces.current(defined, list).await;
            lists.insert(list.key().to_owned(), merged.shown());
            missing.extend(merged.missing.iter().cloned());
        }
        lists.insert("missing".to_owned(), json!(missing));
        lists
    }

    /// Whose a tool or prompt of a virtual server is, and its name there.
    pub(crate) async fn chosen(
        &self,
        defined: &Arc<Virtual>,
        list: Listed,
        name: &str,
    ) -> Option<(ServerId, String)> {
        let merged = self.0.faces.current(defined, list).await;
        merged.owners.get(name).cloned()
    }

    /// What a list of a virtual server shows: each name with its owner, and its own name there.
    pub(crate) async fn all_chosen(
        &self,
        defined: &Arc<Virtual>,
        list: Listed,
    ) -> Vec<(String, ServerId, String)> {
        let merged = self.0.faces.current(defined, list).await;
        let owners = merged.owners.iter();
        owners
            .map(|(shown, (owner, own))| (shown.clone(), owner.clone(), own.clone()))
            .collect()
    }

    /// Whose a resource of a virtual server is.
    pub(super) async fn owner_of_chosen(
        &self,
        defined: &Arc<Virtual>,
        uri: &str,
    ) -> Result<ServerId, RpcError> {
        let owner = self.0.faces.owner_of_resource(defined, uri).await;
        owner.ok_or_else(|| {
            RpcError::invalid_params(format!("resource `{uri}` does not exist"))
                .with_data(json!({ "uri": uri }))
        })
    }

    /// Whose each resource is; those that are nobody's are left out.
    pub(super) async fn owners_of_chosen(
        &self,
        defined: &Arc<Virtual>,
        uris: &BTreeSet<String>,
    ) -> Vec<(ServerId, BTreeSet<String>)> {
        let mut owned: BTreeMap<ServerId, BTreeSet<String>> = BTreeMap::new();
        for uri in uris {
            if let Some(server) = self.0.faces.owner_of_resource(defined, uri).await {
                owned.entry(server).or_default().insert(uri.clone());
            }
        }
        owned.into_iter().collect()
    }

    pub(super) async fn enter_virtual(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        defined: &Arc<Virtual>,
    ) -> Result<Entrance, RpcError> {
        let called = incoming.method.as_str();
        if let Some(list) = Listed::of(called) {
            self.allow(caller, incoming).await?;
            let sight = self.sight(&caller.principal);
            return self.list_virtual(incoming, defined, list, sight.as_ref()).await;
        }
        match (called, &incoming.name, &incoming.reference) {
            // Both are about the endpoint itself.
            (method::DISCOVER | method::LISTEN, ..) => Ok(Entrance::AsItCame),
            (method::TOOLS_CALL, Some(name), _) => {
                self.renamed_back(caller, incoming, defined, Listed::Tools, name)
                    .await
            }
            (method::PROMPTS_GET, Some(name), _) | (method::COMPLETE, _, Some(Reference::Prompt(name))) => {
                self.renamed_back(caller, incoming, defined, Listed::Prompts, name)
                    .await
            }
            (method::RESOURCES_READ, Some(Piece { value: uri, .. }), _)
            | (method::COMPLETE, _, Some(Reference::Resource(uri))) => {
                let templates = self.0.faces.current(defined, Listed::Templates).await;
                let owner = match templates.owners.get(uri) {
                    // A completion is for the template itself.
                    Some((server, _)) => Some(server.clone()),
                    None => self.0.faces.owner_of_resource(defined, uri).await,
                };
                let owner = owner.ok_or_else(|| {
                    RpcError::invalid_params(format!("resource `{uri}` does not exist"))
                        .with_data(json!({ "uri": uri }))
                })?;
                exchanged(caller, Endpoint::Server(owner), incoming, &[])
            }
            (method::COMPLETE, _, None) => {
                Err(RpcError::invalid_params(format!("`{called}` needs `params.ref`")))
            }
            // What is one server's own is asked on the endpoint of that one.
            _ => Err(RpcError::method_not_found(called)),
        }
    }

    async fn list_virtual(
        &self,
        incoming: &Incoming,
        defined: &Arc<Virtual>,
        list: Listed,
        sight: Option<&Sight>,
    ) -> Result<Entrance, RpcError> {
        // All entries stand on the first page, so that no cursor was ever given out.
        if incoming.cursor.as_ref().is_some_and(|cursor| !cursor.is_empty()) {
            return Err(RpcError::invalid_params(
                "`params.cursor` was not given out by this endpoint",
            ));
        }
        let merged = self.0.faces.current(defined, list).await;
        let result = match sight {
            Some(sight) => merged.seen(list, sight),
            None => merged.result.clone(),
        };
        let body = rpc::result_response(incoming.id.as_deref().unwrap_or("null"), &result);
        Ok(Entrance::Answered(State::Local(Some(Final {
            code: None,
            body: body.into(),
            fault: None,
        }))))
    }

    async fn renamed_back(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        defined: &Arc<Virtual>,
        list: Listed,
        name: &Piece,
    ) -> Result<Entrance, RpcError> {
        let merged = self.0.faces.current(defined, list).await;
        let Some((server, own)) = merged.owners.get(&name.value) else {
            let kind = if list == Listed::Tools { "tool" } else { "prompt" };
            let mut message = format!(
                "unknown {kind} `{}`: virtual server `{}` does not have it",
                name.value, defined.definition.id
            );
            if !merged.missing.is_empty() {
                let missing: Vec<&str> = merged.missing.iter().map(ServerId::as_str).collect();
                message.push_str(&format!(
                    "; what it has of {} is not known at the moment",
                    missing.join(", ")
                ));
            }
            return Err(RpcError::invalid_params(message));
        };
        let pieces = [(&name.place, rpc::quote(own))];
        exchanged(caller, Endpoint::Server(server.clone()), incoming, &pieces)
    }
}
