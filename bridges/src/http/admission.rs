//! Who may come in by HTTP: the gate before every endpoint, and the documents that tell clients where to get a token.
//!
//! The order is fixed: the origin first, then what the request shows, then its body. What it shows goes no further than here.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::{
    Principal, RpcError, ServerId,
    audit::{Kind, Record},
    policy::{Action, Decision},
    principal::DEFAULT_TENANT,
};

use super::{
    Door, Listener, answer,
    connection::Remote,
    recording::{self, CameIn},
};
use crate::{
    admin::Viewer,
    auth::{Admitted, Gate, NOT_HERE, Refusal, Shown, endpoint_of},
    front::{Endpoint, blocked},
    request::Incoming,
};

/// What the path of an endpoint of Streamable HTTP ends with.
pub(super) const MCP: &str = "mcp";
/// What the path of an endpoint of HTTP+SSE ends with.
pub(super) const SSE: &str = "sse";

impl Listener {
    fn gate(&self) -> &Gate {
        &self.0.gate
    }
}

/// Stands before every endpoint.
pub(super) async fn admit(State(listener): State<Listener>, request: Request, next: Next) -> Response {
    let Some(endpoint) = endpoint_of(request.uri().path()) else {
        return (StatusCode::NOT_FOUND, why_not(request.uri().path())).into_response();
    };
    match listener.gate().admit(&endpoint, &shown(&request)).await {
        Ok(admitted) => go_on(&listener, admitted, request, next).await,
        Err(refusal) => refused(&listener, &endpoint, &refusal),
    }
}

/// Stands before what operators do.
pub(super) async fn operate(State(listener): State<Listener>, request: Request, next: Next) -> Response {
    match operator(&listener, request).await {
        Ok((admitted, mut request)) => {
            tell_of(&listener, &admitted.principal, &mut request);
            go_on(&listener, admitted, request, next).await
        }
        Err(response) => *response,
    }
}

/// Stands before what is somebody's own, whoever that is.
pub(super) async fn let_in(State(listener): State<Listener>, request: Request, next: Next) -> Response {
    match listener.gate().admit("", &shown(&request)).await {
        Ok(admitted) => go_on(&listener, admitted, request, next).await,
        Err(refusal) => refused(&listener, "", &refusal),
    }
}

/// Stands before what is told of all tenants together: it is for those who operate the platform itself, in the tenant `default`.
pub(super) async fn oversee(State(listener): State<Listener>, request: Request, next: Next) -> Response {
    match operator(&listener, request).await {
        Ok((admitted, request)) if admitted.principal.tenant != DEFAULT_TENANT => {
            let refusal =
                Refusal::Forbidden("this tells of all tenants, and is for operators in the tenant `default`");
            *not_for(
                &listener,
                &request,
                &admitted.principal,
                (&refusal, "other_tenant"),
            )
        }
        Ok((admitted, request)) => go_on(&listener, admitted, request, next).await,
        Err(response) => *response,
    }
}

/// Lets in who may do what a request does as an operator.
async fn operator(listener: &Listener, request: Request) -> Result<(Admitted, Request), Box<Response>> {
    let gate = listener.gate();
    let admitted = match gate.admit("", &shown(&request)).await {
        Ok(admitted) => admitted,
        Err(refusal) => return Err(Box::new(refused(listener, "", &refusal))),
    };
    let decision = decides(listener, &request)(&admitted.principal);
    let rule = decision.rule().to_owned();
    match gate.operate(decision) {
        Ok(()) => Ok((admitted, request)),
        Err(refusal) => Err(not_for(
            listener,
            &request,
            &admitted.principal,
            (&refusal, &rule),
        )),
    }
}

/// The answer to somebody who has come in and is no operator, or none for this.
fn not_for(
    listener: &Listener,
    request: &Request,
    principal: &Principal,
    (refusal, rule): (&Refusal, &str),
) -> Box<Response> {
    let action = admin_action(request.method(), request.uri().path());
    let asked = format!("{} {}", request.method(), request.uri().path());
    let record = Record::refused(Kind::Admin, rule).by(principal);
    let record = record.asking(&action, None).because(asked);
    Box::new(recording::mark(listener.gate().refuse("", refusal), record))
}

/// Stands before what is told of servers to everybody who may come in: operators see all of it, others what they may use.
pub(super) async fn look(State(listener): State<Listener>, mut request: Request, next: Next) -> Response {
    // Pages ask so beforehand whether they may, and cannot show anything yet.
    if request.method() == Method::OPTIONS {
        tell_of(&listener, &Principal::developer(), &mut request);
        return next.run(request).await;
    }
    let gate = listener.gate();
    match gate.admit("", &shown(&request)).await {
        Ok(admitted) => {
            let decide = decides(&listener, &request);
            let operates = !gate.asks() || decide(&admitted.principal) == Decision::Allow;
            let viewer = if operates {
                Viewer::Operator
            } else {
                Viewer::Reader(admitted.principal.clone())
            };
            request.extensions_mut().insert(viewer);
            tell_of(&listener, &admitted.principal, &mut request);
            go_on(&listener, admitted, request, next).await
        }
        Err(refusal) => refused(&listener, "", &refusal),
    }
}

