//! What an endpoint does with a request before it goes its way: some answer it themselves, and some know its tool by another name.
//!
//! A request that is exchanged here goes on as if its client had sent it to the endpoint of the server that it is for. So whatever is
//! checked or looked up behind this place is about that server and its own names.

use bus_schema::{RpcError, edit::Edits};

use super::{Caller, Endpoint, Front, answering::State, route::without_tasks};
use crate::request::Incoming;

/// What becomes of a request.
pub(super) enum Entrance {
    /// It goes on as it came.
    AsItCame,
    /// It goes on as another request.
    Exchanged(Box<(Caller, Incoming)>),
    /// It is answered.
    Answered(State),
}

impl Front {
    pub(super) async fn enter(&self, caller: &Caller, incoming: &Incoming) -> Result<Entrance, RpcError> {
        match &caller.endpoint {
            Endpoint::Search => self.enter_search(caller, incoming).await,
            endpoint => match self.virtual_server(endpoint) {
                Some(defined) => self.enter_virtual(caller, incoming, &defined).await,
                None => Ok(Entrance::AsItCame),
            },
        }
    }
}

/// The same request to another endpoint, with pieces of its text exchanged; every other byte stays.
pub(super) fn exchanged(
    caller: &Caller,
    endpoint: Endpoint,
    incoming: &Incoming,
    pieces: &[(&std::ops::Range<usize>, String)],
) -> Result<Entrance, RpcError> {
    let text = std::str::from_utf8(&incoming.body)
        .map_err(|_| RpcError::invalid_request("the message is not UTF-8"))?;
    let mut edits = Edits::new(&incoming.body);
    for (place, new) in pieces {
        edits.replace(&text[(*place).clone()], new.clone());
    }
    // Nobody could ask about a task here, as its id names no server.
    let body = without_tasks(incoming, edits.apply().into());
    let incoming = Incoming::read(body).map_err(|refused| refused.error)?;
    let caller = Caller {
        endpoint,
        ..caller.clone()
    };
    Ok(Entrance::Exchanged(Box::new((caller, incoming))))
}
