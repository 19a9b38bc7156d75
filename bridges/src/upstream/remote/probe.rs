//! The modern question that a server at an `http` URL is asked first, and what its answer says of it.

use std::time::Duration;

use axum::http::StatusCode;
use bus_schema::mcp::{Era, ProtocolVersion, method};
use serde_json::json;

use crate::upstream::{
    error::UpstreamError,
    handshake::{Opened, is_modern, named_in, own_meta, read_discovered},
};

use super::{error::RemoteError, exchange::Exchange, modern};

/// How long a server may take over the modern question; one that wakes up for it is slow.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Why a server is not spoken with in the modern way.
pub(super) enum NotModern {
    /// What it answered says that it does not know that way.
    Legacy(String),
    /// What happened says nothing about it, or says that it is modern and cannot be spoken with.
    Failed(UpstreamError),
}

pub(super) async fn discover(exchange: &Exchange) -> Result<Opened, NotModern> {
    let mut version = ProtocolVersion::MODERN;
    // Asked again at most once, with a version that the server has named.
    for attempt in 1..=2 {
        let params = json!({ "_meta": own_meta(version) });
        let told = modern::ask(exchange, version, method::DISCOVER, &params, PROBE_LIMIT).await;
        let refusal = match told.map(|told| told.result) {
            Ok(Ok(result)) => {
                return read_discovered(&result).map_err(|error| NotModern::Legacy(error.to_string()));
            }
            Ok(Err(refusal)) if is_modern(&refusal) => refusal,
            Ok(Err(refusal)) => return Err(NotModern::Legacy(refusal.to_string())),
            Err(error) if says_legacy(&error) => return Err(NotModern::Legacy(error.to_string())),
            Err(error) => return Err(NotModern::Failed(error.into())),
        };
        match named_in(&refusal, Era::Modern) {
            Some(named) if attempt == 1 => version = named,
            // It knows the modern way, and is set to older versions.
            None if named_in(&refusal, Era::Legacy).is_some() => {
                return Err(NotModern::Legacy(refusal.to_string()));
            }
            _ => {
                return Err(NotModern::Failed(UpstreamError::Refused {
                    method: method::DISCOVER,
                    source: refusal,
                }));
            }
        }
    }
    Err(NotModern::Failed(UpstreamError::NotModern(version.to_string())))
}

/// Whether this is how a server fails that does not know the modern way.
fn says_legacy(error: &RemoteError) -> bool {
    match error {
        RemoteError::Status { status, .. } => is_choice(*status),
        RemoteError::ContentType(_)
        | RemoteError::Unusable(_)
        | RemoteError::Unanswered
        | RemoteError::Late(_) => true,
        _ => false,
    }
}

/// A refusal of the request itself, as against one of whoever sends it, or too often.
pub(super) fn is_choice(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
        )
}
