//! One call inside a host: its slot, its body, its handler, and its one answer whatever happens.

mod body;

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc};

use async_nats::Message;
use bus_schema::{
    ContentType, FrameKind, Request, RpcError,
    envelope::{CHUNK_BYTES, Control, MAX_BODY_BYTES},
    mcp::method,
    subject,
};
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info_span, warn};

use super::{
    ACCEPT_AFTER, HEARTBEAT,
    admission::{self, Admission, Limit, Permits, Via},
    authorize::{self, Watched},
    forgery,
    frames::{Credit, Frames, Pulse},
    guard, listed, listen, rails,
    run::Shared,
    server::{Outcome, Parts, Verdict},
};
use crate::{
    bus::BusError,
    catalogue::Listed,
    telemetry::{CallEnd, Ended},
};

/// How many notifications of one call may wait to be sent.
const PARTS_AHEAD: usize = 16;
/// How many chunks of a body may wait to be taken; callers send at most 16 without credit.
const CHUNKS_AHEAD: usize = 64;

/// Which call of which process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallKey {
    pub(super) caller: String,
    pub(super) call: u64,
}

/// What the loop must reach of a running call.
pub(super) struct Work {
    pub(super) cancel: CancellationToken,
    pub(super) credit: Credit,
    /// Says to the caller that the call is here.
    pub(super) pulse: Arc<Pulse>,
    chunks: Option<mpsc::Sender<Control>>,
}

impl Work {
    /// Takes a request from the queue: runs it in a task of its own, or answers "busy".
    pub(super) fn begin(
        shared: &Arc<Shared>,
        message: &Message,
        codec: ContentType,
        early: &VecDeque<CallKey>,
        via: Via,
    ) {
        let Some(reply) = message.reply.as_ref().map(ToString::to_string) else {
            return;
        };
        let request: Request = match codec.decode(&message.payload) {
            Ok(request) => request,
            Err(error) => {
                forgery::envelope(shared, &error);
                return;
            }
        };
        if let Some(why) = forged(shared, &reply, &request) {
            warn!(server.id = %shared.options.id, %reply, caller = %request.caller, tenant = %request.principal.tenant, "refused a request {why}");
            forgery::of_another(shared, &request, why);
            return;
        }
        let key = CallKey {
            caller: request.caller.clone(),
            call: request.call,
        };
        if early.contains(&key) {
            debug!("a call was cancelled before it came");
            return;
        }
        let Some(admission) = admission::admit(shared, message, &request, via) else {
            return;
        };
        let frames = Frames::new(Arc::clone(shared), key.clone(), reply, codec);
        let Some(permits) = Permits::take(shared, &request) else {
            return admission::answer_busy(shared, request, frames);
        };
        let (chunks, body) = match request.chunked_bytes {
            0 => (None, None),
            _ => Some(mpsc::channel(CHUNKS_AHEAD)).unzip(),
        };
        let work = Arc::new(Self {
            cancel: CancellationToken::new(),
            credit: Credit::default(),
            pulse: frames.pulse(),
            chunks,
        });
        shared.calls().insert(key.clone(), Arc::clone(&work));
        let running = Running {
            shared: Arc::clone(shared),
            key,
            work,
            frames,
            permits,
            limit: Limit::of(shared, &request),
            tool: None,
        };
        let span = info_span!(
            "call",
            server.id = %shared.options.id,
            mcp.method.name = %request.method,
            tool.name = request.name.as_deref(),
            trace_id = request.trace.as_ref().map(bus_schema::TraceContext::trace_id)
        );
        shared
            .running
            .spawn(running.run(request, body, admission).instrument(span));
    }

    /// Hands one piece of the request's body to the call.
    pub(super) fn take_chunk(&self, control: Control) {
        if let Some(chunks) = &self.chunks
            && chunks.try_send(control).is_err()
        {
            // A correct caller waits for credit; this one floods, and its body can never be whole.
            self.cancel.cancel();
        }
    }
}

/// Why a request cannot be from a door of ours, if it cannot.
fn forged(shared: &Shared, reply: &str, request: &Request) -> Option<&'static str> {
    // Answers go to whoever says that it asks, and to nobody whom it names instead.
    if !subject::is_inbox_of(reply, &request.caller, request.call) {
        return Some("whose reply subject is another caller's inbox");
    }
    // Whose the server is stands in the subject that the request came by, and doors ask in their callers' tenant only.
    let is_anothers = request.principal.tenant != shared.options.tenant;
    is_anothers.then_some("in the name of another tenant's principal")
}

