//! One call in flight at a server.

use std::sync::Arc;

use bus_schema::{RpcError, mcp::method};
use bytes::Bytes;
use runtime::Outcome;

use crate::outbox::Step;

use super::{
    asks::{Answered, Asks},
    lanes::{Owner, Turn},
    levels::Wish,
    link::Link,
    park::Ticket,
    pending::{BusCall, Entry, Made, Origin},
    request::Asked,
};

/// One call in flight. Dropped before its answer, it tells the server that nobody waits for it, nor will answer what it asks.
pub(super) struct Call {
    link: Arc<Link>,
    number: u64,
    entry: Arc<Entry>,
    /// The server has got it, or will.
    pub(super) begun: bool,
    /// From which level on its caller wants log lines.
    pub(super) wish: Option<Wish>,
    /// Its place on a connection that is not everybody's.
    pub(super) turn: Option<Turn>,
    /// How its caller can come back to it, if that can be asked for input.
    pub(super) ticket: Option<Ticket>,
    /// Whose task it may become.
    pub(super) owner: Option<Owner>,
}

/// What comes next for a call.
#[derive(Debug)]
pub(super) enum Event {
    Part(Bytes),
    Answer(Outcome),
    /// The server has asked something that only the caller can answer.
    Asked,
}

impl Call {
    pub(super) fn new(link: Arc<Link>, number: u64, entry: Arc<Entry>) -> Self {
        Self {
            link,
            number,
            entry,
            begun: false,
            wish: None,
            turn: None,
            ticket: None,
            owner: None,
        }
    }

    /// Waits for the next notification, for the answer, or for a question of the server.
    pub(super) async fn next(&self) -> Event {
        let asked = async {
            match self.asks() {
                Some(asks) => asks.any().await,
                None => std::future::pending().await,
            }
        };
        // What was said before the question comes before it, and after an answer no question counts.
        tokio::select! {
            biased;
            step = self.message() => match step {
                Step::Part(part) => Event::Part(part),
                Step::Answer(outcome) => Event::Answer(outcome),
            },
            () = asked => Event::Asked,
        }
    }

    /// Waits for the next notification, or for the answer.
    pub(super) async fn message(&self) -> Step<Outcome> {
        self.entry.outbox.next().await.expect("the answer is taken once")
    }

    /// What the server has asked and nobody has answered, for calls from the bus.
    pub(super) fn asks(&self) -> Option<&Asks> {
        self.bus().map(|call| &call.asks)
    }

    fn bus(&self) -> Option<&BusCall> {
        self.entry.bus()
    }

    /// The call as the conversation has it.
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The task that its server has made of it.
    pub(super) fn task(&self) -> Option<Made> {
        self.bus()?.task_made()
    }

    /// Lets the caller go to answer the server's questions, and gives the request that it leaves with.
    ///
    /// # Errors
    /// The answer, when it has come at the last moment; the caller stays.
    pub(super) fn leave(&mut self) -> Result<Option<Asked>, Outcome> {
        let asked = self.bus().and_then(BusCall::leave);
        // Notifications that came at the last moment have nobody to go to any more.
        while let Some(step) = self.entry.outbox.try_next() {
            if let Step::Answer(outcome) = step {
                return Err(outcome);
            }
        }
        self.wish = None;
        Ok(asked)
    }

    /// The caller is back with another request, and with answers for the server.
    ///
    /// # Errors
    /// The error for a caller whose server is gone or does not read.
    pub(super) async fn come_back(&mut self, asked: Asked, answers: Vec<Answered>) -> Result<(), RpcError> {
        let log_level = asked.log_level.filter(|_| self.link.levels.are_taken());
        self.entry.come_back(asked);
        if let Some(level) = log_level {
            self.wish = Some(self.link.levels.want(&self.link, level).await);
        }
        self.link.answer_asks(answers).await
    }

    /// Whether the call is one of this conversation.
    pub(super) fn is_on(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.link, link)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let task = self.bus().and_then(BusCall::let_go);
        let awaited_by = task.as_ref().and_then(|task| task.awaited_by);
        let number = awaited_by.unwrap_or(self.number);
        let unanswered = self.link.pending.remove(number).is_some();
        for ask in self.asks().map(Asks::close).unwrap_or_default() {
            for refusal in ask.refusals() {
                self.link.try_send(refusal);
            }
        }
        // A handshake has nothing to cancel: `initialize` must not be, and a child that is not ready may not know the word.
        if unanswered && self.begun && !matches!(self.entry.from, Origin::Room) {
            let cancelled = serde_json::json!({
                "jsonrpc": "2.0",
                "method": method::CANCELLED,
                "params": { "requestId": number, "reason": "the caller no longer waits" },
            });
            self.link.try_send(cancelled.to_string().into_bytes());
            if let Some(turn) = &self.turn {
                turn.spoil();
            }
        }
        if let Some(task) = task {
            self.link.pending.remove_task(&task.id);
            let is_over = task.is_over || awaited_by.is_some() && !unanswered;
            if !is_over {
                // Nobody can ask about it any more.
                self.link.cancel_task(&task.id);
            }
        }
    }
}
