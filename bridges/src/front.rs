//! The way of a request from any door to the server that answers it.
//!
//! An endpoint shows one server, with its own names, or all of them, with names that begin with the server's id. What an endpoint
//! says about itself and its lists is answered here; everything else goes over the bus as the client wrote it.

mod aggregate;
mod answering;
mod asking;
mod authorize;
mod bounds;
mod changes;
mod cutting;
mod define;
mod entrance;
mod faces;
mod keeper;
mod listening;
mod offering;
mod owner;
mod recording;
mod route;
mod search_first;
mod seeing;
mod task_owners;
mod tasks;
mod trace_ids;
mod traffic_rules;
mod versions;
mod virtual_servers;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bus_schema::{
    Body, Principal, ProtocolVersion, Request, RpcError, ServerId, TraceContext,
    mcp::{meta, method},
    rpc::{self, Kind},
};
use runtime::{
    Bus, Catalogue, Directory, Discovery, catalogue::Listed, limits::Running, tasks::Tasks, traffic::Plan,
    virtuals::Virtuals,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{askable::Askable, request::Incoming};

pub use answering::{Answering, Fault, Final, Step};
use answering::{Remote, State};
use authorize::Judged;
pub use authorize::{Barred, Weighed};
pub(crate) use bounds::blocked;
pub use bounds::{Bounds, Met};
use changes::Changes;
pub use changes::{Lists, Notice, Wanted, Watching};
pub use define::DefineError;
use listening::Listening;
use route::Route;
use task_owners::TaskOwners;
use tasks::Fate;
use trace_ids::Ids;
pub use traffic_rules::RuleError;
pub(crate) use versions::Stay;
pub use versions::Staying;
use versions::{for_trial, unversioned};

/// What the platform calls itself.
pub const IMPLEMENTATION: &str = "trunkline";
/// For how long a client may keep a list or description.
const LIST_TTL_MS: u64 = 5_000;

/// What a client sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// All servers, their tools and prompts under prefixed names.
    All,
    /// All servers, with two tools that find and call theirs.
    Search,
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
    /// What keeps a legacy session with the versions of servers that it has begun on.
    pub staying: Option<Staying>,
    /// How the limits stood that its call has met, once it has.
    pub met: Met,
    /// Cancelled when the door wants streams without an end to end.
    pub ending: CancellationToken,
}

/// Whether a notification is for nobody behind a door: those that the protocol defines are about the client's own session, and others of
/// its kind name no server on an endpoint of many.
pub(crate) fn says_nothing(endpoint: &Endpoint, called: &str) -> bool {
    let is_defined = method::NOTIFICATIONS.contains(&called);
    is_defined
        || (!matches!(endpoint, Endpoint::Server(_)) && called.starts_with(method::NOTIFICATION_PREFIX))
}

/// Takes requests from doors.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    bus: Bus,
    catalogue: Catalogue,
    aggregate: aggregate::Aggregate,
    discovery: Discovery,
    faces: faces::Faces,
    changes: Arc<Changes>,
    call_timeout: Duration,
    bounds: Bounds,
    task_owners: TaskOwners,
    tasks: Tasks,
    ids: Ids,
}

impl Front {
    /// A front on the bus. `call_timeout` is the longest that a call may take, `bounds` says how often callers may call and who may not at all.
    /// Who may do what, the policies of the bus say.
    #[must_use]
    pub fn new(
        bus: Bus,
        catalogue: Catalogue,
        virtuals: Virtuals,
        call_timeout: Duration,
        bounds: Bounds,
    ) -> Self {
        let aggregate = aggregate::Aggregate::new(catalogue.clone());
        let changes = Changes::start(&bus, catalogue.directory(), &virtuals);
        Self(Arc::new(Inner {
            faces: faces::Faces::new(catalogue.clone(), virtuals),
            discovery: Discovery::new(bus.clone(), catalogue.clone()),
            task_owners: TaskOwners::new(bus.clone()),
            tasks: Tasks::new(bus.clone()),
            bus,
            catalogue,
            aggregate,
            changes,
            call_timeout,
            bounds,
            ids: Ids::default(),
        }))
    }

    /// The longest that its callers wait, whatever a server would take.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.0.call_timeout
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

    async fn dispatch(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        trace: &TraceContext,
        judged: Option<Result<(), Box<Judged>>>,
    ) -> Result<State, RpcError> {
        match judged {
            Some(judged) => self.settle(caller, incoming, judged)?,
            None => self.allow(caller, incoming).await?,
        }
        if method::TASKS.contains(&incoming.method.as_str())
            && let Some(state) = Box::pin(self.hosted_task(caller, incoming)).await?
        {
            return Ok(state);
        }
        if incoming.method == method::DISCOVER {
            if let Endpoint::Server(id) = &caller.endpoint
                && self.card(&caller.endpoint).is_none()
            {
                return Ok(State::Local(Some(self.absent(incoming, id))));
            }
            return Ok(local_result(incoming, &self.discover(&caller.endpoint)));
        }
        if incoming.method == method::LISTEN {
            return self.listen(caller, incoming).await;
        }
        let route = match self.route(caller, incoming).await? {
            Ok(route) => route,
            Err(listed) => return Ok(listed),
        };
        let task = self.own_task(caller, incoming, &route).await?;
        let owner = self.owner(&caller.principal, incoming, &route.server);
        let running = match self.pass(caller, &route).await {
            Ok(running) => running,
            Err(exceeded) => {
                self.put_limited(caller, incoming, &exceeded);
                let last = Final::rate_limited(incoming.id.as_deref(), &exceeded);
                return Ok(State::Local(Some(last)));
            }
        };
        let mut auto = None;
        if self.may_be_task(incoming, &route) {
            match Box::pin(self.fate(caller, incoming, &route, trace)).await? {
                Fate::Call => {}
                Fate::Auto(call) => auto = Some(call),
                Fate::Answered(state) => return Ok(state),
            }
        }
        let remote = self.remote(caller, incoming, route, trace, task).await;
        Ok(State::Remote(Box::new(Remote {
            owner,
            running,
            auto,
            ..remote
        })))
    }

