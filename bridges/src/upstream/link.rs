//! The conversation with a server: calls go out under numbers, and what comes back finds its call.
//!
//! One task reads and one writes, and neither waits for the other.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{RpcError, ServerId, TraceContext, mcp::Era, rpc::Message};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::{
    lines::{Line, Lines, MAX_LINE_BYTES, end_line, excerpt},
    outbox::Step,
};

use super::{
    answer,
    call::Call,
    capabilities::Declared,
    hearing::ListChanges,
    inbound,
    levels::Levels,
    pace::Pace,
    pending::{BusCall, Entry, Origin, Pending},
    request::{Asked, Reading},
    tasks::Supports,
};

/// How many messages may wait for the child to read them.
const QUEUE: usize = 256;
/// How many KiB of calls may wait for it; the largest call of all fits.
const QUEUE_KIB: u32 = 256 * 1024;
/// A child that writes so many lines in a row that are no messages speaks no MCP.
const MAX_GARBAGE: u32 = 10_000;
/// How many bad lines of one run the log shows; the handshake's error tells how many there were.
const SHOWN_GARBAGE: u64 = 10;
/// How many characters of a bad line the log shows.
const SHOWN_CHARS: usize = 200;
/// How many changes of resources may wait for who listens; whoever misses some takes all as changed.
const UPDATES: usize = 256;

/// What the two tasks and all calls share.
pub(super) struct Link {
    pub(super) server: ServerId,
    /// What the handshake says that the client can be asked for.
    pub(super) declared: Declared,
    pub(super) pending: Pending,
    pub(super) levels: Levels,
    /// Which tools let their calls be tasks.
    pub(super) supports: Supports,
    /// The URIs of resources that have changed.
    pub(super) updates: broadcast::Sender<Arc<str>>,
    /// Rung when the child says that one of its lists has changed.
    pub(super) list_changed: Notify,
    /// Counts what it has said of each.
    pub(super) changes: ListChanges,
    /// Counts the changes that the host is to hear of.
    pub(super) list_changes: watch::Sender<u64>,
    /// Counts the times that the server may have said what nobody heard, or has forgotten what it was told.
    pub(super) gaps: watch::Sender<Gaps>,
    /// How fast the server is read.
    pub(super) pace: Pace,
    numbers: AtomicU64,
    to_child: mpsc::Sender<Outgoing>,
    /// In KiB, as one permit a byte would be too many for a semaphore.
    room: Arc<Semaphore>,
    unread: Duration,
    garbage: AtomicU64,
    /// Why nobody reads any more what the child writes.
    nonsense: OnceLock<&'static str>,
    /// Cancelled when no more calls will be made: what is queued is written, and then stdin is closed.
    closing: CancellationToken,
    /// Cancelled when the conversation cannot go on, whatever the process does.
    broken: CancellationToken,
}

/// How often a conversation had a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// Notifications may be lost.
    pub(super) unheard: u64,
    /// The server knows nothing any more of what it was told before.
    pub(super) forgotten: u64,
}

/// A message on its way to the child.
pub(super) struct Outgoing {
    line: Vec<u8>,
    /// Given back when the message is written.
    room: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// The message without the end of its line, and the room that it takes for as long as it is held.
    pub(super) fn into_message(mut self) -> (Bytes, Option<OwnedSemaphorePermit>) {
        self.line.truncate(self.line.trim_ascii_end().len());
        (self.line.into(), self.room)
    }
}

