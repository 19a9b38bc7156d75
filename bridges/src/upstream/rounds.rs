//! The course of a call to its answer, or to the next thing that only its caller can tell.
//!
//! A legacy server asks in the middle of a call, and waits. A modern caller gets the question as the result of its request, and comes
//! back with another that repeats the first. So one call of the server has several requests, one round each.

use std::time::Duration;

use bus_schema::{
    Request, RpcError,
    mcp::{error, meta},
    rpc::Message,
};
use runtime::{Outcome, Parts};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::{legacy::task::server::without_related, outbox::Step};

use super::{
    answer,
    call::{Call, Event},
    edit::Members,
    park::{self, Found, Parked, Ticket},
    request::{Asked, Reading},
    server::{Begun, NotBegun, UpstreamServer},
    users::Turned,
};

/// How long further questions of the server are waited for, so that those that come together are asked together.
const TOGETHER: Duration = Duration::from_millis(20);

impl UpstreamServer {
    /// Runs a call until its caller has to be told something that ends its request.
    pub(super) async fn run(&self, call: Call, parts: &Parts) -> Outcome {
        loop {
            match call.next().await {
                Event::Part(part) => parts.send(part).await,
                Event::Answer(outcome) => return self.answered(call, outcome),
                Event::Asked => {
                    if let Some(outcome) = together(&call, parts).await {
                        return self.answered(call, outcome);
                    }
                    // The server may have thought better of it.
                    if call.asks().is_some_and(|asks| !asks.is_empty()) {
                        return self.park(call);
                    }
                }
            }
        }
    }

    /// Parks a call whose server waits for its caller.
    fn park(&self, mut call: Call) -> Outcome {
        let Some(ticket) = call.ticket.clone() else {
            return Outcome::error(None, &RpcError::internal("nobody can be asked for this call"));
        };
        let asked = match call.leave() {
            Ok(asked) => asked,
            Err(outcome) => return self.answered(call, outcome),
        };
        let requests = call.asks().map(|asks| asks.requests()).unwrap_or_default();
        let id = asked.map_or_else(|| "null".to_owned(), |asked| asked.id);
        self.ask(&id, &ticket, Parked::Open(Box::new(call)), &requests)
    }

    /// Ends a request with what its caller is to answer.
    fn ask(&self, id: &str, ticket: &Ticket, parked: Parked, requests: &str) -> Outcome {
        match self.parks.put(ticket, parked) {
            Ok(state) => Outcome::result(id, park::input_required(requests, &state).as_bytes()),
            Err(error) => Outcome::error(Some(id), &error),
        }
    }

    /// The outcome of a call that its server has answered, which may be that the call goes on as a task, or that its user must open a
    /// page and the call be made again.
    fn answered(&self, call: Call, outcome: Outcome) -> Outcome {
        match call.task() {
            Some(made) if made.awaited_by.is_none() => return self.hand_over(call, &made, &outcome),
            Some(_) if outcome.code.is_none() => {
                let body = without_related(&outcome.body);
                return Outcome { body, ..outcome };
            }
            _ => {}
        }
        if outcome.code != Some(error::LEGACY_URL_ELICITATION) {
            return outcome;
        }
        let unusable = || RpcError::internal("the server's answer cannot be used: it names no pages to open");
        let Ok(message) = Message::parse(&outcome.body) else {
            return Outcome::error(None, &unusable());
        };
        let id = message.id.map_or("null", RawValue::get);
        let data = message.error.and_then(Members::of);
        let requests = answer::url_requests(data.and_then(|members| members.get("data")));
        match (requests, &call.ticket) {
            (Some(requests), Some(ticket)) => self.ask_for_pages(id, ticket, requests),
            _ => Outcome::error(Some(id), &unusable()),
        }
    }

    pub(super) fn ask_for_pages(&self, id: &str, ticket: &Ticket, requests: Vec<String>) -> Outcome {
        let pages = park::pages(&requests);
        self.ask(id, ticket, Parked::Again(requests), &pages)
    }

    /// Goes on with a call whose caller is back.
    ///
    /// # Errors
    /// The error for a caller whose state or answers cannot be used; the server hears nothing of it.
    pub(super) async fn resume(
        &self,
        reading: &Reading<'_>,
        asked: Asked,
        request: &Request,
    ) -> Result<Begun, NotBegun> {
        let state = reading.request_state().and_then(meta::as_text);
        let state = state.ok_or_else(|| park::gone(self.id()))?;
        let answers = reading.answers()?.unwrap_or_default();
        let ticket = self.new_ticket(reading, request);
        match self.parks.take(&state, ticket, &answers)? {
            Found::Open(mut call, answers) => {
                debug!(server.id = %self.id(), "a caller is back with its input");
                call.come_back(asked, answers).await.map_err(NotBegun::untaken)?;
                Ok(Begun::Call(call))
            }
            Found::Again(ticket) => {
                let first = reading.first_round();
                let reading = Reading::of(&first)?;
                let unconnected = self.unless_connected(&asked, request, Some(&ticket), Turned::Back);
                if let Some(begun) = unconnected.await? {
                    return Ok(begun);
                }
                self.call(&reading, asked, request, Some(ticket))
                    .await
                    .map(|call| Begun::Call(Box::new(call)))
            }
            Found::StillAgain(ticket, requests) => {
                Ok(Begun::Done(self.ask_for_pages(&asked.id, &ticket, requests)))
            }
        }
    }
}

/// Waits a moment for more questions; gives the answer if that comes instead.
async fn together(call: &Call, parts: &Parts) -> Option<Outcome> {
    let until = Instant::now() + TOGETHER;
    loop {
        tokio::select! {
            biased;
            step = call.message() => match step {
                Step::Part(part) => parts.send(part).await,
                Step::Answer(outcome) => return Some(outcome),
            },
            () = sleep_until(until) => return None,
        }
    }
}