/// Stands before what is told of servers where everybody may read it: those of the tenant `default`. Whoever shows something is looked at all
/// the same.
pub(super) async fn browse(state: State<Listener>, mut request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::AUTHORIZATION) || shown(&request).peer.is_some() {
        return look(state, request, next).await;
    }
    let viewer = match state.gate().asks() {
        true => Viewer::anybody(),
        false => Viewer::Operator,
    };
    tell_of(&state, &Principal::developer(), &mut request);
    request.extensions_mut().insert(viewer);
    next.run(request).await
}

/// What a request shows of who sends it.
fn shown(request: &Request) -> Shown<'_> {
    let remote = request.extensions().get::<Remote>();
    Shown {
        headers: request.headers(),
        uri: request.uri(),
        peer: remote.and_then(|remote| remote.peer.as_deref()),
    }
}

/// Decides whether somebody may do what a request does as an operator.
fn decides(listener: &Listener, request: &Request) -> impl Fn(&Principal) -> Decision + use<> {
    let action = admin_action(request.method(), request.uri().path());
    let policies = listener.0.bus.policies();
    move |principal| {
        let in_force = policies.of(&principal.tenant);
        in_force.decide(principal, &Action::admin(&action))
    }
}

/// What an operator does by a request, as policies name it: what it is about, and whether anything changes by it.
fn admin_action(method: &Method, path: &str) -> String {
    let mut pieces = path.split('/').skip(1);
    let about = match (pieces.next().unwrap_or_default(), pieces.nth(1)) {
        ("servers", Some(of @ ("tools" | "traffic"))) => of,
        ("v0" | "v0.1", _) => "servers",
        (first, _) => first,
    };
    let changes = !matches!(*method, Method::GET | Method::HEAD) && path != "/policy/explain";
    let verb = if changes { "write" } else { "read" };
    format!("{about}:{verb}")
}

/// Says whose servers are told of.
fn tell_of(listener: &Listener, principal: &Principal, request: &mut Request) {
    if let Some(door) = listener.0.doors.of(&principal.tenant) {
        request.extensions_mut().insert(door.fleet.clone());
    }
}

/// Lets somebody in to their tenant, unless they are stopped; what they have shown goes no further.
async fn go_on(listener: &Listener, admitted: Admitted, mut request: Request, next: Next) -> Response {
    let Some(door) = listener.0.doors.of(&admitted.principal.tenant) else {
        return refused(listener, "", &NOT_HERE);
    };
    let blocks = door.front.blocks();
    if blocks.stops(&admitted.principal) {
        let response = answer::error(StatusCode::FORBIDDEN, None, &blocked());
        let record = Record::refused(Kind::Block, "blocked").by(&admitted.principal);
        return recording::mark(response, record);
    }
    let came_in = CameIn(admitted.principal.clone());
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(Arc::clone(door));
    let remote = request.extensions().get::<Remote>();
    let peer = remote.and_then(|remote| remote.peer.clone());
    request.extensions_mut().insert(Admitted {
        blocks: Some(blocks.clone()),
        peer,
        ..admitted
    });
    let mut response = next.run(request).await;
    response.extensions_mut().insert(came_in);
    response
}

/// The answer to somebody who is not let in.
fn refused(listener: &Listener, endpoint: &str, refusal: &Refusal) -> Response {
    let record = Record::refused(Kind::Auth, refusal.rule()).because(refusal.to_string());
    recording::mark(listener.gate().refuse(endpoint, refusal), record)
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
pub(super) fn documents() -> Router<Listener> {
    Router::new()
        .route("/.well-known/oauth-protected-resource", get(of_platform))
        .route("/.well-known/oauth-protected-resource/{*path}", get(of_endpoint))
}

async fn of_platform(State(listener): State<Listener>) -> Response {
    document(&listener, "")
}

async fn of_endpoint(State(listener): State<Listener>, Path(path): Path<String>) -> Response {
    document(&listener, &format!("/{path}"))
}

fn document(listener: &Listener, path: &str) -> Response {
    match listener.gate().document(path) {
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
    asked: Option<&Incoming>,
    scopes: Vec<String>,
) -> Response {
    let id = asked.and_then(|incoming| incoming.id.as_deref());
    let error = RpcError::insufficient_scope(&scopes);
    let record = Record::refused(Kind::Policy, "needs_scopes").because(format!("needs {}", scopes.join(" ")));
    let record = match endpoint {
        Endpoint::Server(id) => record.at(id.as_str()),
        Endpoint::All | Endpoint::Search => record,
    };
    let record = match asked {
        Some(incoming) => record
            .asking(
                &incoming.method,
                incoming.name.as_ref().map(|name| name.value.as_str()),
            )
            .about(&incoming.body),
        None => record,
    };
    let refusal = door.gate.step_up(scopes);
    let path = match endpoint {
        Endpoint::All | Endpoint::Search => format!("/{transport}"),
        Endpoint::Server(id) => format!("/servers/{id}/{transport}"),
    };
    let mut response = answer::error(refusal.status(), id, &error);
    if let Some(challenge) = door.gate.challenge(&path, &refusal) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    recording::mark(response, record)
}
