//! The calls that a POST makes: one JSON body when the answers come soon and alone, else an event stream that can be taken up again.
//!
//! A call runs to its end whether or not its client stays: in this era a lost connection is no cancellation.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    ProtocolVersion, RpcError,
    audit::{Kind as Audited, Record},
    rpc::{self, Kind},
};
use bytes::{Bytes, BytesMut};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{super::recording, hand_over, later, notify, refused};
use crate::{
    front::{Barred, Caller},
    http::{
        Door, admission, answer,
        events::{self, Source, WRITE_BYTES},
        modern::Accepts,
    },
    legacy::{
        Driving, Local, Parties, Room, Said, Session, SessionError, answer_locally,
        batch::{self, Batch},
        done,
        questions::Taken,
        stream::{Event, First, Kind as EventKind, Reader, Stream},
        streams::{At, Place},
    },
    request::{Incoming, Refused},
};

/// How long a call may be silent before its answer is streamed: a client that is lost until then cannot come back to it.
const STREAM_AFTER: Duration = Duration::from_secs(1);

/// How the calls of one POST are made.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) caller: Caller,
    pub(super) accepts: Accepts,
    /// The room that the body takes until the last of its calls has ended.
    pub(super) room: Option<Arc<OwnedSemaphorePermit>>,
}

/// Answers one request.
pub(super) async fn single(
    door: &Door,
    session: Arc<Session>,
    manner: &Manner,
    incoming: Incoming,
) -> Response {
    let id = incoming.id.clone().unwrap_or_default();
    match settle(door, &session, &incoming).await {
        Ok(Some(body)) => return answer::json(StatusCode::OK, body),
        Ok(None) => {}
        Err(error) => return refused(&error, Some(&id)),
    }
    let stream = Stream::open(&session.key, 1);
    if let Err(error) = begin(&door.room, &session, manner, incoming, &stream) {
        return later(StatusCode::TOO_MANY_REQUESTS, Some(&id), &error);
    }
    let answers = |mut answers: Vec<Bytes>| answers.pop();
    respond(door, &session, &stream, &[id], answers, manner.accepts).await
}

/// Answers an array of messages.
pub(super) async fn batch(door: &Door, session: Arc<Session>, manner: &Manner, body: &Bytes) -> Response {
    if !batch::is_allowed(session.version) {
        let error = RpcError::invalid_request(format!(
            "version {} has no batches; send one message at a time",
            session.version
        ));
        return answer::error(StatusCode::BAD_REQUEST, None, &error);
    }
    match batch::split(body) {
        Ok(Batch::Asking(messages)) => asking(door, session, manner, messages).await,
        Ok(Batch::Answering(responses)) => answering(door, &session, responses).await,
        Err(error) => {
            let response = answer::error(StatusCode::BAD_REQUEST, None, &error);
            recording::mark(response, Record::refused(Audited::Request, "malformed"))
        }
    }
}

