//! What operators ask a process over HTTP: is it alive, is it ready, how does it do, and which servers there are.

mod blocks;
mod catalogue;
mod fleet;
mod guardrails;
mod kept;
mod limits;
mod naming;
mod openapi;
mod policy;
mod servers;
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
};

pub use fleet::{Browsers, Fleet, Private};
pub use naming::{BadNaming, Naming};
pub use tools::{ApprovedState, Flag, NotKnown, ServerTools, ToolState};
pub(crate) use viewer::Viewer;

/// How many connections operators have to a process without doors.
const MAX_CONNECTIONS: usize = 256;

/// `/healthz`, `/readyz` and `/metrics` for a process with doors; ready means that the bus is there and a server on it.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(front: Front) -> Router<S> {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(door_ready))
        .route(
            "/metrics",
            get(|State(front): State<Front>| async move { metrics(front.bus()) }),
        )
        .with_state(front)
        .merge(openapi::routes())
}

/// What is told of servers to everybody who may come in. Whoever mounts these says who looks, by a [`Viewer`] in the request.
pub(crate) fn reader_routes<S: Clone + Send + Sync + 'static>(fleet: Fleet) -> Router<S> {
    servers::reader_routes(fleet).with_state(())
}

/// How servers are registered, and all that is for operators alone. Whoever mounts these asks who comes.
pub(crate) fn operator_routes<S: Clone + Send + Sync + 'static>(fleet: Fleet) -> Router<S> {
    servers::operator_routes(fleet.clone())
        .merge(tools::routes(fleet.clone()))
        .merge(traffic::routes(fleet.clone()))
        .merge(blocks::routes(fleet.clone()))
        .merge(policy::routes(fleet.clone()))
        .merge(guardrails::routes(fleet.clone()))
        .merge(virtuals::routes(fleet))
        .with_state(())
}

/// What clients of the official MCP registry ask, for a process that serves Streamable HTTP.
pub(crate) fn catalogue<S: Clone + Send + Sync + 'static>(fleet: Fleet) -> Router<S> {
    catalogue::routes(fleet).with_state(())
}

/// The same for a process without doors; ready means that the bus is there.
fn bare_routes(bus: Bus) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route(
            "/readyz",
            get(|State(bus): State<Bus>| async move { ready(bus.is_connected(), None) }),
        )
        .route(
            "/metrics",
            get(|State(bus): State<Bus>| async move { metrics(&bus) }),
        )
        .with_state(bus)
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

async fn door_ready(State(front): State<Front>) -> Response {
    let servers = front.directory().snapshot().servers().count();
    ready(front.bus().is_connected(), Some(servers))
}

fn ready(bus: bool, servers: Option<usize>) -> Response {
    let ready = bus && servers != Some(0);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "ready": ready, "bus": bus, "servers": servers })),
    )
        .into_response()
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
