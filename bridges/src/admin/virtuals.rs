//! `/virtual-servers`: endpoints of chosen tools, prompts and resources, defined over REST.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Extension, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::{
    ServerId,
    registry::{Over, Was},
    virtual_server::{Defined, MAX_DEFINITION_BYTES, VirtualServer},
};
use runtime::virtuals::Virtual;
use serde_json::{Map, Value, json};

use super::{
    fleet::Fleet,
    servers::{Refused, if_match, with_etag},
};
use crate::{auth::Admitted, front::DefineError};

/// The routes, for a router whose state reaches the fleet.
pub(super) fn routes(fleet: Fleet) -> Router {
    Router::new()
        .route("/virtual-servers", get(list).post(create))
        .route("/virtual-servers/{id}", get(show).put(replace).delete(remove))
        .with_state(fleet)
}

impl From<DefineError> for Refused {
    fn from(error: DefineError) -> Self {
        let message = error.to_string();
        match error {
            DefineError::Bad(bad) => Self::unusable(bad.field, message),
            DefineError::Exists(_) | DefineError::IsServer(_) => {
                Self::new(StatusCode::CONFLICT, "exists", message)
            }
            DefineError::Configured(_) => Self::new(StatusCode::CONFLICT, "configured", message),
            DefineError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            DefineError::Changed { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "changed", message),
            DefineError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
        }
    }
}

async fn list(State(fleet): State<Fleet>) -> Response {
    let table = fleet.front.virtuals().table();
    let servers: Vec<_> = table.servers.values().map(|known| told(known)).collect();
    axum::Json(json!({ "virtualServers": servers })).into_response()
}

async fn show(State(fleet): State<Fleet>, Path(id): Path<String>) -> Result<Response, Refused> {
    let known = id
        .parse::<ServerId>()
        .ok()
        .and_then(|id| fleet.front.virtuals().get(&id));
    let unknown = || {
        let message = format!("no virtual server `{id}` is defined");
        Refused::new(StatusCode::NOT_FOUND, "not_found", message)
    };
    let known = known.ok_or_else(unknown)?;
    let mut told = told(&known);
    told.extend(fleet.front.lists_of(&known).await);
    let revision = known.kept.as_ref().map(|(_, revision)| *revision);
    Ok(with_etag(axum::Json(told).into_response(), revision))
}

async fn create(
    State(fleet): State<Fleet>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    let definition = read(request.into_body(), None).await?;
    write(&fleet, &operator, definition, Over::Nothing).await
}

async fn replace(
    State(fleet): State<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    let id: ServerId = id
        .parse()
        .map_err(|error| Refused::bad_request(format!("{error}")))?;
    let over = match if_match(request.headers())? {
        Some(revision) => Over::Revision(revision),
        None => Over::Anything,
    };
    let definition = read(request.into_body(), Some(&id)).await?;
    write(&fleet, &operator, definition, over).await
}

async fn write(
    fleet: &Fleet,
    operator: &Admitted,
    definition: VirtualServer,
    over: Over,
) -> Result<Response, Refused> {
    if fleet.declares(&definition.id) {
        let message = format!("a server `{}` is registered; choose another id", definition.id);
        return Err(Refused::new(StatusCode::CONFLICT, "exists", message));
    }
    let (defined, revision, was) = fleet.front.define(&operator.principal, &definition, over).await?;
    let status = match was {
        Was::New => StatusCode::CREATED,
        Was::Changed | Was::Same => StatusCode::OK,
    };
    let location = format!("/virtual-servers/{}", definition.id);
    let known = Virtual {
        definition,
        kept: Some((defined, revision)),
    };
    let mut response = (status, axum::Json(told(&known))).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(with_etag(response, Some(revision)))
}

async fn remove(
    State(fleet): State<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let parsed = id.parse::<ServerId>();
    let id = parsed.map_err(|error| Refused::bad_request(format!("{error}")))?;
    fleet
        .front
        .undefine(&operator.principal, &id, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A definition with how it is kept.
fn told(known: &Virtual) -> Map<String, Value> {
    let mut told = match serde_json::to_value(&known.definition) {
        Ok(Value::Object(told)) => told,
        _ => Map::new(),
    };
    let id = &known.definition.id;
    let source = if known.kept.is_some() {
        "registry"
    } else {
        "configuration"
    };
    told.insert("source".to_owned(), json!(source));
    told.insert("endpoint".to_owned(), json!(format!("/servers/{id}/mcp")));
    if let Some((defined, revision)) = &known.kept {
        let Defined {
            registered_at,
            updated_at,
            registered_by,
            ..
        } = defined;
        told.insert("registeredAt".to_owned(), json!(registered_at));
        told.insert("updatedAt".to_owned(), json!(updated_at));
        told.insert("registeredBy".to_owned(), json!(registered_by));
        told.insert("revision".to_owned(), json!(revision));
    }
    told
}

async fn read(body: Body, id: Option<&ServerId>) -> Result<VirtualServer, Refused> {
    let body = to_bytes(body, MAX_DEFINITION_BYTES).await.map_err(|_| {
        let message = format!("the body is larger than {MAX_DEFINITION_BYTES} bytes, or did not come whole");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    })?;
    let mut text: Value = serde_json::from_slice(&body)
        .map_err(|error| Refused::bad_request(format!("the body is no JSON: {error}")))?;
    if let (Some(id), Some(members)) = (id, text.as_object_mut()) {
        let named = members.entry("id").or_insert_with(|| json!(id));
        if *named != json!(id) {
            let message = format!("the path names `{id}`, and the body {named}; write one of them");
            return Err(Refused::unusable("id", message));
        }
    }
    serde_json::from_value(text).map_err(|error| {
        let message = format!("the body is no definition of a virtual server: {error}");
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable", message)
    })
}
