//! Who may come in by HTTP: the gate before every endpoint, and the documents that tell clients where to get a token.
//!
//! The order is fixed: the origin first, then what the request shows, then its body. What it shows goes no further than here.

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::{Principal, RpcError, ServerId, policy::Action};

use super::{Door, answer};
use crate::{auth::endpoint_of, front::Endpoint};

/// What the path of an endpoint of Streamable HTTP ends with.
pub(super) const MCP: &str = "mcp";
/// What the path of an endpoint of HTTP+SSE ends with.
pub(super) const SSE: &str = "sse";

/// Stands before every endpoint.
pub(super) async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let Some(endpoint) = endpoint_of(request.uri().path()) else {
        return (StatusCode::NOT_FOUND, why_not(request.uri().path())).into_response();
    };
    match door.gate.admit(&endpoint, request.headers(), request.uri()).await {
        Ok(admitted) => {
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(admitted);
            next.run(request).await
        }
        Err(refusal) => door.gate.refuse(&endpoint, &refusal),
    }
}

/// Stands before what operators do.
pub(super) async fn operate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let action = admin_action(request.method(), request.uri().path());
    let decide = |principal: &Principal| {
        let in_force = door.front.in_force(principal);
        in_force.decide(principal, &Action::admin(&action))
    };
    let admitted = door.gate.operate(request.headers(), request.uri(), decide);
    match admitted.await {
        Ok(admitted) => {
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(admitted);
            next.run(request).await
        }
        Err(refusal) => door.gate.refuse("", &refusal),
    }
}

/// What an operator does by a request, as policies name it: what it is about, and whether anything changes by it.
fn admin_action(method: &Method, path: &str) -> String {
    let mut pieces = path.split('/').skip(1);
    let about = match (pieces.next().unwrap_or_default(), pieces.nth(1)) {
        ("servers", Some("tools")) => "tools",
        ("v0" | "v0.1", _) => "servers",
        (first, _) => first,
    };
    let changes = !matches!(*method, Method::GET | Method::HEAD) && path != "/policy/explain";
    let verb = if changes { "write" } else { "read" };
    format!("{about}:{verb}")
}

/// What is wrong with a path that has a route and leads to no endpoint: the id of its server.
fn why_not(path: &str) -> String {
    let id = path.split('/').nth(2).unwrap_or_default();
    match id.parse::<ServerId>() {
        Ok(_) => format!("`{path}` is no endpoint"),
        Err(error) => error.to_string(),
    }
}

/// The documents about the resources of this door, which need no token.
pub(super) fn documents() -> Router<Door> {
    Router::new()
        .route("/.well-known/oauth-protected-resource", get(of_platform))
        .route("/.well-known/oauth-protected-resource/{*path}", get(of_endpoint))
}

async fn of_platform(State(door): State<Door>) -> Response {
    document(&door, "")
}

async fn of_endpoint(State(door): State<Door>, Path(path): Path<String>) -> Response {
    document(&door, &format!("/{path}"))
}

fn document(door: &Door, path: &str) -> Response {
    match door.gate.document(path) {
        Some(document) => {
            // Pages of other sites may read it: that is how their clients find out where to ask for a token.
            let open = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))];
            (open, Json(document)).into_response()
        }
        None => (
            StatusCode::NOT_FOUND,
            "there is no such resource, or none that needs a token",
        )
            .into_response(),
    }
}

/// The answer to a call that needs more scopes than its caller has. The challenge names all that are needed, so that the client need
/// not come back for each.
pub(super) fn step_up(
    door: &Door,
    (endpoint, transport): (&Endpoint, &str),
    id: Option<&str>,
    scopes: Vec<String>,
) -> Response {
    let error = RpcError::insufficient_scope(&scopes);
    let refusal = door.gate.step_up(scopes);
    let path = match endpoint {
        Endpoint::All | Endpoint::Search => format!("/{transport}"),
        Endpoint::Server(id) => format!("/servers/{id}/{transport}"),
    };
    let mut response = answer::error(refusal.status(), id, &error);
    if let Some(challenge) = door.gate.challenge(&path, &refusal) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
