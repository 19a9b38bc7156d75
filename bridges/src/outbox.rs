//! What a call has said and its reader has not taken yet: notifications in order, and then the answer.
//!
//! An outbox stands wherever a call must not wait for whoever reads: between a call and its client's stream, and between a child's
//! pipe and the calls that share it. **The bound:** at most 64 notifications or 1 MiB of them wait (a single one may be larger), and
//! beside them what always stays: the requests of one round to the client, and the one answer.
//!
//! A reader that keeps up gets everything: [`Sender::offer`] waits for it up to [`GRACE`] when the outbox is full. One that has let
//! that pass is behind until it has taken all that waits, and is not waited for. Then notifications go that a newer one makes
//! worthless (progress of the same token, a change of the same list or resource), then log lines, then the others; the oldest first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{
    mcp::method,
    rpc::{self, Message},
};
use bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

/// How many notifications may wait.
pub(crate) const MAX_PARTS: usize = 64;
/// How many bytes of notifications may wait; a single one may be larger.
pub(crate) const MAX_PARTS_BYTES: usize = 1024 * 1024;
/// How long a reader that keeps up may leave a full outbox alone. Then it is behind.
pub(crate) const GRACE: Duration = Duration::from_millis(100);

/// What waits for one reader. `A` is the form of the answer.
pub(crate) struct Outbox<A> {
    /// Held only to put or take.
    content: Mutex<Content<A>>,
    /// Rung for the reader.
    filled: Notify,
    /// Rung for a writer that waits for room.
    taken: Notify,
    /// Rung for a writer that looks out for a reader who leaves.
    left: Notify,
}

struct Content<A> {
    parts: VecDeque<Part>,
    /// How many of the parts may be dropped, and their bytes.
    count: usize,
    bytes: usize,
    end: End<A>,
    reader: Reader,
}

struct Part {
    kind: Kind,
    body: Bytes,
}

/// What a notification is worth. It is read only when something must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody has looked yet.
    Unread,
    /// A newer one with the same key makes it worthless.
    Newest(String),
    /// A log line.
    Log,
    /// Any other.
    Other,
    /// A request to the client, or what the protocol cannot do without.
    Kept,
}

enum End<A> {
    /// More may come.
    Open,
    Answered(A),
    /// The answer was taken, or there will be none.
    Over,
}

#[derive(PartialEq, Eq)]
enum Reader {
    KeepsUp,
    Behind,
    Gone,
}

/// What comes next for a reader.
#[derive(Debug)]
pub(crate) enum Step<A> {
    /// A notification, or a request to the client.
    Part(Bytes),
    /// The answer; nothing comes after it.
    Answer(A),
}

/// Where a call puts what it says. Dropped without an answer, it ends the stream.
pub(crate) struct Sender<A>(Arc<Outbox<A>>);

/// Where it is taken out. Dropped, it makes everything that is still said worthless.
pub(crate) struct Receiver<A>(Arc<Outbox<A>>);

/// An outbox with a reader of its own, which may leave.
pub(crate) fn open<A>() -> (Sender<A>, Receiver<A>) {
    let outbox = Arc::<Outbox<A>>::default();
    (Sender(Arc::clone(&outbox)), Receiver(outbox))
}

impl<A> Sender<A> {
    /// Puts a notification or a request in. Waits a moment for a reader that keeps up, and never for one that does not.
    pub(crate) async fn offer(&self, body: Bytes) {
        let must_wait = {
            let content = self.0.content();
            content.reader == Reader::KeepsUp && !content.has_room_for(&body)
        };
        if must_wait && timeout(GRACE, self.0.room_for(&body)).await.is_err() {
            self.0.content().fall_behind();
        }
        self.0.put(body);
    }

    /// Puts the answer in; nothing may follow it.
    pub(crate) fn answer(&self, answer: A) {
        self.0.put_answer(answer);
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn abandoned(&self) {
        while self.0.content().reader != Reader::Gone {
            self.0.left.notified().await;
        }
    }
}

impl<A> Drop for Sender<A> {
    fn drop(&mut self) {
        self.0.content().end.close();
        self.0.filled.notify_one();
    }
}

impl<A> Receiver<A> {
    /// Waits for the next step; `None` after the answer, or when there will be none.
    pub(crate) async fn next(&mut self) -> Option<Step<A>> {
        self.0.next().await
    }

