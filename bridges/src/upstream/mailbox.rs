//! What has come for one call and was not taken yet: notifications in order, and then the answer.
//!
//! A reader that serves all calls puts things in and never waits. When the caller takes them too slowly, progress goes first,
//! as only the newest of it matters, then log lines; the answer always stays.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use runtime::Outcome;
use tokio::sync::Notify;

/// How many notifications may wait.
const MAX_PARTS: usize = 64;
/// How many bytes of notifications may wait; a single one may be larger.
const MAX_PARTS_BYTES: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct Mailbox {
    /// Held only to put or take.
    content: Mutex<Content>,
    filled: Notify,
}

#[derive(Default)]
struct Content {
    parts: VecDeque<Part>,
    bytes: usize,
    answer: Option<Outcome>,
}

/// A notification for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    /// A newer one makes it worthless.
    Progress,
    Message,
}

/// What comes next for a call.
#[derive(Debug)]
pub(super) enum Step {
    Part(Bytes),
    Answer(Outcome),
}

impl Mailbox {
    pub(super) fn put_part(&self, part: Part) {
        let mut content = self.content();
        if content.answer.is_some() {
            return;
        }
        content.bytes += part.body.len();
        content.parts.push_back(part);
        while content.is_too_full() {
            content.drop_one();
        }
        drop(content);
        self.filled.notify_one();
    }

    /// The first answer counts.
    pub(super) fn put_answer(&self, answer: Outcome) {
        self.content().answer.get_or_insert(answer);
        self.filled.notify_one();
    }

    pub(super) async fn next(&self) -> Step {
        loop {
            if let Some(step) = self.try_next() {
                return step;
            }
            self.filled.notified().await;
        }
    }

    /// What is there already.
    pub(super) fn try_next(&self) -> Option<Step> {
        self.content().take()
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn take(&mut self) -> Option<Step> {
        if let Some(part) = self.parts.pop_front() {
            self.bytes -= part.body.len();
            return Some(Step::Part(part.body));
        }
        self.answer.take().map(Step::Answer)
    }

    fn is_too_full(&self) -> bool {
        self.parts.len() > MAX_PARTS || self.parts.len() > 1 && self.bytes > MAX_PARTS_BYTES
    }

    /// The newest stays: what is dropped is the latest progress before it, or else the notification itself.
    fn drop_one(&mut self) {
        let before_newest = self.parts.len() - 1;
        let at = self
            .parts
            .iter()
            .take(before_newest)
            .rposition(|part| part.kind == PartKind::Progress)
            .unwrap_or(before_newest);
        if let Some(part) = self.parts.remove(at) {
            self.bytes -= part.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: PartKind, text: &str) -> Part {
        Part {
            kind,
            body: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    async fn drain(mailbox: &Mailbox) -> Vec<String> {
        mailbox.put_answer(Outcome::result("1", b"{}"));
        let mut parts = Vec::new();
        while let Step::Part(body) = mailbox.next().await {
            parts.push(String::from_utf8(body.to_vec()).unwrap());
        }
        parts
    }

    #[tokio::test]
    async fn the_newest_progress_and_every_message_reach_a_slow_caller() {
        let mailbox = Mailbox::default();
        let (progress, message) = (PartKind::Progress, PartKind::Message);
        mailbox.put_part(part(message, "first"));
        for at in 0..1000 {
            mailbox.put_part(part(progress, &at.to_string()));
        }
        mailbox.put_part(part(message, "last"));
        let parts = drain(&mailbox).await;
        assert_eq!(parts.len(), MAX_PARTS);
        assert_eq!((parts[0].as_str(), parts[1].as_str()), ("first", "0"));
        assert_eq!(parts[MAX_PARTS - 1], "last");
        let numbers: Vec<u32> = parts.iter().filter_map(|part| part.parse().ok()).collect();
        assert!(numbers.is_sorted());
    }

    #[tokio::test]
    async fn large_notifications_are_bounded_by_their_bytes() {
        let mailbox = Mailbox::default();
        let large = "x".repeat(MAX_PARTS_BYTES * 2);
        for _ in 0..5 {
            mailbox.put_part(part(PartKind::Message, &large));
        }
        assert_eq!(drain(&mailbox).await.len(), 1);
    }

    #[tokio::test]
    async fn nothing_follows_the_answer() {
        let mailbox = Mailbox::default();
        mailbox.put_answer(Outcome::result("1", b"{}"));
        mailbox.put_answer(Outcome::result("2", b"{}"));
        mailbox.put_part(part(PartKind::Progress, "late"));
        let Step::Answer(outcome) = mailbox.next().await else {
            panic!("a part came after the answer");
        };
        assert_eq!(outcome.body, Outcome::result("1", b"{}").body);
    }
}
