//! Ranked full-text search over tools: which of many fit some words best.
//!
//! The measure is Okapi BM25, taken for each field of a tool: a word in a tool's name says more than one in its description, and that
//! more than one in its input schema. It is small enough to be written out here: a search engine would bring an index on disk and
//! threads of its own for lists that fit in memory and change as a whole. Whose tools are searched is `discovery`'s matter.

mod index;
mod words;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::ServerId;

use crate::catalogue::List;

pub use index::{Hit, Index, rank};

/// How many lists of one server are kept with their index: what a server offers may depend on who asks.
const LISTS_OF_ONE: usize = 4;

/// The indexes of lists, each made once for as long as its list stays the same.
#[derive(Debug, Default)]
pub struct Indexes {
    /// Held only to look one up or put one in.
    made: Mutex<HashMap<ServerId, Vec<Made>>>,
}

#[derive(Clone, Debug)]
struct Made {
    list: Arc<List>,
    index: Arc<Index>,
}

impl Indexes {
    /// The index of a list of a server's tools.
    pub async fn of(&self, server: &ServerId, list: &Arc<List>) -> Arc<Index> {
        if let Some(index) = self.known(server, list) {
            return index;
        }
        let whole = Arc::clone(list);
        // Thousands of tools take longer than anything else should wait for.
        let made = tokio::task::spawn_blocking(move || Index::new(&whole)).await;
        let index = Arc::new(made.unwrap_or_default());
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let of_server = all.entry(server.clone()).or_default();
        if of_server.len() == LISTS_OF_ONE {
            of_server.remove(0);
        }
        of_server.push(Made {
            list: Arc::clone(list),
            index: Arc::clone(&index),
        });
        index
    }

    /// Forgets the servers that are not there any more.
    pub fn keep(&self, is_there: impl Fn(&ServerId) -> bool) {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|server, _| is_there(server));
    }

    fn known(&self, server: &ServerId, list: &Arc<List>) -> Option<Arc<Index>> {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = all
            .get_mut(server)?
            .iter_mut()
            .find(|made| Arc::ptr_eq(&made.list, list) || is_same(&made.list, list))?;
        made.list = Arc::clone(list);
        Some(Arc::clone(&made.index))
    }
}

/// A list that was fetched anew, as something else of its server has changed, is the list that it was.
fn is_same(one: &List, other: &List) -> bool {
    one.items.len() == other.items.len()
        && one
            .items
            .iter()
            .zip(&other.items)
            .all(|(one, other)| one.json.get() == other.json.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_index_is_made_again_only_when_its_list_is_another() {
        let list = |name: &str| {
            let tool = format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#);
            Arc::new(List::read(&[&tool]))
        };
        let (server, indexes): (ServerId, _) = ("a".parse().expect("an id"), Indexes::default());
        let first = indexes.of(&server, &list("x")).await;
        // The catalogue has fetched it anew, and it says the same.
        assert!(Arc::ptr_eq(&first, &indexes.of(&server, &list("x")).await));
        assert!(!Arc::ptr_eq(&first, &indexes.of(&server, &list("y")).await));
        indexes.keep(|_| false);
        assert!(!Arc::ptr_eq(&first, &indexes.of(&server, &list("x")).await));
    }
}
