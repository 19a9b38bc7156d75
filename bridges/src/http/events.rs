//! Event streams that no modern request has: events with ids, that end when their source does or the process stops.

use std::{convert::Infallible, fmt::Write as _, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header as http_header},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::answer::write_event;

/// How many bytes of events go out in one write at most, as far as they are ready.
pub(super) const WRITE_BYTES: usize = 64 * 1024;
/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how long a client is to come back to a stream that was lost.
const RETRY: Duration = Duration::from_secs(1);

/// Where the text of an event stream comes from.
pub(crate) trait Source: Send + 'static {
    /// Waits for the next piece; `None` at the end. Dropping this loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

impl Source for mpsc::Receiver<Bytes> {
    async fn next(&mut self) -> Option<Bytes> {
        self.recv().await
    }
}

/// Streams what a source gives, after a first piece that may be empty, until `stop`.
pub(crate) fn respond(first: Bytes, source: impl Source, stop: CancellationToken) -> Response {
    let state = (Some(first), source, keep_alive(), stop);
    let body = stream::unfold(state, |(first, mut source, mut beat, stop)| async move {
        let piece = match first {
            Some(first) if !first.is_empty() => first,
            _ => tokio::select! {
                biased;
                piece = source.next() => piece?,
                () = stop.cancelled() => return None,
                _ = beat.tick() => Bytes::from_static(b":\n\n"),
            },
        };
        beat.reset();
        Some((Ok::<_, Infallible>(piece), (None, source, beat, stop)))
    });
    let headers = [
        (
            http_header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (
            http_header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        ),
        // Proxies that buffer would hold events back until the end.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Body::from_stream(body)).into_response()
}

fn keep_alive() -> Interval {
    let mut beat = interval(KEEP_ALIVE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    beat
}

/// Writes a message as one event.
pub(crate) fn write_message(out: &mut BytesMut, id: Option<&str>, message: &[u8]) {
    if let Some(id) = id {
        write_id(out, id);
    }
    write_event(out, message);
}

/// The event by which a client learns how to come back before it was told anything: an id, and no data.
pub(super) fn priming(id: &str) -> Bytes {
    let mut out = BytesMut::new();
    write_id(&mut out, id);
    let _ = write!(out, "retry: {}\ndata:\n\n", RETRY.as_millis());
    out.freeze()
}

fn write_id(out: &mut BytesMut, id: &str) {
    let _ = writeln!(out, "id: {id}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_their_id_and_the_first_one_nothing_else() {
        let mut out = BytesMut::new();
        write_message(&mut out, Some("g.1"), b"{}");
        assert_eq!(&out[..], b"id: g.1\nevent: message\ndata: {}\n\n");
        assert_eq!(&priming("g.0")[..], b"id: g.0\nretry: 1000\ndata:\n\n");
    }
}
