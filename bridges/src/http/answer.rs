//! Turns an answer into HTTP: one JSON body when the answer comes first, an event stream when notifications do.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header as http_header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{RpcError, header, mcp::error, rpc};
use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::modern::Accepts;
use crate::{
    auth::Admitted,
    front::{Answering, Fault, Final, Step},
    outbox,
};

/// How many bytes of events go out in one write at most, as far as they are ready.
const WRITE_BYTES: usize = 64 * 1024;
/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The HTTP status of a modern request that the door itself refuses.
pub(super) fn refusal_status(code: i64) -> StatusCode {
    match code {
        error::PARSE | error::INVALID_REQUEST | error::INVALID_PARAMS => StatusCode::BAD_REQUEST,
        _ => answer_status(code),
    }
}

/// The HTTP status that goes with a server's error.
fn answer_status(code: i64) -> StatusCode {
    match code {
        error::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        error::HEADER_MISMATCH | error::MISSING_CAPABILITY | error::UNSUPPORTED_VERSION => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

/// An error that the door itself answers with.
pub(super) fn error(status: StatusCode, id: Option<&str>, error: &RpcError) -> Response {
    json(status, rpc::error_response(id, error).into())
}

/// One JSON body.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http_header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// When an answer without an end of its own has to end.
pub(super) struct End {
    who: Admitted,
    ending: CancellationToken,
}

impl End {
    /// The end of what somebody may see. `ending` ends the answer when it is cancelled.
    pub(super) fn new(who: &Admitted, ending: CancellationToken) -> Self {
        Self {
            who: who.clone(),
            ending,
        }
    }
}

/// Answers a modern request. The status is not committed before the first message is known.
pub(super) async fn modern(mut answering: Answering, accepts: Accepts, end: End) -> Response {
    let trace = answering.trace.traceparent.clone();
    let mut response = loop {
        match answering.next().await {
            Step::Final(last) => break last_alone(last),
            Step::Part(_) if accepts == Accepts::JsonOnly => {}
            Step::Part(first) => break events(first, answering, end),
        }
    };
    if let Ok(value) = HeaderValue::try_from(trace) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(header::TRACEPARENT), value);
    }
    response
}

fn last_alone(last: Final) -> Response {
    let status = match (last.fault, last.code) {
        (Some(fault), _) => fault_status(fault),
        (None, Some(code)) => answer_status(code),
        (None, None) => StatusCode::OK,
    };
    let mut response = json(status, last.body);
    if matches!(last.fault, Some(Fault::Busy | Fault::NoReplica)) {
        response
            .headers_mut()
            .insert(http_header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A notification that was not taken.
pub(super) fn refused_notification(refused: Final) -> Response {
    let status = match (refused.fault, refused.code) {
        (Some(fault), _) => fault_status(fault),
        (None, Some(code)) => refusal_status(code),
        (None, None) => StatusCode::BAD_GATEWAY,
    };
    json(status, refused.body)
}

fn fault_status(fault: Fault) -> StatusCode {
    match fault {
        Fault::UnknownServer => StatusCode::NOT_FOUND,
        Fault::NoReplica | Fault::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Fault::HostLost | Fault::Bus => StatusCode::BAD_GATEWAY,
        Fault::Deadline => StatusCode::GATEWAY_TIMEOUT,
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Fault::Blocked => StatusCode::FORBIDDEN,
    }
}

/// Streams the answer. A client that goes away ends the call; one that does not read holds up nobody.
fn events(first: Bytes, mut answering: Answering, end: End) -> Response {
    let (out, steps) = outbox::open();
    tokio::spawn(async move {
        let ended = end.who.ended();
        tokio::pin!(ended);
        loop {
            let step = tokio::select! {
                step = answering.next() => step,
                () = out.abandoned() => return,
                // A call goes on to its answer; who listens is told that this is all.
                _ = &mut ended, if !end.ending.is_cancelled() => {
                    end.ending.cancel();
                    continue;
                }
            };
            match step {
                Step::Part(part) => out.offer(part).await,
                Step::Final(last) => return out.answer(last.body),
            }
        }
    });
    stream_response(first, steps)
}

/// An event stream of JSON-RPC messages. Events that are ready together leave in one write.
pub(super) fn stream_response(first: Bytes, steps: outbox::Receiver<Bytes>) -> Response {
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    keep_alive.reset();
    let body = stream::unfold(
        (Some(first), steps, keep_alive),
        |(first, mut steps, mut keep_alive)| async move {
            let mut out = BytesMut::new();
            if let Some(first) = first {
                write_event(&mut out, &first);
            } else {
                tokio::select! {
                    biased;
                    step = steps.next() => write_step(&mut out, &step?),
                    _ = keep_alive.tick() => out.extend_from_slice(b":\n\n"),
                }
            }
            while out.len() < WRITE_BYTES
                && let Some(step) = steps.try_next()
            {
                write_step(&mut out, &step);
            }
            keep_alive.reset();
            Some((Ok::<_, Infallible>(out.freeze()), (None, steps, keep_alive)))
        },
    );
    let headers = [
        (
            http_header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (
            http_header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        ),
        // Proxies that buffer would hold progress back until the end.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Body::from_stream(body)).into_response()
}

fn write_step(out: &mut BytesMut, step: &outbox::Step<Bytes>) {
    match step {
        outbox::Step::Part(message) | outbox::Step::Answer(message) => write_event(out, message),
    }
}

/// Writes one event. JSON text may hold line ends between its tokens, each of which needs a `data:` of its own.
pub(super) fn write_event(out: &mut BytesMut, message: &[u8]) {
    out.extend_from_slice(b"event: message\n");
    for line in message.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if !line.is_empty() {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.extend_from_slice(b"\n");
        }
    }
    out.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_line_ends_stays_one_event() {
        let mut out = BytesMut::new();
        write_event(&mut out, b"{\r\n\"a\":1}\n");
        assert_eq!(&out[..], b"event: message\ndata: {\ndata: \"a\":1}\n\n");
    }
}
