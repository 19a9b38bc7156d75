//! `/policy`: who may do what, read, replaced and asked over REST.

use axum::{
    Router,
    extract::{Extension, Path, Request},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bus_schema::{
    Principal,
    policy::{Action, Annotations, Decision, Document, Policy, explain},
};
use runtime::{moment, policies::Rules};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    documents::{self, read},
    fleet::Fleet,
    kept::Refused,
};
use crate::auth::Admitted;

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/policy", get(show).put(replace))
        .route("/policy/versions", get(versions))
        .route("/policy/versions/{version}", get(show_version))
        .route("/policy/rollback", post(roll_back))
        .route("/policy/explain", post(answer))
}

/// A question: who wants what. Without a server it is about what operators do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    principal: Who,
    #[serde(default)]
    server: String,
    tool: Option<String>,
    prompt: Option<String>,
    resource: Option<String>,
    method: Option<String>,
    admin: Option<String>,
    arguments: Option<Value>,
    annotations: Option<Value>,
    at: Option<String>,
    /// A policy that is not kept.
    document: Option<Document>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    subject: String,
    issuer: Option<String>,
    client: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl Question {
    fn action(&self) -> Result<Action<'_>, Refused> {
        let server = self.server.as_str();
        let action = match (
            &self.tool,
            &self.prompt,
            &self.resource,
            &self.method,
            &self.admin,
        ) {
            (Some(tool), None, None, None, None) => Action::tool(server, tool),
            (None, Some(prompt), None, None, None) => Action::prompt(server, prompt),
            (None, None, Some(uri), None, None) => Action::resource(server, uri),
            (None, None, None, Some(method), None) => Action::method(server, method),
            (None, None, None, None, Some(action)) => return Ok(Action::admin(action)),
            _ => {
                let why = "write one of `tool`, `prompt`, `resource`, `method` and `admin`";
                return Err(Refused::unusable("tool", why));
            }
        };
        if server.is_empty() {
            return Err(Refused::unusable("server", "say whose it is that is asked about"));
        }
        let annotations = self.annotations.as_ref().map(|annotations| {
            let tool = json!({ "annotations": annotations });
            Annotations::of_tool(&tool.to_string())
        });
        Ok(action.with_annotations(annotations.unwrap_or_default()))
    }
}

async fn show(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    documents::show::<Rules>(&fleet, &operator).await
}

async fn show_version(
    Extension(fleet): Extension<Fleet>,
    Path(version): Path<String>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    documents::version::<Rules>(&fleet, &operator, &version).await
}

async fn versions(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    documents::versions::<Rules>(&fleet, &operator).await
}

async fn replace(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    documents::replace::<Rules>(&fleet, &operator, &headers, request, "policy").await
}

async fn roll_back(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    documents::roll_back::<Rules>(&fleet, &operator, &headers, request).await
}

async fn answer(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    let question: Question = read(request.into_body(), "question").await?;
    let Who {
        subject,
        issuer,
        client,
        roles,
        scopes,
    } = &question.principal;
    let tenant = &operator.principal.tenant;
    let principal = Principal {
        issuer: issuer.clone(),
        client: client.clone(),
        roles: roles.clone(),
        scopes: scopes.clone(),
        ..Principal::new(subject, tenant)
    };
    let arguments = question.arguments.as_ref().map(Value::to_string);
    let action = question.action()?;
    let action = match &arguments {
        Some(arguments) => action.with_arguments(arguments),
        None => action,
    };
    let now = match &question.at {
        Some(at) => moment::read(at).ok_or_else(|| {
            let why = format!("`{at}` is no time; write it as 2026-11-23T09:00:00Z");
            Refused::unusable("at", why)
        })?,
        None => std::time::SystemTime::now(),
    };
    let in_force = fleet.front.bus().policies().of(tenant);
    let told = match &question.document {
        Some(document) => {
            let policy = Policy::compile(document)
                .map_err(|bad| Refused::unusable(format!("document.{}", bad.at), bad.to_string()))?;
            explain(&policy, &principal, &action, now)
        }
        None => explain(in_force.policy(), &principal, &action, now),
    };
    let mut answer = json!({ "decision": told.decision.as_str(), "found": told.found });
    match &told.decision {
        Decision::NeedsScopes(scopes) => answer["scopes"] = json!(scopes),
        Decision::Denied { rule } => answer["rule"] = json!(rule),
        Decision::Allow | Decision::Hidden => {}
    }
    if let (Some(version), None) = (in_force.version, &question.document) {
        answer["version"] = json!(version);
    }
    Ok(axum::Json(answer).into_response())
}
