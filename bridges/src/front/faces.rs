//! What virtual servers come to: their lists, made of those of their members, and whose each entry is under which name.
//!
//! A list is built at its first use for a state of the bus and of the definition, and kept as ready bytes with the way back to each owner.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    ServerCard, ServerId,
    card::ListDigests,
    task::TaskKnob,
    virtual_server::{Choice, VirtualServer, fits_any},
};
use bytes::Bytes;
use futures::future::join_all;
use runtime::{
    Catalogue,
    catalogue::{List, Listed},
    directory::Snapshot,
    policies::Sight,
    virtuals::{Virtual, Virtuals},
};
use serde::Serialize;
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};
use tracing::warn;

use super::{
    LIST_TTL_MS,
    aggregate::{ASK_AGAIN, LIST_LIMIT, MISSING_KEY, renamed},
    owner,
};

/// The `_meta` key that names entries which were left out, as others before them have their names.
const LEFT_OUT_KEY: &str = "io.trunkline/leftOut";

/// The lists of all virtual servers.
pub(super) struct Faces {
    catalogue: Catalogue,
    pub(super) virtuals: Virtuals,
    /// Held only to look one up or put one in.
    built: Mutex<HashMap<ServerId, Arc<Face>>>,
}

/// The lists of one, at one state of the bus and of its definition.
struct Face {
    generation: u64,
    defined: Arc<Virtual>,
    until: Mutex<Option<Instant>>,
    /// One for each of [`Listed::ALL`].
    lists: [OnceCell<Arc<Merged>>; 4],
}

/// One list.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The result as it goes out.
    pub(super) result: Bytes,
    /// Whose each entry is, and its name there, by the name or URI that is shown.
    pub(super) owners: HashMap<String, (ServerId, String)>,
    /// The shown names in their order.
    names: Vec<String>,
    /// What is shown under each, in the same order.
    entries: Vec<Vec<u8>>,
    /// Entries that were left out.
    pub(super) left_out: Vec<LeftOut>,
    /// Servers that the definition names, or that have its labels, whose lists could not be had.
    pub(super) missing: BTreeSet<ServerId>,
}

/// An entry that another one before it hides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    pub(super) name: String,
    pub(super) server: ServerId,
}

impl Faces {
    pub(super) fn new(catalogue: Catalogue, virtuals: Virtuals) -> Self {
        Self {
            catalogue,
            virtuals,
            built: Mutex::default(),
        }
    }

    /// A list of a virtual server at the present state.
    pub(super) async fn current(&self, defined: &Arc<Virtual>, list: Listed) -> Arc<Merged> {
        let face = self.face(defined);
        let built = face.lists[list as usize]
            .get_or_init(|| async {
                let merged = self.build(&defined.definition, list).await;
                for LeftOut { name, server } in &merged.left_out {
                    warn!(virtual.id = %defined.definition.id, name, %server, "left out an entry whose name another one has");
                }
                if !merged.missing.is_empty() {
                    // A server that is mute must not make every client wait for it anew.
                    let until = Some(Instant::now() + ASK_AGAIN);
                    *face.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                }
                Arc::new(merged)
            })
            .await;
        Arc::clone(built)
    }

    fn face(&self, defined: &Arc<Virtual>) -> Arc<Face> {
        let generation = self.catalogue.directory().snapshot().generation;
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |face: &Face| {
            let until = *face.until.lock().unwrap_or_else(PoisonError::into_inner);
            face.generation == generation
                && face.defined.definition == defined.definition
                && until.is_none_or(|until| Instant::now() < until)
        };
        if let Some(face) = built.get(&defined.definition.id).filter(|face| is_fresh(face)) {
            return Arc::clone(face);
        }
        let face = Arc::new(Face {
            generation,
            defined: Arc::clone(defined),
            until: Mutex::default(),
            lists: Default::default(),
        });
        let there = self.virtuals.table();
        built.retain(|id, _| there.servers.contains_key(id));
        built.insert(defined.definition.id.clone(), Arc::clone(&face));
        face
    }

