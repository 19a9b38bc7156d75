//! The way of a request from any door to the server that answers it.
//!
//! An endpoint shows one server, with its own names, or all of them, with names that begin with the server's id. What an endpoint
//! says about itself and its lists is answered here; everything else goes over the bus as the client wrote it.

mod aggregate;
mod answering;
mod owner;
mod trace_ids;

use std::{sync::Arc, time::Duration};

use bus_schema::{
    Body, Principal, ProtocolVersion, Request, RpcError, ServerCard, ServerId, TraceContext,
    mcp::{meta, method},
    rpc,
};
use bytes::Bytes;
use runtime::{Bus, Catalogue, Directory, Retry};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::request::{Incoming, Piece, Reference};

pub use answering::{Answering, Fault, Final, Step};
use answering::{Remote, State};
use trace_ids::Ids;

/// What the platform calls itself.
pub const IMPLEMENTATION: &str = "trunkline";
/// For how long a client may keep a list or description.
const LIST_TTL_MS: u64 = 5_000;

/// What a client sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// All servers, their tools and prompts under prefixed names.
    All,
    /// One server, as it is.
    Server(ServerId),
}

/// Who asks, and where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose identity the call carries.
    pub principal: Principal,
    /// The door it came through.
    pub door: &'static str,
    /// What it sees.
    pub endpoint: Endpoint,
    /// The protocol version that the client speaks.
    pub protocol_version: ProtocolVersion,
    /// The trace that came outside the message, such as in an HTTP header.
    pub trace: Option<TraceContext>,
}

/// Takes requests from doors.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    bus: Bus,
    catalogue: Catalogue,
    aggregate: aggregate::Aggregate,
    call_timeout: Duration,
    ids: Ids,
}

/// Where a request goes.
struct Route {
    server: ServerId,
    /// The name as the server knows it.
    name: Option<String>,
    body: Bytes,
}

impl Front {
    /// A front on the bus. `call_timeout` is the longest that a call may take.
    #[must_use]
    pub fn new(bus: Bus, catalogue: Catalogue, call_timeout: Duration) -> Self {
        let aggregate = aggregate::Aggregate::new(catalogue.clone());
        Self(Arc::new(Inner {
            bus,
            catalogue,
            aggregate,
            call_timeout,
            ids: Ids::default(),
        }))
    }

