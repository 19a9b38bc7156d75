//! `/blocks`: who is stopped, over REST.

use axum::{
    Router,
    body::Body,
    extract::Extension,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus_schema::block::{Block, Release, Stop};
use runtime::moment;
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    fleet::Fleet,
    kept::{Refused, members, read_named},
};
use crate::auth::Admitted;

/// What a block may take as it is written.
const MAX_BODY_BYTES: usize = 128 * 1024;

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/blocks", get(list).post(block).delete(unblock))
}

/// A block as it is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wanted {
    subject: String,
    issuer: Option<String>,
    for_secs: Option<u64>,
    reason: Option<String>,
}

async fn list(Extension(fleet): Extension<Fleet>) -> axum::Json<Value> {
    let front = &fleet.front;
    let blocks = front.blocks().all(front.directory().tenant());
    let told: Vec<_> = blocks.iter().map(told).collect();
    axum::Json(json!({ "blocks": told }))
}

async fn block(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    body: Body,
) -> Result<Response, Refused> {
    let Wanted {
        subject,
        issuer,
        for_secs,
        reason,
    } = read_named(body, MAX_BODY_BYTES, None, "block").await?;
    let wish = Stop {
        subject,
        issuer,
        for_secs,
        reason,
    };
    let block = fleet.front.bus().block(&operator.principal, &wish).await?;
    Ok((StatusCode::CREATED, axum::Json(told(&block))).into_response())
}

async fn unblock(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    uri: Uri,
) -> Result<StatusCode, Refused> {
    let (mut subject, mut issuer) = (None, None);
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            "subject" => subject = Some(value.into_owned()),
            "issuer" => issuer = Some(value.into_owned()),
            other => {
                let message = format!("there is no parameter `{other}`; use subject and issuer");
                return Err(Refused::bad_request(message));
            }
        }
    }
    let Some(subject) = subject else {
        let message = "name who is let go: ?subject=…, and &issuer=… if the block has one";
        return Err(Refused::bad_request(message));
    };
    let wish = Release { subject, issuer };
    fleet.front.bus().unblock(&operator.principal, &wish).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A block, and for how long it still holds.
fn told(block: &Block) -> Value {
    let mut told = members(block);
    told.remove("tenant");
    if let Some(until) = told.remove("untilMs").and_then(|until| until.as_u64()) {
        let left = until.saturating_sub(moment::now_ms()).div_ceil(1_000);
        told.insert("secsLeft".to_owned(), left.into());
    }
    Value::Object(told)
}
