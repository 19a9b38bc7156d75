//! The HTTP door: Streamable HTTP for both eras on `/mcp` (all servers; `/mcp/all` and `/mcp/search` say how) and `/servers/{id}/mcp` (one).
//!
//! A request passes the origin guard, is told apart by era, and goes to the modern ladder or to the legacy room. What both share,
//! turning an answer into JSON or an event stream, lives in `answer`.

mod admission;
mod answer;
mod body;
mod connect;
mod connection;
pub(crate) mod events;
mod legacy;
mod limited;
mod modern;
mod origin;
pub(crate) mod recording;
mod results;
pub(crate) mod serve;
mod sse;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, Method, StatusCode, header as http_header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::any,
};
use bus_schema::{
    ProtocolVersion, ServerId, TraceContext,
    audit::{Kind as Audited, Record},
    header,
    mcp::{Era, error},
    rpc::Kind,
};
use futures::future::join_all;
use runtime::{Bus, audit::Audit};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info};

use crate::{
    admin::{self, Browsers},
    auth::{Admitted, Auth, AuthError, Gate},
    front::{Endpoint, Front},
    legacy::{Doors, Room, batch},
    request::Incoming,
    tenants::Tenants,
    tls::{Tls, TlsError, TlsOptions},
    upstream::remote::Connections,
    ws,
};

pub use origin::{Allowed, BadOrigin};
pub use serve::MAX_CONNECTIONS;
use serve::{Bound, Limits};

/// The name of this door in envelopes and meters.
pub(crate) const DOOR: &str = "http";

/// How the door listens. Not `Debug`, as it may hold secrets.
#[derive(Clone)]
pub struct HttpOptions {
    /// The bus that all tenants are on.
    pub bus: Bus,
    /// Where; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Hosts and origins beside the loopback ones that clients may come with.
    pub allowed: Vec<String>,
    /// Which protocols are spoken.
    pub serves: Serves,
    /// What the paths show that name no server: all servers, or a search of their tools.
    pub shared: Endpoint,
    /// What is told of servers, by tenant.
    pub fleets: Tenants<admin::Fleet>,
    /// Who may read the catalogue.
    pub browsers: Browsers,
    /// How many connections it holds; one more is refused with 503.
    pub max_connections: usize,
    /// Who may come in.
    pub auth: Auth,
    /// How it speaks TLS from now on; without, it is spoken to as it is.
    pub tls: Option<watch::Receiver<TlsOptions>>,
    /// The accounts that users connect here; without it there are no pages for that.
    pub connections: Option<Connections>,
}

/// Which protocols one listener speaks; health and metrics stand beside them always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Streamable HTTP.
    Http,
    /// WebSocket.
    WebSocket,
    /// Both.
    Everything,
}

/// The bound HTTP door.
pub struct HttpDoor {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    audit: Audit,
    local: SocketAddr,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    conversations: TaskTracker,
}

/// Says why the door cannot open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpDoorError {
    /// Somebody else listens there.
    #[error("port {0} is in use; choose another with --listen (port 0 picks a free one)")]
    PortInUse(SocketAddr),
    /// The address is none of this machine's, or needs rights.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A configured origin is none.
    #[error(transparent)]
    Origin(#[from] BadOrigin),
    /// Everybody in the network could come in.
    #[error(
        "{0} can be reached from the network, and auth.mode = \"none\" lets in everybody who reaches it; configure [auth] (see docs/security.md), or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// Authentication cannot be had as it is configured.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What stands before all tenants: who comes in, and to which of them.
#[derive(Clone)]
pub(crate) struct Listener(Arc<Listening>);

struct Listening {
    bus: Bus,
    allowed: Allowed,
    gate: Arc<Gate>,
    /// What is behind, by tenant.
    doors: Tenants<Arc<Door>>,
}

/// What every request handler reaches: the door to one tenant's servers.
pub(crate) struct Door {
    pub(crate) front: Front,
    room: Room,
    fleet: admin::Fleet,
    /// What the paths show that name no server.
    pub(crate) shared: Endpoint,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stop: CancellationToken,
    /// WebSocket conversations, which outlive the request that began them.
    pub(crate) conversations: TaskTracker,
    large_bodies: body::Room,
}

impl Listener {
    /// Refuses what comes from a foreign site, with words for the client.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), String> {
        self.0.allowed.check(headers).map_err(|refusal| {
            debug!(%refusal, "refused a request by its origin");
            refusal.to_string()
        })
    }
}

