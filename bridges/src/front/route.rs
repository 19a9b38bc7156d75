//! Which server a request on the endpoint of all servers is for, and how that server spells it.

use bus_schema::{RpcError, ServerId, mcp::method, rpc};
use bytes::Bytes;

use super::{Front, declares::Declares};
use crate::request::{Incoming, Piece, Reference};

/// Where a request goes.
pub(super) struct Route {
    pub(super) server: ServerId,
    /// The name as the server knows it.
    pub(super) name: Option<String>,
    /// The method as the server knows it.
    pub(super) method: String,
    pub(super) body: Bytes,
}

impl Front {
    /// Finds the server that a request on the endpoint of all servers is for, and gives the name back its own form.
    pub(super) async fn find_owner(&self, incoming: &Incoming) -> Result<Route, RpcError> {
        if incoming.method == method::RESOURCES_READ {
            let uri = incoming
                .name
                .as_ref()
                .map(|name| name.value.clone())
                .unwrap_or_default();
            let server = self
                .0
                .aggregate
                .owner_of_resource(&uri, Declares::of(incoming))
                .await?;
            return Ok(Route {
                server,
                name: Some(uri),
                method: incoming.method.clone(),
                body: incoming.body.clone(),
            });
        }
        if let Some(name) = &incoming.name {
            return self.unprefixed(incoming, name);
        }
        if method::is_custom(&incoming.method) {
            return self.custom(incoming);
        }
        match &incoming.reference {
            Some(Reference::Prompt(name)) => self
                .unprefixed(incoming, name)
                .map(|route| Route { name: None, ..route }),
            Some(Reference::Resource(uri)) => {
                let server = self
                    .0
                    .aggregate
                    .owner_of_resource(uri, Declares::of(incoming))
                    .await?;
                Ok(Route {
                    server,
                    name: None,
                    method: incoming.method.clone(),
                    body: incoming.body.clone(),
                })
            }
            None => Err(RpcError::invalid_params(format!(
                "`{}` needs `params.ref` here",
                incoming.method
            ))),
        }
    }

    fn unprefixed(&self, incoming: &Incoming, name: &Piece) -> Result<Route, RpcError> {
        let unknown = || {
            let kind = if incoming.method == method::TOOLS_CALL {
                "tool"
            } else {
                "prompt"
            };
            RpcError::invalid_params(format!(
                "unknown {kind} `{}`: names on this endpoint are `<server>__<{kind}>`, as its list shows them",
                name.value
            ))
        };
        let (server, own) = ServerId::split_prefixed(&name.value).ok_or_else(unknown)?;
        if self.directory().snapshot().server(&server).is_none() {
            return Err(unknown());
        }
        Ok(Route {
            server,
            name: Some(own.to_owned()),
            method: incoming.method.clone(),
            body: incoming.with_piece(&name.place, &rpc::quote(own)),
        })
    }

    /// A method of one server's own has the server's id before it, as names have.
    fn custom(&self, incoming: &Incoming) -> Result<Route, RpcError> {
        let split = ServerId::split_prefixed(&incoming.method).zip(incoming.method_place.as_ref());
        let ((server, own), place) = split.ok_or_else(|| RpcError::method_not_found(&incoming.method))?;
        Ok(Route {
            server,
            name: None,
            method: own.to_owned(),
            body: incoming.with_piece(place, &rpc::quote(own)),
        })
    }
}