/// Takes requests and notifications, each as if it had come alone.
async fn asking(door: &Door, session: Arc<Session>, manner: &Manner, messages: Vec<Bytes>) -> Response {
    let caller = &manner.caller;
    let messages: Vec<_> = messages.into_iter().map(Incoming::read).collect();
    // Either all of them begin or none does: a client that comes back with more scopes sends them all again.
    let mut missing = BTreeSet::new();
    for incoming in messages.iter().flatten() {
        let judged = door
            .front
            .authorize(&caller.principal, &caller.endpoint, incoming);
        if let Err(Barred::Scopes(scopes)) = judged.await {
            missing.extend(scopes);
        }
    }
    if !missing.is_empty() {
        return admission::step_up(
            door,
            (&caller.endpoint, admission::MCP),
            None,
            missing.into_iter().collect(),
        );
    }
    let is_answered = |read: &Result<Incoming, Refused>| match read {
        Ok(incoming) => incoming.kind == Kind::Request,
        Err(refused) => refused.id.is_some(),
    };
    let due = messages.iter().filter(|read| is_answered(read)).count();
    let stream = Stream::open(&session.key, due);
    let mut ids = Vec::new();
    for read in messages {
        match read {
            Ok(incoming) if incoming.kind == Kind::Request => {
                ids.extend(incoming.id.clone());
                match settle(door, &session, &incoming).await {
                    Ok(Some(body)) => stream.answer(body),
                    Ok(None) => {
                        let id = incoming.id.clone();
                        if let Err(error) = begin(&door.room, &session, manner, incoming, &stream) {
                            stream.answer(rpc::error_response(id.as_deref(), &error).into());
                        }
                    }
                    Err(error) => stream.answer(incoming.error(&RpcError::internal(error.to_string()))),
                }
            }
            Ok(incoming) => drop(notify(door, &session, caller, &incoming).await),
            Err(Refused { id: Some(id), error }) => {
                stream.answer(rpc::error_response(Some(&id), &error).into());
                ids.push(id);
            }
            // What is wrong in a notification is answered nothing.
            Err(_) => {}
        }
    }
    if due == 0 {
        return StatusCode::ACCEPTED.into_response();
    }
    let join = |answers: Vec<Bytes>| batch::join(&answers);
    respond(door, &session, &stream, &ids, join, manner.accepts).await
}

async fn answering(door: &Door, session: &Session, responses: Vec<Bytes>) -> Response {
    let mut untaken = 0;
    for response in responses {
        untaken += usize::from(hand_over(door, session, response).await == Taken::No);
    }
    if untaken == 0 {
        return StatusCode::ACCEPTED.into_response();
    }
    let error = RpcError::invalid_request(format!("nothing waits for {untaken} of these responses"));
    let response = answer::error(StatusCode::BAD_REQUEST, None, &error);
    recording::mark(response, Record::refused(Audited::Owner, "answer"))
}

/// Does what a request asks of the session itself, and answers it; `None` when it is for a server.
async fn settle(door: &Door, session: &Session, incoming: &Incoming) -> Result<Option<Bytes>, SessionError> {
    let settled = match answer_locally(&door.front, session, incoming) {
        Local::Answer(body) => return Ok(Some(body)),
        Local::Forward => return Ok(None),
        Local::SetLevel(level) => {
            let set = |session: &mut Session| session.log_level = Some(level.clone());
            door.room.sessions.change(session, set).await.map(drop)
        }
        Local::Subscribe(uri, subscription) => door.room.subscribe(session, &uri, subscription).await,
    };
    match settled {
        Ok(()) => Ok(Some(done(incoming))),
        Err(SessionError::TooLarge(error) | SessionError::Refused(error)) => Ok(Some(incoming.error(&error))),
        Err(error) => Err(error),
    }
}

/// Starts a call. What it says goes into the stream, whoever reads that.
///
/// # Errors
/// The error for a client that has as many calls running as it may.
fn begin(
    room: &Room,
    session: &Arc<Session>,
    manner: &Manner,
    incoming: Incoming,
    stream: &Arc<Stream>,
) -> Result<(), RpcError> {
    let id = incoming.id.clone().unwrap_or_default();
    let running = room.calls.begin(&session.key, &id, &room.stop)?;
    let (room, session, manner) = (room.clone(), Arc::clone(session), manner.clone());
    let due = Due(Some(Arc::clone(stream)));
    let (blocks, principal) = (room.front.blocks().clone(), session.principal.clone());
    room.running.clone().spawn(async move {
        let call = run(room, session, manner, incoming, due);
        let blocked = blocks.stopped(&principal);
        tokio::select! {
            // A call that is stopped says so if it can; one that waits for its client cannot.
            biased;
            () = call => {}
            () = running.cancelled.cancelled() => {}
            () = blocked => {}
        }
    });
    Ok(())
}

