//! `/servers` and `/status`: the servers of the platform over REST, for people and programs that run it.

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path, Request},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use bus_schema::{
    ServerId,
    registry::{Declaration, MAX_DECLARATION_BYTES, Over, Put, Remove, Status, Written},
};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::{
    fleet::{Fleet, Private, Server},
    kept::{Refused, if_match, members, over, read_id, read_named, taken, with_etag},
    tools::Flag,
    viewer::Viewer,
};
use crate::{auth::Admitted, upstream::remote::RemoteOptions};

/// How many servers a page of the list has unless somebody asks for fewer.
const PAGE: usize = 1_000;

/// The routes that only tell, behind what says whose fleet it is.
pub(super) fn reader_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/servers", get(list))
        .route("/servers/{id}", get(show))
        .route("/status", get(status))
}

/// The routes that change something.
pub(super) fn operator_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/servers", post(create))
        .route("/servers/{id}", put(replace).delete(remove))
}

async fn list(
    Extension(fleet): Extension<Fleet>,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Refused> {
    let wanted = Wanted::read(uri.query().unwrap_or_default())?;
    let mut servers = fleet
        .servers()
        .into_values()
        .filter(|server| wanted.matches(server) && viewer.sees(&fleet, &server.id))
        .peekable();
    let mut page = Vec::new();
    while page.len() < wanted.limit
        && let Some(server) = servers.next()
    {
        page.push(server);
    }
    let next = servers.peek().and(page.last()).map(|last| last.id.to_string());
    let servers: Vec<_> = page.iter().map(|server| viewer.of_server(server)).collect();
    let mut answer = json!({ "servers": servers });
    if let Some(next) = next {
        answer["nextCursor"] = next.into();
    }
    Ok(axum::Json(answer).into_response())
}

/// What a list is asked for.
struct Wanted {
    /// All of which a server must have.
    tags: Vec<String>,
    status: Option<Status>,
    after: Option<String>,
    limit: usize,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, Refused> {
        let mut wanted = Self {
            tags: Vec::new(),
            status: None,
            after: None,
            limit: PAGE,
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "tags" => wanted
                    .tags
                    .extend(value.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned)),
                "status" => wanted.status = Some(read_status(&value)?),
                "cursor" => wanted.after = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=PAGE).contains(limit));
                    let wrong = || Refused::bad_request(format!("limit is `{value}`; use 1 to {PAGE}"));
                    wanted.limit = limit.ok_or_else(wrong)?;
                }
                other => {
                    return Err(Refused::bad_request(format!(
                        "there is no parameter `{other}`; use tags, status, limit and cursor"
                    )));
                }
            }
        }
        Ok(wanted)
    }

    fn matches(&self, server: &Server) -> bool {
        let tags = server.tags();
        self.tags.iter().all(|tag| tags.contains(&tag.as_str()))
            && self.status.is_none_or(|status| status == server.status)
            && self
                .after
                .as_ref()
                .is_none_or(|after| server.id.as_str() > after.as_str())
    }
}

fn read_status(text: &str) -> Result<Status, Refused> {
    let known = Status::ALL.map(Status::as_str).join(", ");
    let status = Status::ALL.into_iter().find(|status| status.as_str() == text);
    status.ok_or_else(|| Refused::bad_request(format!("status is `{text}`; use one of {known}")))
}

async fn show(
    Extension(fleet): Extension<Fleet>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    // What somebody may not see is answered as what is not there.
    let server = find(&fleet, &id)?;
    if !viewer.sees(&fleet, &server.id) {
        return Err(unknown(&id));
    }
    let mut told = server.to_json();
    told.extend(fleet.details(&server).await);
    let revision = server.declared.as_ref().map(|(_, revision)| *revision);
    Ok(with_etag(axum::Json(viewer.of(told)).into_response(), revision))
}

