//! The record of a task, and the moves that change it: pure, so that every order of them can be tried.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    APPROVAL,
    asking::Asked,
    order::{Order, Word},
    state::{Delivery, Illegal, State, Step, Turn},
};
use crate::{envelope::Body, mcp::method};

/// How often in a row workers may take a task without it moving on, before it is held for an operator.
pub const MAX_IDLE: u32 = 8;
/// How many bytes the steps of a task may have together.
pub const MAX_STEPS_BYTES: usize = 768 * 1024;
/// How many questions a task may ask in its life.
pub const MAX_ASKED: usize = 64;

/// What is kept of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What was asked.
    pub order: Order,
    /// How it stands.
    pub state: State,
    /// When something last happened to it, in milliseconds since 1970.
    pub changed_ms: u64,
    /// When it is forgotten, in milliseconds since 1970; never sooner than was said before.
    pub expires_ms: u64,
    /// How often a worker has taken it.
    #[serde(default)]
    pub attempt: u32,
    /// How often that was since it last moved on.
    #[serde(default)]
    pub idle: u32,
    /// The worker that took it last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// By which word in the queue that one took it: its sequence in the stream. Should the word come again, that worker is gone.
    #[serde(default)]
    pub lease: u64,
    /// What it is about at the moment, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How far it is, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// What was done, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, Step>,
    /// All that it has ever asked, by keys that are never used again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<String, Asked>,
    /// Counts what it has waited for.
    #[serde(default)]
    pub round: u32,
    /// Who has last decided over it from outside, such as its operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
}

impl Task {
    /// A task that nothing has happened to.
    #[must_use]
    pub fn new(order: Order) -> Self {
        let created = order.created_ms;
        Self {
            changed_ms: created,
            expires_ms: created + order.kept_ms,
            order,
            state: State::Ready,
            attempt: 0,
            idle: 0,
            worker: String::new(),
            lease: 0,
            note: None,
            fraction: None,
            steps: BTreeMap::new(),
            asked: BTreeMap::new(),
            round: 0,
            decided_by: None,
        }
    }

