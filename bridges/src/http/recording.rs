//! What is put on record of refused requests.
//!
//! Whoever refuses one marks its answer with what it knows; who asked, and from where, is added on the way out.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderValue, Method, Uri},
    middleware::Next,
    response::Response,
};
use bus_schema::{Principal, TraceContext, audit::Record, header};
use runtime::audit::source;

use super::{DOOR, Listener, connection::Remote};

/// What an answer is marked with that refuses something.
#[derive(Clone)]
struct Mark(Record);

/// Who has come in, as far as that is known when the answer goes out.
#[derive(Clone)]
pub(super) struct CameIn(pub(super) Principal);

/// What is known of a request before it is handled. Every request comes by here, so it is put into words only for a record.
struct Known {
    from: Option<IpAddr>,
    method: Method,
    uri: Uri,
    trace: Option<HeaderValue>,
}

impl Known {
    fn of(request: &Request) -> Self {
        let remote = request.extensions().get::<Remote>();
        Self {
            from: remote.map(|remote| remote.address),
            method: request.method().clone(),
            uri: request.uri().clone(),
            trace: request.headers().get(header::TRACEPARENT).cloned(),
        }
    }

    fn add_to(&self, record: Record) -> Record {
        let parent = self.trace.as_ref().and_then(|value| value.to_str().ok());
        let trace = parent.and_then(|parent| TraceContext::parse(parent, None));
        let own = trace.map(|trace| trace.trace_id().to_owned());
        let record = match record.method {
            Some(_) => record,
            // Never the query: a token may be in it.
            None => record.asking(
                &format!("{} {}", self.method, without_channel(self.uri.path())),
                None,
            ),
        };
        let record = match record.door.as_str() {
            "" => record.through(DOOR),
            _ => record,
        };
        Record {
            source: self.from.map(source),
            trace: record.trace.clone().or(own),
            ..record
        }
    }
}

/// A path without the piece that nobody else is to know: that of an HTTP+SSE stream, or of a link by which a user connects an account.
fn without_channel(path: &str) -> &str {
    const BEFORE: [&str; 2] = ["/messages/", "/connect/"];
    let cut = BEFORE
        .iter()
        .find_map(|before| Some(path.find(before)? + before.len()));
    cut.map_or(path, |end| &path[..end])
}

/// Marks the answer to a refused request.
pub(crate) fn mark(mut response: Response, record: Record) -> Response {
    response.extensions_mut().insert(Mark(record));
    response
}

/// Puts on record what a request was refused.
pub(super) fn put(listener: &Listener, request: &Request, record: Record) {
    listener.0.bus.audit().put(Known::of(request).add_to(record));
}

/// Handles a request, and puts on record what it was refused.
pub(super) async fn followed(listener: Listener, request: Request, next: Next) -> Response {
    let known = Known::of(&request);
    let mut response = next.run(request).await;
    let came_in = response.extensions_mut().remove::<CameIn>();
    if let Some(Mark(record)) = response.extensions_mut().remove::<Mark>() {
        let record = match came_in {
            Some(CameIn(principal)) => record.by(&principal),
            None => record,
        };
        listener.0.bus.audit().put(known.add_to(record));
    }
    response
}
