//! `/guardrails`: what is looked for in calls, read and replaced over REST.

use axum::{
    Router,
    extract::{Extension, Request},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::guardrails::{Document, Set, Version};
use runtime::guardrails::Rails;
use serde::Deserialize;

use super::{
    fleet::Fleet,
    kept::{Refused, if_match, with_etag},
    policy::{read, refused},
};
use crate::auth::Admitted;

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/guardrails", get(show).put(replace))
}

/// What is put.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    document: Document,
    #[serde(default)]
    comment: String,
}

fn told(version: &Version) -> Response {
    with_etag(axum::Json(version).into_response(), Some(version.version))
}

fn unavailable(why: &str) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why)
}

async fn show(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    let all = fleet.front.bus().guardrails();
    all.ready().await;
    let store = all.store().ok_or_else(|| {
        unavailable("no guardrails are kept: this NATS has no JetStream, or does not answer")
    })?;
    let known = store
        .read(&operator.principal.tenant)
        .await
        .map_err(|error| unavailable(&format!("the guardrails cannot be read now: {error}")))?;
    let (version, _) = known.ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "no guardrails are kept; PUT some",
        )
    })?;
    Ok(told(&version))
}

async fn replace(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let over = if_match(&headers)?;
    let Put { document, comment } = read(request.into_body(), "set of guardrails").await?;
    let wish = Set {
        document,
        over,
        comment,
    };
    let version = fleet
        .front
        .bus()
        .set_document::<Rails>(&operator.principal, &wish)
        .await;
    Ok(told(&version.map_err(refused)?))
}