    /// Asks all members at once, and puts their lists together in the order of the definition.
    pub(super) async fn build(&self, definition: &VirtualServer, list: Listed) -> Merged {
        let snapshot = self.catalogue.directory().snapshot();
        let chosen: Vec<_> = definition
            .items
            .iter()
            .filter(|item| !patterns(item, list).is_empty())
            .map(|item| (item, members(item, &definition.id, &snapshot)))
            .collect();
        let asked: BTreeSet<&ServerId> = chosen.iter().flat_map(|(_, servers)| servers).collect();
        let asked = asked
            .into_iter()
            .map(|id| async move { (id.clone(), self.of_one(id, list).await) });
        let lists: BTreeMap<ServerId, Option<Arc<List>>> = join_all(asked).await.into_iter().collect();
        let mut merged = Merged::default();
        for (item, servers) in &chosen {
            for server in servers {
                match lists.get(server) {
                    Some(Some(of_one)) => merged.add(list, item, server, of_one),
                    _ => {
                        merged.missing.insert(server.clone());
                    }
                }
            }
        }
        merged.result = merged.write(list, &merged.entries, &merged.left_out);
        merged
    }

    async fn of_one(&self, id: &ServerId, list: Listed) -> Option<Arc<List>> {
        match timeout(LIST_LIMIT, self.catalogue.list(id, list)).await {
            Ok(Ok(list)) => Some(list),
            Ok(Err(error)) => {
                warn!(%error, server.id = %id, "a virtual server goes out without this member");
                None
            }
            Err(_) => {
                warn!(server.id = %id, "a virtual server goes out without this member, which did not answer in time");
                None
            }
        }
    }

    /// Whose a resource is, if it is chosen: the one that lists it, else whose template it fits.
    pub(super) async fn owner_of_resource(&self, defined: &Arc<Virtual>, uri: &str) -> Option<ServerId> {
        let listed = self.current(defined, Listed::Resources).await;
        if let Some((server, _)) = listed.owners.get(uri) {
            return Some(server.clone());
        }
        let templates = self.current(defined, Listed::Templates).await;
        let template = templates
            .names
            .iter()
            .find(|template| owner::fits(template, uri))?;
        templates.owners.get(template).map(|(server, _)| server.clone())
    }

    /// What a virtual server can do at this moment.
    pub(super) fn capabilities(&self, defined: &Virtual) -> Map<String, serde_json::Value> {
        capabilities(&defined.definition, &self.catalogue.directory().snapshot())
    }

    /// A virtual server as the card of one.
    pub(super) fn card(&self, defined: &Virtual) -> ServerCard {
        let definition = &defined.definition;
        let snapshot = self.catalogue.directory().snapshot();
        let revision = defined.kept.as_ref().map_or(0, |(_, revision)| *revision);
        ServerCard {
            id: definition.id.clone(),
            instance: String::new(),
            place: bus_schema::card::Place::default(),
            tenant: String::new(),
            title: definition
                .title
                .clone()
                .unwrap_or_else(|| definition.id.to_string()),
            version: format!("{}+r{revision}", env!("CARGO_PKG_VERSION")),
            instructions: definition.description.clone(),
            tags: Vec::new(),
            protocol_version: bus_schema::ProtocolVersion::MODERN.to_string(),
            capabilities: capabilities(definition, &snapshot),
            revision: revision.to_string(),
            lists: digests(definition, &snapshot),
            tools: 0,
            prompts: 0,
            resources: 0,
            max_in_flight: 0,
            at_most_once: false,
            tasks: TaskKnob::default(),
            trouble: None,
            offered: String::new(),
        }
    }
}

impl Merged {
    /// Each entry with whose it is.
    pub(super) fn shown(&self) -> serde_json::Value {
        let each = self.names.iter().filter_map(|name| {
            let (server, own) = self.owners.get(name)?;
            Some(json!({ "name": name, "server": server, "own": own }))
        });
        each.collect()
    }

    /// The result for somebody who may not see all of it.
    pub(super) fn seen(&self, list: Listed, sight: &Sight) -> Bytes {
        let each = self.names.iter().zip(&self.entries);
        let seen = each.filter(|(name, entry)| {
            let owner = self.owners.get(*name).zip(std::str::from_utf8(entry).ok());
            owner.is_some_and(|((server, own), text)| sight.shows_as(server, list, own, text))
        });
        let entries: Vec<_> = seen.map(|(_, entry)| entry.clone()).collect();
        // What was left out may be something that nobody but others sees.
        self.write(list, &entries, &[])
    }

    fn add(&mut self, list: Listed, item: &Choice, server: &ServerId, of_one: &List) {
        for entry in of_one
            .items
            .iter()
            .filter(|entry| fits_any(patterns(item, list), &entry.key))
        {
            let (shown, json) = match list {
                Listed::Tools | Listed::Prompts => {
                    let shown = item.shown(&entry.key);
                    let json = renamed(&entry.json, &shown);
                    (shown, json)
                }
                // URIs are what clients and results name resources by, so they stay.
                Listed::Resources | Listed::Templates => {
                    (entry.key.clone(), entry.json.get().as_bytes().to_vec())
                }
            };
            match self.owners.entry(shown.clone()) {
                Entry::Vacant(free) => {
                    free.insert((server.clone(), entry.key.clone()));
                    self.names.push(shown);
                    self.entries.push(json);
                }
                // Chosen twice, it is the same.
                Entry::Occupied(taken) if *taken.get() == (server.clone(), entry.key.clone()) => {}
                Entry::Occupied(_) => self.left_out.push(LeftOut {
                    name: shown,
                    server: server.clone(),
                }),
            }
        }
    }

