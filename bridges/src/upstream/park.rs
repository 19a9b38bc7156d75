//! Calls whose caller has been asked for input and has not come back yet.
//!
//! A parked call stays open at its server. Its caller holds a `requestState`, which brings it back here once, and only with the same
//! request. Who does not come back in time is taken as having cancelled.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{
    Request, RoutedState, RpcError, ServerId,
    audit::{Kind, Record},
};
use runtime::audit::Audit;
use serde_json::value::RawValue;
use tokio::{sync::Notify, time::Instant};
use tracing::debug;

use super::{
    ask,
    asks::Answered,
    call::Call,
    edit::{Members, Object},
    expiry::until_or_notified,
    lanes::Owner,
    link::Link,
    seal::{Binding, Sealer, Token},
};

/// How many calls of one caller may wait for its input.
const MAX_PER_OWNER: usize = 32;
/// How long a call waits at least before another call of the same caller may take its place.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(5);
/// How many calls may wait at all.
const MAX_PARKS: usize = 4_096;

/// What a call needs to be parked, and its caller to come back to it.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) owner: Owner,
    pub(super) binding: Binding,
    /// Which park it was in before, and the number of its next round there.
    pub(super) before: Option<(u64, u32)>,
}

/// What waits.
pub(super) enum Parked {
    /// A call that is open at its server.
    Open(Box<Call>),
    /// A call that the server has ended for now: it is made again when its user has opened these pages, which are bare requests.
    Again(Vec<String>),
}

/// What a caller finds that has come back.
pub(super) enum Found {
    /// Its call, and its answers for the server.
    Open(Box<Call>, Vec<Answered>),
    /// Its call is to be made again.
    Again(Ticket),
    /// It has not said everything that is needed, and is asked again for these pages.
    StillAgain(Ticket, Vec<String>),
}

/// The parked calls of one server.
pub(super) struct Parks {
    server: ServerId,
    instance: String,
    ttl: Duration,
    sealer: Sealer,
    /// Held only to look, add or remove.
    table: Mutex<Table>,
    added: Notify,
    audit: Option<Audit>,
}

#[derive(Default)]
struct Table {
    last: u64,
    parks: HashMap<u64, Park>,
}

struct Park {
    round: u32,
    expires: Instant,
    owner: Owner,
    parked: Parked,
}

impl Parks {
    /// Parks of a server on this instance of the bus. A caller has so long to come back.
    pub(super) fn new(server: ServerId, instance: String, ttl: Duration, audit: Option<Audit>) -> Arc<Self> {
        Arc::new(Self {
            server,
            instance,
            ttl,
            sealer: Sealer::new(),
            table: Mutex::default(),
            added: Notify::new(),
            audit,
        })
    }

    /// Puts on record that somebody has brought a state that leads nowhere.
    pub(super) fn put_gone(&self, request: &Request) {
        if let Some(audit) = &self.audit {
            let refused = Record::refused(Kind::Owner, "request_state")
                .because("the state is expired, used, not this caller's, or for another request");
            audit.put(refused.of_request(request));
        }
    }

    /// Parks a call, and gives the `requestState` for its caller.
    ///
    /// # Errors
    /// The error for a caller that has too many calls parked. What was to be parked is dropped.
    pub(super) fn put(&self, ticket: &Ticket, parked: Parked) -> Result<String, RpcError> {
        let expires = Instant::now() + self.ttl;
        let mut table = self.table();
        let own = table.parks.values().filter(|park| park.owner == ticket.owner);
        let waiting = own.count();
        if waiting >= MAX_PER_OWNER || table.parks.len() >= MAX_PARKS {
            drop(table);
            return Err(RpcError::internal(format!(
                "server `{}` asks for input, and {waiting} calls of this caller wait for input already; answer those first",
                self.server
            )));
        }
        let (park, round) = ticket.before.unwrap_or_else(|| {
            table.last += 1;
            (table.last, 0)
        });
        table.parks.insert(
            park,
            Park {
                round,
                expires,
                owner: ticket.owner.clone(),
                parked,
            },
        );
        drop(table);
        self.added.notify_one();
        let token = Token { park, round, expires };
        let state = RoutedState {
            instance: &self.instance,
            sealed: &self.sealer.seal(token, &ticket.binding),
        };
        Ok(state.to_string())
    }

