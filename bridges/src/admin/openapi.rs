//! `/openapi.json`: the description of every REST route, as programs read it. It is kept by hand beside the routes, and held against
//! the running platform by the tests.

use axum::{Router, http::header, routing::get};

const DOCUMENT: &str = include_str!("openapi.json");

/// The route.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = || async { ([(header::CONTENT_TYPE, "application/json")], DOCUMENT) };
    Router::new().route("/openapi.json", get(document))
}
