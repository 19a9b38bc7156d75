//! What `/policy` and `/guardrails` have in common: documents that are kept in versions, read from bodies and told in answers.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    kept::{Set, Version},
    registry::Refusal,
};
use runtime::{documents::Kind, registry::RegistryError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    fleet::Fleet,
    kept::{Refused, if_match, read_whole, with_etag},
};
use crate::auth::Admitted;

/// How many bytes a body may have.
const MAX_BYTES: usize = 512 * 1024;

/// What is put.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put<D> {
    document: D,
    #[serde(default)]
    comment: String,
}

pub(super) fn told<D: Serialize>(version: &Version<D>) -> Response {
    with_etag(axum::Json(version).into_response(), Some(version.version))
}

/// Has what is put taken by the registry. `what` is what a body is called that is none.
pub(super) async fn replace<K: Kind>(
    fleet: &Fleet,
    operator: &Admitted,
    headers: &HeaderMap,
    request: Request,
    what: &str,
) -> Result<Response, Refused> {
    let over = if_match(headers)?;
    let Put { document, comment } = read(request.into_body(), what).await?;
    let wish = Set {
        document,
        over,
        comment,
    };
    let bus = fleet.front.bus();
    let version = bus.set_document::<K>(&operator.principal, &wish).await;
    Ok(told(&version.map_err(refused)?))
}

pub(super) fn refused(error: RegistryError) -> Refused {
    let RegistryError::Refused { message, refusal } = error else {
        return unavailable(format!("no registry took it: {error}"));
    };
    match refusal {
        Some(Refusal::Bad { field }) => Refused::unusable(field, message),
        Some(Refusal::Unknown) => Refused::new(StatusCode::NOT_FOUND, "not_found", message),
        Some(Refusal::Changed) => Refused::new(StatusCode::PRECONDITION_FAILED, "changed", message),
        _ => unavailable(message),
    }
}

pub(super) fn unavailable(why: impl Into<String>) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why)
}

pub(super) async fn read<T: DeserializeOwned>(body: Body, what: &str) -> Result<T, Refused> {
    let body = read_whole(body, MAX_BYTES).await?;
    let text: Value = serde_json::from_slice(&body)
        .map_err(|error| Refused::bad_request(format!("the body is no JSON: {error}")))?;
    serde_json::from_value(text).map_err(|error| {
        let message = format!("the body is no {what}: {error}");
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable", message)
    })
}
