//! The lists of all servers as one: built once for each state of the bus, and kept as ready bytes.
//!
//! Servers may show more to clients that can be asked for something. Those get lists of their own, one for each set of what can be
//! asked; everybody else shares one.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bus_schema::{RpcError, ServerId, rpc};
use bytes::Bytes;
use futures::future::join_all;
use runtime::{
    Catalogue,
    catalogue::{Item, LISTS_OF_SOME, List, Listed},
    policies::Sight,
};
use serde_json::{Map, Value, json, value::RawValue};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::warn;

use super::LIST_TTL_MS;
use crate::{askable::Askable, request::Incoming};

/// How long a list waits for a server that does not answer.
pub(super) const LIST_LIMIT: Duration = Duration::from_secs(5);
/// How long a list without some server is used before that one is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The same for a list that shows of some server only what every client sees.
const ASK_AGAIN_FOR_MORE: Duration = Duration::from_secs(30);
/// The most items on one page, and after how many bytes none is added. Clients that know no pages see this much.
const PAGE_ITEMS: usize = 2_000;
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// For how many sets of what clients can be asked the lists are kept; beyond, those go that nobody has asked for longest.
const MAX_SHAPES: usize = 16;
/// The `_meta` key that names servers which a list misses.
pub(super) const MISSING_KEY: &str = "io.trunkline/missing";

/// The lists of all servers as one.
pub(super) struct Aggregate {
    catalogue: Catalogue,
    /// For clients that can be asked for nothing.
    plain: Shape,
    /// For all others, with when each was used last. Held only to look or insert.
    others: std::sync::Mutex<Vec<(Arc<Shape>, Instant)>>,
}

/// The lists for clients that can be asked the same.
#[derive(Default)]
struct Shape {
    declares: Askable,
    /// The same as JSON.
    capabilities: Map<String, Value>,
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
    /// Its first page as it goes out, which for nearly all is the only one.
    first: Bytes,
    missing: Vec<ServerId>,
    /// Whose lists it is made of, in the order of their ids.
    pub(super) servers: Vec<(ServerId, Arc<List>)>,
}

/// Where a page ends: the last item on it. It means the same whatever has become of the list since.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    server: ServerId,
    key: String,
}

impl Place {
    /// The place as a cursor of a list.
    fn cursor(&self, list: Listed) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}\n{}\n{}", list.key(), self.server, self.key))
    }

    fn read(cursor: &str, list: Listed) -> Result<Self, RpcError> {
        let unknown = || RpcError::invalid_params("`params.cursor` was not given out by this endpoint");
        let text = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = text
            .and_then(|text| String::from_utf8(text).ok())
            .ok_or_else(unknown)?;
        let mut parts = text.splitn(3, '\n');
        match (parts.next(), parts.next().map(str::parse), parts.next()) {
            (Some(kind), Some(Ok(server)), Some(key)) if kind == list.key() => Ok(Self {
                server,
                key: key.to_owned(),
            }),
            _ => Err(unknown()),
        }
    }
}

impl Aggregate {
    pub(super) fn new(catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            plain: Shape::default(),
            others: std::sync::Mutex::default(),
        }
    }

    /// The result of a list method; `None` for other methods.
    pub(super) async fn list(
        &self,
        incoming: &Incoming,
        sight: Option<&Sight>,
    ) -> Result<Option<Bytes>, RpcError> {
        let Some(list) = Listed::of(&incoming.method) else {
            return Ok(None);
        };
        let cursor = incoming.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        let after = cursor.map(|cursor| Place::read(cursor, list)).transpose()?;
        let built = self.current(list, Askable::of(incoming)).await;
        Ok(Some(match (after, sight) {
            (None, None) => built.first.clone(),
            // What is kept is the same for all; what is left out of it is not.
            (after, sight) => write_page(list, &built, after.as_ref(), sight),
        }))
    }

    /// A list at the present state of the bus, for clients that can be asked this.
    pub(super) async fn current(&self, list: Listed, declares: Askable) -> Arc<Built> {
        if declares == Askable::default() {
            return self.current_of(list, &self.plain).await;
        }
        self.current_of(list, &self.shape(declares)).await
    }

    fn shape(&self, declares: Askable) -> Arc<Shape> {
        let now = Instant::now();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shape, used)) = others.iter_mut().find(|(shape, _)| shape.declares == declares) {
            *used = now;
            return Arc::clone(shape);
        }
        if others.len() >= MAX_SHAPES
            && let Some(oldest) = (0..others.len()).min_by_key(|at| others[*at].1)
        {
            others.swap_remove(oldest);
        }
        let shape = Arc::new(Shape {
            declares,
            capabilities: declares.capabilities(),
            merged: Default::default(),
        });
        others.push((Arc::clone(&shape), now));
        shape
    }

    async fn current_of(&self, list: Listed, shape: &Shape) -> Arc<Built> {
        let generation = self.catalogue.directory().snapshot().generation;
        let merged = &shape.merged[list as usize];
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
        let built = Arc::new(self.build(list, shape).await);
        merged.built.store(Some(Arc::clone(&built)));
        built
    }

    /// Asks all servers at once; one that does not answer in time is left out, and the result says so.
    async fn build(&self, list: Listed, shape: &Shape) -> Built {
        let snapshot = self.catalogue.directory().snapshot();
        let asked = snapshot
            .well()
            .map(|(id, _)| async move { (id.clone(), self.of_one(id, list, shape).await) });
        let mut servers = Vec::new();
        let mut missing = Vec::new();
        // Those in trouble are not asked; when they are well again, the bus has another state.
        let in_trouble = snapshot.servers().filter(|(id, card)| {
            card.capabilities.contains_key(list.capability()) && snapshot.trouble(id).is_some()
        });
        let in_trouble: Vec<_> = in_trouble.map(|(id, _)| id.clone()).collect();
        let is_plain = shape.capabilities.is_empty();
        let mut lasts = (!is_plain).then_some(LISTS_OF_SOME);
        for (id, answer) in join_all(asked).await {
            match answer {
                Found::Whole(list) => servers.push((id, list)),
                Found::Plain(list) => {
                    servers.push((id, list));
                    lasts = lasts.min(Some(ASK_AGAIN_FOR_MORE));
                }
                Found::Nothing => missing.push(id),
            }
        }
        if !missing.is_empty() {
            // A server that is mute must not make every client wait for it anew.
            lasts = Some(ASK_AGAIN);
        }
        missing.extend(in_trouble);
        let mut built = Built {
            generation: snapshot.generation,
            until: lasts.map(|lasts| Instant::now() + lasts),
            first: Bytes::new(),
            missing,
            servers,
        };
        built.first = write_page(list, &built, None, None);
        built
    }

    /// One server's list. Where it cannot be had as these clients would see it, what everybody sees has to do.
    async fn of_one(&self, id: &ServerId, list: Listed, shape: &Shape) -> Found {
        let listed = self.catalogue.list_for(id, list, &shape.capabilities);
        let is_plain = shape.capabilities.is_empty();
        match timeout(LIST_LIMIT, listed).await {
            Ok(Ok(list)) => return Found::Whole(list),
            Ok(Err(error)) if is_plain => {
                warn!(%error, server.id = %id, "a list goes out without this server")
            }
            Err(_) if is_plain => {
                warn!(server.id = %id, "a list goes out without this server, which did not answer in time");
            }
            Ok(Err(error)) => {
                warn!(%error, server.id = %id, "a list shows of this server only what every client sees");
            }
            Err(_) => {
                warn!(server.id = %id, "a list shows of this server only what every client sees, as it did not say more in time");
            }
        }
        if is_plain {
            return Found::Nothing;
        }
        match timeout(LIST_LIMIT, self.catalogue.list(id, list)).await {
            Ok(Ok(list)) => Found::Plain(list),
            Ok(Err(_)) | Err(_) => Found::Nothing,
        }
    }
}

