//! The course of one call: sending, hearing frames, granting credit, trying again, giving up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bus_schema::{
    Body, ContentType, Frame, FrameKind, Request, Token,
    codec::CodecError,
    envelope::{CREDIT_EVERY, INLINE_BYTES, MAX_BODY_BYTES},
    subject::{InstanceVerb, Subject},
};
use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};
use tracing::debug;

use crate::{
    bus::{Bus, place},
    host::CREDIT_BYTES,
    inbox::Arrival,
    telemetry::Metered,
};

use super::{
    Answer, CallError, Retry,
    attempt::{Attempt, Why},
    way::{To, Way},
};

/// How often a call that no host has begun is tried again.
const MAX_ATTEMPTS: u32 = 4;
/// How many chunks of a request's body may be on their way without credit.
const CHUNK_WINDOW: u32 = 16;

/// A call under way.
pub struct Call {
    pub(super) bus: Bus,
    pub(super) request: Request,
    way: Way,
    retry: Retry,
    /// What the caller asked for; the request carries what is left of it.
    timeout_ms: u64,
    pub(super) deadline: Instant,
    attempts: u32,
    /// How many of those have cost a host.
    losses: u32,
    pub(super) attempt: Option<Attempt>,
    /// The replica that was heard last.
    instance: Option<String>,
    /// Whether the caller has been given a notification already.
    delivered: bool,
    /// The replica that was lost in an earlier attempt.
    lost: Option<String>,
    /// The pieces of a large part or answer that have come so far.
    pieces: Vec<u8>,
    /// Who wants to see the answer beside the caller.
    witness: Option<oneshot::Sender<Bytes>>,
    ended: bool,
}

impl Bus {
    /// Prepares a call; the first [`Call::next`] sends it. `caller`, `call` and `chunked_bytes` of the request are filled in here.
    #[must_use]
    pub fn call(&self, request: Request, retry: Retry) -> Call {
        self.call_along(Way::group(), request, retry)
    }

    /// Prepares a call that goes a way of its own.
    #[must_use]
    pub fn call_along(&self, way: Way, request: Request, retry: Retry) -> Call {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        Call {
            bus: self.clone(),
            timeout_ms: request.timeout_ms,
            request,
            way,
            retry,
            deadline,
            attempts: 0,
            losses: 0,
            attempt: None,
            instance: None,
            delivered: false,
            lost: None,
            pieces: Vec::new(),
            witness: None,
            ended: false,
        }
    }

    /// Prepares a call that only one instance can answer. When that is gone there are no responders, and nothing is tried again.
    #[must_use]
    pub fn call_instance(&self, request: Request, instance: &str) -> Call {
        let way = Way::only(To::Instance(Token::encode(instance)));
        self.call_along(way, request, Retry::Never)
    }

    /// Makes a call and takes its answer; notifications are left out.
    ///
    /// # Errors
    /// [`CallError`] as [`Call::next`].
    pub async fn ask(&self, request: Request, retry: Retry) -> Result<(Option<i64>, Bytes), CallError> {
        self.call(request, retry).last().await
    }
}

impl Call {
    /// Waits for the next notification or the answer.
    ///
    /// # Errors
    /// [`CallError`]; after an error, as after the answer, the call is over.
    ///
    /// # Panics
    /// When it is asked again after its end.
    pub async fn next(&mut self) -> Result<Answer, CallError> {
        assert!(!self.ended, "a call is not asked again after its end");
        let outcome = self.advance().await;
        self.delivered |= outcome.is_ok();
        if !matches!(outcome, Ok(Answer::Part(_))) {
            match &outcome {
                Ok(Answer::Final { body, .. }) => self.show(body),
                _ => self.cancel(),
            }
            self.forget_attempt();
            self.ended = true;
            self.count_version(&outcome);
        }
        outcome
    }

    /// Gives the answer to whoever wants to see it beside the caller; nothing when there is none.
    pub(crate) fn witnessed(&mut self) -> oneshot::Receiver<Bytes> {
        let (witness, seen) = oneshot::channel();
        self.witness = Some(witness);
        seen
    }