    /// The next step, if it is there already.
    pub(crate) fn try_next(&mut self) -> Option<Step<A>> {
        self.0.try_next()
    }
}

impl<A> Drop for Receiver<A> {
    fn drop(&mut self) {
        self.0.content().reader_leaves();
        self.0.left.notify_one();
        self.0.taken.notify_one();
    }
}

impl<A> Default for Outbox<A> {
    fn default() -> Self {
        Self {
            content: Mutex::default(),
            filled: Notify::new(),
            taken: Notify::new(),
            left: Notify::new(),
        }
    }
}

impl<A> Default for Content<A> {
    fn default() -> Self {
        Self {
            parts: VecDeque::new(),
            count: 0,
            bytes: 0,
            end: End::Open,
            reader: Reader::KeepsUp,
        }
    }
}

impl<A> Outbox<A> {
    /// Puts a notification or a request in and never waits: when too much waits, something goes.
    pub(crate) fn put(&self, body: Bytes) {
        self.content().put(body);
        self.filled.notify_one();
    }

    /// Puts the answer in. The first one counts.
    pub(crate) fn put_answer(&self, answer: A) {
        self.content().answer(answer);
        self.filled.notify_one();
    }

    /// Waits for the next step; `None` after the answer, or when there will be none. There is one reader.
    pub(crate) async fn next(&self) -> Option<Step<A>> {
        loop {
            {
                let mut content = self.content();
                if let Some(step) = content.take() {
                    self.taken.notify_one();
                    return Some(step);
                }
                if matches!(content.end, End::Over) {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// The next step, if it is there already.
    pub(crate) fn try_next(&self) -> Option<Step<A>> {
        let step = self.content().take();
        self.taken.notify_one();
        step
    }

    /// Waits until a part of this size would fit, or nobody reads any more.
    async fn room_for(&self, body: &Bytes) {
        loop {
            {
                let content = self.content();
                if content.reader == Reader::Gone || content.has_room_for(body) {
                    return;
                }
            }
            self.taken.notified().await;
        }
    }

    fn content(&self) -> MutexGuard<'_, Content<A>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> End<A> {
    fn close(&mut self) {
        if matches!(self, Self::Open) {
            *self = Self::Over;
        }
    }
}

impl<A> Content<A> {
    fn put(&mut self, body: Bytes) {
        if !matches!(self.end, End::Open) || self.reader == Reader::Gone {
            return;
        }
        self.count += 1;
        self.bytes += body.len();
        self.parts.push_back(Part {
            kind: Kind::Unread,
            body,
        });
        if self.is_too_full() {
            self.read_kinds();
        }
        while self.is_too_full() {
            self.drop_one();
        }
    }

    fn answer(&mut self, answer: A) {
        if matches!(self.end, End::Open) && self.reader != Reader::Gone {
            self.end = End::Answered(answer);
        }
    }

    fn take(&mut self) -> Option<Step<A>> {
        if let Some(part) = self.parts.pop_front() {
            self.forget(&part);
            if self.parts.is_empty() && self.reader == Reader::Behind {
                self.reader = Reader::KeepsUp;
            }
            return Some(Step::Part(part.body));
        }
        match std::mem::replace(&mut self.end, End::Over) {
            End::Answered(answer) => Some(Step::Answer(answer)),
            other => {
                self.end = other;
                None
            }
        }
    }

    fn fall_behind(&mut self) {
        if self.reader == Reader::KeepsUp {
            self.reader = Reader::Behind;
        }
    }

    fn reader_leaves(&mut self) {
        self.reader = Reader::Gone;
        self.parts = VecDeque::new();
        (self.count, self.bytes) = (0, 0);
        self.end = End::Over;
    }

    fn has_room_for(&self, body: &Bytes) -> bool {
        self.count == 0 || self.count < MAX_PARTS && self.bytes + body.len() <= MAX_PARTS_BYTES
    }

    fn is_too_full(&self) -> bool {
        self.count > MAX_PARTS || self.count > 1 && self.bytes > MAX_PARTS_BYTES
    }

    fn forget(&mut self, part: &Part) {
        if part.kind != Kind::Kept {
            self.count -= 1;
            self.bytes -= part.body.len();
        }
    }

    fn read_kinds(&mut self) {
        for part in &mut self.parts {
            if part.kind != Kind::Unread {
                continue;
            }
            part.kind = Kind::of(&part.body);
            if part.kind == Kind::Kept {
                self.count -= 1;
                self.bytes -= part.body.len();
            }
        }
    }

    /// Drops what is worth least, and never the newest.
    fn drop_one(&mut self) {
        let before_newest = || self.parts.iter().take(self.parts.len() - 1);
        let outdated = |(at, part): (usize, &Part)| {
            matches!(part.kind, Kind::Newest(_))
                && self
                    .parts
                    .iter()
                    .skip(at + 1)
                    .any(|newer| newer.kind == part.kind)
        };
        let at = before_newest()
            .enumerate()
            .position(outdated)
            .or_else(|| before_newest().position(|part| part.kind == Kind::Log))
            .or_else(|| self.parts.iter().position(|part| part.kind != Kind::Kept));
        if let Some(part) = at.and_then(|at| self.parts.remove(at)) {
            self.forget(&part);
        }
    }
}

impl Kind {
    /// Reads what a message is worth.
    pub(crate) fn of(body: &[u8]) -> Self {
        let Ok(message) = Message::parse(body) else {
            return Self::Other;
        };
        if !matches!(message.kind(), Ok(rpc::Kind::Notification)) {
            return Self::Kept;
        }
        let params = message.peek_params().unwrap_or_default();
        let method = message.method.as_deref().unwrap_or_default();
        let about = match method {
            method::PROGRESS => params.progress_token,
            method::UPDATED => params.uri,
            method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => None,
            method::MESSAGE => return Self::Log,
            // Without it the other words of a subscription mean nothing.
            method::ACKNOWLEDGED => return Self::Kept,
            _ => return Self::Other,
        };
        Self::Newest(format!("{method} {}", about.map_or("", |raw| raw.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(token: &str, at: usize) -> Bytes {
        notification(
            method::PROGRESS,
            &format!(r#""progressToken":{token},"progress":{at}"#),
        )
    }

    fn notification(method: &str, params: &str) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#).into()
    }

    fn request(id: usize) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","id":"d-{id}","method":"elicitation/create","params":{{}}}}"#).into()
    }

    /// Everything that waits, without the answer.
    fn drain(outbox: &Outbox<()>) -> Vec<Bytes> {
        let mut parts = Vec::new();
        while let Some(Step::Part(body)) = outbox.try_next() {
            parts.push(body);
        }
        parts
    }

    #[test]
    fn a_slow_reader_gets_the_newest_progress_and_everything_else_in_order() {
        let outbox = Outbox::default();
        let (first, last) = (notification("custom/a", ""), notification("custom/z", ""));
        outbox.put(first.clone());
        for at in 0..1000 {
            outbox.put(progress("1", at));
        }
        outbox.put(last.clone());
        let mut expected = vec![first];
        expected.extend((938..1000).map(|at| progress("1", at)));
        expected.push(last);
        assert_eq!(drain(&outbox), expected);
    }

    #[test]
    fn each_token_keeps_its_newest_progress() {
        let outbox = Outbox::default();
        outbox.put(progress("\"slow\"", 7));
        for at in 0..1000 {
            outbox.put(progress("1", at));
        }
        let parts = drain(&outbox);
        assert_eq!(parts.len(), MAX_PARTS);
        assert_eq!(parts[0], progress("\"slow\"", 7));
        assert_eq!(parts[MAX_PARTS - 1], progress("1", 999));
    }

    #[test]
    fn log_lines_go_before_other_notifications_and_requests_stay() {
        let outbox = Outbox::default();
        let log = |at| notification(method::MESSAGE, &format!(r#""data":{at}"#));
        for at in 0..MAX_PARTS {
            outbox.put(log(at));
            outbox.put(request(at));
        }
        for at in 0..MAX_PARTS - 1 {
            outbox.put(notification("custom/x", &at.to_string()));
        }
        let mut expected: Vec<_> = (0..MAX_PARTS - 1).map(request).collect();
        expected.push(log(MAX_PARTS - 1));
        expected.push(request(MAX_PARTS - 1));
        expected.extend((0..MAX_PARTS - 1).map(|at| notification("custom/x", &at.to_string())));
        assert_eq!(drain(&outbox), expected);
    }

    #[test]
    fn a_change_is_told_once_and_the_acknowledgement_always() {
        let outbox = Outbox::default();
        outbox.put(notification(method::ACKNOWLEDGED, ""));
        for _ in 0..1000 {
            outbox.put(notification(method::TOOLS_CHANGED, ""));
            outbox.put(notification(method::UPDATED, r#""uri":"a://1""#));
        }
        outbox.put(notification(method::UPDATED, r#""uri":"a://2""#));
        let parts = drain(&outbox);
        assert_eq!(parts[0], notification(method::ACKNOWLEDGED, ""));
        assert_eq!(parts.len(), 1 + MAX_PARTS);
        assert!(parts.contains(&notification(method::UPDATED, r#""uri":"a://1""#)));
        assert!(parts.contains(&notification(method::TOOLS_CHANGED, "")));
    }

    #[test]
    fn large_notifications_are_bounded_by_their_bytes() {
        let outbox = Outbox::default();
        let large = "x".repeat(MAX_PARTS_BYTES * 2);
        for _ in 0..5 {
            outbox.put(large.clone().into());
        }
        assert_eq!(drain(&outbox).len(), 1);
    }

    #[tokio::test]
    async fn nothing_follows_the_answer_and_the_first_one_counts() {
        let outbox = Outbox::default();
        outbox.put_answer(1);
        outbox.put_answer(2);
        outbox.put(progress("1", 1));
        assert!(matches!(outbox.next().await, Some(Step::Answer(1))));
        outbox.put_answer(3);
        assert!(outbox.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_up_misses_nothing() {
        let (sender, mut receiver) = open();
        let writer = async {
            for at in 0..10_000 {
                sender.offer(progress("1", at)).await;
            }
            sender.answer(());
        };
        let reader = async {
            let mut seen = 0;
            while let Some(Step::Part(body)) = receiver.next().await {
                assert_eq!(body, progress("1", seen));
                seen += 1;
            }
            seen
        };
        assert_eq!(tokio::join!(writer, reader).1, 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_behind_is_waited_for_once_until_it_has_caught_up() {
        let started = tokio::time::Instant::now();
        let (sender, mut receiver) = open::<()>();
        for at in 0..10_000 {
            sender.offer(progress("1", at)).await;
        }
        assert_eq!(started.elapsed(), GRACE);
        // Taking a little is not catching up.
        receiver.try_next().expect("a part");
        sender.offer(progress("1", 10_000)).await;
        sender.offer(progress("1", 10_001)).await;
        assert_eq!(started.elapsed(), GRACE);
        while receiver.try_next().is_some() {}
        for at in 0..MAX_PARTS + 2 {
            sender.offer(progress("1", at)).await;
        }
        assert_eq!(started.elapsed(), GRACE * 2);
    }

    #[tokio::test]
    async fn each_end_hears_that_the_other_is_gone() {
        let (sender, receiver) = open::<()>();
        drop(receiver);
        sender.abandoned().await;
        for at in 0..1000 {
            sender.offer(progress("1", at)).await;
        }
        assert!(drain(&sender.0).is_empty());
        let (sender, mut receiver) = open::<()>();
        sender.offer(progress("1", 1)).await;
        drop(sender);
        assert!(matches!(receiver.next().await, Some(Step::Part(_))));
        assert!(receiver.next().await.is_none());
    }
}
