//! The servers of the platform as entries of a registry: one for each name and version.
//!
//! Servers that were declared under one name are its versions. A server without a name of its own gets one, and so does one whose name and
//! version are taken. What an entry sends clients to is always this platform, and never what stands behind it. A server that was removed is
//! told of as deleted for some time, to those who ask for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    ServerId,
    registry::{GONE_FOR_DAYS, Gone, Status},
};
use semver::Version;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    super::{
        fleet::{Fleet, Server},
        rfc3339,
        viewer::Viewer,
    },
    LATEST,
};

const SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json";
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// Where an entry says what only this platform knows.
const OWN: &str = "trunkline/server";
/// The label of a server that should not be taken up any more.
const DEPRECATED: &str = "deprecated";
/// What a server is listed as that has never told its version.
const NO_VERSION: &str = "0.0.0";
/// How many characters a title or description may have, by the schema.
const MAX_TEXT: usize = 100;
const MAX_VERSION: usize = 255;

/// All entries at one moment.
pub(super) struct Listing {
    /// By name, then version.
    pub(super) entries: Vec<Entry>,
    base: String,
}

/// One version of a server.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) published: OffsetDateTime,
    pub(super) updated: OffsetDateTime,
    is_latest: bool,
    of: Of,
}

/// What an entry tells of.
enum Of {
    /// A server.
    Present(Box<Server>),
    /// One that was removed, or that is told of otherwise by now.
    Deleted(ServerId, Box<Gone>),
}

/// Whether deleted entries are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    Told,
    LeftOut,
}

impl Listing {
    /// The servers of a fleet that somebody sees, for clients that find it at `base`.
    pub(super) fn new(fleet: &Fleet, viewer: &Viewer, base: String, deleted: Deleted) -> Self {
        let mut servers = fleet.servers();
        servers.retain(|id, _| viewer.sees(fleet, id));
        let ids: BTreeSet<String> = servers.keys().map(ToString::to_string).collect();
        let mut taken = BTreeSet::new();
        let mut entries: Vec<Entry> = Vec::with_capacity(servers.len());
        for (id, server) in servers {
            let version = version(&server);
            let declared = server.declared.as_ref();
            let declared = declared.and_then(|(entry, _)| entry.declaration.name.clone());
            // A name that this platform gives belongs to the server that has the id.
            let own = declared.filter(|name| {
                let given = fleet.naming.id_in(name);
                given.is_none_or(|given| given == id.as_str() || !ids.contains(given))
                    && taken.insert((name.clone(), version.clone()))
            });
            let (published, updated) = times(&server);
            entries.push(Entry {
                name: own.unwrap_or_else(|| fleet.naming.name(id.as_str())),
                version,
                published,
                updated,
                is_latest: false,
                of: Of::Present(Box::new(server)),
            });
        }
        if deleted == Deleted::Told {
            let present: BTreeSet<_> = entries.iter().map(Entry::key).collect();
            let gone = deleted_entries(fleet, viewer).filter(|(key, _)| !present.contains(key));
            entries.extend(gone.map(|(_, entry)| entry));
        }
        entries.sort_by(|a, b| a.place().cmp(&b.place()));
        mark_latest(&mut entries);
        Self { entries, base }
    }

    /// The versions of a server.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.name == name)
    }
}

impl Entry {
    /// Where it stands in the order of all.
    pub(super) fn place(&self) -> (&str, &str) {
        (&self.name, &self.version)
    }

    fn key(&self) -> (String, String) {
        (self.name.clone(), self.version.clone())
    }

    /// What the newest version has most of: what is there is newer than what is not, semantic versions are newer than others, and among others the last published is.
    pub(super) fn newness(&self) -> (bool, Option<Version>, OffsetDateTime, &str) {
        let is_present = matches!(self.of, Of::Present(_));
        let version = Version::parse(&self.version).ok();
        (is_present, version, self.published, &self.version)
    }

    /// Whether a client means it by a version.
    pub(super) fn is(&self, version: &str) -> bool {
        self.version == version || version == LATEST && self.is_latest
    }

    /// Whether somebody means it who looks for these words, in lower case.
    pub(super) fn has(&self, words: &str) -> bool {
        let description = self.texts().1;
        let texts = [Some(self.name.as_str()), description];
        texts
            .into_iter()
            .flatten()
            .any(|text| text.to_lowercase().contains(words))
    }

    /// Its title and its description.
    fn texts(&self) -> (Option<&str>, Option<&str>) {
        match &self.of {
            Of::Deleted(_, gone) => (gone.title.as_deref(), gone.description.as_deref()),
            Of::Present(server) => {
                let declared = server.declared.as_ref().map(|(entry, _)| &entry.declaration);
                let card = server.card.as_ref();
                let title = declared.and_then(|declared| declared.title.as_deref());
                let description = declared.and_then(|declared| declared.description.as_deref());
                (
                    title.or_else(|| card.map(|card| card.title.as_str())),
                    description.or_else(|| card.and_then(|card| card.instructions.as_deref())),
                )
            }
        }
    }

