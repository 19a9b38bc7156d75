//! `/guardrails`: what is looked for in calls, read and replaced over REST.

use axum::{
    Router,
    extract::{Extension, Request},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::get,
};
use runtime::guardrails::Rails;

use super::{
    documents::{replace as replace_document, told, unavailable},
    fleet::Fleet,
    kept::Refused,
};
use crate::auth::Admitted;

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/guardrails", get(show).put(replace))
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
        .map_err(|error| unavailable(format!("the guardrails cannot be read now: {error}")))?;
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
    replace_document::<Rails>(&fleet, &operator, &headers, request, "set of guardrails").await
}