struct Running {
    shared: Arc<Shared>,
    key: CallKey,
    work: Arc<Work>,
    frames: Frames,
    permits: Permits,
    limit: Limit,
    /// The tool that is called, for whoever hears that it took too long.
    tool: Option<String>,
}

/// How a call ends at its host.
enum End {
    Answered(Outcome),
    /// Nobody waits any more; nothing is sent.
    Cancelled,
}

impl Running {
    async fn run(
        mut self,
        mut request: Request,
        body: Option<mpsc::Receiver<Control>>,
        admission: Admission,
    ) {
        let metrics = self.shared.bus.metrics().clone();
        let shared = Arc::clone(&self.shared);
        let _in_flight = metrics.in_flight(shared.options.metered());
        let started = Instant::now();
        let deadline = self.limit.deadline();
        let described = self.shared.watched.describe(&request);
        let request_bytes = request
            .body
            .0
            .len()
            .max(usize::try_from(request.chunked_bytes).unwrap_or(usize::MAX));
        let end = match self.receive_body(&mut request, body, deadline).await {
            None => self.go(request, deadline, admission).await,
            Some(end) => end,
        };
        let (ended, code, answer_bytes) = match &end {
            End::Answered(outcome) => (Ended::Answered, outcome.code, outcome.body.len()),
            End::Cancelled => (Ended::Cancelled, None, 0),
        };
        if let End::Answered(outcome) = end {
            self.answer(outcome, deadline).await;
        }
        self.shared.calls().remove(&self.key);
        drop(self.permits);
        let duration = started.elapsed();
        metrics.handled(&CallEnd {
            server: shared.options.metered(),
            described: &described,
            duration,
            ended,
            code,
        });
        if self.shared.watched.now() {
            let event = described.into_event(
                &self.shared.bus,
                shared.options.id.as_str(),
                duration,
                ended,
                code,
                (request_bytes, answer_bytes),
            );
            self.shared.bus.tell(&event.tenant, &event).await;
        }
    }

    /// Asks the server, if it is to be asked, and notes what its answer says of it.
    async fn go(&mut self, mut request: Request, deadline: Instant, admission: Admission) -> End {
        if let Admission::Refused(error) = &admission {
            return End::Answered(Outcome::error_for(&request.body.0, error));
        }
        // What a handler reads is what it has.
        let millis = u64::try_from(self.limit.length().as_millis()).unwrap_or(u64::MAX);
        request.timeout_ms = millis.max(1);
        let end = self.handle(request, deadline).await;
        let outcome = match &end {
            End::Answered(outcome) => Some(outcome),
            End::Cancelled => None,
        };
        admission.ended(outcome, &self.limit);
        end
    }

    /// What is to be left out of the answer of the server, or the answer that needs none.
    fn judge(&mut self, request: &Request) -> Result<Option<Box<Watched>>, Outcome> {
        let is_call = request.method == method::TOOLS_CALL;
        self.tool = request.name.clone().filter(|_| is_call);
        let watched = authorize::judge(&self.shared, request)?;
        if let Some(outcome) = guard::answer(&self.shared, request) {
            return Err(outcome);
        }
        if let Some(tool) = &self.tool {
            self.shared.count_deprecated(tool);
        }
        Ok(watched)
    }

    /// Runs the handler: sends on what it notifies, tells the caller that it works, and drops it when nobody waits.
    async fn handle(&mut self, request: Request, deadline: Instant) -> End {
        let (parts_in, mut parts) = mpsc::channel(PARTS_AHEAD);
        let watched = match self.judge(&request) {
            Ok(watched) => watched,
            Err(answer) => return End::Answered(answer.saying(Verdict::Unasked)),
        };
        let listed = Listed::of(&request.method).map(|list| (request.principal.tenant.clone(), list));
        let body = request.body.0.clone();
        let parts_in = Parts::new(parts_in);
        let handler = match request.method.as_str() {
            method::LISTEN => listen::serve(Arc::clone(&self.shared), request, parts_in),
            _ => rails::handle(&self.shared, request, parts_in),
        };
        let mut handler = AssertUnwindSafe(handler).catch_unwind();
        let mut beat = heartbeat();
        let outcome = loop {
            tokio::select! {
                biased;
                () = self.work.cancel.cancelled() => return End::Cancelled,
                Some(part) = parts.recv() => {
                    if let Some(end) = self.send_part(part, deadline, &mut beat, &body).await {
                        return end;
                    }
                }
                outcome = &mut handler => break outcome,
                () = sleep_until(deadline) => {
                    return End::Answered(self.deadline_error(&body).saying(Verdict::Late));
                }
                _ = beat.tick() => if self.frames.signal(FrameKind::Accept, 0).await.is_err() {
                    return End::Cancelled;
                },
            }
        };
        // What the handler notified before it answered comes before its answer.
        while let Ok(part) = parts.try_recv() {
            if let Some(end) = self.send_part(part, deadline, &mut beat, &body).await {
                return end;
            }
        }
        let outcome = outcome.unwrap_or_else(|_| {
            error!("a handler panicked; its call was answered with an error");
            Outcome::error_for(
                &body,
                &RpcError::internal("the server failed while it handled the call"),
            )
            .saying(Verdict::Failed)
        });
        let outcome = match listed {
            Some((tenant, list)) => self.list(&tenant, list, &body, outcome),
            None => outcome,
        };
        End::Answered(authorize::shown(watched, &self.shared, &body, outcome))
    }

