//! What the calls of one POST have said, kept until their client has read it: an event stream that can be taken up again.
//!
//! The bound and the patience are those of an outbox: 64 notifications or 1 MiB of them are kept, and beside them what always stays,
//! requests to the client and the answers. Unlike there, what was taken is kept too, as it may have been lost on its way; it goes
//! first when more comes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{sync::watch, time::timeout};

use crate::outbox::{GRACE, Kind as Worth, MAX_PARTS, MAX_PARTS_BYTES};

/// What the calls of one POST say.
pub(crate) struct Stream {
    /// The key of the session that may read it.
    session: String,
    /// Held only to put or take.
    content: Mutex<Content>,
    /// Told of every change: to the reader, to a writer that waits for room, and to whoever keeps the stream.
    changed: watch::Sender<()>,
}

struct Content {
    events: VecDeque<Event>,
    /// The number of the last event.
    last: u64,
    parts: usize,
    parts_bytes: usize,
    /// How many answers are still to come.
    due: usize,
    state: Reading,
    /// Which reader reads: each one ends the one before.
    readers: u64,
    /// The number of the last event that was taken.
    taken: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    KeepsUp,
    Behind,
    Nobody,
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Counts from 1; events that were dropped leave gaps.
    pub(crate) number: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// The JSON-RPC message.
    pub(crate) body: Bytes,
    worth: Worth,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A notification.
    Part,
    /// A request to the client.
    Question,
    /// The answer to one request.
    Answer,
    /// The answer to the last request that was open; nothing comes after it.
    Last,
}

/// What comes first out of a stream.
#[derive(Debug)]
pub(crate) enum First {
    /// All answers, with nothing before them; none when the calls were cancelled.
    Answers(Vec<Bytes>),
    /// Something else, or nothing yet.
    More,
}

impl Stream {
    /// A stream for the answers to some requests of a session.
    pub(crate) fn open(session: &str, requests: usize) -> Arc<Self> {
        Arc::new(Self {
            session: session.to_owned(),
            content: Mutex::new(Content {
                events: VecDeque::new(),
                last: 0,
                parts: 0,
                parts_bytes: 0,
                due: requests,
                state: Reading::KeepsUp,
                readers: 0,
                taken: 0,
            }),
            changed: watch::Sender::new(()),
        })
    }

    /// The key of the session that may read it.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// Puts a notification in; waits a little for a reader that keeps up.
    pub(crate) async fn offer(&self, body: Bytes) {
        if !self.content().has_room_for(&body) {
            let mut changes = self.changed.subscribe();
            let room =
                async { while !self.content().has_room_for(&body) && changes.changed().await.is_ok() {} };
            if timeout(GRACE, room).await.is_err() {
                self.content().fall_behind();
            }
        }
        self.put(Kind::Part, body);
    }

    /// Puts a request to the client in.
    pub(crate) fn question(&self, body: Bytes) {
        self.put(Kind::Question, body);
    }

    /// Puts an answer in.
    pub(crate) fn answer(&self, body: Bytes) {
        self.put(Kind::Answer, body);
    }

    /// Notes that a request will have no answer.
    pub(crate) fn leave_unanswered(&self) {
        let mut content = self.content();
        content.due = content.due.saturating_sub(1);
        drop(content);
        self.changed.send_replace(());
    }

    fn put(&self, kind: Kind, body: Bytes) {
        self.content().put(kind, body);
        self.changed.send_replace(());
    }

    /// Waits for what comes first. All answers are taken then.
    pub(crate) async fn first(&self) -> First {
        let mut changes = self.changed.subscribe();
        loop {
            {
                let mut content = self.content();
                if content.events.iter().any(|event| !event.is_answer()) {
                    return First::More;
                }
                if content.due == 0 {
                    content.taken = content.last;
                    return First::Answers(content.events.iter().map(|event| event.body.clone()).collect());
                }
            }
            if changes.changed().await.is_err() {
                return First::More;
            }
        }
    }

    /// Waits until all answers are there, and takes them; notifications are left out.
    pub(crate) async fn answers(&self) -> Vec<Bytes> {
        self.until(|content| content.due == 0).await;
        let mut content = self.content();
        content.taken = content.last;
        let answers = content.events.iter().filter(|event| event.is_answer());
        answers.map(|event| event.body.clone()).collect()
    }

    /// Whether nothing comes after an event any more.
    pub(crate) fn is_over_after(&self, number: u64) -> bool {
        let content = self.content();
        content.due == 0 && content.last <= number
    }

