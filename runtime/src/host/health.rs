//! What troubles a hosted server, by who has found it: each says and unsays its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use bus_schema::subject::EventKind;
use tracing::{info, warn};

use super::run::Shared;

/// Who has found that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A page that says how the server is.
    Page,
    /// The calls to it.
    Calls,
}

/// All that is wrong.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Source, String>);

impl Troubles {
    /// Notes what one has found. `true` when all of it together is not what it was.
    pub(super) fn set(&mut self, source: Source, trouble: Option<String>) -> bool {
        match trouble {
            Some(why) => self.0.insert(source, why.clone()) != Some(why),
            None => self.0.remove(&source).is_some(),
        }
    }

    /// All that is wrong, in one line.
    pub(super) fn all(&self) -> Option<String> {
        let all: Vec<_> = self.0.values().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Tells the bus how a hosted server is.
#[derive(Clone)]
pub struct HostHealth(Arc<Shared>);

impl HostHealth {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Says why the server should not be used now, as one source has found, or that this one finds nothing wrong any more.
    pub async fn set(&self, source: Source, trouble: Option<String>) {
        let (changed, all) = {
            let mut known = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            (known.set(source, trouble), known.all())
        };
        if changed && !self.0.draining.is_cancelled() {
            match &all {
                Some(why) => warn!(server.id = %self.0.options.id, why, "server is in trouble"),
                None => info!(server.id = %self.0.options.id, "server is well again"),
            }
            self.0.announce(EventKind::Up).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_has_found_another_does_not_unsay() {
        let mut troubles = Troubles::default();
        assert!(troubles.set(Source::Calls, Some("calls fail".to_owned())));
        assert!(!troubles.set(Source::Page, None));
        assert_eq!(troubles.all().as_deref(), Some("calls fail"));
        assert!(troubles.set(Source::Page, Some("the page says 500".to_owned())));
        assert!(!troubles.set(Source::Calls, Some("calls fail".to_owned())));
        assert_eq!(troubles.all().as_deref(), Some("the page says 500; calls fail"));
        assert!(troubles.set(Source::Calls, None));
        assert_eq!(troubles.all().as_deref(), Some("the page says 500"));
        assert!(troubles.set(Source::Page, None));
        assert_eq!(troubles.all(), None);
    }
}
