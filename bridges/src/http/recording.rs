//! What is put on record of refused requests.
//!
//! Whoever refuses one marks its answer with what it knows; who asked, and from where, is added on the way out.

use axum::{extract::Request, middleware::Next, response::Response};
use bus_schema::{Principal, TraceContext, audit::Record};
use runtime::audit::source;

use super::{DOOR, Door, connection::Remote, trace_of};

/// What an answer is marked with that refuses something.
#[derive(Clone)]
struct Mark(Record);

/// Who has come in, as far as that is known when the answer goes out.
#[derive(Clone)]
pub(super) struct CameIn(pub(super) Principal);

/// What is known of a request before it is handled.
struct Known {
    source: Option<String>,
    /// The method and path, never the query: a token may be in it.
    asked: String,
    trace: Option<TraceContext>,
}

impl Known {
    fn of(request: &Request) -> Self {
        let remote = request.extensions().get::<Remote>();
        Self {
            source: remote.map(|remote| source(remote.address)),
            asked: format!("{} {}", request.method(), without_channel(request.uri().path())),
            trace: trace_of(request.headers()),
        }
    }

    fn add_to(self, record: Record) -> Record {
        let trace = record
            .trace
            .clone()
            .or_else(|| self.trace.as_ref().map(|trace| trace.trace_id().to_owned()));
        let record = match record.method {
            Some(_) => record,
            None => record.asking(&self.asked, None),
        };
        let record = match record.door.as_str() {
            "" => record.through(DOOR),
            _ => record,
        };
        Record {
            source: self.source,
            trace,
            ..record
        }
    }
}

/// The address of an HTTP+SSE stream without the piece that nobody else is to know.
fn without_channel(path: &str) -> &str {
    const MESSAGES: &str = "/messages/";
    path.find(MESSAGES)
        .map_or(path, |at| &path[..at + MESSAGES.len()])
}

/// Marks the answer to a refused request.
pub(super) fn mark(mut response: Response, record: Record) -> Response {
    response.extensions_mut().insert(Mark(record));
    response
}

/// Puts on record what a request was refused.
pub(super) fn put(door: &Door, request: &Request, record: Record) {
    door.front.bus().audit().put(Known::of(request).add_to(record));
}

/// Handles a request, and puts on record what it was refused.
pub(super) async fn followed(door: Door, request: Request, next: Next) -> Response {
    let known = Known::of(&request);
    let mut response = next.run(request).await;
    let came_in = response.extensions_mut().remove::<CameIn>();
    if let Some(Mark(record)) = response.extensions_mut().remove::<Mark>() {
        let record = match came_in {
            Some(CameIn(principal)) => record.by(&principal),
            None => record,
        };
        door.front.bus().audit().put(known.add_to(record));
    }
    response
}
