//! What the REST pages of records have in common that are kept under an id and a revision: refusals, bodies, and what tells their
//! revisions.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    ServerId,
    registry::{Over, Refusal, Was},
};
use bytes::Bytes;
use runtime::{registry::RegistryError, store::KeepError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Why a request is not granted.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn unusable(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable", message)
        }
    }
}

impl From<RegistryError> for Refused {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        let RegistryError::Refused { refusal, .. } = error else {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        };
        let (status, code) = match refusal {
            Some(Refusal::Bad { field }) => return Self::unusable(field, message),
            Some(Refusal::Exists | Refusal::OnTheBus) => (StatusCode::CONFLICT, "exists"),
            Some(Refusal::Unknown) => (StatusCode::NOT_FOUND, "not_found"),
            Some(Refusal::Changed) => (StatusCode::PRECONDITION_FAILED, "changed"),
            Some(Refusal::Forbidden { .. }) => (StatusCode::FORBIDDEN, "forbidden"),
            Some(Refusal::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            None => (StatusCode::BAD_GATEWAY, "registry_failed"),
        };
        Self::new(status, code, message)
    }
}

impl From<KeepError> for Refused {
    fn from(error: KeepError) -> Self {
        let (status, code) = match error {
            KeepError::Exists { .. } => (StatusCode::CONFLICT, "exists"),
            KeepError::Unknown { .. } => (StatusCode::NOT_FOUND, "not_found"),
            KeepError::Changed { .. } => (StatusCode::PRECONDITION_FAILED, "changed"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        (self.status, axum::Json(json!({ "error": error }))).into_response()
    }
}

/// The id in a path.
pub(super) fn read_id(id: &str) -> Result<ServerId, Refused> {
    id.parse()
        .map_err(|error| Refused::bad_request(format!("{error}")))
}

/// A body to its end.
pub(super) async fn read_whole(body: Body, max_bytes: usize) -> Result<Bytes, Refused> {
    to_bytes(body, max_bytes).await.map_err(|_| {
        let message = format!("the body is larger than {max_bytes} bytes, or did not come whole");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    })
}

/// A record as JSON, which need not repeat the id in the path. `what` says what it should be.
pub(super) async fn read_named<T: DeserializeOwned>(
    body: Body,
    max_bytes: usize,
    id: Option<&ServerId>,
    what: &str,
) -> Result<T, Refused> {
    let body = read_whole(body, max_bytes).await?;
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
        let message = format!("the body is no {what}: {error}");
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable", message)
    })
}

/// What a record says, to add to.
pub(super) fn members(record: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// The revision that a change is meant for.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.trim_matches('"').parse().ok();
    let wrong = || {
        Refused::bad_request(format!(
            "If-Match is `{text}`; send the ETag of the server as it was read"
        ))
    };
    revision.map(Some).ok_or_else(wrong)
}

/// What a replacement is written over.
pub(super) fn over(headers: &HeaderMap) -> Result<Over, Refused> {
    Ok(if_match(headers)?.map_or(Over::Anything, Over::Revision))
}

/// The answer for a record that was taken, with where it is and its revision.
pub(super) fn taken(location: &str, told: Map<String, Value>, was: Was, revision: u64) -> Response {
    let status = match was {
        Was::New => StatusCode::CREATED,
        Was::Changed | Was::Same => StatusCode::OK,
    };
    let mut response = (status, axum::Json(told)).into_response();
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    with_etag(response, Some(revision))
}

pub(super) fn with_etag(mut response: Response, revision: Option<u64>) -> Response {
    let etag = revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok());
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