    /// Where a request goes, or what answers it here: a list of all servers.
    async fn route(&self, caller: &Caller, incoming: &Incoming) -> Result<Result<Route, State>, RpcError> {
        if let Endpoint::Server(id) = &caller.endpoint {
            return Ok(Ok(Route {
                server: id.clone(),
                name: incoming.name.as_ref().map(|name| name.value.clone()),
                method: incoming.method.clone(),
                body: incoming.body.clone(),
            }));
        }
        // What somebody sees costs a copy of who it is, and matters to lists only.
        let list = Listed::of(&incoming.method);
        let sight = list.and_then(|_| self.sight(&caller.principal));
        let Some(result) = self.0.aggregate.list(incoming, sight.as_ref()).await? else {
            return self.find_owner(&caller.principal, incoming).await.map(Ok);
        };
        let body = rpc::result_response(incoming.id.as_deref().unwrap_or("null"), &result);
        Ok(Err(State::Local(Some(Final {
            code: None,
            body: body.into(),
            fault: None,
        }))))
    }

    async fn listen(&self, caller: &Caller, incoming: &Incoming) -> Result<State, RpcError> {
        let (mut wanted, tasks) = listening::wanted(incoming, &self.capabilities(&caller.endpoint))?;
        let tasks = self.hear_tasks(caller, &tasks).await?;
        // What a caller may not read is nobody's to it.
        for (server, uris) in self.owners(&caller.endpoint, &wanted.uris).await {
            for uri in &uris {
                if self.authorize_resource(&caller.principal, &server, uri).is_err() {
                    self.put_unheard(caller, incoming, &server, uri);
                    wanted.uris.remove(uri);
                }
            }
        }
        let watching = self
            .watch(&caller.principal, &caller.endpoint, wanted.clone())
            .await;
        let id = incoming.id.as_deref().unwrap_or("null");
        let listening = Listening::new(watching, id, wanted, tasks, caller.ending.clone());
        Ok(State::Listening(Box::new(listening)))
    }

    /// Whose each resource is; those that are nobody's are left out.
    async fn owners(
        &self,
        endpoint: &Endpoint,
        uris: &BTreeSet<String>,
    ) -> Vec<(ServerId, BTreeSet<String>)> {
        match endpoint {
            _ if uris.is_empty() => Vec::new(),
            Endpoint::Server(id) => match self.virtual_server(endpoint) {
                Some(defined) => self.owners_of_chosen(&defined, uris).await,
                None => vec![(id.clone(), uris.clone())],
            },
            Endpoint::All | Endpoint::Search => {
                let mut owned: BTreeMap<ServerId, BTreeSet<String>> = BTreeMap::new();
                for uri in uris {
                    let owner = self.0.aggregate.owner_of_resource(uri, Askable::default(), None);
                    if let Ok(server) = owner.await {
                        owned.entry(server).or_default().insert(uri.clone());
                    }
                }
                owned.into_iter().collect()
            }
        }
    }

    async fn remote(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        mut route: Route,
        trace: &TraceContext,
        task: Option<String>,
    ) -> Remote {
        let snapshot = self.directory().snapshot();
        let mut state = None;
        if let Some((version, body)) = unversioned(incoming, &route.body) {
            (state, route.body) = (Some(version), body);
        }
        let tie = self.tie(incoming, &route.server);
        let version = self
            .version_begun(caller, &route.server, &snapshot, state.as_deref(), task)
            .await;
        let name = route.name.clone();
        let request = Request {
            caller: String::new(),
            call: 0,
            server: route.server.to_string(),
            method: route.method,
            name: route.name,
            principal: caller.principal.clone(),
            protocol_version: caller.protocol_version.to_string(),
            door: caller.door.to_owned(),
            timeout_ms: u64::try_from(self.0.call_timeout.as_millis()).unwrap_or(u64::MAX),
            trace: Some(trace.clone()),
            chunked_bytes: 0,
            body: Body(route.body),
        };
        let bus = &self.0.bus;
        let call = match tie.instance() {
            Some(instance) => bus.call_instance(request, instance),
            None => {
                let (server, called) = (&route.server, &incoming.method);
                let plan = Plan::new(bus, &snapshot, server, called, &caller.principal, version.begun());
                let may = self.0.catalogue.may_be_done_again(server, &plan, &request).await;
                let copy = may.copy.then(|| for_trial(incoming, &request.body.0)).flatten();
                let copy = copy.map(|body| Request {
                    body: Body(body),
                    ..request.clone()
                });
                plan.call(bus, request, may.retry, copy)
            }
        };
        Remote {
            owner: None,
            auto: None,
            noting: None,
            running: Running::default(),
            is_over: false,
            name,
            body: incoming.body.clone(),
            protocol: caller.protocol_version,
            server: route.server.to_string(),
            method: incoming.method.clone(),
            door: caller.door,
            started: Instant::now(),
            front: self.clone(),
            tie,
            expects_answer: incoming.kind == Kind::Request,
            call,
        }
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