    /// Begins to read after an event; 0 is before the first. Whoever has read until now reads no more.
    pub(crate) fn read_after(self: &Arc<Self>, number: u64) -> Reader {
        let mut content = self.content();
        content.readers += 1;
        content.state = Reading::KeepsUp;
        content.taken = number.min(content.last);
        let reader = content.readers;
        drop(content);
        self.changed.send_replace(());
        Reader {
            changes: self.changed.subscribe(),
            stream: Arc::clone(self),
            reader,
            at: number,
        }
    }

    /// Waits until all answers are there, and gives how many bytes the stream keeps.
    pub(crate) async fn ended(&self) -> usize {
        self.until(|content| content.due == 0).await;
        self.content().events.iter().map(|event| event.body.len()).sum()
    }

    /// Waits until all answers were taken.
    pub(crate) async fn taken(&self) {
        self.until(|content| content.due == 0 && content.taken == content.last)
            .await;
    }

    async fn until(&self, holds: impl Fn(&Content) -> bool) {
        let mut changes = self.changed.subscribe();
        while !holds(&self.content()) && changes.changed().await.is_ok() {}
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever reads a stream at the moment.
pub(crate) struct Reader {
    stream: Arc<Stream>,
    changes: watch::Receiver<()>,
    reader: u64,
    at: u64,
}

impl Reader {
    /// Waits for the next event; `None` after the last, or when somebody else reads from now on. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            self.changes.borrow_and_update();
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            {
                let content = self.stream.content();
                if content.readers != self.reader || content.due == 0 {
                    return None;
                }
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// The next event, if it is there.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let mut content = self.stream.content();
        if content.readers != self.reader {
            return None;
        }
        let event = content
            .events
            .iter()
            .find(|event| event.number > self.at)?
            .clone();
        self.at = event.number;
        content.taken = event.number;
        if content.taken == content.last && content.state == Reading::Behind {
            content.state = Reading::KeepsUp;
        }
        drop(content);
        self.stream.changed.send_replace(());
        Some(event)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut content = self.stream.content();
        if content.readers == self.reader {
            content.state = Reading::Nobody;
            drop(content);
            self.stream.changed.send_replace(());
        }
    }
}

impl Event {
    fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Answer | Kind::Last)
    }
}

impl Content {
    fn put(&mut self, kind: Kind, body: Bytes) {
        if self.due == 0 {
            return;
        }
        let kind = match kind {
            Kind::Answer => {
                self.due -= 1;
                if self.due == 0 { Kind::Last } else { Kind::Answer }
            }
            kind => kind,
        };
        if kind == Kind::Part {
            self.parts += 1;
            self.parts_bytes += body.len();
        }
        self.last += 1;
        self.events.push_back(Event {
            number: self.last,
            kind,
            body,
            worth: Worth::Unread,
        });
        while self.parts > MAX_PARTS || self.parts > 1 && self.parts_bytes > MAX_PARTS_BYTES {
            self.drop_one();
        }
    }

    /// Whether a notification fits without one that nobody has read being dropped.
    fn has_room_for(&self, body: &Bytes) -> bool {
        if self.state != Reading::KeepsUp {
            return true;
        }
        let unread = self
            .events
            .iter()
            .rev()
            .take_while(|event| event.number > self.taken);
        let (mut count, mut bytes) = (0, body.len());
        for event in unread.filter(|event| event.kind == Kind::Part) {
            count += 1;
            bytes += event.body.len();
        }
        count == 0 || count < MAX_PARTS && bytes <= MAX_PARTS_BYTES
    }

    fn fall_behind(&mut self) {
        if self.state == Reading::KeepsUp {
            self.state = Reading::Behind;
        }
    }

