//! Messages to and from a server over HTTP: what is posted, and where what comes back goes. It knows neither era.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header as http};
use bus_schema::{RpcError, rpc::Message, upstream::RetryKnob};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::upstream::{
    answer, inbound,
    link::{Link, own_request},
};

use super::{
    client::Client,
    error::{RemoteError, chain},
    health::Health,
    reply::{Body, Events, Reply, answer_in, refused},
    sse::{Data, Event},
    tools::Tools,
};

/// What an answer may come as.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The type of the events that hold messages.
const MESSAGE: &str = "message";
/// How long a message that is not answered may take to be accepted.
const ACCEPT_LIMIT: Duration = Duration::from_secs(10);

/// The way to a server and back.
pub(super) struct Exchange {
    pub(super) link: Arc<Link>,
    pub(super) client: Arc<Client>,
    pub(super) uri: Uri,
    pub(super) health: Arc<Health>,
    pub(super) tools: Tools,
}

/// The answer to a question of this room's own.
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) session_id: Option<HeaderValue>,
    pub(super) result: Result<Box<RawValue>, RpcError>,
}

impl Exchange {
    pub(super) fn new(link: Arc<Link>, client: Arc<Client>, uri: Uri) -> Self {
        Self {
            link,
            client,
            uri,
            health: Arc::default(),
            tools: Tools::default(),
        }
    }

    /// Posts a message.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer of a kind that is expected.
    pub(super) async fn post(&self, headers: &HeaderMap, body: Bytes) -> Result<Reply, RemoteError> {
        let mut all = headers.clone();
        all.insert(http::CONTENT_TYPE, JSON);
        all.insert(http::ACCEPT, ACCEPTED);
        self.send(Method::POST, &self.uri, &all, body).await
    }

    /// Whether a call may be made again: it says so, and nobody has said otherwise of its server.
    pub(super) fn may_repeat(&self, call: &Asking) -> bool {
        !self.client.retry.is_never() && self.tools.may_repeat(call)
    }

    /// Posts a call, and again if it may be made again and was lost on its way.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer of a kind that is expected.
    pub(super) async fn post_call(
        &self,
        call: &Asking,
        headers: &HeaderMap,
        line: &Bytes,
    ) -> Result<Reply, RemoteError> {
        let RetryKnob { attempts, backoff_ms } = self.client.retry;
        let mut pause = Duration::from_millis(backoff_ms.into());
        let mut made = 1;
        loop {
            let reply = self.post(headers, line.clone()).await;
            let Some(why) = lost(&reply, call.number) else {
                return reply;
            };
            if made >= attempts || !self.tools.may_repeat(call) {
                return reply;
            }
            debug!(server.id = %self.link.server, why, made, "a call was lost and is made again, as it can be");
            // A connection that was kept for long is often found closed, and the next one is well.
            if made > 1 || !matches!(reply, Err(RemoteError::Lost(_))) {
                sleep(pause).await;
                pause *= 2;
            }
            made += 1;
        }
    }

    /// Opens a stream of events.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer of a kind that is expected.
    pub(super) async fn get(&self, headers: &HeaderMap) -> Result<Reply, RemoteError> {
        let mut all = headers.clone();
        all.insert(http::ACCEPT, EVENT_STREAM);
        self.send(Method::GET, &self.uri, &all, Bytes::new()).await
    }

