//! An answer of HTTP, read with bounds: one message, a stream of events, or a refusal.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::http::{HeaderValue, Response, StatusCode, header as http};
use bus_schema::{header, rpc::Message};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::lines::{MAX_LINE_BYTES, excerpt};

use super::{
    error::{RemoteError, chain},
    sse::{Event, Parser},
};

/// The longest body of a refusal that is read.
const MAX_REFUSAL_BYTES: usize = 1024 * 1024;
/// How long it may take to come.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);
/// How many characters of it are shown when it is no message.
const SHOWN_CHARS: usize = 200;
/// What every answer may hold without asking for room.
const FREE_BYTES: usize = 64 * 1024;
/// How long the end of a stream is waited for once its answer is there, so that its connection can be used again.
const END_LIMIT: Duration = Duration::from_millis(500);

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The session that the server has opened with it.
    pub(super) session_id: Option<HeaderValue>,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// One message, or a batch of them.
    Message(Vec<u8>),
    Events(Box<Events>),
    Nothing,
    /// What came with a status that is no success.
    Refusal(Vec<u8>),
}

impl Reply {
    /// Reads an answer. A message is read to its end, a stream is not begun.
    ///
    /// # Errors
    /// [`RemoteError`] when it is too long, breaks off, or is something else than messages.
    pub(super) async fn read(answer: Response<Incoming>, room: &Arc<Semaphore>) -> Result<Self, RemoteError> {
        let (head, body) = answer.into_parts();
        let text = |name| {
            head.headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let media_type = text(http::CONTENT_TYPE)
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let coded = text(http::CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity"));
        if let Some(coding) = coded {
            return Err(RemoteError::Unusable(format!(
                "it is encoded with `{}`, which was not asked for",
                excerpt(coding.as_bytes(), SHOWN_CHARS)
            )));
        }
        let read = if !head.status.is_success() {
            let refusal = timeout(REFUSAL_LIMIT, collect(body, MAX_REFUSAL_BYTES, room)).await;
            Body::Refusal(refusal.ok().and_then(Result::ok).unwrap_or_default())
        } else if media_type == "text/event-stream" {
            Body::Events(Box::new(Events::new(body, Arc::clone(room))))
        } else if media_type == "application/json" {
            Body::Message(collect(body, MAX_LINE_BYTES, room).await?)
        } else if head.status == StatusCode::OK && !media_type.is_empty() {
            return Err(RemoteError::ContentType(excerpt(
                media_type.as_bytes(),
                SHOWN_CHARS,
            )));
        } else {
            // Its text, if any, is for nobody; it is read so that the connection can be used again.
            let _ = timeout(END_LIMIT, collect(body, FREE_BYTES, room)).await;
            Body::Nothing
        };
        Ok(Self {
            status: head.status,
            session_id: head.headers.get(header::SESSION_ID).cloned(),
            body: read,
        })
    }
}

/// The error for a refusal that holds no answer.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> RemoteError {
    RemoteError::Status {
        status,
        body: excerpt(body, SHOWN_CHARS),
    }
}

/// The answer to a call that a refusal holds: servers may leave the id away there, or write `null`.
pub(super) fn answer_in(refusal: &[u8], number: u64) -> Option<Vec<u8>> {
    let message = Message::parse(refusal).ok()?;
    let error = message.error?;
    match message.id.map(RawValue::get) {
        None | Some("null") => {
            let error = error.get();
            Some(format!(r#"{{"jsonrpc":"2.0","id":{number},"error":{error}}}"#).into_bytes())
        }
        Some(id) if id.trim_matches('"') == number.to_string() => Some(refusal.to_vec()),
        Some(_) => None,
    }
}

async fn collect(
    mut body: Incoming,
    max_bytes: usize,
    room: &Arc<Semaphore>,
) -> Result<Vec<u8>, RemoteError> {
    let mut held = Held::new(Arc::clone(room));
    let mut all = Vec::new();
    while let Some(chunk) = next_chunk(&mut body).await? {
        if all.len() + chunk.len() > max_bytes {
            return Err(RemoteError::TooLong(max_bytes as u64));
        }
        all.extend_from_slice(&chunk);
        held.fit(all.len())?;
    }
    Ok(all)
}

async fn next_chunk(body: &mut Incoming) -> Result<Option<bytes::Bytes>, RemoteError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RemoteError::Lost(chain(&error)))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The room that a long answer takes of what all answers of a server share.
struct Held {
    room: Arc<Semaphore>,
    permits: Vec<OwnedSemaphorePermit>,
    kib: usize,
}

impl Held {
    fn new(room: Arc<Semaphore>) -> Self {
        Self {
            room,
            permits: Vec::new(),
            kib: 0,
        }
    }

    /// Takes what so many bytes need, or gives back what they no longer need.
    fn fit(&mut self, bytes: usize) -> Result<(), RemoteError> {
        let needed = bytes.saturating_sub(FREE_BYTES).div_ceil(1024);
        if needed == 0 {
            self.permits.clear();
            self.kib = 0;
        }
        if needed <= self.kib {
            return Ok(());
        }
        // In steps, so that a long answer does not ask for each of its chunks.
        let more = (needed - self.kib).max(FREE_BYTES / 1024);
        let permit = u32::try_from(more)
            .ok()
            .and_then(|more| Arc::clone(&self.room).try_acquire_many_owned(more).ok())
            .ok_or(RemoteError::TooMuch)?;
        match self.permits.first_mut() {
            Some(first) => first.merge(permit),
            None => self.permits.push(permit),
        }
        self.kib += more;
        Ok(())
    }
}

/// A stream of events that is being read.
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Event>,
    held: Held,
}

impl Events {
    fn new(body: Incoming, room: Arc<Semaphore>) -> Self {
        Self {
            body,
            parser: Parser::new(MAX_LINE_BYTES),
            ready: VecDeque::new(),
            held: Held::new(room),
        }
    }

