//! What is kept of one server at one revision: the lists that every client sees, and those of clients that declare certain capabilities.
//!
//! A revision tells of changes to the lists that every client sees. What is shown to some only may change without it, and is therefore
//! asked for again after a while.

use std::sync::Arc;

use bus_schema::card::ListDigests;
use serde_json::{Map, Value};
use tokio::{sync::OnceCell, time::Instant};

use super::{LISTS_OF_SOME, List};

/// For how many capabilities the lists of one server are kept; beyond, those go that nobody has asked for longest.
const MAX_OF_SOME: usize = 16;

/// The four lists, each filled by whoever asks for it first.
pub(super) type Lists = Arc<[OnceCell<Arc<List>>; 4]>;

/// The lists of one server.
pub(super) struct Kept {
    pub(super) revision: String,
    /// The digests of its lists; they also tell of changes that only some see.
    digests: ListDigests,
    of_all: Lists,
    of_some: Vec<OfSome>,
}

/// The lists of clients that declare the same.
struct OfSome {
    capabilities: String,
    lists: Lists,
    since: Instant,
    used: Instant,
}

impl Kept {
    pub(super) fn new(revision: &str) -> Self {
        Self {
            revision: revision.to_owned(),
            digests: ListDigests::default(),
            of_all: Lists::default(),
            of_some: Vec::new(),
        }
    }

    /// Forgets what only some see when it may have changed.
    pub(super) fn see(&mut self, digests: &ListDigests) {
        if self.digests != *digests {
            self.digests.clone_from(digests);
            self.of_some.clear();
        }
    }

    /// The lists of clients with these capabilities.
    pub(super) fn lists(&mut self, capabilities: &Map<String, Value>) -> Lists {
        if capabilities.is_empty() {
            return Arc::clone(&self.of_all);
        }
        let now = Instant::now();
        let key = serde_json::to_string(capabilities).unwrap_or_default();
        self.of_some
            .retain(|kept| now.duration_since(kept.since) < LISTS_OF_SOME);
        if let Some(kept) = self.of_some.iter_mut().find(|kept| kept.capabilities == key) {
            kept.used = now;
            return Arc::clone(&kept.lists);
        }
        if self.of_some.len() >= MAX_OF_SOME
            && let Some(oldest) = (0..self.of_some.len()).min_by_key(|at| self.of_some[*at].used)
        {
            self.of_some.swap_remove(oldest);
        }
        let lists = Lists::default();
        self.of_some.push(OfSome {
            capabilities: key,
            lists: Arc::clone(&lists),
            since: now,
            used: now,
        });
        lists
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::advance;

    use super::*;

    fn declares(name: &str) -> Map<String, Value> {
        Map::from_iter([(name.to_owned(), json!({}))])
    }

    #[tokio::test(start_paused = true)]
    async fn lists_of_some_are_kept_for_a_while_and_for_so_many() {
        let mut kept = Kept::new("r");
        let all = kept.lists(&Map::new());
        assert!(Arc::ptr_eq(&all, &kept.lists(&Map::new())));
        let roots = kept.lists(&declares("roots"));
        assert!(!Arc::ptr_eq(&all, &roots));
        assert!(Arc::ptr_eq(&roots, &kept.lists(&declares("roots"))));
        for n in 0..MAX_OF_SOME - 1 {
            advance(Duration::from_millis(1)).await;
            kept.lists(&declares(&n.to_string()));
        }
        advance(Duration::from_millis(1)).await;
        assert!(Arc::ptr_eq(&roots, &kept.lists(&declares("roots"))));
        // The next one takes the place of the one that was used least lately.
        kept.lists(&declares("more"));
        assert_eq!(kept.of_some.len(), MAX_OF_SOME);
        assert!(kept.of_some.iter().all(|kept| kept.capabilities != r#"{"0":{}}"#));
        assert!(Arc::ptr_eq(&roots, &kept.lists(&declares("roots"))));
        advance(LISTS_OF_SOME).await;
        assert!(!Arc::ptr_eq(&roots, &kept.lists(&declares("roots"))));
        assert!(Arc::ptr_eq(&all, &kept.lists(&Map::new())));
        assert_eq!(kept.of_some.len(), 1);
    }
}