    /// Whether nothing can change it any more.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(
            self.state,
            State::Completed { .. } | State::Failed { .. } | State::Cancelled
        )
    }

    /// Its status as the protocol has it.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match self.state {
            State::Ready | State::Working | State::Sleeping { .. } | State::Held { .. } => "working",
            State::Waiting { .. } => "input_required",
            State::Completed { .. } => "completed",
            State::Failed { .. } => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// How it stands, in one word, for operators.
    #[must_use]
    pub const fn standing(&self) -> &'static str {
        match self.state {
            State::Ready => "queued",
            State::Working => "working",
            State::Sleeping { .. } => "sleeping",
            State::Held { .. } => "held",
            _ => self.status(),
        }
    }

    /// What it waits for from its client: questions without an answer.
    pub fn outstanding(&self) -> impl Iterator<Item = (&str, &Asked)> {
        let waits = matches!(self.state, State::Waiting { .. });
        let asked = self
            .asked
            .iter()
            .filter(move |(_, asked)| waits && asked.answer.is_none());
        asked.map(|(key, asked)| (key.as_str(), asked))
    }

    /// A worker hears a word about it. What comes late, or twice, is [`Turn::Drop`].
    pub fn hear(&mut self, word: &Word, delivery: &Delivery<'_>) -> Turn {
        if self.has_ended() {
            return Turn::Drop;
        }
        let now_ms = delivery.now_ms;
        let is_due = |until: u64| until <= now_ms;
        match (word, &self.state) {
            (Word::Run(_), State::Ready) if now_ms > self.expires_ms => {
                let error = error_json("no worker has taken the task in the time that it was to be kept");
                self.end(State::Failed { error }, now_ms);
                Turn::Write
            }
            // Nothing was written about it, so nobody else has begun it.
            (Word::Run(_), State::Ready) if delivery.count == 1 => {
                self.take(delivery);
                Turn::First
            }
            (Word::Run(_), State::Ready) => self.take_written(delivery),
            // The worker that had taken it by this very word is gone.
            (_, State::Working) if self.lease == delivery.sequence => self.take_written(delivery),
            // A door that had it is gone.
            (Word::Wake(round), State::Working) if self.lease == 0 && *round == self.round => {
                self.take_written(delivery)
            }
            (Word::Wake(round), State::Sleeping { round: is, .. }) if round == is => {
                self.take_written(delivery)
            }
            (Word::Wake(round), State::Waiting { round: is, until_ms })
                if round == is && is_due(*until_ms) =>
            {
                let error = error_json("nobody has answered in time");
                self.end(State::Failed { error }, now_ms);
                Turn::Write
            }
            (Word::Answers { answers, by }, State::Waiting { .. }) => self.answer(answers, by, delivery),
            (Word::Again, State::Held { .. }) => {
                self.idle = 0;
                self.take_written(delivery)
            }
            _ => Turn::Drop,
        }
    }

    /// A process that has begun the call keeps it: how a task begins that was a call before.
    pub fn adopt(&mut self, worker: &str, now_ms: u64) {
        self.state = State::Working;
        self.attempt = 1;
        self.idle = 1;
        self.round = 1;
        worker.clone_into(&mut self.worker);
        self.touch(now_ms);
    }

    fn take(&mut self, delivery: &Delivery<'_>) {
        self.state = State::Working;
        // A worker that took it without a word in the record is counted as well.
        self.attempt = delivery.count.max(self.attempt + 1);
        self.idle += 1;
        self.lease = delivery.sequence;
        delivery.worker.clone_into(&mut self.worker);
    }

    fn take_written(&mut self, delivery: &Delivery<'_>) -> Turn {
        if self.idle >= MAX_IDLE {
            let why = format!("{} attempts in a row came to nothing", self.idle);
            self.hold(why, delivery.now_ms);
            return Turn::Write;
        }
        self.take(delivery);
        self.touch(delivery.now_ms);
        Turn::Work
    }

    fn answer(&mut self, answers: &BTreeMap<String, Body>, by: &str, delivery: &Delivery<'_>) -> Turn {
        let mut is_new = false;
        for (key, answer) in answers {
            // Unknown keys, and such that have an answer, are passed over, as the protocol says.
            if let Some(asked) = self.asked.get_mut(key).filter(|asked| asked.answer.is_none()) {
                asked.answer = Some(answer.clone());
                is_new = true;
                if key == APPROVAL {
                    self.decided_by = Some(by.to_owned());
                }
            }
        }
        if !is_new {
            return Turn::Drop;
        }
        if self.outstanding().next().is_some() {
            self.touch(delivery.now_ms);
            return Turn::Write;
        }
        self.idle = 0;
        self.take_written(delivery)
    }

    /// Checks that a worker still has it.
    ///
    /// # Errors
    /// [`Illegal`] when it has not.
    pub fn check(&self, attempt: u32) -> Result<(), Illegal> {
        match self.state {
            _ if self.has_ended() => Err(Illegal::Ended),
            State::Working if self.attempt == attempt => Ok(()),
            _ => Err(Illegal::Lost),
        }
    }

    /// Its worker has done a step, which is never done again.
    ///
    /// # Errors
    /// When it is not the worker's any more, or the steps are too large together.
    pub fn commit(&mut self, attempt: u32, name: &str, value: Body, now_ms: u64) -> Result<(), Illegal> {
        self.check(attempt)?;
        let others = self.steps.iter().filter(|(other, _)| *other != name);
        let bytes: usize = others.map(|(name, step)| name.len() + step.value.0.len()).sum();
        let bytes = bytes + name.len() + value.0.len();
        if bytes > MAX_STEPS_BYTES {
            return Err(Illegal::TooMuch(format!(
                "the steps of a task have {bytes} bytes together, and {MAX_STEPS_BYTES} are the most; keep large results elsewhere and commit where they are"
            )));
        }
        self.steps.insert(name.to_owned(), Step { value });
        self.moved(now_ms);
        Ok(())
    }

    /// Its worker tells how far it is.
    ///
    /// # Errors
    /// When it is not the worker's any more.
    pub fn tell(
        &mut self,
        attempt: u32,
        note: Option<String>,
        fraction: Option<f64>,
        now_ms: u64,
    ) -> Result<(), Illegal> {
        self.check(attempt)?;
        self.note = note;
        self.fraction = fraction;
        self.touch(now_ms);
        Ok(())
    }

    /// Its worker asks its client, and lets it go until there is an answer to each.
    ///
    /// # Errors
    /// When it is not the worker's any more, a key was used before, or it has asked too much.
    pub fn ask(
        &mut self,
        attempt: u32,
        requests: BTreeMap<String, Body>,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<(), Illegal> {
        self.check(attempt)?;
        if let Some(key) = requests.keys().find(|key| self.asked.contains_key(*key)) {
            return Err(Illegal::TooMuch(format!("the task has asked `{key}` before")));
        }
        if self.asked.len() + requests.len() > MAX_ASKED {
            return Err(Illegal::TooMuch(format!(
                "a task may ask {MAX_ASKED} questions in its life"
            )));
        }
        let asked = requests.into_iter().map(|(key, request)| {
            let answer = None;
            (key, Asked { request, answer })
        });
        self.asked.extend(asked);
        self.round += 1;
        self.state = State::Waiting {
            until_ms,
            round: self.round,
        };
        self.moved(now_ms);
        self.expires_ms = self.expires_ms.max(until_ms + self.order.kept_ms);
        Ok(())
    }

    /// Its worker lets it sleep, with a word on why.
    ///
    /// # Errors
    /// When it is not the worker's any more.
    pub fn sleep(
        &mut self,
        attempt: u32,
        until_ms: u64,
        note: Option<String>,
        now_ms: u64,
    ) -> Result<(), Illegal> {
        self.check(attempt)?;
        self.rest(until_ms, now_ms);
        self.note = note;
        self.idle = 0;
        Ok(())
    }

    /// Its worker could not go on, and it is to be tried again later. It stays as often tried as it is.
    ///
    /// # Errors
    /// When it is not the worker's any more.
    pub fn put_off(&mut self, attempt: u32, note: String, until_ms: u64, now_ms: u64) -> Result<(), Illegal> {
        self.check(attempt)?;
        if self.idle >= MAX_IDLE {
            self.hold(note, now_ms);
            return Ok(());
        }
        self.note = Some(note);
        self.rest(until_ms, now_ms);
        Ok(())
    }

    /// It is not to begin before a time: how a task begins whose start was said.
    pub fn rest(&mut self, until_ms: u64, now_ms: u64) {
        self.round += 1;
        self.state = State::Sleeping {
            until_ms,
            round: self.round,
        };
        self.touch(now_ms);
        self.expires_ms = self.expires_ms.max(until_ms + self.order.kept_ms);
    }

    /// Somebody has to say yes before it begins: how a task begins that needs that.
    pub fn await_approval(&mut self, until_ms: u64, now_ms: u64) {
        let call = &self.order.request;
        let (tool, server) = (call.name.as_deref().unwrap_or_default(), &call.server);
        let request = json!({
            "method": method::ELICIT,
            "params": {
                "mode": "form",
                "message": format!("May `{tool}` of `{server}` be called for {}?", call.principal.subject),
                "requestedSchema": {
                    "type": "object",
                    "properties": { "approve": { "type": "boolean", "title": "Call it" } },
                    "required": ["approve"],
                },
            },
        });
        let asked = Asked {
            request: request.to_string().into_bytes().into(),
            answer: None,
        };
        self.asked.insert(APPROVAL.to_owned(), asked);
        self.round += 1;
        self.state = State::Waiting {
            until_ms,
            round: self.round,
        };
        self.touch(now_ms);
        self.expires_ms = self.expires_ms.max(until_ms + self.order.kept_ms);
    }

    /// Its worker has the result.
    ///
    /// # Errors
    /// When it is not the worker's any more.
    pub fn complete(&mut self, attempt: u32, result: Body, now_ms: u64) -> Result<(), Illegal> {
        self.check(attempt)?;
        // What was last told of its way is over.
        self.note = None;
        self.fraction = self.fraction.map(|_| 1.0);
        self.end(State::Completed { result }, now_ms);
        Ok(())
    }

    /// Its worker has an error for it, which is JSON.
    ///
    /// # Errors
    /// When it is not the worker's any more.
    pub fn fail(&mut self, attempt: u32, error: Body, now_ms: u64) -> Result<(), Illegal> {
        self.check(attempt)?;
        self.end(State::Failed { error }, now_ms);
        Ok(())
    }

    /// Somebody cancels it, wherever it is.
    ///
    /// # Errors
    /// [`Illegal::Ended`].
    pub fn cancel(&mut self, now_ms: u64) -> Result<(), Illegal> {
        if self.has_ended() {
            return Err(Illegal::Ended);
        }
        self.end(State::Cancelled, now_ms);
        Ok(())
    }

    /// An operator gives up what is held.
    ///
    /// # Errors
    /// When it is not held.
    pub fn discard(&mut self, by: &str, now_ms: u64) -> Result<(), Illegal> {
        let State::Held { why } = &self.state else {
            return Err(if self.has_ended() {
                Illegal::Ended
            } else {
                Illegal::NotWaiting
            });
        };
        let error = error_json(&format!("the task was given up: {why}"));
        self.end(State::Failed { error }, now_ms);
        self.decided_by = Some(by.to_owned());
        Ok(())
    }

    /// Its worker is still at it: it is kept for as long.
    ///
    /// # Errors
    /// When it is not the worker's any more.
    pub fn renew(&mut self, attempt: u32, now_ms: u64) -> Result<(), Illegal> {
        self.check(attempt)?;
        self.touch(now_ms);
        Ok(())
    }

    /// Whether it is time to renew it: half of the time has passed for which it is kept.
    #[must_use]
    pub fn needs_renewal(&self, now_ms: u64) -> bool {
        self.expires_ms.saturating_sub(now_ms) < self.order.kept_ms / 2
    }

    fn hold(&mut self, why: String, now_ms: u64) {
        self.note = Some(format!("held for an operator: {why}"));
        self.state = State::Held { why };
        self.touch(now_ms);
    }

    /// What was done for it is not needed any more, and neither is what it was asked with.
    fn end(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.steps.clear();
        self.asked.clear();
        self.order.request.body = Body::default();
        self.touch(now_ms);
    }

    fn moved(&mut self, now_ms: u64) {
        self.idle = 0;
        self.touch(now_ms);
    }

    fn touch(&mut self, now_ms: u64) {
        self.changed_ms = self.changed_ms.max(now_ms);
        self.expires_ms = self.expires_ms.max(self.changed_ms + self.order.kept_ms);
    }
}

/// A JSON-RPC error of the platform's own.
pub(super) fn error_json(message: &str) -> Body {
    let error = crate::RpcError::internal(message);
    serde_json::to_vec(&error)
        .expect("an error is always JSON")
        .into()
}