    /// A list as it goes out: as it was approved, and as guardrails let it.
    fn list(&self, tenant: &str, list: Listed, body: &[u8], outcome: Outcome) -> Outcome {
        let outcome = match list {
            Listed::Tools => guard::shown(&self.shared, body, outcome),
            _ => outcome,
        };
        listed::looked_at(&self.shared, (tenant, list), body, outcome)
    }

    async fn send_part(
        &mut self,
        part: Bytes,
        deadline: Instant,
        beat: &mut Interval,
        body: &[u8],
    ) -> Option<End> {
        self.send(FrameKind::Part, None, part, deadline, Some(beat))
            .await
            .err()
            .map(|ended| match ended {
                // It is the caller who has not read.
                Unsent::Deadline => End::Answered(self.deadline_error(body).saying(Verdict::Unasked)),
                Unsent::Gone => End::Cancelled,
            })
    }

    async fn answer(&mut self, outcome: Outcome, deadline: Instant) {
        let Outcome { code, body, .. } = outcome;
        let (code, body) = if body.len() > MAX_BODY_BYTES {
            let error = RpcError::internal(format!(
                "the answer of {} bytes is larger than the {MAX_BODY_BYTES} bytes that one message may have; ask for less at a time",
                body.len()
            ));
            let refused = Outcome::error_for(&body, &error);
            (refused.code, refused.body)
        } else {
            (code, body)
        };
        let mut beat = heartbeat();
        // A caller that takes a large answer slowly has a little longer than the call itself.
        let deadline = deadline.max(Instant::now() + HEARTBEAT * 5);
        let beating = self.frames.bytes_sent() || body.len() > CHUNK_BYTES;
        let sent = self
            .send(
                FrameKind::Final,
                code,
                body,
                deadline,
                beating.then_some(&mut beat),
            )
            .await;
        if sent.is_err() {
            debug!("the caller did not take the answer");
        }
    }

    /// Sends one part or the answer; gives up when nobody waits any more.
    async fn send(
        &mut self,
        kind: FrameKind,
        code: Option<i64>,
        body: Bytes,
        deadline: Instant,
        beat: Option<&mut Interval>,
    ) -> Result<(), Unsent> {
        let Running { frames, work, .. } = self;
        let pulse = frames.pulse();
        let sending = frames.send(&work.credit, kind, code, body);
        let beating = async {
            let Some(beat) = beat else {
                return std::future::pending().await;
            };
            loop {
                beat.tick().await;
                if pulse.signal(FrameKind::Accept, 0).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            sent = sending => sent.map_err(|_: BusError| Unsent::Gone),
            () = work.cancel.cancelled() => Err(Unsent::Gone),
            () = sleep_until(deadline) => Err(Unsent::Deadline),
            () = beating => Err(Unsent::Gone),
        }
    }

    fn deadline_error(&self, body: &[u8]) -> Outcome {
        let server = &self.shared.options.id;
        let tool = self.tool.as_deref();
        let limit = self.shared.tool_timeout(method::TOOLS_CALL, tool);
        let message = match tool.zip(limit) {
            Some((tool, limit)) => format!(
                "tool `{tool}` of server `{server}` did not finish within its {} ms, or the call's deadline",
                limit.as_millis()
            ),
            None => format!(
                "server `{server}` did not finish the call within its deadline ({} ms)",
                self.limit.length().as_millis()
            ),
        };
        Outcome::error_for(body, &RpcError::internal(message))
    }
}

/// Why a frame was not sent.
enum Unsent {
    Deadline,
    Gone,
}

fn heartbeat() -> Interval {
    let mut beat = interval_at(Instant::now() + ACCEPT_AFTER, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}
