//! Credentials that connections of this process work with, and what ends them: a credential that was forgotten, or given anew.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio_util::sync::CancellationToken;

use super::{
    asking::Users,
    store::{Credential, Whose},
};

/// A credential that a connection works with.
pub(super) struct InUse {
    key: String,
    /// Which it is, as soon as it was read.
    grant: Mutex<Option<String>>,
    gone: CancellationToken,
}

/// All of a server's.
#[derive(Default)]
pub(super) struct Uses(Mutex<Vec<Weak<InUse>>>);

impl InUse {
    /// The credential was read.
    pub(super) fn is(&self, credential: &Credential) {
        *lock(&self.grant) = Some(credential.grant.clone());
    }

    /// Cancelled when it counts no more.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Whether it is another than the one that is kept now.
    fn is_over(&self, kept: Option<&str>) -> bool {
        lock(&self.grant)
            .as_deref()
            .is_some_and(|used| kept != Some(used))
    }
}

impl Uses {
    /// A connection of a user.
    pub(super) fn enter(&self, whose: &Whose) -> Arc<InUse> {
        let used = Arc::new(InUse {
            key: whose.key(),
            grant: Mutex::default(),
            gone: CancellationToken::new(),
        });
        let mut all = lock(&self.0);
        all.retain(|used| used.strong_count() > 0);
        all.push(Arc::downgrade(&used));
        used
    }

    /// What is kept under a key is this now, or nothing.
    fn changed(&self, key: &str, kept: Option<&str>) {
        let all: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        for used in all {
            if used.key == key && used.is_over(kept) {
                used.gone.cancel();
            }
        }
    }
}

impl Users {
    /// Ends the connections whose credentials count no more, for as long as it is waited for.
    pub(in crate::upstream) async fn follow(&self) -> Infallible {
        let kept = &self.connections.0.store.credentials;
        let mut changes = kept.changes(&self.server);
        loop {
            let change = changes.next().await;
            let now = change
                .value
                .map(|sealed| kept.unseal::<Credential>(&change.key, &sealed));
            let grant = now.flatten().map(|credential| credential.grant);
            self.uses.changed(&change.key, grant.as_deref());
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bus_schema::Principal;

    use super::*;

    #[test]
    fn a_connection_ends_with_its_credential_and_not_with_the_tokens_of_it() {
        let server = "a".parse().unwrap();
        let of = |subject: &str| Whose::of(&Principal::new(subject, "t"), &server);
        let uses = Uses::default();
        let (ann, bob, new) = (
            uses.enter(&of("ann")),
            uses.enter(&of("bob")),
            uses.enter(&of("ann")),
        );
        for used in [&ann, &bob] {
            *lock(&used.grant) = Some("one".to_owned());
        }
        uses.changed(&of("ann").key(), Some("one"));
        assert!(!ann.gone.is_cancelled(), "its token was exchanged");
        uses.changed(&of("ann").key(), Some("two"));
        assert!(ann.gone.is_cancelled() && !bob.gone.is_cancelled());
        assert!(!new.gone.is_cancelled(), "it has read nothing yet");
        uses.changed(&of("bob").key(), None);
        assert!(bob.gone.is_cancelled());
        drop((ann, bob, new));
        let _last = uses.enter(&of("eve"));
        assert_eq!(lock(&uses.0).len(), 1);
    }
}
