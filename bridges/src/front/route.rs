//! Which server a request on the endpoint of all servers is for, and how that server spells it.

use bus_schema::{
    Principal, ProtocolVersion, RoutedState, RpcError, ServerId, Token,
    edit::{Edits, Members},
    mcp::{Era, meta, method},
    rpc::{self, Message},
};
use bytes::Bytes;

use super::Front;
use crate::{
    askable::Askable,
    request::{Incoming, Piece, Reference},
};

const META: &str = "_meta";
const EXTENSIONS: &str = "extensions";

/// Where a request goes.
pub(super) struct Route {
    pub(super) server: ServerId,
    /// The name as the server knows it.
    pub(super) name: Option<String>,
    /// The method as the server knows it.
    pub(super) method: String,
    pub(super) body: Bytes,
}

/// To which one process a request has to go, as only that can answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// To none.
    Free,
    /// To the instance that has parked the call.
    Parked(String),
    /// To the instance that holds the task.
    Task(String),
}

impl Tie {
    /// The instance.
    pub(super) fn instance(&self) -> Option<&str> {
        match self {
            Self::Free => None,
            Self::Parked(instance) | Self::Task(instance) => Some(instance),
        }
    }
}

impl Front {
    /// Where else than to any replica a request has to go. The task ids of a modern server are its own, whatever they look like.
    pub(super) fn tie(&self, incoming: &Incoming, server: &ServerId) -> Tie {
        let instance = |state: &str| RoutedState::parse(state).map(|state| state.instance.to_owned());
        if let Some(instance) = incoming.request_state.as_deref().and_then(instance) {
            return Tie::Parked(instance);
        }
        let task = incoming
            .name
            .as_ref()
            .filter(|_| method::TASKS.contains(&incoming.method.as_str()));
        let Some(instance) = task.and_then(|task| instance(&task.value)) else {
            return Tie::Free;
        };
        let snapshot = self.directory().snapshot();
        let mut replicas = snapshot.replicas(server).iter();
        let holder = replicas.find(|card| Token::encode(&card.instance).as_str() == instance);
        let is_modern = holder.or_else(|| snapshot.server(server)).is_some_and(|card| {
            let version: Result<ProtocolVersion, _> = card.protocol_version.parse();
            version.is_ok_and(|version| version.era() == Era::Modern)
        });
        if is_modern { Tie::Free } else { Tie::Task(instance) }
    }

    /// Whether what a request is tied to is lost, when its instance does not answer. A server of which nobody has a replica at the moment
    /// may be about to start again, with its tasks.
    pub(super) fn is_gone(&self, tie: &Tie, server: &str) -> bool {
        match tie {
            Tie::Free => false,
            Tie::Parked(_) => true,
            Tie::Task(_) => server
                .parse()
                .is_ok_and(|id| self.directory().snapshot().server(&id).is_some()),
        }
    }

    /// Finds the server that a request on the endpoint of all servers is for, and gives the name back its own form.
    pub(super) async fn find_owner(
        &self,
        principal: &Principal,
        incoming: &Incoming,
    ) -> Result<Route, RpcError> {
        if incoming.method == method::RESOURCES_READ {
            let uri = incoming
                .name
                .as_ref()
                .map(|name| name.value.clone())
                .unwrap_or_default();
            let server = self.owner_of_any(principal, Askable::of(incoming), &uri).await?;
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
                let server = self.owner_of_any(principal, Askable::of(incoming), uri).await?;
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

    /// Whose resource a URI is among all that somebody sees.
    pub(super) async fn owner_of_any(
        &self,
        principal: &Principal,
        declares: Askable,
        uri: &str,
    ) -> Result<ServerId, RpcError> {
        let sight = self.sight(principal);
        self.0
            .aggregate
            .owner_of_resource(uri, declares, sight.as_ref())
            .await
    }

    /// The same in the words of the one server that it names.
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
            body: without_tasks(incoming, incoming.with_piece(&name.place, &rpc::quote(own))),
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

/// A request whose caller does not declare tasks. This endpoint does not have them, as a task's id does not say whose it is: nobody
/// could ask here what becomes of one.
pub(super) fn without_tasks(incoming: &Incoming, body: Bytes) -> Bytes {
    if !incoming.meta.declares_tasks {
        return body;
    }
    let params = Message::parse(&body).ok().and_then(|message| message.params);
    let path = [META, meta::CLIENT_CAPABILITIES, EXTENSIONS];
    let extensions = path.iter().try_fold(params, |at, key| {
        at.and_then(Members::of).map(|members| members.get(key))
    });
    let Some(extensions) = extensions.flatten().and_then(Members::of) else {
        return body;
    };
    let mut edits = Edits::new(&body);
    edits.remove(&extensions, meta::TASKS_EXTENSION);
    edits.apply().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_not_declared_where_nobody_can_ask_about_them() {
        let call = |extensions: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"n","arguments":{{"x":1e400}},"_meta":{{"io.modelcontextprotocol/clientCapabilities":{{"extensions":{extensions},"roots":{{}}}}}}}}}}"#
            )
        };
        for (extensions, expected) in [
            (r#"{"io.modelcontextprotocol/tasks":{}}"#, "{}"),
            (
                r#"{"a/b":{"k":1.0},"io.modelcontextprotocol/tasks":{}}"#,
                r#"{"a/b":{"k":1.0}}"#,
            ),
            (r#"{"a/b":{}}"#, r#"{"a/b":{}}"#),
        ] {
            let incoming = Incoming::read(call(extensions).into()).expect("a request");
            let body = incoming.body.clone();
            assert_eq!(without_tasks(&incoming, body), call(expected), "{extensions}");
        }
    }
}
