//! `/tasks`: work that outlives its client, looked after over REST by those whose it is and by operators.

mod answers;
mod desk;
mod telling;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Extension, FromRequestParts, Path, rejection::ExtensionRejection},
    http::{HeaderMap, StatusCode, Uri, request::Parts},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bus_schema::{
    header,
    task::{STANDINGS, Task},
};
use bytes::{Bytes, BytesMut};
use runtime::tasks::{Following, TaskError};
use serde_json::{json, value::RawValue};
use url::form_urlencoded;

use super::{
    fleet::Fleet,
    kept::{Refused, read_whole},
    viewer::Viewer,
};
use crate::{
    auth::Admitted,
    http::{Door, events, text_header},
};

pub use answers::BadAnswers;
pub use desk::{Answered, Answerer, TaskDesk, TaskFilter, TaskRefusal, Whose};
pub use telling::TaskTold;

/// How many tasks a page has unless somebody asks for more or fewer.
const PAGE: usize = 100;
/// The most that a page can have.
const MAX_PAGE: usize = 1_000;
/// How many bytes answers may have together.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// The id of the event after which nothing comes.
const LAST: &str = "end";

/// The routes for everybody who is let in, each for their own tasks. Operators have them for all of their tenant.
pub(super) fn reader_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(show))
        .route("/tasks/{id}/events", get(follow))
        .route("/tasks/{id}/cancel", post(cancel))
        .route("/tasks/{id}/answer", post(answer))
}

/// The routes for operators alone.
pub(super) fn operator_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/tasks/{id}/retry", post(retry))
        .route("/tasks/{id}/discard", post(discard))
}

impl From<TaskRefusal> for Refused {
    fn from(error: TaskRefusal) -> Self {
        let message = error.to_string();
        match error {
            TaskRefusal::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            TaskRefusal::BadCursor(_) => Self::bad_request(message),
            TaskRefusal::NotHeld { .. } => Self::new(StatusCode::CONFLICT, "not_held", message),
            TaskRefusal::Ended { .. } => Self::new(StatusCode::CONFLICT, "ended", message),
            TaskRefusal::NotAsked { .. } => Self::new(StatusCode::FORBIDDEN, "not_asked", message),
            TaskRefusal::Answers(BadAnswers::NotWaiting { .. }) => {
                Self::new(StatusCode::CONFLICT, "not_waiting", message)
            }
            TaskRefusal::Answers(BadAnswers::UnknownKey { key, .. } | BadAnswers::Wrong { key, .. }) => {
                Self::unusable(key, message)
            }
            TaskRefusal::Answers(BadAnswers::Nothing(_)) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable", message)
            }
            TaskRefusal::Kept(TaskError::SecondPerson) => {
                Self::new(StatusCode::FORBIDDEN, "second_person", message)
            }
            TaskRefusal::Kept(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
        }
    }
}

/// Somebody who has to do with tasks.
struct Asker {
    desk: TaskDesk,
    viewer: Viewer,
    who: Admitted,
}

impl Asker {
    fn whose(&self) -> Whose<'_> {
        match &self.viewer {
            Viewer::Operator => Whose::Everybodys,
            Viewer::Reader(_) => Whose::Of(&self.who.principal),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Extension(fleet) = Extension::<Fleet>::from_request_parts(parts, state).await?;
        let Extension(viewer) = Extension::from_request_parts(parts, state).await?;
        let Extension(who) = Extension::from_request_parts(parts, state).await?;
        let desk = fleet.task_desk();
        Ok(Self { desk, viewer, who })
    }
}

async fn list(asker: Asker, uri: Uri) -> Result<Response, Refused> {
    let wanted = read_filter(uri.query().unwrap_or_default())?;
    let page = asker.desk.list(asker.whose(), &wanted).await?;
    let tasks: Vec<_> = page.tasks.iter().map(TaskTold::short).collect();
    let mut answer = json!({ "tasks": tasks });
    if let Some(next) = page.next {
        answer["nextCursor"] = next.into();
    }
    Ok(axum::Json(answer).into_response())
}

fn read_filter(query: &str) -> Result<TaskFilter, Refused> {
    let mut wanted = TaskFilter {
        standings: Vec::new(),
        server: None,
        user: None,
        limit: PAGE,
        cursor: None,
    };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "status" => {
                for status in value.split(',') {
                    wanted.standings.push(read_standing(status)?);
                }
            }
            "server" => wanted.server = Some(value.into_owned()),
            "user" => wanted.user = Some(value.into_owned()),
            "cursor" => wanted.cursor = Some(value.into_owned()),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                let wrong = || Refused::bad_request(format!("limit is `{value}`; use 1 to {MAX_PAGE}"));
                wanted.limit = limit.ok_or_else(wrong)?;
            }
            other => {
                let known = "status, server, user, limit and cursor";
                let message = format!("there is no parameter `{other}`; use {known}");
                return Err(Refused::bad_request(message));
            }
        }
    }
    Ok(wanted)
}