    fn write(&self, list: Listed, entries: &[Vec<u8>], left_out: &[LeftOut]) -> Bytes {
        let mut meta = Map::new();
        if !self.missing.is_empty() {
            meta.insert(MISSING_KEY.to_owned(), json!(self.missing));
        }
        if !left_out.is_empty() {
            meta.insert(LEFT_OUT_KEY.to_owned(), json!(left_out));
        }
        let mut out = format!(r#"{{"resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private","#)
            .into_bytes();
        if !meta.is_empty() {
            out.extend_from_slice(format!(r#""_meta":{},"#, json!(meta)).as_bytes());
        }
        out.extend_from_slice(format!(r#""{}":["#, list.key()).as_bytes());
        out.extend_from_slice(&entries.join(&b','));
        out.extend_from_slice(b"]}");
        out.into()
    }
}

fn patterns(item: &Choice, list: Listed) -> &[String] {
    match list {
        Listed::Tools => &item.tools,
        Listed::Prompts => &item.prompts,
        Listed::Resources | Listed::Templates => &item.resources,
    }
}

/// The servers that an item chooses from, in the order of their ids. One that is named belongs to it even when it is away.
fn members(item: &Choice, own: &ServerId, snapshot: &Snapshot) -> Vec<ServerId> {
    match &item.server {
        Some(server) => vec![server.clone()],
        None => snapshot
            .well()
            .filter(|(id, card)| *id != own && item.tags.iter().all(|tag| card.tags.contains(tag)))
            .map(|(id, _)| id.clone())
            .collect(),
    }
}

/// All members of a virtual server.
pub(super) fn all_members(definition: &VirtualServer, snapshot: &Snapshot) -> BTreeSet<ServerId> {
    let items = definition.items.iter();
    items
        .flat_map(|item| members(item, &definition.id, snapshot))
        .collect()
}

/// What is chosen is offered, whoever is there; what only some servers can, when a member can.
fn capabilities(definition: &VirtualServer, snapshot: &Snapshot) -> Map<String, serde_json::Value> {
    let members = all_members(definition, snapshot);
    let cards = members.iter().filter_map(|id| snapshot.server(id));
    let mut all = super::offering::union(cards);
    for list in [Listed::Tools, Listed::Prompts, Listed::Resources] {
        let is_chosen = definition
            .items
            .iter()
            .any(|item| !patterns(item, list).is_empty());
        if !is_chosen {
            all.remove(list.capability());
        } else if !all.contains_key(list.capability()) {
            all.insert(list.capability().to_owned(), json!({ "listChanged": true }));
        }
    }
    if !all.contains_key("prompts") && !all.contains_key("resources") {
        all.remove("completions");
    }
    all
}

/// What stands in its lists, as digests: those of its members, and the definition. A member may change what is not chosen from it, and
/// then a client lists anew what is the same.
fn digests(definition: &VirtualServer, snapshot: &Snapshot) -> ListDigests {
    let chosen = serde_json::to_vec(definition).unwrap_or_default();
    let digest = |list: Listed, one: fn(&ListDigests) -> &String| {
        let mut digest = Sha256::new();
        digest.update(&chosen);
        let items = definition.items.iter();
        let servers: BTreeSet<ServerId> = items
            .filter(|item| !patterns(item, list).is_empty())
            .flat_map(|item| members(item, &definition.id, snapshot))
            .collect();
        for (id, card) in servers.iter().filter_map(|id| Some((id, snapshot.server(id)?))) {
            digest.update(format!(";{id}={}", one(&card.lists)));
        }
        let digest = digest.finalize();
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    ListDigests {
        tools: digest(Listed::Tools, |lists| &lists.tools),
        prompts: digest(Listed::Prompts, |lists| &lists.prompts),
        resources: digest(Listed::Resources, |lists| &lists.resources),
    }
}

/// The digests of a virtual server's lists.
pub(super) fn digests_of(virtuals: &Virtuals, id: &ServerId, snapshot: &Snapshot) -> Option<ListDigests> {
    Some(digests(&virtuals.get(id)?.definition, snapshot))
}
