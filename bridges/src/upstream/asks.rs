//! What a server has asked in the course of one call and what nobody has answered yet, each under a key of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bus_schema::{RpcError, rpc};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::{
    ask::Ask,
    edit::{Members, Object},
};

/// How many questions of one call may be open.
const MAX_OPEN: usize = 64;

#[derive(Default)]
pub(super) struct Asks {
    /// Held only to look, add or take.
    open: Mutex<Open>,
    added: Notify,
}

#[derive(Default)]
struct Open {
    /// Keys are counted over the whole call, so that none is used twice.
    last: u32,
    asks: Vec<(String, Ask)>,
    /// The call is over, and nobody answers any more.
    closed: bool,
}

/// A question, and the caller's answer as JSON.
pub(super) type Answered = (Ask, String);

impl Asks {
    /// Adds a question.
    ///
    /// # Errors
    /// The error for a server that asks too much.
    pub(super) fn add(&self, ask: Ask) -> Result<(), RpcError> {
        let mut open = self.open();
        if open.closed {
            return Err(RpcError::internal(
                "the call is over, and nobody answers any more",
            ));
        }
        if let Some((_, same)) = open.asks.iter_mut().find(|(_, known)| known.is_same_as(&ask)) {
            same.ids.extend(ask.ids);
            return Ok(());
        }
        if open.asks.len() == MAX_OPEN {
            return Err(RpcError::internal(format!(
                "{MAX_OPEN} requests of this call wait for an answer already"
            )));
        }
        open.last += 1;
        let key = format!("input-{}", open.last);
        open.asks.push((key, ask));
        drop(open);
        self.added.notify_one();
        Ok(())
    }

    /// Waits until a question is open.
    pub(super) async fn any(&self) {
        while self.is_empty() {
            self.added.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open().asks.is_empty()
    }

    /// All open questions, as `inputRequests` has them.
    pub(super) fn requests(&self) -> String {
        let mut requests = Object::default();
        for (key, ask) in &self.open().asks {
            requests.push(&rpc::quote(key), &ask.request);
        }
        requests.finish()
    }

    /// Whether the caller's answers can be used; there may be too few or too many.
    ///
    /// # Errors
    /// The error for the caller.
    pub(super) fn check(&self, answers: &Members<'_>) -> Result<(), RpcError> {
        for (key, ask) in &self.open().asks {
            if let Some(answer) = answers.get(key) {
                ask.check_answer(answer).map_err(|why| {
                    RpcError::invalid_params(format!("`inputResponses` has no usable `{key}`: {why}"))
                })?;
            }
        }
        Ok(())
    }

    /// Takes the questions that are answered.
    pub(super) fn take_answered(&self, answers: &Members<'_>) -> Vec<Answered> {
        let mut open = self.open();
        let mut answered = Vec::new();
        open.asks
            .retain(|(key, ask)| match answers.get(key).map(RawValue::get) {
                Some(answer) => {
                    answered.push((ask.clone(), answer.to_owned()));
                    false
                }
                None => true,
            });
        answered
    }

    /// The server no longer wants to know.
    pub(super) fn withdraw(&self, id: &str) -> bool {
        let mut open = self.open();
        let mut found = false;
        for (_, ask) in &mut open.asks {
            let before = ask.ids.len();
            ask.ids.retain(|known| known != id);
            found |= ask.ids.len() < before;
        }
        open.asks.retain(|(_, ask)| !ask.ids.is_empty());
        found
    }

    /// Takes everything that is open, and lets nothing more in.
    pub(super) fn close(&self) -> Vec<Ask> {
        let mut open = self.open();
        open.closed = true;
        let asks = std::mem::take(&mut open.asks);
        asks.into_iter().map(|(_, ask)| ask).collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