fn read_standing(text: &str) -> Result<String, Refused> {
    if STANDINGS.contains(&text) {
        return Ok(text.to_owned());
    }
    let known = STANDINGS.join(", ");
    let message = format!("status is `{text}`; use one of {known}, or several with commas");
    Err(Refused::bad_request(message))
}

async fn show(asker: Asker, Path(id): Path<String>) -> Result<Response, Refused> {
    let task = asker.desk.show(asker.whose(), &id).await?;
    Ok(whole(&task))
}

async fn cancel(asker: Asker, Path(id): Path<String>) -> Result<Response, Refused> {
    let task = asker.desk.cancel(asker.whose(), &id).await?;
    Ok(whole(&task))
}

async fn retry(Extension(fleet): Extension<Fleet>, Path(id): Path<String>) -> Result<Response, Refused> {
    let task = fleet.task_desk().retry(&id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(TaskTold::whole(&task))).into_response())
}

async fn discard(
    Extension(fleet): Extension<Fleet>,
    Extension(operator): Extension<Admitted>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let by = &operator.principal.subject;
    let task = fleet.task_desk().discard(&id, by).await?;
    Ok(whole(&task))
}

async fn answer(asker: Asker, Path(id): Path<String>, body: Body) -> Result<Response, Refused> {
    // What is not there is told before anything is said of the answers.
    asker.desk.show(asker.whose(), &id).await?;
    let body = read_whole(body, MAX_ANSWER_BYTES).await?;
    let answers: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&body).map_err(|error| {
        let right = "{\"<question>\": <answer>}";
        Refused::bad_request(format!("the body is no answers: {error}; send {right}"))
    })?;
    let who = Answerer::Caller(&asker.who.principal);
    let answered = asker.desk.answer(asker.whose(), who, &id, &answers).await?;
    let told = json!({
        "id": answered.id,
        "answered": answered.answered,
        "outstanding": answered.outstanding,
    });
    Ok((StatusCode::ACCEPTED, axum::Json(told)).into_response())
}

async fn follow(
    asker: Asker,
    Extension(door): Extension<Arc<Door>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    if text_header(&headers, header::LAST_EVENT_ID) == Some(LAST) {
        asker.desk.show(asker.whose(), &id).await?;
        // So a browser does not come back for ever.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let task = asker.desk.follow(asker.whose(), &id).await?;
    let who = asker.who;
    Ok(events::respond(
        Bytes::new(),
        Events { task, who },
        door.stop.clone(),
    ))
}

/// A task as an event stream. Nothing waits for a slow reader: it is read when the client has taken what was before.
struct Events {
    task: Following,
    who: Admitted,
}

impl events::Source for Events {
    async fn next(&mut self) -> Option<Bytes> {
        let task = tokio::select! {
            task = self.task.next() => task?,
            // They come back with another token, if they may.
            _ = self.who.ended() => return None,
        };
        let mut out = BytesMut::new();
        let told = serde_json::to_vec(&TaskTold::whole(&task)).ok()?;
        events::write_message(&mut out, task.has_ended().then_some(LAST), &told);
        Some(out.freeze())
    }
}

fn whole(task: &Task) -> Response {
    axum::Json(TaskTold::whole(task)).into_response()
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        Principal, Request,
        task::{HOSTED, KEPT_MS, Order, Priority, State, TaskId},
    };

    use super::*;

    /// A task of somebody, with arguments that are nobody's business.
    pub(super) fn task(state: State) -> Task {
        let order = Order {
            id: TaskId::of(1),
            group: HOSTED.to_owned(),
            endpoint: "shop".to_owned(),
            request: Request {
                caller: String::new(),
                call: 0,
                server: "shop".to_owned(),
                method: "tools/call".to_owned(),
                name: Some("buy".to_owned()),
                principal: Principal::new("ann", "default"),
                protocol_version: "2026-07-28".to_owned(),
                door: "http".to_owned(),
                timeout_ms: 1,
                trace: None,
                chunked_bytes: 0,
                body: br#"{"secret":1}"#.to_vec().into(),
            },
            priority: Priority::Normal,
            created_ms: 1_000,
            kept_ms: KEPT_MS,
            start_ms: None,
            approval: None,
            at_most_once: false,
        };
        Task {
            state,
            ..Task::new(order)
        }
    }

    #[test]
    fn a_list_is_asked_for_by_several_standings_and_what_is_not_understood_is_named() {
        let wanted = read_filter("status=held,failed&status=queued&server=shop&user=ann&limit=5&cursor=q-1")
            .expect("right");
        assert_eq!(wanted.standings, ["held", "failed", "queued"]);
        assert_eq!(
            (wanted.server.as_deref(), wanted.user.as_deref()),
            (Some("shop"), Some("ann"))
        );
        assert_eq!((wanted.limit, wanted.cursor.as_deref()), (5, Some("q-1")));
        for wrong in [
            "status=done",
            "status=",
            "limit=0",
            "limit=1001",
            "limit=x",
            "state=held",
        ] {
            assert!(read_filter(wrong).is_err(), "{wrong}");
        }
    }
}
