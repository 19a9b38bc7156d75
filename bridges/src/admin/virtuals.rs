//! `/virtual-servers`: endpoints of chosen tools, prompts and resources, defined over REST.

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path, Request},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::{
    ServerId,
    registry::Over,
    virtual_server::{Defined, MAX_DEFINITION_BYTES, VirtualServer},
};
use runtime::virtuals::Virtual;
use serde_json::{Map, Value, json};

use super::{
    fleet::Fleet,
    kept::{Refused, if_match, members, over, read_id, read_named, taken, with_etag},
};
use crate::{auth::Admitted, front::DefineError};

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/virtual-servers", get(list).post(create))
        .route("/virtual-servers/{id}", get(show).put(replace).delete(remove))
}

impl From<DefineError> for Refused {
    fn from(error: DefineError) -> Self {
        let message = error.to_string();
        match error {
            DefineError::Bad(bad) => Self::unusable(bad.field, message),
            DefineError::IsServer(_) => Self::new(StatusCode::CONFLICT, "exists", message),
            DefineError::Configured(_) => Self::new(StatusCode::CONFLICT, "configured", message),
            DefineError::Registry(error) => error.into(),
        }
    }
}

async fn list(Extension(fleet): Extension<Fleet>) -> Response {
    let table = fleet.front.virtuals().table();
    let servers: Vec<_> = table.servers.values().map(|known| told(known)).collect();
    axum::Json(json!({ "virtualServers": servers })).into_response()
}

async fn show(Extension(fleet): Extension<Fleet>, Path(id): Path<String>) -> Result<Response, Refused> {
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
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    let definition = read(request.into_body(), None).await?;
    write(&fleet, &operator, definition, Over::Nothing).await
}

async fn replace(
    Extension(fleet): Extension<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    let id = read_id(&id)?;
    let over = over(request.headers())?;
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
    let kept = fleet.front.define(&operator.principal, &definition, over).await?;
    let location = format!("/virtual-servers/{}", definition.id);
    let known = Virtual {
        definition,
        kept: Some((kept.record, kept.revision)),
    };
    Ok(taken(&location, told(&known), kept.was, kept.revision))
}

async fn remove(
    Extension(fleet): Extension<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let id = read_id(&id)?;
    fleet
        .front
        .undefine(&operator.principal, &id, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A definition with how it is kept.
fn told(known: &Virtual) -> Map<String, Value> {
    let mut told = members(&known.definition);
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
    read_named(body, MAX_DEFINITION_BYTES, id, "definition of a virtual server").await
}
