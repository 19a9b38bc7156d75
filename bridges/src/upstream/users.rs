//! Servers that take credentials of single users: which requests are made with them, and what a user without one is told.
//!
//! Lists are the same for everybody, and are asked for with what the platform itself shows. Everything else goes with the credential of
//! the user who asks, over connections that are nobody else's, or not at all.

use std::{convert::Infallible, future::pending, time::Duration};

use bus_schema::{
    Principal, Request, RpcError,
    mcp::{error, method},
};
use serde_json::json;

use super::{
    park::Ticket,
    remote::Whose,
    request::Asked,
    server::{Begun, NotBegun, UpstreamServer},
};

/// How long a call that its user has come back to waits for the end of what that does in a browser.
const WAITS: Duration = Duration::from_secs(45);

impl UpstreamServer {
    /// Whose credential a request is made with; `None` for what the platform asks with its own.
    pub(super) fn user_of(&self, called: &str, principal: &Principal) -> Option<Whose> {
        self.users.as_ref()?;
        let is_list = called == method::DISCOVER || called.ends_with("/list");
        (!is_list && !principal.is_platform()).then(|| Whose::of(principal, self.id()))
    }

    /// Ends the connections of users whose credentials count no more, for as long as it is waited for.
    pub(super) async fn end_forgotten(&self) -> Infallible {
        match &self.users {
            Some(users) => users.follow().await,
            None => pending().await,
        }
    }

    /// What becomes of a request whose user has given no credential yet: its user is asked for one, or told where to give it.
    /// `None` when there is one.
    ///
    /// # Errors
    /// The error for a caller that cannot be asked.
    pub(super) async fn unless_connected(
        &self,
        asked: &Asked,
        request: &Request,
        ticket: Option<&Ticket>,
        turn: Turned,
    ) -> Result<Option<Begun>, NotBegun> {
        let (Some(users), Some(whose)) = (&self.users, self.user_of(&asked.method, &request.principal))
        else {
            return Ok(None);
        };
        let limit = match turn {
            Turned::First => Duration::ZERO,
            Turned::Back => WAITS.min(Duration::from_millis(request.timeout_ms) / 2),
        };
        let unavailable = |why: String| {
            let server = self.id();
            NotBegun::from(RpcError::internal(format!(
                "you cannot be connected to server `{server}`: {why}; the call was not begun"
            )))
        };
        if users.wait_for(&whose, limit).await.map_err(unavailable)? {
            users.used(&whose);
            return Ok(None);
        }
        let url = users.link(&whose).await.map_err(unavailable)?;
        let message = format!(
            "Server `{}` works with your own account there. Open this page to connect it to this platform.",
            self.id()
        );
        let page = json!({ "mode": "url", "message": message, "url": url });
        let takes_pages = asked.declared.asks.elicitation.is_some_and(|modes| modes.url);
        match ticket.filter(|_| takes_pages) {
            Some(ticket) => {
                let request = json!({ "method": method::ELICIT, "params": page });
                let asking = self.ask_for_pages(&asked.id, ticket, vec![request.to_string()]);
                Ok(Some(Begun::Done(asking)))
            }
            None => Err(told(&message, &url, page).into()),
        }
    }
}

/// Whether a caller comes for the first time, or after it was asked to open a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    First,
    Back,
}

/// The error of 2025-11-25 for it, with the page in its words as well, for clients that know neither.
fn told(message: &str, url: &str, mut page: serde_json::Value) -> RpcError {
    // What stands in a link is its name as well.
    page["elicitationId"] = json!(url.rsplit('/').next().unwrap_or_default());
    let words = format!("{message} Then call again: {url}");
    RpcError::new(error::LEGACY_URL_ELICITATION, words).with_data(json!({ "elicitations": [page] }))
}