impl Link {
    /// A conversation, and the queue that [`Link::write`] takes.
    pub(super) fn new(
        server: ServerId,
        declared: Declared,
        unread: Duration,
    ) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (to_child, queue) = mpsc::channel(QUEUE);
        let link = Self {
            server,
            declared,
            pending: Pending::default(),
            levels: Levels::default(),
            supports: Supports::default(),
            updates: broadcast::channel(UPDATES).0,
            list_changed: Notify::new(),
            changes: ListChanges::default(),
            list_changes: watch::Sender::new(0),
            gaps: watch::Sender::default(),
            pace: Pace::default(),
            numbers: AtomicU64::new(1),
            to_child,
            room: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            unread,
            garbage: AtomicU64::new(0),
            nonsense: OnceLock::new(),
            closing: CancellationToken::new(),
            broken: CancellationToken::new(),
        };
        (Arc::new(link), queue)
    }

    /// Begins a call from the bus.
    ///
    /// # Errors
    /// The error for a caller whose server is gone or does not read.
    pub(super) async fn begin(
        self: &Arc<Self>,
        reading: &Reading<'_>,
        asked: Asked,
        era: Era,
        trace: Option<&TraceContext>,
    ) -> Result<Call, RpcError> {
        let number = self.next_number();
        let log_level = asked
            .log_level
            .filter(|_| era == Era::Legacy && self.levels.are_taken());
        let wish = match log_level {
            Some(level) => Some(self.levels.want(self, level).await),
            None => None,
        };
        let mut call = self.enter(number, Origin::Bus(Box::new(BusCall::new(asked, era))))?;
        call.wish = wish;
        self.send(reading.line(era, number, trace)).await?;
        call.begun = true;
        Ok(call)
    }

    /// Begins a call of this room's own that tells of changes until it ends.
    ///
    /// # Errors
    /// The error of a server that is gone or does not read.
    pub(super) async fn listen(
        self: &Arc<Self>,
        method: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<Call, RpcError> {
        let number = self.next_number();
        let mut call = self.enter(number, Origin::Listen)?;
        self.send(end_line(own_request(number, method, params))).await?;
        call.begun = true;
        Ok(call)
    }

    /// Makes a call of this room's own.
    ///
    /// # Errors
    /// The child's error, or that of a child that is gone or does not read.
    pub(super) async fn ask(
        self: &Arc<Self>,
        method: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<Box<RawValue>, RpcError> {
        let line = self.ask_for_line(Origin::Room, method, params).await?;
        let message = Message::parse(&line)?;
        match (message.error, message.result) {
            (None, Some(result)) => Ok(result.to_owned()),
            (error, _) => Err(error.map_or_else(
                || RpcError::internal("the answer has no result"),
                answer::error_of,
            )),
        }
    }

    /// Makes a call that is no caller's, and gives the line that answers it.
    ///
    /// # Errors
    /// That of a server that is gone, does not read, or does not answer as it should; what it answers itself is a line.
    pub(super) async fn ask_for_line(
        self: &Arc<Self>,
        from: Origin,
        method: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<Bytes, RpcError> {
        let number = self.next_number();
        let mut call = self.enter(number, from)?;
        self.send(end_line(own_request(number, method, params))).await?;
        call.begun = true;
        loop {
            if let Step::Answer(outcome) = call.message().await {
                return match (outcome.code, Message::parse(&outcome.body)?.error) {
                    (Some(_), Some(error)) => Err(answer::error_of(error)),
                    _ => Ok(outcome.body),
                };
            }
        }
    }

    /// Tells the child something that it does not answer.
    pub(super) async fn notify(&self, method: &str) -> Result<(), RpcError> {
        let line = serde_json::json!({ "jsonrpc": "2.0", "method": method }).to_string();
        self.send(end_line(line.into_bytes())).await
    }

    /// Sends a small message if there is room for it at once.
    pub(super) fn try_send(&self, message: Vec<u8>) {
        if self.offer(message).is_err() {
            debug!(server.id = %self.server, "dropped a message to a server that does not read");
        }
    }

    /// The same for a message that somebody waits for.
    ///
    /// # Errors
    /// The error for who waits, when there is no room.
    pub(super) fn offer(&self, message: Vec<u8>) -> Result<(), RpcError> {
        let outgoing = Outgoing {
            line: end_line(message),
            room: None,
        };
        self.to_child
            .try_send(outgoing)
            .map_err(|_| RpcError::internal(format!("server `{}` does not read its input", self.server)))
    }

    /// How many lines the child has written that are no messages.
    pub(super) fn garbage(&self) -> u64 {
        self.garbage.load(Ordering::Relaxed)
    }

    /// Lets the child read what is queued, and then closes its stdin.
    pub(super) fn close_input(&self) {
        self.closing.cancel();
    }

    /// A number that no other call has.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until no more calls will be made.
    pub(super) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Ends the conversation, as it cannot go on.
    pub(super) fn break_off(&self) {
        self.broken.cancel();
    }

    /// Ends the conversation when whoever carries it ends.
    pub(super) fn break_guard(&self) -> DropGuard {
        self.broken.clone().drop_guard()
    }

    /// Waits until the conversation cannot go on.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// What the server has said for a while may not have been heard.
    pub(super) fn missed_something(&self) {
        self.gaps.send_modify(|gaps| gaps.unheard += 1);
        self.supports.forget();
        self.list_changed.notify_one();
    }

    /// The server has begun a new session, and knows nothing of what it was told in the old one.
    pub(super) fn was_forgotten(&self) {
        self.gaps.send_modify(|gaps| gaps.forgotten += 1);
        self.missed_something();
    }

    /// Why nobody reads any more what the child writes, if that is the child's fault.
    pub(super) fn nonsense(&self) -> Option<&'static str> {
        self.nonsense.get().copied()
    }

    fn enter(self: &Arc<Self>, number: u64, from: Origin) -> Result<Call, RpcError> {
        let entry = Arc::new(Entry::new(from));
        self.pending.insert(number, Arc::clone(&entry))?;
        Ok(Call::new(Arc::clone(self), number, entry))
    }

    /// Queues a line; waits for a while if the server reads slowly.
    ///
    /// # Errors
    /// The error for a caller whose server is gone or does not read.
    pub(super) async fn send(&self, line: Vec<u8>) -> Result<(), RpcError> {
        let kib = u32::try_from(line.len().div_ceil(1024))
            .unwrap_or(u32::MAX)
            .min(QUEUE_KIB);
        let queue = async {
            let room = Arc::clone(&self.room).acquire_many_owned(kib).await.ok();
            let outgoing = Outgoing { line, room };
            self.to_child.send(outgoing).await.is_ok()
        };
        match timeout(self.unread, queue).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(RpcError::internal(format!(
                "server `{}` has closed its input; the call was not begun",
                self.server
            ))),
            Err(_) => Err(RpcError::internal(format!(
                "server `{}` does not read its input; the call was not begun",
                self.server
            ))),
        }
    }

    /// Writes what is queued to the child's stdin, until it is closed from either side.
    pub(super) async fn write(
        self: Arc<Self>,
        mut queue: mpsc::Receiver<Outgoing>,
        mut stdin: impl AsyncWrite + Unpin,
    ) {
        loop {
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                () = self.closing.cancelled() => None,
            };
            let Some(outgoing) = next else { return };
            if let Err(error) = stdin.write_all(&outgoing.line).await {
                debug!(%error, server.id = %self.server, "the server has closed its input");
                self.broken.cancel();
                return;
            }
        }
    }

    /// Reads what the child writes to its stdout, until it ends or makes no sense.
    pub(super) async fn read(self: Arc<Self>, stdout: impl AsyncRead + Unpin) {
        let _broken = self.break_guard();
        let mut lines = Lines::new(stdout, MAX_LINE_BYTES);
        let mut garbage_in_a_row = 0;
        while garbage_in_a_row < MAX_GARBAGE {
            let taken = match lines.next().await {
                // Over a pipe nothing tells which call a message belongs to.
                Ok(Some(Line::Whole(line))) => self.take(&line, None),
                Ok(Some(Line::TooLong(skipped))) => inbound::take_skipped(&self, &skipped),
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, server.id = %self.server, "the server's output cannot be read");
                    return self.give_up("it writes what cannot be read");
                }
            };
            self.pace.rest().await;
            garbage_in_a_row = if taken.is_ok() { 0 } else { garbage_in_a_row + 1 };
        }
        self.give_up("it writes lines that are no messages, and nothing else");
    }

    fn give_up(&self, why: &'static str) {
        // Only the reader gives up, and only once.
        let _ = self.nonsense.set(why);
    }

    /// Takes what the server has said. `stream` is the call whose own stream it came on, where the transport can tell.
    ///
    /// # Errors
    /// What is wrong with what is no message; the log has it already.
    pub(super) fn take(&self, line: &[u8], stream: Option<u64>) -> Result<(), RpcError> {
        let taken = inbound::take(self, line, stream);
        if let Err(error) = &taken {
            let count = self.garbage.fetch_add(1, Ordering::Relaxed) + 1;
            // A child that writes nothing else must not fill the log as well.
            if count <= SHOWN_GARBAGE {
                warn!(
                    server.id = %self.server, count, why = %error,
                    "skipped a line that is no message: {}", excerpt(line, SHOWN_CHARS)
                );
            }
        }
        taken
    }
}

/// A request of this room's own.
pub(super) fn own_request(number: u64, method: &str, params: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Own<'a, P> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    let request = Own {
        jsonrpc: "2.0",
        id: number,
        method,
        params,
    };
    serde_json::to_vec(&request).expect("what this room asks is always JSON")
}
