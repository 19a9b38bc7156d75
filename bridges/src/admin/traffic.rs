//! `/servers/{id}/traffic`: how the calls of a server are spread, over REST.

use std::collections::BTreeMap;

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::{
    ServerId,
    traffic::{Kept, MAX_RULE_BYTES, Traffic},
};
use serde_json::{Map, Value, json};

use super::{
    fleet::Fleet,
    kept::{Refused, if_match, members, over, read_id, read_named, taken, with_etag},
};
use crate::{auth::Admitted, front::RuleError};

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/servers/{id}/traffic", get(show).put(set).delete(clear))
}

impl From<RuleError> for Refused {
    fn from(error: RuleError) -> Self {
        let message = error.to_string();
        match error {
            RuleError::Bad(bad) => Self::unusable(bad.field, message),
            RuleError::IsVirtual(_) => Self::new(StatusCode::CONFLICT, "virtual", message),
            RuleError::Registry(error) => error.into(),
        }
    }
}

async fn show(Extension(fleet): Extension<Fleet>, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = read_id(&id)?;
    let kept = fleet.front.directory().rules().read(&id).await;
    let kept = kept.map_err(runtime::store::KeepError::from)?;
    let (kept, revision) = kept.ok_or_else(|| {
        let message = format!("server `{id}` has no traffic rule: all its replicas share all its calls");
        Refused::new(StatusCode::NOT_FOUND, "not_found", message)
    })?;
    let told = told(&fleet, &kept, revision);
    Ok(with_etag(axum::Json(told).into_response(), Some(revision)))
}

async fn set(
    Extension(fleet): Extension<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let id = read_id(&id)?;
    let over = over(&headers)?;
    let rule: Traffic = read_named(body, MAX_RULE_BYTES, Some(&id), "traffic rule").await?;
    let kept = fleet.front.set_traffic(&operator.principal, &rule, over).await?;
    let location = format!("/servers/{id}/traffic");
    let told = told(&fleet, &kept.record, kept.revision);
    Ok(taken(&location, told, kept.was, kept.revision))
}

async fn clear(
    Extension(fleet): Extension<Fleet>,
    Path(id): Path<String>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let id = read_id(&id)?;
    let wanted = if_match(&headers)?;
    fleet
        .front
        .clear_traffic(&operator.principal, &id, wanted)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A rule with how it is kept, and which versions are there to follow it.
fn told(fleet: &Fleet, kept: &Kept, revision: u64) -> Map<String, Value> {
    let mut told = members(&kept.rule);
    told.insert("updatedAt".to_owned(), json!(kept.updated_at));
    told.insert("updatedBy".to_owned(), json!(kept.updated_by));
    told.insert("revision".to_owned(), json!(revision));
    told.insert("replicas".to_owned(), json!(replicas(fleet, &kept.rule.id)));
    told
}

/// How many replicas each version has on the bus.
fn replicas(fleet: &Fleet, id: &ServerId) -> BTreeMap<String, u32> {
    let mut counted = BTreeMap::new();
    for card in fleet.front.directory().snapshot().replicas(id) {
        *counted.entry(card.version.clone()).or_default() += 1;
    }
    counted
}
