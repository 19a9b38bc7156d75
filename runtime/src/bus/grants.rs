//! What the broker lets this process do: which user it is, whether that one suffices, and what was refused.
//!
//! The broker drops what a user may not publish, and the client library goes on; only an event tells. So a process finds out at its start
//! what it may do, and says loudly what is refused later.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Event, ServerError};
use bus_schema::subject::{self, CallerClass};
use tracing::error;

/// How many refusals are kept; what is wrong with grants shows in the first.
const KEPT: usize = 64;
/// How the broker begins what it says of a refusal.
const VIOLATION: &str = "permissions violation";

/// What the broker has refused this process, in its words.
#[derive(Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<Vec<String>>>);

impl Refusals {
    /// Notes an event if it is a refusal, and tells of it.
    pub(super) fn note(&self, event: &Event) {
        let Event::ServerError(ServerError::Other(words)) = event else {
            return;
        };
        // Not every NATS tells of connections that end, and callers do without.
        if !is_violation(words) || words.contains(subject::DISCONNECTS) {
            return;
        }
        error!(refused = %words, "the broker refuses this process what it has to do; the grants of its user do not suffice");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < KEPT {
            all.push(words.clone());
        }
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn first(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .first()
            .cloned()
    }

    /// The first subscription that was refused; what it was for will never work.
    pub(super) fn subscription(&self) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .find(|words| words.to_lowercase().contains("subscription"))
            .cloned()
    }
}

pub(super) fn is_violation(words: &str) -> bool {
    words.to_lowercase().contains(VIOLATION)
}

/// The class of inboxes that a process has, by the user that it connects as.
///
/// # Errors
/// The class of the user when that is one of ours which does not suffice.
pub(super) fn inboxes_of(user: Option<&str>, needed: CallerClass) -> Result<CallerClass, CallerClass> {
    match user.and_then(CallerClass::of_user) {
        Some(class) if class.covers(needed) => Ok(class),
        Some(class) => Err(class),
        None => Ok(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(words: &str) -> Event {
        Event::ServerError(ServerError::Other(words.to_owned()))
    }

    #[test]
    fn refusals_are_kept_and_other_words_are_not() {
        let refusals = Refusals::default();
        refusals.note(&event("stale connection"));
        refusals.note(&event(
            "Permissions Violation for Subscription to \"$SYS.ACCOUNT.*.DISCONNECT\"",
        ));
        assert!(refusals.all().is_empty());
        let publish = "Permissions Violation for Publish to \"mcp.rpc.a.b.c\"";
        refusals.note(&event(publish));
        assert_eq!(
            (refusals.first().as_deref(), refusals.subscription()),
            (Some(publish), None)
        );
        refusals.note(&event(
            "Permissions Violation for Subscription to \"mcp.rpc.a.b.>\"",
        ));
        assert!(refusals.subscription().is_some());
        for _ in 0..2 * KEPT {
            refusals.note(&event(publish));
        }
        assert_eq!(refusals.all().len(), KEPT);
    }

    #[test]
    fn a_user_of_ours_has_its_own_inboxes_and_does_its_own_work() {
        use CallerClass::{Bridge, Cli, Host, Node};
        for (user, needed, expected) in [
            (Some("bridge"), Bridge, Ok(Bridge)),
            (Some("node"), Host, Ok(Node)),
            (Some("host"), Bridge, Err(Host)),
            (Some("cli"), Node, Err(Cli)),
            (Some("somebody"), Bridge, Ok(Bridge)),
            (None, Cli, Ok(Cli)),
        ] {
            assert_eq!(inboxes_of(user, needed), expected, "{user:?}");
        }
    }
}