    /// Takes a call back with what its caller says now. A call is taken once.
    ///
    /// # Errors
    /// The error for a caller whose state or answers cannot be used; with wrong answers it may come again.
    pub(super) fn take(
        &self,
        state: &str,
        mut ticket: Ticket,
        answers: &Members<'_>,
    ) -> Result<Found, RpcError> {
        let token = RoutedState::parse(state)
            .filter(|state| state.instance == self.instance)
            .and_then(|state| self.sealer.open(state.sealed, &ticket.binding))
            .filter(|token| token.expires > Instant::now())
            .ok_or_else(|| gone(&self.server))?;
        let mut table = self.table();
        let park = table
            .parks
            .get(&token.park)
            .filter(|park| park.round == token.round && park.owner == ticket.owner)
            .ok_or_else(|| gone(&self.server))?;
        match &park.parked {
            Parked::Open(call) => call.asks().map_or(Ok(()), |asks| asks.check(answers))?,
            Parked::Again(requests) => check_pages(requests, answers)?,
        }
        let Some(park) = table.parks.remove(&token.park) else {
            return Err(gone(&self.server));
        };
        drop(table);
        ticket.before = Some((token.park, token.round + 1));
        Ok(match park.parked {
            Parked::Open(mut call) => {
                let answered = call
                    .asks()
                    .map(|asks| asks.take_answered(answers))
                    .unwrap_or_default();
                call.ticket = Some(ticket);
                Found::Open(call, answered)
            }
            Parked::Again(requests) if is_declined(&requests, answers) => {
                return Err(RpcError::internal(
                    "the server cannot go on, as its user did not open the page that it needs",
                ));
            }
            Parked::Again(requests) if all_answered(&requests, answers) => Found::Again(ticket),
            Parked::Again(requests) => Found::StillAgain(ticket, requests),
        })
    }

    /// Drops the calls of a conversation that is over.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        self.remove(|park| matches!(&park.parked, Parked::Open(call) if call.is_on(link)));
    }

    /// Drops the call of this caller that has waited longest, if that is long enough to count as left behind.
    pub(super) fn give_way(&self, owner: &Owner) {
        let now = Instant::now();
        let open = |park: &&Park| park.owner == *owner && matches!(park.parked, Parked::Open(_));
        let oldest = self
            .table()
            .parks
            .values()
            .filter(open)
            .map(|park| park.expires)
            .min();
        let Some(oldest) = oldest.filter(|expires| *expires + LEFT_BEHIND_AFTER <= now + self.ttl) else {
            return;
        };
        debug!(server.id = %self.server, "a call that waited for its caller's input gives way to another call of that caller");
        self.remove(|park| park.owner == *owner && park.expires == oldest);
    }

    /// Drops all calls.
    pub(super) fn clear(&self) {
        self.remove(|_| true);
    }

    /// Drops calls whose callers have not come back in time, for as long as it is waited for.
    pub(super) async fn sweep(&self) -> Infallible {
        loop {
            let next = self.table().parks.values().map(|park| park.expires).min();
            until_or_notified(next, &self.added).await;
            let now = Instant::now();
            let expired = self.remove(|park| park.expires <= now);
            if expired > 0 {
                debug!(server.id = %self.server, expired, "callers have not come back with the input that they were asked for");
            }
        }
    }

    /// How many calls wait.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table().parks.len()
    }

    /// Drops parks, outside of the lock as a call that ends has much to tell.
    fn remove(&self, is_over: impl Fn(&Park) -> bool) -> usize {
        let over: Vec<Park> = {
            let mut table = self.table();
            let numbers: Vec<u64> = table
                .parks
                .iter()
                .filter(|(_, park)| is_over(park))
                .map(|(number, _)| *number)
                .collect();
            numbers
                .into_iter()
                .filter_map(|number| table.parks.remove(&number))
                .collect()
        };
        over.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for whoever brings a state that leads nowhere. It says the same whatever the reason, as the reason may be none of its business.
pub(super) fn gone(server: &ServerId) -> RpcError {
    RpcError::invalid_params(format!(
        "`requestState` is expired, used or not yours; start the call to server `{server}` again without it"
    ))
}

/// The result that asks a caller for input. `requests` and the id are JSON.
pub(super) fn input_required(requests: &str, state: &str) -> String {
    let mut result = Object::default();
    result.push("\"resultType\"", "\"input_required\"");
    result.push("\"inputRequests\"", requests);
    result.push("\"requestState\"", &bus_schema::rpc::quote(state));
    result.finish()
}

/// The requests that show pages, each under its key.
pub(super) fn pages(requests: &[String]) -> String {
    let mut all = Object::default();
    for (at, request) in requests.iter().enumerate() {
        all.push(&bus_schema::rpc::quote(&page_key(at)), request);
    }
    all.finish()
}

fn page_key(at: usize) -> String {
    format!("page-{}", at + 1)
}

fn answer_to<'a>(at: usize, answers: &Members<'a>) -> Option<&'a RawValue> {
    answers.get(&page_key(at))
}

fn check_pages(requests: &[String], answers: &Members<'_>) -> Result<(), RpcError> {
    for at in 0..requests.len() {
        if answer_to(at, answers).is_some_and(|answer| ask::action_of(answer).is_none()) {
            return Err(RpcError::invalid_params(format!(
                "`inputResponses` has no usable `{}`: its `action` must be \"accept\", \"decline\" or \"cancel\"",
                page_key(at)
            )));
        }
    }
    Ok(())
}

fn is_declined(requests: &[String], answers: &Members<'_>) -> bool {
    let actions = (0..requests.len()).filter_map(|at| ask::action_of(answer_to(at, answers)?));
    actions.into_iter().any(|action| action != "accept")
}

fn all_answered(requests: &[String], answers: &Members<'_>) -> bool {
    (0..requests.len()).all(|at| answer_to(at, answers).is_some())
}
