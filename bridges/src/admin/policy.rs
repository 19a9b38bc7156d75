//! `/policy`: who may do what, read, replaced and asked over REST.

use axum::{
    Router,
    extract::{Extension, Path, Request},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bus_schema::{
    Principal,
    kept::Rollback,
    policy::{Action, Annotations, Decision, Document, Policy, explain},
};
use runtime::{
    moment,
    policies::{PolicyStore, Rules},
    store::StoreError,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    documents::{read, refused, replace as replace_document, told, unavailable},
    fleet::Fleet,
    kept::{Refused, if_match},
};
use crate::auth::Admitted;

/// How many versions are told at once.
const MAX_VERSIONS: usize = 100;

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/policy", get(show).put(replace))
        .route("/policy/versions", get(versions))
        .route("/policy/versions/{version}", get(show_version))
        .route("/policy/rollback", post(roll_back))
        .route("/policy/explain", post(answer))
}

/// What is rolled back to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    to: u64,
    #[serde(default)]
    comment: String,
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

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        unavailable(format!("the policy cannot be read now: {error}"))
    }
}

fn no_version(what: &str) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", what)
}

async fn store(fleet: &Fleet) -> Result<PolicyStore, Refused> {
    let policies = fleet.front.bus().policies();
    policies.ready().await;
    policies
        .store()
        .cloned()
        .ok_or_else(|| unavailable("no policy is kept: this NATS has no JetStream, or does not answer"))
}

async fn show(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    let known = store(&fleet).await?.read(&operator.principal.tenant).await?;
    let (version, _) = known.ok_or_else(|| no_version("no policy is kept; PUT one"))?;
    Ok(told(&version))
}

async fn show_version(
    Extension(fleet): Extension<Fleet>,
    Path(version): Path<String>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    let unknown = || no_version("there is no such version of the policy");
    let number: u64 = version.parse().map_err(|_| unknown())?;
    let known = store(&fleet)
        .await?
        .version(&operator.principal.tenant, number)
        .await?;
    Ok(told(&known.ok_or_else(unknown)?))
}

async fn versions(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
) -> Result<Response, Refused> {
    let versions = store(&fleet)
        .await?
        .versions(&operator.principal.tenant, MAX_VERSIONS)
        .await?;
    Ok(axum::Json(json!({ "versions": versions })).into_response())
}

async fn replace(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    replace_document::<Rules>(&fleet, &operator, &headers, request, "policy").await
}

async fn roll_back(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let over = if_match(&headers)?;
    let Back { to, comment } = read(request.into_body(), "wish to go back").await?;
    let wish = Rollback { to, over, comment };
    let version = fleet
        .front
        .bus()
        .roll_back::<Rules>(&operator.principal, &wish)
        .await;
    Ok(told(&version.map_err(refused)?))
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