    /// The bus that it stands on.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// The servers on the bus.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        self.0.catalogue.directory()
    }

    /// What the servers on the bus offer.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.catalogue
    }

    /// Takes one modern request. The answer is asked of what this returns.
    pub async fn ask(&self, caller: &Caller, incoming: &Incoming) -> Answering {
        let outside = caller.trace.as_ref().or(incoming.meta.trace.as_ref());
        let trace = self.0.ids.next_trace(outside);
        let id = incoming.id.clone();
        let state = match self.dispatch(caller, incoming, &trace).await {
            Ok(state) => state,
            Err(error) => State::Local(Some(Final {
                code: Some(error.code),
                body: incoming.error(&error),
                fault: None,
            })),
        };
        Answering { state, id, trace }
    }

    /// The card of the one server that an endpoint shows; `None` when it shows all, or the server is not there.
    #[must_use]
    pub fn card(&self, endpoint: &Endpoint) -> Option<ServerCard> {
        match endpoint {
            Endpoint::All => None,
            Endpoint::Server(id) => self.directory().snapshot().server(id).cloned(),
        }
    }

    /// The capabilities that an endpoint really serves.
    #[must_use]
    pub fn capabilities(&self, endpoint: &Endpoint) -> Map<String, Value> {
        let snapshot = self.directory().snapshot();
        match endpoint {
            Endpoint::Server(id) => snapshot
                .server(id)
                .map(|card| carried(&card.capabilities))
                .unwrap_or_default(),
            Endpoint::All => {
                let mut union = Map::new();
                for (_, card) in snapshot.servers() {
                    union.extend(carried(&card.capabilities));
                }
                // What is not a plain list belongs to one server and is offered on its own endpoint.
                union.retain(|key, _| {
                    matches!(
                        key.as_str(),
                        "tools" | "prompts" | "resources" | "completions" | "logging"
                    )
                });
                union
            }
        }
    }

    /// Whether an endpoint advertises what a method needs. An unknown server advertises everything, as its calls say more.
    #[must_use]
    pub fn offers(&self, endpoint: &Endpoint, called: &str) -> bool {
        let Some(capability) = method::capability(called) else {
            return true;
        };
        let snapshot = self.directory().snapshot();
        match endpoint {
            Endpoint::Server(id) => snapshot
                .server(id)
                .is_none_or(|card| card.capabilities.contains_key(capability)),
            // A platform without servers is not without tools; it has none at the moment.
            Endpoint::All => {
                snapshot.servers().next().is_none()
                    || snapshot
                        .servers()
                        .any(|(_, card)| card.capabilities.contains_key(capability))
            }
        }
    }

    /// How an endpoint introduces itself.
    #[must_use]
    pub fn server_info(&self, endpoint: &Endpoint) -> Value {
        match (endpoint, self.card(endpoint)) {
            (Endpoint::Server(id), Some(card)) => {
                json!({ "name": id.as_str(), "title": card.title, "version": card.version })
            }
            _ => {
                json!({ "name": IMPLEMENTATION, "title": "Trunkline", "version": env!("CARGO_PKG_VERSION") })
            }
        }
    }

    /// How a model should use an endpoint.
    #[must_use]
    pub fn instructions(&self, endpoint: &Endpoint) -> Option<String> {
        match endpoint {
            Endpoint::Server(_) => self.card(endpoint).and_then(|card| card.instructions),
            Endpoint::All => {
                let text = "This endpoint shows many servers. Tool and prompt names begin with the server's id and `__`.";
                Some(text.to_owned())
            }
        }
    }

    async fn dispatch(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        trace: &TraceContext,
    ) -> Result<State, RpcError> {
        if incoming.method == method::DISCOVER {
            if let Endpoint::Server(id) = &caller.endpoint
                && self.card(&caller.endpoint).is_none()
            {
                return Ok(State::Local(Some(self.absent(incoming, id))));
            }
            return Ok(local_result(incoming, &self.discover(&caller.endpoint)));
        }
        let route = match &caller.endpoint {
            Endpoint::All => match self.0.aggregate.list(incoming).await? {
                Some(result) => {
                    let body = rpc::result_response(incoming.id.as_deref().unwrap_or("null"), &result);
                    return Ok(State::Local(Some(Final {
                        code: None,
                        body: body.into(),
                        fault: None,
                    })));
                }
                None => self.find_owner(incoming).await?,
            },
            Endpoint::Server(id) => {
                let name = incoming.name.as_ref().map(|name| name.value.clone());
                Route {
                    server: id.clone(),
                    name,
                    body: incoming.body.clone(),
                }
            }
        };
        Ok(self.remote(caller, incoming, route, trace).await)
    }

    async fn remote(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        route: Route,
        trace: &TraceContext,
    ) -> State {
        let retry = match self.directory().snapshot().server(&route.server) {
            Some(_) => {
                self.0
                    .catalogue
                    .retry(&route.server, &incoming.method, route.name.as_deref())
                    .await
            }
            None => Retry::Never,
        };
        let request = Request {
            caller: String::new(),
            call: 0,
            server: route.server.to_string(),
            method: incoming.method.clone(),
            name: route.name,
            principal: caller.principal.clone(),
            protocol_version: caller.protocol_version.to_string(),
            door: caller.door.to_owned(),
            timeout_ms: u64::try_from(self.0.call_timeout.as_millis()).unwrap_or(u64::MAX),
            trace: Some(trace.clone()),
            chunked_bytes: 0,
            body: Body(route.body),
        };
        State::Remote(Box::new(Remote {
            server: route.server.to_string(),
            method: incoming.method.clone(),
            door: caller.door,
            started: Instant::now(),
            front: self.clone(),
            call: self.0.bus.call(request, retry),
        }))
    }

    fn discover(&self, endpoint: &Endpoint) -> Value {
        let mut result = json!({
            "resultType": "complete",
            "supportedVersions": [ProtocolVersion::MODERN.as_str()],
            "capabilities": self.capabilities(endpoint),
            "ttlMs": LIST_TTL_MS,
            "cacheScope": "private",
            "_meta": { meta::SERVER_INFO: self.server_info(endpoint) },
        });
        if let Some(instructions) = self.instructions(endpoint) {
            result["instructions"] = instructions.into();
        }
        result
    }

    /// Finds the server that a request on the endpoint of all servers is for, and gives the name back its own form.
    async fn find_owner(&self, incoming: &Incoming) -> Result<Route, RpcError> {
        if incoming.method == method::RESOURCES_READ {
            let uri = incoming
                .name
                .as_ref()
                .map(|name| name.value.clone())
                .unwrap_or_default();
            let server = self.0.aggregate.owner_of_resource(&uri).await?;
            return Ok(Route {
                server,
                name: Some(uri),
                body: incoming.body.clone(),
            });
        }
        if let Some(name) = &incoming.name {
            return self.unprefixed(incoming, name);
        }
        match &incoming.reference {
            Some(Reference::Prompt(name)) => self
                .unprefixed(incoming, name)
                .map(|route| Route { name: None, ..route }),
            Some(Reference::Resource(uri)) => {
                let server = self.0.aggregate.owner_of_resource(uri).await?;
                Ok(Route {
                    server,
                    name: None,
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
            body: incoming.with_piece(&name.place, &rpc::quote(own)),
        })
    }
}

fn local_result(incoming: &Incoming, result: &Value) -> State {
    let body = rpc::result_response(
        incoming.id.as_deref().unwrap_or("null"),
        result.to_string().as_bytes(),
    );
    State::Local(Some(Final {
        code: None,
        body: body.into(),
        fault: None,
    }))
}

/// A server's capabilities as far as they can be carried: no change notices, subscriptions or tasks.
fn carried(capabilities: &Map<String, Value>) -> Map<String, Value> {
    const TASKS: &str = "io.modelcontextprotocol/tasks";
    let mut carried = capabilities.clone();
    carried.remove("tasks");
    for capability in carried.values_mut().filter_map(Value::as_object_mut) {
        capability.remove("listChanged");
        capability.remove("subscribe");
        capability.remove(TASKS);
    }
    carried
}