    /// The version of the server that the call is for, where versions are told apart.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.way.version().map(AsRef::as_ref)
    }

    fn show(&mut self, answer: &Bytes) {
        if let Some(witness) = self.witness.take() {
            // Who has stopped looking does not mind.
            let _ = witness.send(answer.clone());
        }
    }

    fn count_version(&self, outcome: &Result<Answer, CallError>) {
        let Some(version) = self.version() else { return };
        let went = match outcome {
            Ok(Answer::Final { code: None, .. }) => "ok",
            Ok(_) => "error",
            Err(_) => "unanswered",
        };
        let metrics = self.bus.metrics();
        let of = Metered {
            tenant: &self.request.principal.tenant,
            server: &self.request.server,
        };
        metrics.called_version(of, version, went);
    }

    /// Waits for the answer; notifications are left out.
    ///
    /// # Errors
    /// [`CallError`] as [`Call::next`].
    pub async fn last(&mut self) -> Result<(Option<i64>, Bytes), CallError> {
        loop {
            if let Answer::Final { code, body } = self.next().await? {
                return Ok((code, body));
            }
        }
    }

    /// The replica that has answered; known once the call is over.
    #[must_use]
    pub fn answered_by(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    async fn advance(&mut self) -> Result<Answer, CallError> {
        loop {
            if self.attempt.is_none() {
                self.send().await?;
            }
            let attempt = self.attempt.as_mut().expect("was just sent");
            let wake = attempt.limit().min(self.deadline);
            let Ok(arrival) = timeout_at(wake, attempt.mailbox.next()).await else {
                self.silence_ends()?;
                continue;
            };
            match arrival {
                Arrival::Frame(payload) => {
                    if let Some(answer) = self.take_frame(&payload).await? {
                        return Ok(answer);
                    }
                }
                Arrival::NoResponders => self.nobody_there().await?,
                Arrival::InstanceLost { instance, left } => self.instance_lost(instance, &left)?,
                Arrival::InstanceLeft { server, instance } => self.instance_left(&server, instance),
                Arrival::Overflow => return Err(self.bad_frame(None)),
            }
        }
    }

    async fn send(&mut self) -> Result<(), CallError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.deadline_passed());
        }
        let length = self.request.body.0.len();
        if length > MAX_BODY_BYTES {
            return Err(CallError::TooLarge {
                what: "request",
                bytes: length,
            });
        }
        self.attempts += 1;
        let (call, mailbox) = self.bus.inbox().open();
        self.request.call = call;
        bus_instance(&self.bus, &mut self.request);
        self.request.timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        self.attempt = Some(Attempt::new(call, mailbox));
        let payload = if length > INLINE_BYTES {
            let chunked = Request {
                chunked_bytes: length as u64,
                body: Body::default(),
                ..self.request.clone()
            };
            encode(&chunked)
        } else {
            encode(&self.request)
        };
        let subject = self.way.subject(&self.request);
        let reply = Subject::Inbox {
            class: self.bus.class(),
            instance: self.bus.instance_token().clone(),
            call,
        };
        let published = self.bus.publish_with_reply(subject, reply.to_string(), payload);
        // With the connection down and its buffer full, publishing waits.
        match timeout_at(self.deadline, published).await {
            Ok(published) => published.map_err(CallError::Bus),
            Err(_) => Err(self.deadline_passed()),
        }
    }

    async fn take_frame(&mut self, payload: &[u8]) -> Result<Option<Answer>, CallError> {
        let frame: Frame = match ContentType::MessagePack.decode(payload) {
            Ok(frame) => frame,
            Err(error) => return Err(self.bad_frame(Some(error))),
        };
        let attempt = self.attempt.as_mut().expect("a frame belongs to an attempt");
        attempt.heard_from(&frame.instance);
        match frame.kind {
            FrameKind::Accept => self.repeat_credit().await.map(|()| None),
            FrameKind::Busy => self.host_busy().await.map(|()| None),
            FrameKind::SendBody => self.send_chunks(CHUNK_WINDOW).await.map(|()| None),
            FrameKind::Credit => self
                .send_chunks(frame.seq.saturating_add(CHUNK_WINDOW))
                .await
                .map(|()| None),
            FrameKind::Part | FrameKind::Final => self.take_body(frame).await,
        }
    }

    async fn take_body(&mut self, frame: Frame) -> Result<Option<Answer>, CallError> {
        let attempt = self.attempt.as_mut().expect("a frame belongs to an attempt");
        if frame.seq != attempt.expected_seq {
            return Err(self.bad_frame(None));
        }
        attempt.expected_seq += 1;
        attempt.uncredited_frames += 1;
        attempt.uncredited_bytes += frame.body.0.len();
        let wants_credit =
            attempt.uncredited_frames >= CREDIT_EVERY || attempt.uncredited_bytes >= CREDIT_BYTES;
        let ends = frame.kind == FrameKind::Final && !frame.more;
        if wants_credit && !ends {
            attempt.uncredited_frames = 0;
            attempt.uncredited_bytes = 0;
            let seq = attempt.expected_seq;
            self.tell_instance(InstanceVerb::Credit, seq, Bytes::new())
                .await?;
        }
        let body = if frame.more || !self.pieces.is_empty() {
            let bytes = self.pieces.len() + frame.body.0.len();
            if bytes > MAX_BODY_BYTES {
                return Err(CallError::TooLarge {
                    what: "answer",
                    bytes,
                });
            }
            self.pieces.extend_from_slice(&frame.body.0);
            if frame.more {
                return Ok(None);
            }
            std::mem::take(&mut self.pieces).into()
        } else {
            frame.body.0
        };
        Ok(Some(match frame.kind {
            FrameKind::Final => Answer::Final {
                code: frame.code,
                body,
            },
            _ => Answer::Part(body),
        }))
    }

    async fn nobody_there(&mut self) -> Result<(), CallError> {
        let server = self.request.server.clone();
        let error = match self.lost.clone() {
            Some(instance) => CallError::HostLost { server, instance },
            None => CallError::NoResponders { server },
        };
        if !self.bus.recently_reconnected() {
            return if self.turn_if(Way::turn) {
                Ok(())
            } else {
                Err(error)
            };
        }
        self.try_again(Duration::from_millis(100)).await
    }

    async fn host_busy(&mut self) -> Result<(), CallError> {
        if self.turn_if(Way::turn_from_near) {
            return Ok(());
        }
        if self.attempts >= MAX_ATTEMPTS {
            return Err(CallError::Busy {
                server: self.request.server.clone(),
            });
        }
        // Replicas are picked at random, so another one may well be free at once.
        let pause = Duration::from_millis(5 << self.attempts);
        self.try_again(pause).await
    }

    /// Turns to the next place that may take the call, if there is one. It has as many tries there as it had here, as nothing was begun.
    fn turn_if(&mut self, turn: impl FnOnce(&mut Way) -> bool) -> bool {
        let turned = turn(&mut self.way);
        if turned {
            self.forget_attempt();
            self.attempts = self.losses;
        }
        turned
    }

    async fn try_again(&mut self, pause: Duration) -> Result<(), CallError> {
        self.forget_attempt();
        if self.deadline <= Instant::now() + pause {
            return Err(self.deadline_passed());
        }
        sleep(pause).await;
        Ok(())
    }

    fn instance_lost(&mut self, lost: Arc<str>, left: &HashSet<Arc<str>>) -> Result<(), CallError> {
        let place = self.place();
        let attempt = self.attempt.as_mut().expect("an arrival belongs to an attempt");
        match attempt.instance.as_deref() {
            Some(instance) if *instance == *lost => self.host_is_lost(lost.to_string()),
            Some(_) => Ok(()),
            // What it took before it left it has told; this call is not among it.
            None if left.contains(place.as_str()) => Ok(()),
            None => {
                attempt.suspect(lost, Why::Lost);
                Ok(())
            }
        }
    }

    /// The place of the server that is called.
    fn place(&self) -> String {
        place(&self.request.principal.tenant, &self.request.server)
    }

    /// An instance that has left in order has told the callers of what it took; the others' calls it never began.
    fn instance_left(&mut self, server: &str, instance: Arc<str>) {
        let place = self.place();
        let attempt = self.attempt.as_mut().expect("an arrival belongs to an attempt");
        if attempt.instance.is_none() && server == place {
            attempt.suspect(instance, Why::NotBegun);
        }
    }

    /// Called when a limit has passed without an arrival.
    fn silence_ends(&mut self) -> Result<(), CallError> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(self.deadline_passed());
        }
        let attempt = self.attempt.as_mut().expect("limits belong to an attempt");
        match (now >= attempt.limit()).then(|| attempt.give_up()).flatten() {
            Some((_, Why::NotBegun)) if self.attempts < MAX_ATTEMPTS => {
                // Should it be at a replica after all which has not come to say so, that one must not begin it.
                self.cancel();
                self.way.turn_from_near();
                self.forget_attempt();
                Ok(())
            }
            Some((instance, _)) => self.host_is_lost(instance),
            None => Ok(()),
        }
    }

    fn host_is_lost(&mut self, instance: String) -> Result<(), CallError> {
        debug!(server.id = %self.request.server, %instance, attempts = self.attempts, "the host of a call was lost");
        if self.retry.may_repeat() && !self.delivered && self.attempts < MAX_ATTEMPTS {
            // One that is the death of its hosts must not find ever more of them.
            self.losses += 1;
            self.way.turn_from_near();
            self.forget_attempt();
            self.lost = Some(instance);
            return Ok(());
        }
        Err(CallError::HostLost {
            server: self.request.server.clone(),
            instance,
        })
    }

    pub(super) fn deadline_passed(&self) -> CallError {
        let server = self.request.server.clone();
        CallError::Deadline {
            server,
            timeout_ms: self.timeout_ms,
        }
    }

    fn bad_frame(&self, source: Option<CodecError>) -> CallError {
        CallError::BadFrame {
            server: self.request.server.clone(),
            source,
        }
    }

    fn forget_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.bus.inbox().close(attempt.call);
            self.instance = attempt.instance;
        }
        self.pieces.clear();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
            self.forget_attempt();
        }
    }
}

fn bus_instance(bus: &Bus, request: &mut Request) {
    if request.caller.is_empty() {
        bus.instance().clone_into(&mut request.caller);
    }
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    ContentType::MessagePack
        .encode(value)
        .expect("envelopes have no values that MessagePack cannot carry")
}