/// What is known of one server's list.
enum Found {
    /// All of it.
    Whole(Arc<List>),
    /// What every client sees.
    Plain(Arc<List>),
    Nothing,
}

/// The items behind a place, with the servers whose they are. An item that is no longer there is looked for in vain, and its server's
/// list begins anew: better twice than never.
fn behind<'a>(
    servers: &'a [(ServerId, Arc<List>)],
    after: Option<&'a Place>,
) -> impl Iterator<Item = (&'a ServerId, &'a Item)> {
    let rest = servers
        .iter()
        .filter(move |(id, _)| after.is_none_or(|after| *id >= after.server));
    rest.flat_map(move |(id, list)| {
        let last = after.filter(|after| *id == after.server);
        let from = last.and_then(|after| list.items.iter().position(|item| item.key == after.key));
        list.items[from.map_or(0, |at| at + 1)..]
            .iter()
            .map(move |item| (id, item))
    })
}

/// One page of a list as it goes out.
fn write_page(list: Listed, built: &Built, after: Option<&Place>, sight: Option<&Sight>) -> Bytes {
    let Built { servers, missing, .. } = built;
    let mut out =
        format!(r#"{{"resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private","#).into_bytes();
    if !missing.is_empty() {
        out.extend_from_slice(format!(r#""_meta":{},"#, json!({ MISSING_KEY: missing })).as_bytes());
    }
    out.extend_from_slice(format!(r#""{}":["#, list.key()).as_bytes());
    let (mut items, mut last) = (0, None);
    let sees = |(id, item): &(&ServerId, &Item)| sight.is_none_or(|sight| sight.shows(id, list, item));
    for (id, item) in behind(servers, after).filter(sees) {
        if items == PAGE_ITEMS || out.len() > PAGE_BYTES {
            let next = last.map(|(id, item): (&ServerId, &Item)| Place {
                server: id.clone(),
                key: item.key.clone(),
            });
            let cursor = next.map(|next| next.cursor(list)).unwrap_or_default();
            out.extend_from_slice(format!(r#"],"nextCursor":"{cursor}"}}"#).as_bytes());
            return out.into();
        }
        if items > 0 {
            out.push(b',');
        }
        match list {
            Listed::Tools | Listed::Prompts => {
                out.extend_from_slice(&renamed(&item.json, &id.prefixed(&item.key)))
            }
            // URIs are what clients and results name resources by, so they stay.
            Listed::Resources | Listed::Templates => out.extend_from_slice(item.json.get().as_bytes()),
        }
        items += 1;
        last = Some((id, item));
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
    fn a_cursor_is_good_for_its_own_list_and_any_other_text_is_none() {
        let place = Place {
            server: "a".parse().unwrap(),
            key: "x\ny".to_owned(),
        };
        let cursor = place.cursor(Listed::Tools);
        assert_eq!(Place::read(&cursor, Listed::Tools), Ok(place));
        assert!(Place::read(&cursor, Listed::Prompts).is_err());
        for text in ["x", "%", "dG9vbHM", "dG9vbHMKQSBCCng"] {
            assert!(Place::read(text, Listed::Tools).is_err(), "{text}");
        }
    }

    #[test]
    fn an_item_is_renamed_and_keeps_its_bytes() {
        let item = RawValue::from_string(r#"{ "x":1e400, "name":"a","z":[1] }"#.to_owned()).expect("json");
        assert_eq!(renamed(&item, "s__a"), br#"{ "x":1e400, "name":"s__a","z":[1] }"#);
    }
}
