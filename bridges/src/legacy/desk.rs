//! The internal server by which the doors of other processes reach the legacy clients of this one.
//!
//! The door that asks has checked the client and its session; what it sends bears the session's key, which nobody knows who is not
//! that session's principal.

use std::sync::Arc;

use bus_schema::{
    Request, RpcError,
    rpc::{self, Message},
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{McpServer, Outcome, Parts};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    channels::{Handed, Posted},
    questions::Taken,
    room::Room,
    stream::{Event, Kind},
};

/// A client's response to a question of this door.
pub(super) const ANSWER: &str = "door/answer";
/// The events of a stream that this door keeps, from one on.
pub(crate) const RESUME: &str = "door/resume";
/// A message for a client's channel that this door holds.
pub(super) const MESSAGE: &str = "door/message";
/// A session's subscriptions have changed, and this door holds its stream of notices.
pub(super) const FOLLOW: &str = "door/follow";
/// Another door holds a session's stream of notices from now on.
pub(super) const YIELD: &str = "door/yield";

/// Answers the other doors.
pub(super) struct Desk {
    room: Room,
}

/// Parameters of [`ANSWER`] and [`MESSAGE`].
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    session: String,
    #[serde(default)]
    id: String,
    #[serde(borrow)]
    message: &'a RawValue,
}

/// Parameters of [`RESUME`].
#[derive(Deserialize)]
pub(crate) struct Resume {
    session: String,
    stream: u64,
    after: u64,
}

/// Parameters of [`FOLLOW`] and [`YIELD`].
#[derive(Deserialize)]
pub(super) struct About {
    session: String,
}

/// One part of the answer to [`RESUME`].
#[derive(Deserialize)]
pub(crate) struct Told<'a> {
    /// The event's number.
    pub(crate) number: u64,
    /// Whether nothing comes after it.
    #[serde(default)]
    pub(crate) last: bool,
    /// The message; absent in the first part, which only says that the stream is there.
    #[serde(borrow, default)]
    pub(crate) message: Option<&'a RawValue>,
}

impl Answer<'_> {
    pub(super) fn write(session: &str, id: &str, message: &[u8]) -> String {
        let message = String::from_utf8_lossy(message);
        format!(
            r#"{{"session":{},"id":{},"message":{message}}}"#,
            rpc::quote(session),
            rpc::quote(id)
        )
    }
}

impl Resume {
    pub(crate) fn write(session: &str, stream: u64, after: u64) -> String {
        json!({ "session": session, "stream": stream, "after": after }).to_string()
    }
}

impl About {
    pub(super) fn write(session: &str) -> String {
        json!({ "session": session }).to_string()
    }
}

impl Told<'_> {
    fn there(number: u64) -> String {
        json!({ "number": number }).to_string()
    }

    fn write(event: &Event) -> String {
        let message = String::from_utf8_lossy(&event.body);
        let (number, last) = (event.number, event.kind == Kind::Last);
        format!(r#"{{"number":{number},"last":{last},"message":{message}}}"#)
    }
}

impl Desk {
    pub(super) fn new(room: Room) -> Self {
        Self { room }
    }

    async fn serve(&self, request: &Request, parts: &Parts) -> Result<(), RpcError> {
        let body = &request.body.0;
        match request.method.as_str() {
            ANSWER => {
                let answer: Answer<'_> = read(body)?;
                let response = Bytes::copy_from_slice(answer.message.get().as_bytes());
                match self.room.questions.answer(&answer.session, &answer.id, response) {
                    Taken::Yes => Ok(()),
                    Taken::No => Err(not_here("such a question")),
                }
            }
            RESUME => self.resume(&read(body)?, parts).await,
            MESSAGE => {
                let word: Answer<'_> = read(body)?;
                let message = Bytes::copy_from_slice(word.message.get().as_bytes());
                let principal = request.principal.clone();
                let posted = Posted { principal, message };
                match self.room.channels.hand(&word.session, posted).await {
                    Handed::Yes => Ok(()),
                    Handed::Full => Err(RpcError::internal("the client's channel is full")),
                    Handed::Unknown | Handed::Silent => Err(not_here("such a channel")),
                }
            }
            FOLLOW => {
                let about: About = read(body)?;
                self.room
                    .listeners
                    .follow_at(&self.room, &about.session, &request.principal)
                    .await;
                Ok(())
            }
            YIELD => {
                let about: About = read(body)?;
                self.room.listeners.end(&about.session);
                Ok(())
            }
            other => Err(RpcError::method_not_found(other)),
        }
    }

    async fn resume(&self, resume: &Resume, parts: &Parts) -> Result<(), RpcError> {
        let stream = self.room.streams.find(resume.stream, &resume.session);
        let stream = stream.ok_or_else(|| not_here("such a stream"))?;
        if stream.is_over_after(resume.after) {
            return Ok(());
        }
        let mut reader = stream.read_after(resume.after);
        parts.send(Told::there(resume.after)).await;
        loop {
            let event = tokio::select! {
                event = reader.next() => event,
                () = self.room.stop.cancelled() => None,
            };
            let Some(event) = event else { return Ok(()) };
            parts.send(Told::write(&event)).await;
        }
    }
}

impl McpServer for Desk {
    fn handle(self: Arc<Self>, request: Request, parts: Parts) -> BoxFuture<'static, Outcome> {
        async move {
            match self.serve(&request, &parts).await {
                Ok(()) => Outcome::result("1", b"{}"),
                Err(error) => Outcome::error(Some("1"), &error),
            }
        }
        .boxed()
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, RpcError> {
    let params = Message::parse(body)?.params.map_or("{}", RawValue::get);
    serde_json::from_str(params).map_err(|error| RpcError::invalid_params(error.to_string()))
}

fn not_here(what: &str) -> RpcError {
    RpcError::invalid_params(format!("this door has no {what}"))
}
