//! The servers of the platform as entries of a registry: one for each name and version.
//!
//! Servers that were declared under one name are its versions. A server without a name of its own gets one, and so does one whose name and
//! version are taken. What an entry sends clients to is always this platform, and never what stands behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
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
    server: Server,
}

impl Listing {
    /// The servers of a fleet that somebody sees, for clients that find it at `base`.
    pub(super) fn new(fleet: &Fleet, viewer: &Viewer, base: String) -> Self {
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
                server,
            });
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

    /// What the newest version has most of: semantic versions are newer than others, and among others the last published is.
    pub(super) fn newness(&self) -> (Option<Version>, OffsetDateTime, &str) {
        (Version::parse(&self.version).ok(), self.published, &self.version)
    }

    /// Whether a client means it by a version.
    pub(super) fn is(&self, version: &str) -> bool {
        self.version == version || version == LATEST && self.is_latest
    }

    pub(super) fn to_json(&self, listing: &Listing) -> Value {
        let server = &self.server;
        let declared = server.declared.as_ref().map(|(entry, _)| &entry.declaration);
        let card = server.card.as_ref();
        let title = declared
            .and_then(|declared| declared.title.as_deref())
            .or_else(|| card.map(|card| card.title.as_str()))
            .and_then(short);
        let description = declared
            .and_then(|declared| declared.description.as_deref())
            .or_else(|| card.and_then(|card| card.instructions.as_deref()))
            .and_then(short);
        let description = description.unwrap_or_else(|| {
            title
                .clone()
                .unwrap_or_else(|| format!("MCP server {}", server.id))
        });
        let tags = server.tags();
        let status = if tags.contains(&DEPRECATED) {
            "deprecated"
        } else {
            "active"
        };
        let mut told = json!({
            "$schema": SCHEMA,
            "name": self.name,
            "description": description,
            "version": self.version,
            "remotes": [{ "type": "streamable-http", "url": format!("{}/servers/{}/mcp", listing.base, server.id) }],
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
                OWN: { "id": server.id, "status": server.status.as_str(), "tags": tags },
            },
        })
    }
}

fn version(server: &Server) -> String {
    let declared = server.declared.as_ref();
    let declared = declared.and_then(|(entry, _)| entry.declaration.version.as_deref());
    let told = declared.or_else(|| server.card.as_ref().map(|card| card.version.as_str()));
    let told: String = told
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
    let read = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    if let Some((entry, _)) = &server.declared {
        let published = read(&entry.registered_at);
        let updated = read(&entry.updated_at);
        if let (Some(published), Some(updated)) = (published, updated) {
            return (published, updated);
        }
    }
    let seen = server.seen;
    let moment = |moment: Option<SystemTime>| OffsetDateTime::from(moment.unwrap_or(UNIX_EPOCH));
    (
        moment(seen.map(|seen| seen.first)),
        moment(seen.map(|seen| seen.changed)),
    )
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
