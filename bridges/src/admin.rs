//! What operators ask a process over HTTP: is it alive, is it ready, how does it do, and which servers there are.

mod accounts;
mod blocks;
mod catalogue;
mod documents;
mod fleet;
mod guardrails;
mod kept;
mod limits;
mod naming;
mod openapi;
mod policy;
mod servers;
mod tasks;
mod tools;
mod traffic;
mod viewer;
mod virtuals;

use std::{io, net::SocketAddr, time::SystemTime};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use runtime::Bus;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    front::Front,
    http::serve::{Limits, serve},
    tenants::Tenants,
    upstream::remote::Connections,
};

pub use fleet::{Browsers, Fleet, Private};
pub use naming::{BadNaming, Naming};
pub use tasks::{Answered, Answerer, BadAnswers, TaskDesk, TaskFilter, TaskRefusal, TaskTold, Whose};
pub use tools::{ApprovedState, Flag, NotKnown, ServerTools, ToolState};
pub(crate) use viewer::Viewer;

/// How many connections operators have to a process without doors.
const MAX_CONNECTIONS: usize = 256;

/// `/healthz` and `/readyz` for a process with doors; ready means that the bus is there and a server on it.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(fronts: Tenants<Front>) -> Router<S> {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(doors_ready))
        .with_state(fronts)
        .merge(openapi::routes())
}

/// `/metrics`, which tells of all tenants together.
pub(crate) fn meters<S: Clone + Send + Sync + 'static>(bus: Bus) -> Router<S> {
    let told = get(|State(bus): State<Bus>| async move { metrics(&bus) });
    Router::new().route("/metrics", told).with_state(bus)
}

/// What is told of servers to everybody who may come in, and what everybody can do about their own tasks. Whoever mounts these says who looks, by a [`Viewer`] in the request, and at what, by
/// the [`Fleet`] of the viewer's tenant.
pub(crate) fn reader_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    servers::reader_routes().merge(tasks::reader_routes())
}

/// The accounts that users have connected. Whoever mounts these says who looks, as with [`reader_routes`].
pub(crate) fn account_routes<S: Clone + Send + Sync + 'static>(
    connections: Option<&Connections>,
) -> Router<S> {
    accounts::routes(connections)
}

/// How servers are registered, and all that is for operators alone. Whoever mounts these asks who comes, and puts the [`Fleet`] of the
/// operator's tenant into the request.
pub(crate) fn operator_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    servers::operator_routes()
        .merge(tools::routes())
        .merge(traffic::routes())
        .merge(blocks::routes())
        .merge(policy::routes())
        .merge(guardrails::routes())
        .merge(virtuals::routes())
        .merge(tasks::operator_routes())
}

/// What clients of the official MCP registry ask, for a process that serves Streamable HTTP.
pub(crate) fn catalogue<S: Clone + Send + Sync + 'static>() -> Router<S> {
    catalogue::routes()
}

/// The same for a process without doors; ready means that the bus is there.
fn bare_routes(bus: Bus) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route(
            "/readyz",
            get(|State(bus): State<Bus>| async move {
                ready(bus.is_connected(), true, json!({ "servers": null }))
            }),
        )
        .with_state(bus.clone())
        .merge(meters(bus))
}

/// A listener for operators, for processes that have no HTTP door.
pub struct AdminDoor {
    listener: TcpListener,
    local: SocketAddr,
    router: Router,
}

impl AdminDoor {
    /// Binds the port; port 0 picks a free one.
    ///
    /// # Errors
    /// What the system says when the port cannot be had.
    pub async fn bind(bus: Bus, listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let local = listener.local_addr()?;
        Ok(Self {
            listener,
            local,
            router: bare_routes(bus),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `stop`; then finishes the requests that have begun.
    pub async fn serve(self, stop: CancellationToken) {
        info!(address = %self.local, "metrics and health are served");
        let limits = Limits {
            connections: MAX_CONNECTIONS,
            ..Limits::default()
        };
        serve(self.listener, self.router, limits, stop).await;
    }
}

async fn healthy() -> &'static str {
    "ok"
}

async fn doors_ready(State(fronts): State<Tenants<Front>>) -> Response {
    let bus = fronts.each().all(|(_, front)| front.bus().is_connected());
    let each = fronts
        .each()
        .map(|(_, front)| front.directory().snapshot().servers().count());
    let servers: usize = each.sum();
    // Anybody may ask; how many servers others have is no matter of a tenant's.
    let told = match fronts.are_several() {
        true => json!({}),
        false => json!({ "servers": servers }),
    };
    ready(bus, servers > 0, told)
}

fn ready(bus: bool, serves: bool, mut told: serde_json::Value) -> Response {
    let ready = bus && serves;
    told["ready"] = ready.into();
    told["bus"] = bus.into();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(told)).into_response()
}

fn metrics(bus: &Bus) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        bus.metrics().render(),
    )
        .into_response()
}

/// A moment as all answers spell it.
fn rfc3339(moment: SystemTime) -> Option<String> {
    OffsetDateTime::from(moment).format(&Rfc3339).ok()
}
