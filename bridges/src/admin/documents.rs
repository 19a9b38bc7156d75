//! What `/policy` and `/guardrails` have in common: documents that are kept in versions, read from bodies and told in answers.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use bus_schema::kept::{Rollback, Set, Version};
use runtime::{
    documents::{Kind, Store},
    store::StoreError,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    fleet::Fleet,
    kept::{Refused, if_match, read_whole, with_etag},
};
use crate::auth::Admitted;

/// How many bytes a body may have.
const MAX_BYTES: usize = 512 * 1024;
/// How many versions are told at once.
const MAX_VERSIONS: usize = 100;

/// What is put.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put<D> {
    document: D,
    #[serde(default)]
    comment: String,
}

/// What is rolled back to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    to: u64,
    #[serde(default)]
    comment: String,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        unavailable(format!("what is kept cannot be read now: {error}"))
    }
}

/// The present version.
pub(super) async fn show<K: Kind<Document: Serialize>>(
    fleet: &Fleet,
    operator: &Admitted,
) -> Result<Response, Refused> {
    let known = store::<K>(fleet).await?.read(&operator.principal.tenant).await?;
    let (version, _) = known.ok_or_else(|| not_found(format!("no {} kept; PUT one", K::WHAT)))?;
    Ok(told(&version))
}

/// The latest versions, the newest first.
pub(super) async fn versions<K: Kind<Document: Serialize>>(
    fleet: &Fleet,
    operator: &Admitted,
) -> Result<Response, Refused> {
    let store = store::<K>(fleet).await?;
    let versions = store.versions(&operator.principal.tenant, MAX_VERSIONS).await?;
    Ok(axum::Json(json!({ "versions": versions })).into_response())
}

/// One version, by its number as a path has it.
pub(super) async fn version<K: Kind<Document: Serialize>>(
    fleet: &Fleet,
    operator: &Admitted,
    number: &str,
) -> Result<Response, Refused> {
    let unknown = || not_found(format!("{}: there is no version `{number}`", K::WHAT));
    let number: u64 = number.parse().map_err(|_| unknown())?;
    let store = store::<K>(fleet).await?;
    let known = store.version(&operator.principal.tenant, number).await?;
    Ok(told(&known.ok_or_else(unknown)?))
}

/// Has an earlier version taken again by the registry.
pub(super) async fn roll_back<K: Kind<Document: Serialize>>(
    fleet: &Fleet,
    operator: &Admitted,
    headers: &HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let over = if_match(headers)?;
    let Back { to, comment } = read(request.into_body(), "wish to go back").await?;
    let wish = Rollback { to, over, comment };
    let bus = fleet.front.bus();
    let version = bus.roll_back::<K>(&operator.principal, &wish).await;
    Ok(told(&version?))
}

/// The versions themselves, as soon as they can be had.
async fn store<K: Kind>(fleet: &Fleet) -> Result<Store<K>, Refused> {
    let documents = K::heard(fleet.front.bus());
    documents.ready().await;
    let store = documents.store().cloned();
    store.ok_or_else(|| {
        unavailable(format!(
            "no {} kept: this NATS has no JetStream, or does not answer",
            K::WHAT
        ))
    })
}

fn not_found(what: String) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", what)
}

fn told<D: Serialize>(version: &Version<D>) -> Response {
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
    Ok(told(&version?))
}

fn unavailable(why: impl Into<String>) -> Refused {
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
