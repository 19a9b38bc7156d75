//! Large results for those whose they are: `GET /results/{id}`, whole or in ranges, and `DELETE` for those who want the room back.
//!
//! The key of a result has its owner in it, so what is somebody else's is as unknown as what is not there. A file is never held here: its
//! pieces are asked for as its reader takes them.

use std::{ops::Range, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use runtime::store::objects::{Info, ObjectError, ObjectKey, ObjectLimits, Objects, Reading};
use serde_json::json;
use tokio::time::sleep;
use tracing::warn;

use super::{Door, Listener, admission};
use crate::auth::Admitted;

/// How long a file may still be taken when the door closes; a client goes on with a range at another.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// No id of ours is longer.
const MAX_ID_BYTES: usize = 1024;
/// What RFC 8187 lets stand in a name as it is.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The route, behind the question who comes.
pub(super) fn routes(listener: &Listener) -> Router<Listener> {
    let letting_in = middleware::from_fn_with_state(listener.clone(), admission::let_in);
    let objects = Objects::new(&listener.0.bus, ObjectLimits::default());
    Router::new()
        .route("/results/{id}", get(give).delete(forget))
        .layer(Extension(objects))
        .route_layer(letting_in)
}

async fn give(
    Extension(objects): Extension<Objects>,
    Extension(door): Extension<Arc<Door>>,
    Extension(who): Extension<Admitted>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if id.len() > MAX_ID_BYTES {
        return unknown();
    }
    match objects.read(&ObjectKey::new(&who.principal, &id)).await {
        Ok(Some(reading)) => answer(&reading, &door, who, &headers),
        Ok(None) => unknown(),
        Err(error) => unavailable(&error),
    }
}

/// Makes room before a result expires.
async fn forget(
    Extension(objects): Extension<Objects>,
    Extension(who): Extension<Admitted>,
    Path(id): Path<String>,
) -> Response {
    if id.len() > MAX_ID_BYTES {
        return unknown();
    }
    let key = ObjectKey::new(&who.principal, &id);
    let forgotten = async {
        let found = objects.info(&key).await?;
        if found.is_some() {
            objects.delete(&key).await?;
        }
        Ok(found)
    };
    match forgotten.await {
        Ok(Some(_)) => StatusCode::NO_CONTENT.into_response(),
        Ok(None) => unknown(),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &ObjectError) -> Response {
    warn!(%error, "results cannot be had");
    let why = "results cannot be had at the moment; try again shortly";
    let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why);
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

fn unknown() -> Response {
    let why = "there is no such result of yours: it may have expired, or be somebody else's";
    refused(StatusCode::NOT_FOUND, "not_found", why)
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    let error = json!({ "error": { "code": code, "message": message } });
    (status, Json(error)).into_response()
}

fn answer(reading: &Reading, door: &Door, who: Admitted, asked: &HeaderMap) -> Response {
    let info = reading.info().clone();
    let tag = format!("\"{}\"", info.sha256);
    let mut response = if names(asked, header::IF_NONE_MATCH, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match wanted(asked, &tag, info.bytes) {
            Wanted::Whole => sent(reading, 0..info.bytes, StatusCode::OK, door, who),
            Wanted::Part(range) => {
                let says = format!("bytes {}-{}/{}", range.start, range.end - 1, info.bytes);
                let mut response = sent(reading, range, StatusCode::PARTIAL_CONTENT, door, who);
                put(&mut response, header::CONTENT_RANGE, &says);
                response
            }
            Wanted::Nothing => {
                let why = format!(
                    "the result has {} bytes, none of which are in the range",
                    info.bytes
                );
                let mut response = refused(StatusCode::RANGE_NOT_SATISFIABLE, "range", &why);
                let says = format!("bytes */{}", info.bytes);
                put(&mut response, header::CONTENT_RANGE, &says);
                return response;
            }
        }
    };
    describe(&mut response, &info, &tag);
    response
}

/// Sends a range, for as long as its reader may have it.
fn sent(reading: &Reading, range: Range<u64>, status: StatusCode, door: &Door, who: Admitted) -> Response {
    let length = range.end - range.start;
    let stop = door.stop.clone();
    let ended = async move {
        tokio::select! {
            _ = who.ended() => {}
            () = async { stop.cancelled().await; sleep(LAST_WORDS).await } => {}
        }
    };
    // A file that ends before its length is told apart from a whole one by every client.
    let pieces = reading.pieces(range).take_until(Box::pin(ended));
    let pieces = pieces.inspect(|piece| {
        if let Err(error) = piece {
            warn!(%error, "a result was cut off");
        }
    });
    let mut response = (status, Body::from_stream(pieces)).into_response();
    put(&mut response, header::CONTENT_LENGTH, &length.to_string());
    response
}

/// Says what a result is.
fn describe(response: &mut Response, info: &Info, tag: &str) {
    put(response, header::ETAG, tag);
    put(response, header::ACCEPT_RANGES, "bytes");
    // It is its owner's alone, and whether they may still have it is asked each time.
    put(response, header::CACHE_CONTROL, "private, no-cache");
    if response.status() == StatusCode::NOT_MODIFIED {
        return;
    }
    put(response, header::CONTENT_TYPE, &info.about.media_type);
    put(
        response,
        header::CONTENT_DISPOSITION,
        &saved_as(&info.about.file_name),
    );
    // What a server has made is no page of this site.
    put(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(
        response,
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    let digest: Option<Vec<u8>> = (0..info.sha256.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(info.sha256.get(at..at + 2)?, 16).ok())
        .collect();
    if let Some(digest) = digest {
        let says = format!("sha-256=:{}:", STANDARD.encode(digest));
        put(response, HeaderName::from_static("repr-digest"), &says);
    }
}

/// What no header can say is left out.
fn put(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// To be saved under a name, and never shown as a page.
fn saved_as(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| match c {
            '"' | '\\' | '/' => '_',
            c if c.is_ascii_graphic() || c == ' ' => c,
            _ => '_',
        })
        .collect();
    match plain == name {
        true => format!("attachment; filename=\"{plain}\""),
        false => format!(
            "attachment; filename=\"{plain}\"; filename*=UTF-8''{}",
            utf8_percent_encode(name, NAME)
        ),
    }
}

/// Whether a header names a tag, or any.
fn names(headers: &HeaderMap, name: HeaderName, tag: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|named| named.trim().trim_start_matches("W/"))
        .any(|named| named == tag || named == "*")
}

/// What of a result a request is for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A range that has nothing in it.
    Nothing,
}

/// Reads `Range`. What is no single range of bytes, or is meant for another version, is answered with the whole, as RFC 9110 has it.
fn wanted(headers: &HeaderMap, tag: &str, bytes: u64) -> Wanted {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = range
        .and_then(|range| range.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::Whole;
    };
    if let Some(only) = headers.get(header::IF_RANGE)
        && only.as_bytes() != tag.as_bytes()
    {
        return Wanted::Whole;
    }
    let range = match (first.trim(), last.trim()) {
        ("", last) => number(last).map(|last| bytes.saturating_sub(last)..bytes),
        (first, "") => number(first).map(|first| first..bytes),
        (first, last) => number(first)
            .zip(number(last))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| first..bytes.min(last.saturating_add(1))),
    };
    match range {
        None => Wanted::Whole,
        Some(range) if range.start >= range.end => Wanted::Nothing,
        Some(range) => Wanted::Part(range),
    }
}

/// Digits and nothing else. More than fit are more than any result has.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_rfc_9110_has_it() {
        let read = |range: &str, only: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            if let Some(only) = only {
                headers.insert(header::IF_RANGE, only.parse().unwrap());
            }
            wanted(&headers, "\"a\"", 10)
        };
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-5", Wanted::Part(2..6)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=9-99999999999999999999999", Wanted::Part(9..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("rows=0-1", Wanted::Whole),
        ] {
            assert_eq!(read(range, None), expected, "{range}");
        }
        assert_eq!(read("bytes=2-5", Some("\"a\"")), Wanted::Part(2..6));
        assert_eq!(read("bytes=2-5", Some("\"b\"")), Wanted::Whole);
        assert_eq!(wanted(&HeaderMap::new(), "\"a\"", 10), Wanted::Whole);
    }

    #[test]
    fn a_name_cannot_leave_its_header() {
        assert_eq!(saved_as("products.csv"), "attachment; filename=\"products.csv\"");
        assert_eq!(
            saved_as("Å\"/b.csv"),
            "attachment; filename=\"___b.csv\"; filename*=UTF-8''%C3%85%22%2Fb.csv"
        );
        assert!(HeaderValue::try_from(saved_as("a\r\nb: c")).is_ok());
    }
}