    /// Sends a request and reads the answer as far as it is not a stream.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer of a kind that is expected.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Reply, RemoteError> {
        let answer = self.client.send(method, uri, headers, body).await?;
        // What stands between may answer for a server that is gone.
        if !matches!(answer.status().as_u16(), 502..=504) {
            self.health.heard();
        }
        Reply::read(answer, &self.client.room).await
    }

    /// Posts a message that is not answered.
    ///
    /// # Errors
    /// [`RemoteError`] when it is not accepted.
    pub(super) async fn tell(&self, headers: &HeaderMap, body: Bytes) -> Result<(), RemoteError> {
        let reply = timeout(ACCEPT_LIMIT, self.post(headers, body))
            .await
            .unwrap_or(Err(RemoteError::Late(ACCEPT_LIMIT)))?;
        match reply.body {
            Body::Refusal(body) => Err(refused(reply.status, &body)),
            _ => Ok(()),
        }
    }

    /// Asks something for this room itself, beside the calls.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer; an error that the server gives is an answer.
    pub(super) async fn ask(
        &self,
        headers: &HeaderMap,
        method: &str,
        params: &(impl Serialize + Sync),
        limit: Duration,
    ) -> Result<Told, RemoteError> {
        let number = self.link.next_number();
        let body = own_request(number, method, params);
        let asked = async {
            let reply = self.post(headers, body.into()).await?;
            let line = match reply.body {
                Body::Message(line) => line,
                Body::Events(events) => self.answer_among(events, number).await?,
                Body::Refusal(body) => {
                    answer_in(&body, number).ok_or_else(|| refused(reply.status, &body))?
                }
                Body::Nothing => return Err(RemoteError::Unanswered),
            };
            Ok(Told {
                status: reply.status,
                session_id: reply.session_id,
                result: answer_of(&line, number)
                    .ok_or_else(|| RemoteError::Unusable(format!("it is no answer to `{method}`")))?,
            })
        };
        timeout(limit, asked)
            .await
            .unwrap_or(Err(RemoteError::Late(limit)))
    }

    /// Reads a stream up to the answer with this number, and takes what else it holds.
    async fn answer_among(&self, mut events: Box<Events>, number: u64) -> Result<Vec<u8>, RemoteError> {
        while let Some(event) = events.next().await? {
            match event {
                Event {
                    kind,
                    data: Data::Whole(line),
                } if kind == MESSAGE => {
                    if answer_of(&line, number).is_some() {
                        return Ok(line);
                    }
                    self.take(&line, Some(number));
                    self.link.pace.rest().await;
                }
                Event {
                    data: Data::TooLong(skipped),
                    ..
                } => return Err(RemoteError::TooLong(skipped.bytes)),
                _ => {}
            }
        }
        Err(RemoteError::Unanswered)
    }

    /// Gives what has come on the answer to a call to whom it is for. `true` when the call has its answer.
    pub(super) fn deliver(&self, call: &Asking, line: Vec<u8>) -> bool {
        let line = self.tools.read(&self.link.server, call, line);
        self.take(&line, Some(call.number));
        !self.link.pending.contains(call.number)
    }

    /// Relays a stream until the call has its answer, or the stream ends.
    ///
    /// # Errors
    /// [`RemoteError`] when the stream breaks off.
    pub(super) async fn relay(&self, call: &Asking, events: &mut Events) -> Result<bool, RemoteError> {
        while let Some(event) = events.next().await? {
            self.health.heard();
            match event.data {
                Data::Whole(line) if event.kind == MESSAGE => {
                    if self.deliver(call, line) {
                        return Ok(true);
                    }
                }
                Data::TooLong(skipped) => {
                    // A notification that is too long is lost; the answer may still come.
                    let answers = skipped.answered_call().is_none_or(|number| number == call.number);
                    if answers {
                        return Err(RemoteError::TooLong(skipped.bytes));
                    }
                }
                Data::Whole(other) => self.link.pace.note(other.len()),
            }
            self.link.pace.rest().await;
        }
        Ok(false)
    }

    /// Takes what came on a stream that belongs to no call.
    pub(super) async fn take_event(&self, event: Event) {
        self.health.heard();
        match event.data {
            Data::Whole(line) if event.kind == MESSAGE => self.take(&line, None),
            // What it answers, if that can be told, has been told.
            Data::TooLong(skipped) => drop(inbound::take_skipped(&self.link, &skipped)),
            Data::Whole(other) => self.link.pace.note(other.len()),
        }
        self.link.pace.rest().await;
    }

    fn take(&self, line: &[u8], stream: Option<u64>) {
        // What is no message has been logged.
        let _ = self.link.take(line, stream);
    }

    /// Ends a call without an answer of the server.
    pub(super) fn fail(&self, number: u64, error: &RemoteError) {
        let server = &self.link.server;
        debug!(server.id = %server, call = number, error = chain(error), "a call to a remote server failed");
        if error.is_alarming() {
            self.health.alarm();
        }
        if let Some(entry) = self.link.pending.remove(number) {
            let for_caller = match error {
                RemoteError::TooLong(bytes) => answer::too_long(*bytes),
                error => error.for_caller(server),
            };
            entry.refuse(&for_caller, error.verdict());
        }
    }
}

/// A call on its way.
pub(super) struct Asking {
    pub(super) number: u64,
    pub(super) method: String,
    /// The tool or prompt that it names.
    pub(super) name: Option<String>,
}

/// Why a call has not come to its server, or is not known to have; `None` when the server has answered it.
fn lost(reply: &Result<Reply, RemoteError>, number: u64) -> Option<String> {
    match reply {
        Err(error @ (RemoteError::Lost(_) | RemoteError::Connect { .. } | RemoteError::Resolve { .. })) => {
            Some(error.to_string())
        }
        // What stands between says so for a server that is gone, or is just being replaced.
        Ok(Reply {
            status,
            body: Body::Refusal(body),
            ..
        }) if matches!(status.as_u16(), 502..=504) && answer_in(body, number).is_none() => {
            Some(format!("status {status}"))
        }
        _ => None,
    }
}

/// What an answer with this number says; `None` when the line is none.
fn answer_of(line: &[u8], number: u64) -> Option<Result<Box<RawValue>, RpcError>> {
    let message = Message::parse(line).ok()?;
    if message.method.is_some() || message.id?.get().trim_matches('"') != number.to_string() {
        return None;
    }
    match (message.error, message.result) {
        (Some(error), _) => Some(Err(answer::error_of(error))),
        (None, Some(result)) => Some(Ok(result.to_owned())),
        (None, None) => None,
    }
}