    /// The next event; `None` when the stream has ended.
    ///
    /// # Errors
    /// [`RemoteError`] when the stream breaks off, or sends an event without end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, RemoteError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(chunk) = next_chunk(&mut self.body).await? else {
                return Ok(None);
            };
            self.parser
                .feed(&chunk, &mut self.ready)
                .map_err(|error| RemoteError::Unusable(error.to_string()))?;
            self.held.fit(self.parser.held_bytes())?;
        }
    }

    /// The id of the last event that had one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.parser.last_id()
    }

    /// How long the server wants to be left alone before somebody connects again.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.parser.retry()
    }

    /// Reads what little may follow the answer, so that the connection can be used again.
    pub(super) async fn end(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.next().await {} };
        let _ = timeout(END_LIMIT, rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_answers_the_call_when_it_names_no_other() {
        for (body, answers) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"m"}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":"7","error":{"code":-1,"message":"m"}}"#,
                true,
            ),
            (r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}"#, true),
            (
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":8,"error":{"code":-1,"message":"m"}}"#,
                false,
            ),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, false),
            ("not found", false),
            ("", false),
        ] {
            let answer = answer_in(body.as_bytes(), 7);
            assert_eq!(answer.is_some(), answers, "{body}");
            if let Some(answer) = answer {
                let message = Message::parse(&answer).unwrap();
                assert_eq!(message.id.unwrap().get().trim_matches('"'), "7");
                assert_eq!(message.error.unwrap().get(), r#"{"code":-1,"message":"m"}"#);
            }
        }
    }

    #[test]
    fn long_answers_share_one_room() {
        let room = Arc::new(Semaphore::new(256));
        let mut one = Held::new(Arc::clone(&room));
        let mut two = Held::new(Arc::clone(&room));
        one.fit(FREE_BYTES).unwrap();
        assert_eq!(room.available_permits(), 256);
        one.fit(FREE_BYTES + 200 * 1024).unwrap();
        assert!(matches!(
            two.fit(FREE_BYTES + 100 * 1024),
            Err(RemoteError::TooMuch)
        ));
        one.fit(0).unwrap();
        two.fit(FREE_BYTES + 100 * 1024).unwrap();
        drop(two);
        assert_eq!(room.available_permits(), 256);
    }
}
