//! What HTTP says of limits beside the answer: how the nearest one stands, and 429 with when to come again.
//!
//! Source: draft-ietf-httpapi-ratelimit-headers in the form of its third version, which clients know.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header as http_header},
    response::Response,
};
use bus_schema::header;

use crate::front::Met;

/// Adds to an answer what its call has met.
pub(super) fn told(mut response: Response, met: &Met) -> Response {
    let Some((standing, retry_after_ms)) = met.standing() else {
        return response;
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::RATE_LIMIT, standing.calls),
        (header::RATE_LIMIT_REMAINING, standing.remaining),
        (header::RATE_LIMIT_RESET, standing.reset_ms.div_ceil(1_000)),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    if let Some(retry_after_ms) = retry_after_ms {
        let secs = HeaderValue::from(retry_after_ms.div_ceil(1_000));
        headers.insert(http_header::RETRY_AFTER, secs);
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    }
    response
}