    pub(super) fn to_json(&self, listing: &Listing) -> Value {
        let (id, health, tags) = match &self.of {
            Of::Present(server) => (&server.id, server.status, server.tags()),
            Of::Deleted(id, _) => (id, Status::Down, Vec::new()),
        };
        let (title, description) = self.texts();
        let title = title.and_then(short);
        let description = description.and_then(short);
        let description =
            description.unwrap_or_else(|| title.clone().unwrap_or_else(|| format!("MCP server {id}")));
        let status = match &self.of {
            Of::Deleted(..) => "deleted",
            Of::Present(_) if tags.contains(&DEPRECATED) => "deprecated",
            Of::Present(_) => "active",
        };
        let mut told = json!({
            "$schema": SCHEMA,
            "name": self.name,
            "description": description,
            "version": self.version,
            "remotes": [{ "type": "streamable-http", "url": format!("{}/servers/{id}/mcp", listing.base) }],
        });
        if let Some(title) = title {
            told["title"] = title.into();
        }
        json!({
            "server": told,
            "_meta": {
                OFFICIAL: {
                    "status": status,
                    "statusChangedAt": text(self.updated),
                    "publishedAt": text(self.published),
                    "updatedAt": text(self.updated),
                    "isLatest": self.is_latest,
                },
                OWN: { "id": id, "status": health.as_str(), "tags": tags },
            },
        })
    }
}

/// What is gone as entries, by name and version; of several the one that went last.
fn deleted_entries(fleet: &Fleet, viewer: &Viewer) -> impl Iterator<Item = ((String, String), Entry)> {
    let oldest = OffsetDateTime::now_utc() - time::Duration::days(GONE_FOR_DAYS.into());
    let mut deleted: BTreeMap<(String, String), Entry> = BTreeMap::new();
    for (id, gone) in fleet.gone() {
        let (Some(published), Some(updated)) = (moment(&gone.published_at), moment(&gone.gone_at)) else {
            continue;
        };
        if updated < oldest || !viewer.sees(fleet, &id) {
            continue;
        }
        let own = gone.name.clone().filter(|name| {
            let given = fleet.naming.id_in(name);
            given.is_none_or(|given| given == id.as_str())
        });
        let entry = Entry {
            name: own.unwrap_or_else(|| fleet.naming.name(id.as_str())),
            version: usual(gone.version.as_deref()),
            published,
            updated,
            is_latest: false,
            of: Of::Deleted(id, Box::new(gone)),
        };
        let known = deleted.get(&entry.key());
        if known.is_none_or(|known| known.updated < entry.updated) {
            deleted.insert(entry.key(), entry);
        }
    }
    deleted.into_iter()
}

fn version(server: &Server) -> String {
    let declared = server.declared.as_ref();
    let declared = declared.and_then(|(entry, _)| entry.declaration.version.as_deref());
    let told = declared.or_else(|| server.card.as_ref().map(|card| card.version.as_str()));
    usual(told)
}

/// A version as entries spell it.
fn usual(version: Option<&str>) -> String {
    let told: String = version
        .unwrap_or_default()
        .trim()
        .chars()
        .take(MAX_VERSION)
        .collect();
    if told.is_empty() || told == LATEST {
        NO_VERSION.to_owned()
    } else {
        told
    }
}

/// When a server was published here, and when it last changed. For one that nobody declared it is when this process first heard of it.
fn times(server: &Server) -> (OffsetDateTime, OffsetDateTime) {
    if let Some((entry, _)) = &server.declared {
        let published = moment(&entry.registered_at);
        let updated = moment(&entry.updated_at);
        if let (Some(published), Some(updated)) = (published, updated) {
            return (published, updated);
        }
    }
    let seen = server.seen;
    let of = |moment: Option<SystemTime>| OffsetDateTime::from(moment.unwrap_or(UNIX_EPOCH));
    (of(seen.map(|seen| seen.first)), of(seen.map(|seen| seen.changed)))
}

fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn mark_latest(entries: &mut [Entry]) {
    let mut latest: BTreeMap<String, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let best = latest.entry(entry.name.clone()).or_insert(at);
        if entry.newness() > entries[*best].newness() {
            *best = at;
        }
    }
    for at in latest.into_values() {
        entries[at].is_latest = true;
    }
}

fn text(moment: OffsetDateTime) -> Option<String> {
    rfc3339(moment.into())
}

/// The beginning of a text on one line, as long as the schema allows; `None` when nothing is there.
fn short(text: &str) -> Option<String> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= MAX_TEXT {
        return (!words.is_empty()).then_some(words);
    }
    let kept: String = words.chars().take(MAX_TEXT - 1).collect();
    Some(format!("{}…", kept.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_to_what_the_schema_allows() {
        assert_eq!(short(" a\n b "), Some("a b".to_owned()));
        assert_eq!(short(" \n"), None);
        let cut = short(&"ä".repeat(101)).unwrap();
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (100, true));
        assert_eq!(short(&"ä".repeat(100)).unwrap().chars().count(), 100);
    }
}