async fn run(room: Room, session: Arc<Session>, manner: Manner, incoming: Incoming, mut due: Due) {
    let Manner {
        caller,
        accepts,
        room: _held,
    } = manner;
    let unasked = incoming.error(&RpcError::internal(
        "the server asks the client something in the course of this call, so the client has to accept text/event-stream",
    ));
    let parties = Parties {
        front: room.front.clone(),
        caller,
        session,
        questions: Arc::clone(&room.questions),
        ledger: Arc::clone(&room.ledger),
    };
    let mut call = Driving::begin(parties, incoming).await;
    loop {
        let said = call.next().await;
        let Some(stream) = &due.0 else { return };
        match said {
            Said::Part(part) => stream.offer(part).await,
            Said::Question(_) if accepts == Accepts::JsonOnly => return due.answer(unasked),
            Said::Question(question) => stream.question(question),
            Said::Answer(answer) => return due.answer(answer),
        }
    }
}

/// The answer that a call owes its stream. A call that is dropped owes none.
struct Due(Option<Arc<Stream>>);

impl Due {
    fn answer(&mut self, answer: Bytes) {
        if let Some(stream) = self.0.take() {
            stream.answer(answer);
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.leave_unanswered();
        }
    }
}

/// Answers a POST with what comes out of its stream.
async fn respond(
    door: &Door,
    session: &Session,
    stream: &Arc<Stream>,
    requests: &[String],
    join: impl FnOnce(Vec<Bytes>) -> Option<Bytes>,
    accepts: Accepts,
) -> Response {
    let answers = match accepts {
        Accepts::JsonOnly => Some(stream.answers().await),
        Accepts::Both => match timeout(STREAM_AFTER, stream.first()).await {
            Ok(First::Answers(answers)) => Some(answers),
            _ => None,
        },
    };
    match answers {
        // The client has cancelled, and is answered nothing.
        Some(answers) if answers.is_empty() => StatusCode::ACCEPTED.into_response(),
        Some(answers) => match join(answers) {
            Some(body) => answer::json(StatusCode::OK, body),
            None => StatusCode::ACCEPTED.into_response(),
        },
        None => stream_response(door, session, stream, requests),
    }
}

fn stream_response(door: &Door, session: &Session, stream: &Arc<Stream>, requests: &[String]) -> Response {
    let room = &door.room;
    if session.version < ProtocolVersion::V2025_03_26 {
        let reading = Reading::of(stream.read_after(0), None);
        return events::respond(Bytes::new(), reading, room.stop.clone());
    }
    let place = room.streams.keep(room.door(), stream, requests);
    let first = match session.version {
        ProtocolVersion::V2025_11_25 => events::priming(&place.event(At::Event(0))),
        _ => Bytes::new(),
    };
    let (keeping, kept, number) = (room.clone(), Arc::clone(stream), place.number);
    room.running.spawn(async move {
        let time = keeping.streams.keep_for_its_time(number, &kept);
        tokio::select! { () = keeping.stop.cancelled() => {} () = time => {} }
    });
    let reading = Reading::of(stream.read_after(0), Some(place));
    events::respond(first, reading, room.stop.clone())
}

/// A stream as it is read by one response.
pub(super) struct Reading {
    reader: Reader,
    /// What the ids of its events are made of, if they have any.
    place: Option<Place>,
}

impl Reading {
    pub(super) fn of(reader: Reader, place: Option<Place>) -> Self {
        Self { reader, place }
    }

    fn write(&self, out: &mut BytesMut, event: &Event) {
        let at = match event.kind {
            EventKind::Last => At::End,
            _ => At::Event(event.number),
        };
        let id = self.place.as_ref().map(|place| place.event(at));
        events::write_message(out, id.as_deref(), &event.body);
    }
}

impl Source for Reading {
    async fn next(&mut self) -> Option<Bytes> {
        let first = self.reader.next().await?;
        let mut out = BytesMut::new();
        self.write(&mut out, &first);
        // Events that are ready together leave in one write.
        while out.len() < WRITE_BYTES
            && let Some(event) = self.reader.try_next()
        {
            self.write(&mut out, &event);
        }
        Some(out.freeze())
    }
}