impl HttpDoor {
    /// Binds the port.
    ///
    /// # Errors
    /// [`HttpDoorError`] when it cannot be had.
    pub async fn bind(doors: &Tenants<Doors>, options: HttpOptions) -> Result<Self, HttpDoorError> {
        let address = options.listen;
        if matches!(options.auth, Auth::None) && !address.ip().is_loopback() {
            return Err(HttpDoorError::Open(address));
        }
        // Where clients reach the platform is a name that they come with.
        let own = options.auth.public_origin()?;
        let names: Vec<String> = options.allowed.iter().cloned().chain(own).collect();
        let allowed = Allowed::new(address.ip().is_loopback(), &names)?;
        let tls = match options.tls {
            Some(options) => Some(Tls::open(options).await?),
            None => None,
        };
        let (listener, local) = listen(address).await?;
        let stop = CancellationToken::new();
        let gate = Arc::new(Gate::new(&options.auth, local, &doors.names())?);
        let (conversations, large_bodies) = (TaskTracker::new(), body::Room::default());
        let behind = |room: Room, fleet: &admin::Fleet| Door {
            front: room.front.clone(),
            room,
            fleet: fleet.clone(),
            shared: options.shared.clone(),
            gate: Arc::clone(&gate),
            stop: stop.clone(),
            conversations: conversations.clone(),
            large_bodies: large_bodies.clone(),
        };
        let both = doors.each().filter_map(|(tenant, doors)| {
            let fleet = options.fleets.of(tenant)?;
            Some((tenant.to_owned(), Arc::new(behind(doors.room(), fleet))))
        });
        let doors: Tenants<Arc<Door>> = both.collect();
        // A WebSocket's session lives as long as its connection, and is stored nowhere.
        if options.serves != Serves::WebSocket {
            join_all(doors.each().map(|(_, door)| door.room.sessions.prepare())).await;
        }
        let audit = options.bus.audit().clone();
        let before = Listener(Arc::new(Listening {
            bus: options.bus,
            allowed,
            gate,
            doors,
        }));
        Ok(Self {
            listener,
            tls,
            audit,
            local,
            router: routes(&before, options.serves, options.browsers, options.connections),
            limits: Limits {
                connections: options.max_connections,
                ..Limits::default()
            },
            stop,
            conversations,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `stop`; then finishes the requests that have begun.
    pub async fn serve(self, stop: CancellationToken) {
        info!(address = %self.local, "http door is open");
        // WebSocket conversations and open-ended streams have no end of their own.
        let stopping = async {
            stop.cancelled().await;
            self.stop.cancel();
        };
        let following = async {
            if let Some(tls) = &self.tls {
                tls.follow(stop.clone()).await;
            }
        };
        let listener = Bound::new(self.listener, self.tls.clone(), self.audit);
        let serving = serve::serve(listener, self.router, self.limits, stop.clone());
        tokio::join!(serving, stopping, following);
        self.conversations.close();
        self.conversations.wait().await;
    }
}

/// Takes a port, and says which it is.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), HttpDoorError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => HttpDoorError::PortInUse(address),
        _ => HttpDoorError::Listen { address, source },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Every route of the door.
fn routes(
    listener: &Listener,
    serves: Serves,
    browsers: Browsers,
    connections: Option<Connections>,
) -> Router {
    let mut router = Router::new();
    if serves != Serves::WebSocket {
        router = router
            .route("/mcp", any(all_servers))
            .route("/mcp/all", any(all_tools))
            .route("/mcp/search", any(search))
            .route("/servers/{id}/mcp", any(one_server))
            .merge(sse::routes());
    }
    if serves != Serves::Http {
        router = router
            .route("/ws", any(ws::all_servers))
            .route("/ws/all", any(ws::all_tools))
            .route("/ws/search", any(ws::search))
            .route("/servers/{id}/ws", any(ws::one_server));
    }
    router
        .route_layer(middleware::from_fn_with_state(listener.clone(), admission::admit))
        .merge(admission::documents())
        .merge(of_platform(listener))
        .merge(of_servers(listener, serves, browsers))
        .merge(connect::accounts(listener, connections.as_ref()))
        .merge(connections.map(connect::routes).unwrap_or_default())
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(listener.clone(), guard))
        .with_state(listener.clone())
}

/// What is told of the process itself.
fn of_platform(listener: &Listener) -> Router<Listener> {
    let Listening { bus, gate, doors, .. } = &*listener.0;
    let meters = admin::meters(bus.clone());
    let meters = match doors.are_several() && gate.asks() {
        true => meters.route_layer(middleware::from_fn_with_state(
            listener.clone(),
            admission::oversee,
        )),
        false => meters,
    };
    let each = doors.each();
    let fronts = each.map(|(tenant, door)| (tenant.to_owned(), door.front.clone()));
    meters.merge(admin::routes(fronts.collect()))
}

/// What is told of servers and done with them, and what they have left for somebody, each behind the question who may.
fn of_servers(listener: &Listener, serves: Serves, browsers: Browsers) -> Router<Listener> {
    let operating = middleware::from_fn_with_state(listener.clone(), admission::operate);
    let looking = middleware::from_fn_with_state(listener.clone(), admission::look);
    let browsing = middleware::from_fn_with_state(listener.clone(), admission::browse);
    let routes = admin::operator_routes()
        .route_layer(operating)
        .merge(results::routes(listener))
        .merge(admin::reader_routes().route_layer(looking.clone()));
    // The catalogue sends its clients to the endpoints of Streamable HTTP.
    if serves == Serves::WebSocket {
        return routes;
    }
    let catalogue = admin::catalogue();
    routes.merge(match browsers {
        Browsers::Anybody => catalogue.route_layer(browsing),
        Browsers::LetIn => catalogue.route_layer(looking),
    })
}

async fn all_servers(
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    request: Request,
) -> Response {
    let endpoint = door.shared.clone();
    handle(door, endpoint, &who, request).await
}

async fn all_tools(
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    request: Request,
) -> Response {
    handle(door, Endpoint::All, &who, request).await
}

async fn search(
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    request: Request,
) -> Response {
    handle(door, Endpoint::Search, &who, request).await
}

async fn one_server(
    Extension(door): Extension<Arc<Door>>,
    Path(id): Path<String>,
    Extension(who): Extension<Admitted>,
    request: Request,
) -> Response {
    match id.parse::<ServerId>() {
        Ok(id) => handle(door, Endpoint::Server(id), &who, request).await,
        Err(error) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    }
}

/// Stands before every route, health and metrics included, and before any look at who comes.
async fn guard(State(listener): State<Listener>, request: Request, next: Next) -> Response {
    if let Err(refusal) = listener.check_origin(request.headers()) {
        recording::put(&listener, &request, Record::refused(Audited::Request, "origin"));
        return (StatusCode::FORBIDDEN, refusal).into_response();
    }
    recording::followed(listener, request, next).await
}

async fn handle(door: Arc<Door>, endpoint: Endpoint, who: &Admitted, request: Request) -> Response {
    match *request.method() {
        Method::POST => post(door, endpoint, who, request).await,
        Method::GET => legacy::get(&door, endpoint, who, request.headers()).await,
        Method::DELETE => legacy::end_session(&door, &endpoint, who, request.headers()).await,
        _ => method_not_allowed(),
    }
}

fn method_not_allowed() -> Response {
    let allow = [(http_header::ALLOW, "GET, POST, DELETE")];
    let why = "send MCP messages with POST; GET needs a session of protocol version 2025-11-25 or older";
    (StatusCode::METHOD_NOT_ALLOWED, allow, why).into_response()
}

async fn post(door: Arc<Door>, endpoint: Endpoint, who: &Admitted, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let whole = match body::read(&headers, body, &door.large_bodies).await {
        Ok(whole) => whole,
        Err(response) => return response,
    };
    if headers.contains_key(header::SESSION_ID) && !says_modern(&headers) && batch::is_batch(&whole.bytes) {
        return legacy::batch(&door, endpoint, who, &headers, whole).await;
    }
    let body::Whole { bytes, room } = whole;
    let whole_text = bytes.clone();
    let incoming = match Incoming::read(bytes) {
        Ok(incoming) => incoming,
        Err(refused) => {
            // Wrong parameters in a legacy session are an answer like any other; an unreadable message is nobody's.
            let in_session =
                headers.contains_key(header::SESSION_ID) && refused.error.code == error::INVALID_PARAMS;
            let status = if in_session {
                StatusCode::OK
            } else {
                StatusCode::BAD_REQUEST
            };
            let response = answer::error(status, refused.id.as_deref(), &refused.error);
            return recording::mark(
                response,
                Record::refused(Audited::Request, "malformed").about(&whole_text),
            );
        }
    };
    match era_of(&headers, &incoming) {
        Era::Modern => {
            let response = modern::handle(&door, endpoint, who, &headers, incoming).await;
            drop(room);
            response
        }
        Era::Legacy => legacy::handle(&door, endpoint, who, &headers, incoming, room).await,
    }
}

/// Tells the era of a message: by its metadata, else by a version header that no legacy client sends. A handshake without
/// modern metadata is a legacy one whatever the header says.
fn era_of(headers: &HeaderMap, incoming: &Incoming) -> Era {
    if incoming.meta.is_modern {
        return Era::Modern;
    }
    if incoming.method == bus_schema::mcp::method::INITIALIZE || incoming.kind == Kind::Response {
        return Era::Legacy;
    }
    if says_modern(headers) {
        Era::Modern
    } else {
        Era::Legacy
    }
}

/// Whether the version in the header is a modern one. Versions are dates: what is later than all legacy ones is meant as modern, and
/// refused there by name.
fn says_modern(headers: &HeaderMap) -> bool {
    text_header(headers, header::PROTOCOL_VERSION)
        .is_some_and(|version| version > ProtocolVersion::NEWEST_LEGACY.as_str())
}

/// A header as text; one that is no visible ASCII reads as absent.
pub(crate) fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
}

pub(crate) fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = text_header(headers, header::TRACEPARENT)?;
    TraceContext::parse(parent, text_header(headers, header::TRACESTATE))
}
