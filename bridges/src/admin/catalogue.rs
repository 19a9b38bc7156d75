//! `/v0.1/servers`: the platform's servers as the official MCP registry tells of servers, so that clients of that can browse this.
//!
//! It is read-only, and the same stands under `/v0`, which some clients still ask. Source: the registry's description of its interface of
//! 2025-12-11. A page is in the order of names and versions, and a cursor names the last entry, so that what comes and goes in between
//! moves nothing else.

mod cursor;
mod listing;

use axum::{
    Json, Router,
    extract::{Extension, Path, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::form_urlencoded;

use super::{fleet::Fleet, viewer::Viewer};
use cursor::Cursor;
use listing::{Deleted, Listing};

/// How many entries a page has unless somebody asks for another number.
const PAGE: usize = 30;
/// The most that it has.
const LARGEST_PAGE: usize = 100;
/// The version that stands for the newest.
const LATEST: &str = "latest";

/// The routes, behind what says whose fleet it is.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/v0.1/servers", get(list).options(preflight))
        .route("/v0.1/servers/{name}/versions", get(versions).options(preflight))
        .route(
            "/v0.1/servers/{name}/versions/{version}",
            get(version).options(preflight),
        )
        .route("/v0/servers", get(list).options(preflight))
        .route("/v0/servers/{name}/versions", get(versions).options(preflight))
        .route(
            "/v0/servers/{name}/versions/{version}",
            get(version).options(preflight),
        )
        .layer(middleware::from_fn(open))
}

/// Any page may read the catalogue that the origin guard, which stands before this, lets in.
async fn open(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let anyone = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
    response
}

async fn preflight() -> (StatusCode, [(HeaderName, &'static str); 3]) {
    let told = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Accept",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "3600"),
    ];
    (StatusCode::NO_CONTENT, told)
}

/// Why a request is not granted, in the form that the registry's document gives.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl Refused {
    fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

async fn list(
    Extension(fleet): Extension<Fleet>,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    let wanted = Wanted::read(uri.query().unwrap_or_default())?;
    let listing = listing_for(&fleet, &viewer, &headers, wanted.deleted)?;
    let mut found = listing
        .entries
        .iter()
        .filter(|entry| wanted.matches(entry))
        .peekable();
    let mut page = Vec::new();
    while page.len() < wanted.limit
        && let Some(entry) = found.next()
    {
        page.push(entry);
    }
    let mut metadata = json!({ "count": page.len() });
    if let (Some(_), Some(last)) = (found.peek(), page.last()) {
        let next = Cursor {
            name: last.name.clone(),
            version: last.version.clone(),
            search: wanted.search,
        };
        metadata["nextCursor"] = next.to_string().into();
    }
    let servers: Vec<_> = page.into_iter().map(|entry| entry.to_json(&listing)).collect();
    Ok(Json(json!({ "servers": servers, "metadata": metadata })))
}

async fn versions(
    Extension(fleet): Extension<Fleet>,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    let listing = listing_for(&fleet, &viewer, &headers, deleted_in(&uri)?)?;
    let mut of_name: Vec<_> = listing.of(&name).collect();
    if of_name.is_empty() {
        return Err(unknown(&name));
    }
    of_name.sort_by(|a, b| {
        b.published
            .cmp(&a.published)
            .then_with(|| b.newness().cmp(&a.newness()))
    });
    let count = of_name.len();
    let servers: Vec<_> = of_name.into_iter().map(|entry| entry.to_json(&listing)).collect();
    Ok(Json(
        json!({ "servers": servers, "metadata": { "count": count } }),
    ))
}

async fn version(
    Extension(fleet): Extension<Fleet>,
    Extension(viewer): Extension<Viewer>,
    Path((name, version)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Value>, Refused> {
    let listing = listing_for(&fleet, &viewer, &headers, deleted_in(&uri)?)?;
    let mut of_name = listing.of(&name).peekable();
    if of_name.peek().is_none() {
        return Err(unknown(&name));
    }
    let found = of_name.find(|entry| entry.is(&version));
    let found = found.ok_or_else(|| {
        Refused(
            StatusCode::NOT_FOUND,
            format!("server `{name}` has no version `{version}`; `latest` stands for the newest"),
        )
    })?;
    Ok(Json(found.to_json(&listing)))
}

fn unknown(name: &str) -> Refused {
    Refused(
        StatusCode::NOT_FOUND,
        format!("no server `{name}` is in the catalogue; a slash in a name is sent as %2F"),
    )
}

fn listing_for(
    fleet: &Fleet,
    viewer: &Viewer,
    headers: &HeaderMap,
    deleted: Deleted,
) -> Result<Listing, Refused> {
    let base = fleet.naming.base(headers).ok_or_else(|| {
        Refused::bad("the request names no host; send a Host header, or configure public_url here")
    })?;
    Ok(Listing::new(fleet, viewer, base, deleted))
}

fn deleted_in(uri: &Uri) -> Result<Deleted, Refused> {
    deleted_of(uri.query().unwrap_or_default())
}

/// Whether a question is about deleted entries as well.
fn deleted_of(query: &str) -> Result<Deleted, Refused> {
    let mut deleted = Deleted::LeftOut;
    for (_, value) in form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "include_deleted") {
        deleted = match &*value {
            "true" => Deleted::Told,
            "false" => Deleted::LeftOut,
            _ => {
                return Err(Refused::bad(format!(
                    "include_deleted is `{value}`; use true or false"
                )));
            }
        };
    }
    Ok(deleted)
}

/// What a list is asked for.
struct Wanted {
    after: Option<Cursor>,
    /// In lower case.
    search: Option<String>,
    updated_since: Option<OffsetDateTime>,
    version: Option<String>,
    deleted: Deleted,
    limit: usize,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, Refused> {
        let mut wanted = Self {
            after: None,
            search: None,
            updated_since: None,
            version: None,
            deleted: deleted_of(query)?,
            limit: PAGE,
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "cursor" | "search" | "version" if value.is_empty() => {}
                "cursor" => {
                    let cursor = Cursor::read(&value);
                    let wrong = || {
                        Refused::bad(format!(
                            "cursor is `{value}`; send a nextCursor as it was received"
                        ))
                    };
                    wanted.after = Some(cursor.ok_or_else(wrong)?);
                }
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|limit| (1..=LARGEST_PAGE).contains(limit));
                    let wrong = || Refused::bad(format!("limit is `{value}`; use 1 to {LARGEST_PAGE}"));
                    wanted.limit = limit.ok_or_else(wrong)?;
                }
                "search" => wanted.search = Some(value.to_lowercase()),
                "updated_since" => {
                    let wrong = |_| {
                        Refused::bad(format!(
                            "updated_since is `{value}`; write a moment such as 2026-01-31T13:15:04Z"
                        ))
                    };
                    wanted.updated_since = Some(OffsetDateTime::parse(&value, &Rfc3339).map_err(wrong)?);
                }
                "version" => wanted.version = Some(value.into_owned()),
                // Clients of other registries send more, which is no reason to show them nothing.
                _ => {}
            }
        }
        // Who asks for what has changed wants to hear of what is gone, whatever else is said.
        if wanted.updated_since.is_some() {
            wanted.deleted = Deleted::Told;
        }
        // VS Code leaves the search out when it asks for the next page.
        if wanted.search.is_none() {
            wanted.search = wanted.after.as_ref().and_then(|after| after.search.clone());
        }
        Ok(wanted)
    }

    fn matches(&self, entry: &listing::Entry) -> bool {
        let later = self
            .after
            .as_ref()
            .is_none_or(|after| entry.place() > (after.name.as_str(), after.version.as_str()));
        let found = self.search.as_ref().is_none_or(|text| entry.has(text));
        let since = self.updated_since.is_none_or(|since| entry.updated >= since);
        let version = self.version.as_ref().is_none_or(|version| entry.is(version));
        later && found && since && version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_told_with_what_can() {
        for (query, words) in [
            ("limit=0", "1 to 100"),
            ("limit=101", "1 to 100"),
            ("limit=x", "1 to 100"),
            ("limit=", "1 to 100"),
            ("cursor=abc", "nextCursor"),
            ("updated_since=yesterday", "2026-01-31T13:15:04Z"),
            ("include_deleted=maybe", "true or false"),
        ] {
            let Refused(status, message) = Wanted::read(query).err().expect(query);
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(message.contains(words), "{message}");
        }
        let wanted = Wanted::read("cursor=&search=Desk&version=latest&x=1").expect("all is right");
        assert_eq!((wanted.limit, wanted.search.as_deref()), (PAGE, Some("desk")));
    }

    #[test]
    fn a_cursor_keeps_the_search_that_it_was_made_for() {
        let cursor = Cursor {
            name: "a/b".to_owned(),
            version: "1".to_owned(),
            search: Some("desk".to_owned()),
        };
        let wanted = Wanted::read(&format!("cursor={cursor}")).expect("it is ours");
        assert_eq!(wanted.search.as_deref(), Some("desk"));
        let other = Wanted::read(&format!("cursor={cursor}&search=x")).expect("it is ours");
        assert_eq!(other.search.as_deref(), Some("x"));
    }
}