fn find(fleet: &Fleet, id: &str) -> Result<Server, Refused> {
    let parsed = id.parse::<ServerId>().ok();
    let found = parsed.and_then(|id| fleet.server(&id));
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Refused {
    let message = format!("no server `{id}` is registered or on the bus");
    Refused::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn create(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    request: Request,
) -> Result<Response, Refused> {
    let declaration = read(request.into_body(), None).await?;
    write(&fleet, &operator, declaration, Over::Nothing).await
}

async fn replace(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let id = read_id(&id)?;
    let over = over(request.headers())?;
    let declaration = read(request.into_body(), Some(&id)).await?;
    write(&fleet, &operator, declaration, over).await
}

async fn write(
    fleet: &Fleet,
    operator: &Admitted,
    declaration: Declaration,
    over: Over,
) -> Result<Response, Refused> {
    if declaration.allow_private && fleet.private == Private::Refused {
        let message = "servers at private addresses may not be registered here; an operator allows it with `allow_private = true` under [registry]";
        return Err(Refused::unusable("allowPrivate", message));
    }
    declaration
        .check()
        .map_err(|bad| Refused::unusable(bad.field, bad.to_string()))?;
    RemoteOptions::check_declared(&declaration)
        .map_err(|bad| Refused::unusable(bad.field, bad.to_string()))?;
    let id = &declaration.id;
    if fleet.front.virtuals().get(id).is_some() {
        let message = format!("`{id}` is a virtual server; choose another id");
        return Err(Refused::new(StatusCode::CONFLICT, "exists", message));
    }
    let bus = fleet.front.bus();
    let written = bus
        .register(&operator.principal, &Put { declaration, over })
        .await?;
    let mut told = told(&written);
    let hidden = written.entry.declaration.hidden();
    let hidden: Vec<_> = hidden.into_iter().map(Flag::HiddenCharacters).collect();
    if !hidden.is_empty() {
        told.insert("warnings".to_owned(), json!(hidden));
    }
    let location = format!("/servers/{}", written.entry.declaration.id);
    Ok(taken(&location, told, written.was, written.revision))
}

async fn remove(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    let server = find(&fleet, &id)?;
    if fleet.front.virtuals().get(&server.id).is_some() {
        let message = format!("server `{id}` is a virtual one; remove it at /virtual-servers/{id}");
        return Err(Refused::new(StatusCode::CONFLICT, "is_virtual", message));
    }
    if server.declared.is_none() {
        let message = format!(
            "server `{id}` was not registered; it is on the bus by itself, and leaves when its process does"
        );
        return Err(Refused::new(StatusCode::CONFLICT, "not_registered", message));
    }
    let remove = Remove {
        id: server.id,
        revision: if_match(&headers)?,
    };
    fleet.front.bus().unregister(&operator.principal, &remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is said of a declaration that was taken: how it stands in the registry.
fn told(written: &Written) -> Map<String, Value> {
    let mut told = members(&written.entry.declaration);
    for (key, value) in [
        ("registeredAt", json!(written.entry.registered_at)),
        ("updatedAt", json!(written.entry.updated_at)),
        ("registeredBy", json!(written.entry.registered_by)),
        ("revision", json!(written.revision)),
    ] {
        told.insert(key.to_owned(), value);
    }
    told
}

async fn read(body: Body, id: Option<&ServerId>) -> Result<Declaration, Refused> {
    read_named(body, MAX_DECLARATION_BYTES, id, "declaration of a server").await
}

async fn status(Extension(fleet): Extension<Fleet>, Extension(viewer): Extension<Viewer>) -> Response {
    let mut servers = fleet.servers();
    servers.retain(|id, _| viewer.sees(&fleet, id));
    let count = |status| servers.values().filter(|server| server.status == status).count();
    let [healthy, degraded, down] = Status::ALL.map(count);
    let overall = if degraded + down == 0 {
        "operational"
    } else {
        "degraded"
    };
    let each: Vec<_> = servers
        .values()
        .map(|server| viewer.of(server.summary()))
        .collect();
    axum::Json(json!({
        "status": overall,
        "summary": { "total": servers.len(), "healthy": healthy, "degraded": degraded, "down": down },
        "servers": each,
    }))
    .into_response()
}