    /// Drops the notification that is worth least, and never the newest.
    fn drop_one(&mut self) {
        let taken = self.taken;
        let newest = self.last;
        let was_taken = |event: &Event| event.kind == Kind::Part && event.number <= taken;
        let at = self.events.iter().position(was_taken).or_else(|| {
            for event in &mut self.events {
                if event.kind == Kind::Part && event.worth == Worth::Unread {
                    event.worth = Worth::of(&event.body);
                }
            }
            let old = || {
                self.events
                    .iter()
                    .enumerate()
                    .filter(|(_, event)| event.number < newest)
            };
            let outdated = |(at, event): &(usize, &Event)| {
                matches!(event.worth, Worth::Newest(_))
                    && self
                        .events
                        .iter()
                        .skip(at + 1)
                        .any(|newer| newer.worth == event.worth)
            };
            old()
                .find(outdated)
                .or_else(|| old().find(|(_, event)| event.worth == Worth::Log))
                .or_else(|| old().find(|(_, event)| event.kind == Kind::Part))
                .map(|(at, _)| at)
        });
        match at.and_then(|at| self.events.remove(at)) {
            Some(event) => {
                self.parts -= 1;
                self.parts_bytes -= event.body.len();
            }
            // There is nothing but what always stays.
            None => (self.parts, self.parts_bytes) = (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_schema::mcp::method;

    fn notification(method: &str, params: &str) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#).into()
    }

    fn progress(at: usize) -> Bytes {
        notification(method::PROGRESS, &format!(r#""progressToken":1,"progress":{at}"#))
    }

    fn drain(reader: &mut Reader) -> Vec<Bytes> {
        std::iter::from_fn(|| reader.try_next())
            .map(|event| event.body)
            .collect()
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_gets_what_it_missed_and_nothing_twice() {
        let stream = Stream::open("s", 1);
        let mut first = stream.read_after(0);
        for at in 1..=3 {
            stream.offer(progress(at)).await;
        }
        assert_eq!(first.next().await.expect("an event").number, 1);
        assert_eq!(first.next().await.expect("an event").number, 2);
        stream.question("q".into());
        stream.answer("a".into());
        // The second was on its way when the connection was lost.
        let mut second = stream.read_after(1);
        assert!(first.next().await.is_none(), "there is one reader");
        let kinds: Vec<_> = std::iter::from_fn(|| second.try_next())
            .map(|event| (event.number, event.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (2, Kind::Part),
                (3, Kind::Part),
                (4, Kind::Question),
                (5, Kind::Last)
            ]
        );
        assert!(second.next().await.is_none());
        stream.taken().await;
        assert_eq!(stream.ended().await, progress(1).len() * 3 + 2);
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded_and_what_counts_stays() {
        let stream = Stream::open("s", 1);
        drop(stream.read_after(0));
        let (first, log) = (notification("custom/a", ""), notification(method::MESSAGE, ""));
        stream.offer(first.clone()).await;
        stream.question("q".into());
        for at in 0..1000 {
            stream.offer(log.clone()).await;
            stream.offer(progress(at)).await;
        }
        stream.answer("a".into());
        let events = drain(&mut stream.read_after(0));
        assert_eq!(events.len(), MAX_PARTS + 2);
        assert_eq!(&events[..2], [first, "q".into()]);
        assert_eq!(&events[events.len() - 2..], [progress(999), "a".into()]);
        assert_eq!(events.iter().filter(|event| **event == progress(998)).count(), 0);
    }

    #[tokio::test]
    async fn large_notifications_are_bounded_by_their_bytes() {
        let stream = Stream::open("s", 1);
        drop(stream.read_after(0));
        for _ in 0..5 {
            stream.offer("x".repeat(MAX_PARTS_BYTES * 2).into()).await;
        }
        assert_eq!(drain(&mut stream.read_after(0)).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_keeps_up_misses_nothing_and_one_that_does_not_holds_up_nobody() {
        let stream = Stream::open("s", 1);
        let mut reader = stream.read_after(0);
        let write = async {
            for at in 0..10_000 {
                stream.offer(progress(at)).await;
            }
            stream.answer("a".into());
        };
        let read = async {
            let mut seen = 0;
            while reader.next().await.is_some() {
                seen += 1;
            }
            seen
        };
        assert_eq!(tokio::join!(write, read).1, 10_001);
        let started = tokio::time::Instant::now();
        let stream = Stream::open("s", 1);
        let _silent = stream.read_after(0);
        for at in 0..10_000 {
            stream.offer(progress(at)).await;
        }
        assert_eq!(started.elapsed(), GRACE);
    }

    #[tokio::test]
    async fn answers_alone_come_first_and_together() {
        let stream = Stream::open("s", 2);
        stream.answer("a".into());
        stream.answer("b".into());
        stream.answer("too many".into());
        assert!(matches!(stream.first().await, First::Answers(answers) if answers == ["a", "b"]));
        let stream = Stream::open("s", 2);
        stream.answer("a".into());
        stream.offer(progress(1)).await;
        assert!(matches!(stream.first().await, First::More));
        let stream = Stream::open("s", 1);
        stream.leave_unanswered();
        assert!(matches!(stream.first().await, First::Answers(answers) if answers.is_empty()));
    }
}
