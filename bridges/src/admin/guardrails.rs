//! `/guardrails`: what is looked for in calls, read, replaced and taken back over REST.

use axum::{
    Router,
    extract::{Extension, Path, Request},
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use runtime::guardrails::Rails;

use super::{documents, fleet::Fleet, kept::Refused};
use crate::auth::Admitted;

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/guardrails", get(show).put(replace))
        .route("/guardrails/history", get(versions))
        .route("/guardrails/history/{version}", get(show_version))
        .route("/guardrails/rollback", post(roll_back))
}

async fn show(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    documents::show::<Rails>(&fleet, &operator).await
}

async fn versions(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    documents::versions::<Rails>(&fleet, &operator).await
}

async fn show_version(
    Extension(fleet): Extension<Fleet>,
    Path(version): Path<String>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    documents::version::<Rails>(&fleet, &operator, &version).await
}

async fn replace(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    documents::replace::<Rails>(&fleet, &operator, &headers, request, "set of guardrails").await
}

async fn roll_back(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    documents::roll_back::<Rails>(&fleet, &operator, &headers, request).await
}
