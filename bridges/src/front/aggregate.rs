//! The lists of all servers as one: built once for each state of the bus, and kept as ready bytes.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bus_schema::{RpcError, ServerId, rpc};
use bytes::Bytes;
use futures::future::join_all;
use runtime::{
    Catalogue,
    catalogue::{List, Listed},
};
use serde_json::{json, value::RawValue};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::warn;

use super::LIST_TTL_MS;
use crate::request::Incoming;

/// How long a list waits for a server that does not answer.
pub(super) const LIST_LIMIT: Duration = Duration::from_secs(5);
/// How long a list without some server is used before that one is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The `_meta` key that names servers which a list misses.
pub(super) const MISSING_KEY: &str = "io.trunkline/missing";

/// The lists of all servers as one.
pub(super) struct Aggregate {
    catalogue: Catalogue,
    /// One for each of [`Listed::ALL`].
    merged: [Merged; 4],
}

#[derive(Default)]
struct Merged {
    built: ArcSwapOption<Built>,
    /// Held while a new one is built, so that it is built once.
    building: Mutex<()>,
}

/// One list at one state of the bus.
pub(super) struct Built {
    generation: u64,
    /// Until when it is used; without end when no server is missing.
    until: Option<Instant>,
    /// The result as it goes out.
    result: Bytes,
    /// Whose lists it is made of.
    pub(super) servers: Vec<(ServerId, Arc<List>)>,
}

impl Aggregate {
    pub(super) fn new(catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            merged: Default::default(),
        }
    }

    /// The result of a list method; `None` for other methods.
    pub(super) async fn list(&self, incoming: &Incoming) -> Result<Option<Bytes>, RpcError> {
        let Some(list) = Listed::of(&incoming.method) else {
            return Ok(None);
        };
        // All items stand on the first page, so that no cursor was ever given out; the empty one is where a list begins.
        if incoming.cursor.as_ref().is_some_and(|cursor| !cursor.is_empty()) {
            return Err(RpcError::invalid_params(
                "`params.cursor` was not given out by this endpoint",
            ));
        }
        Ok(Some(self.current(list).await.result.clone()))
    }

    /// A list at the present state of the bus.
    pub(super) async fn current(&self, list: Listed) -> Arc<Built> {
        let generation = self.catalogue.directory().snapshot().generation;
        let merged = &self.merged[list as usize];
        let fresh = |built: &Arc<Built>| {
            built.generation >= generation && built.until.is_none_or(|until| Instant::now() < until)
        };
        if let Some(built) = merged.built.load_full().filter(fresh) {
            return built;
        }
        let _building = merged.building.lock().await;
        if let Some(built) = merged.built.load_full().filter(fresh) {
            return built;
        }
        let built = Arc::new(self.build(list).await);
        merged.built.store(Some(Arc::clone(&built)));
        built
    }

    /// Asks all servers at once; one that does not answer in time is left out, and the result says so.
    async fn build(&self, list: Listed) -> Built {
        let snapshot = self.catalogue.directory().snapshot();
        let asked = snapshot.well().map(|(id, _)| async move {
            (
                id.clone(),
                timeout(LIST_LIMIT, self.catalogue.list(id, list)).await,
            )
        });
        let mut servers = Vec::new();
        let mut missing = Vec::new();
        for (id, answer) in join_all(asked).await {
            match answer {
                Ok(Ok(list)) => servers.push((id, list)),
                Ok(Err(error)) => {
                    warn!(%error, server.id = %id, "a list goes out without this server");
                    missing.push(id);
                }
                Err(_) => {
                    warn!(server.id = %id, "a list goes out without this server, which did not answer in time");
                    missing.push(id);
                }
            }
        }
        let result = write_list(list, &servers, &missing);
        // A server that is mute must not make every client wait for it anew.
        let until = (!missing.is_empty()).then(|| Instant::now() + ASK_AGAIN);
        Built {
            generation: snapshot.generation,
            until,
            result,
            servers,
        }
    }
}

fn write_list(list: Listed, servers: &[(ServerId, Arc<List>)], missing: &[ServerId]) -> Bytes {
    let mut out =
        format!(r#"{{"resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private","#).into_bytes();
    if !missing.is_empty() {
        out.extend_from_slice(format!(r#""_meta":{},"#, json!({ MISSING_KEY: missing })).as_bytes());
    }
    out.extend_from_slice(format!(r#""{}":["#, list.key()).as_bytes());
    let mut first = true;
    for (id, list_of_one) in servers {
        for item in &list_of_one.items {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            match list {
                Listed::Tools | Listed::Prompts => {
                    out.extend_from_slice(&renamed(&item.json, &id.prefixed(&item.key)))
                }
                // URIs are what clients and results name resources by, so they stay.
                Listed::Resources | Listed::Templates => out.extend_from_slice(item.json.get().as_bytes()),
            }
        }
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// An item under another name; every other byte stays.
pub(super) fn renamed(item: &RawValue, name: &str) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: &'a RawValue,
    }
    match serde_json::from_str::<Named<'_>>(item.get()) {
        Ok(named) => rpc::splice(item.get().as_bytes(), named.name.get(), &rpc::quote(name)),
        Err(_) => item.get().as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_renamed_and_keeps_its_bytes() {
        let item = RawValue::from_string(r#"{ "x":1e400, "name":"a","z":[1] }"#.to_owned()).expect("json");
        assert_eq!(renamed(&item, "s__a"), br#"{ "x":1e400, "name":"s__a","z":[1] }"#);
    }
}
