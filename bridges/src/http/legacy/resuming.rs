//! Goes on with the event stream of a POST, at whichever bridge the client comes back to.
//!
//! The events are kept by the process that runs the calls, and come from there. When it is gone, or has forgotten the stream, the client
//! is told so by an error for each request that the event id names: a status would be read as the end of the session. Requests whose
//! ids are too long for an event id are told of by one error without an id. Who has the last event already hears 204, which tells it
//! not to come back.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    RpcError,
    audit::{Kind, Record},
    rpc,
};
use bytes::{Bytes, BytesMut};
use runtime::{Answer, Call};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

use super::calls::Reading;
use crate::{
    http::{Door, events, recording},
    legacy::{
        Session,
        desk::{self, Told},
        streams::{At, Place},
    },
};

/// How many events of another door may wait for a client that reads slowly.
const EVENTS_AHEAD: usize = 16;
/// The longest that a stream of another door is followed; no call is longer.
const FOLLOW_FOR: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn resume(door: &Door, session: &Session, place: Place, at: At) -> Response {
    let At::Event(after) = at else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let room = &door.room;
    if place.door != room.door() {
        return from_elsewhere(door, session, place, after).await;
    }
    match room.streams.find(place.number, &session.key) {
        Some(stream) if stream.is_over_after(after) => StatusCode::NO_CONTENT.into_response(),
        Some(stream) => {
            let reading = Reading::of(stream.read_after(after), Some(place));
            events::respond(Bytes::new(), reading, room.stop.clone())
        }
        None => gone(door, &place),
    }
}

async fn from_elsewhere(door: &Door, session: &Session, place: Place, after: u64) -> Response {
    let params = desk::Resume::write(&session.key, place.number, after);
    let mut call = door
        .room
        .ask(&place.door, &session.principal, desk::RESUME, &params, FOLLOW_FOR);
    // The first word says that the stream is there.
    match call.next().await {
        Ok(Answer::Part(_)) => {}
        Ok(Answer::Final { code: None, .. }) => return StatusCode::NO_CONTENT.into_response(),
        Ok(Answer::Final { .. }) => return gone(door, &place),
        Err(error) => {
            debug!(%error, "the door that kept a stream is gone");
            return gone(door, &place);
        }
    }
    let (out, pieces) = mpsc::channel(EVENTS_AHEAD);
    door.room.running.spawn(follow(call, place, out));
    events::respond(Bytes::new(), pieces, door.room.stop.clone())
}

/// Hands on what another door tells of a stream, until the client goes.
async fn follow(mut call: Call, place: Place, out: mpsc::Sender<Bytes>) {
    loop {
        let told = tokio::select! {
            told = call.next() => told,
            () = out.closed() => return,
        };
        let piece = match told {
            Ok(Answer::Part(part)) => write(&part, &place),
            Ok(Answer::Final { .. }) => return,
            Err(error) => {
                debug!(%error, "the door that kept a stream was lost");
                let _ = out.send(lost(&place)).await;
                return;
            }
        };
        if out.send(piece).await.is_err() {
            return;
        }
    }
}

fn write(part: &[u8], place: &Place) -> Bytes {
    let mut out = BytesMut::new();
    if let Ok(told) = serde_json::from_slice::<Told<'_>>(part)
        && let Some(message) = told.message
    {
        let at = if told.last {
            At::End
        } else {
            At::Event(told.number)
        };
        events::write_message(&mut out, Some(&place.event(at)), message.get().as_bytes());
    }
    out.freeze()
}

/// Answers for calls that nobody knows any more.
fn gone(door: &Door, place: &Place) -> Response {
    let (_, nothing) = mpsc::channel(1);
    let response = events::respond(lost(place), nothing, door.room.stop.clone());
    recording::mark(response, Record::refused(Kind::Owner, "event_id"))
}

fn lost(place: &Place) -> Bytes {
    let mut out = BytesMut::new();
    let error = RpcError::internal(
        "the bridge that ran this call is gone, or its answer is not kept any more; it may or may not have taken effect",
    )
    .with_data(json!({ "reason": "stream_lost" }));
    let mut requests: Vec<Option<String>> = place.requests().into_iter().map(Some).collect();
    if requests.is_empty() {
        requests.push(None);
    }
    for (at, request) in requests.iter().enumerate() {
        let id = (at + 1 == requests.len()).then(|| place.event(At::End));
        events::write_message(
            &mut out,
            id.as_deref(),
            &rpc::error_response(request.as_deref(), &error),
        );
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_lost_stream_is_an_error_for_each_request_or_for_none_that_can_be_named() {
        for (requests, expected) in [("7,\"a\"", vec![json!(7), json!("a")]), ("", vec![Value::Null])] {
            let place = Place {
                door: "00ff".to_owned(),
                number: 1,
                requests: requests.to_owned(),
            };
            let text = String::from_utf8(lost(&place).to_vec()).unwrap();
            let errors: Vec<Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
                .collect();
            let ids: Vec<&Value> = errors.iter().map(|error| &error["id"]).collect();
            assert_eq!(ids, expected.iter().collect::<Vec<_>>(), "{text}");
            assert!(
                errors
                    .iter()
                    .all(|error| error["error"]["data"]["reason"] == "stream_lost")
            );
            let last = format!("id: {}", place.event(At::End));
            assert_eq!(text.lines().filter(|line| *line == last).count(), 1, "{text}");
        }
    }
}
