//! What the platform knows of its servers: what is declared, who runs it, who is on the bus, and how each does.

use std::collections::{BTreeMap, BTreeSet};

use super::{Naming, TaskDesk, kept::members, limits, rfc3339};
use crate::front::{Endpoint, Front};
use bus_schema::{
    ProtocolVersion, ServerCard, ServerId, Token,
    integrity::Tool,
    mcp::Era,
    registry::{Auth, Entry, Gone, Status},
    subject,
};
use runtime::{
    catalogue::Listed,
    directory::{Seen, Snapshot},
    load::Load,
    placement::Owners,
    registry::Registry,
    status::status_of,
    virtuals::Virtual,
};
use serde_json::{Map, Value, json};

/// Everything that is asked about the servers of a tenant.
#[derive(Clone)]
pub struct Fleet {
    pub(crate) front: Front,
    /// `None` on a bus without JetStream, where nothing is declared.
    declared: Option<(Registry, Owners)>,
    /// Whether servers at private addresses may be declared.
    pub(crate) private: Private,
    /// How servers are named to clients of the catalogue.
    pub(crate) naming: Naming,
}

/// Who may read the catalogue on a platform that asks who comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Browsers {
    /// Everybody who is let in.
    #[default]
    LetIn,
    /// Everybody; not all clients of registries have a token to show.
    Anybody,
}

/// Whether declared servers may be at private addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Private {
    /// When their declaration says so.
    Allowed,
    /// Never.
    Refused,
}

/// One server, as it is at this moment.
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) status: Status,
    reason: Option<String>,
    /// What was declared, with its revision.
    pub(crate) declared: Option<(Entry, u64)>,
    pub(super) card: Option<ServerCard>,
    replicas: Vec<ServerCard>,
    pub(super) seen: Option<Seen>,
    source: Source,
}

/// Where a server comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It was declared.
    Registry,
    /// It joined the bus by itself.
    Bus,
    /// It is made of chosen things of others.
    Virtual,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Bus => "bus",
            Self::Virtual => "virtual",
        }
    }
}

impl Fleet {
    /// What doors know of the servers on the bus, with what is declared.
    #[must_use]
    pub fn new(front: Front, declared: Option<(Registry, Owners)>, private: Private) -> Self {
        Self {
            front,
            declared,
            private,
            naming: Naming::default(),
        }
    }

    /// The same, with other names in the catalogue.
    #[must_use]
    pub fn named(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// The tenant whose servers these are.
    pub(crate) fn tenant(&self) -> &str {
        self.front.directory().tenant()
    }

    /// What can be done about the tasks of the tenant.
    pub(super) fn task_desk(&self) -> TaskDesk {
        TaskDesk::new(self.front.tasks().clone(), self.tenant())
    }

    /// What is told of all servers, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Value> {
        self.servers()
            .values()
            .map(|server| Value::Object(server.to_json()))
            .collect()
    }

    /// All that is known of one server, if it is declared or on the bus.
    pub async fn show(&self, id: &ServerId) -> Option<Value> {
        let server = self.server(id)?;
        let mut told = server.to_json();
        told.extend(self.details(&server).await);
        Some(Value::Object(told))
    }

    /// All servers of the tenant that the doors serve, by id.
    pub(crate) fn servers(&self) -> BTreeMap<ServerId, Server> {
        let snapshot = self.front.directory().snapshot();
        let mut servers = BTreeMap::new();
        if let Some((registry, _)) = &self.declared {
            for entry in registry.all(self.tenant()) {
                let id = entry.value.declaration.id.clone();
                let declared = Some((entry.value, entry.revision));
                servers.insert(id.clone(), self.server_of(&snapshot, &id, declared));
            }
        }
        for (id, _) in snapshot.servers() {
            servers
                .entry(id.clone())
                .or_insert_with(|| self.server_of(&snapshot, id, None));
        }
        for (id, known) in &self.front.virtuals().table().servers {
            servers.insert(id.clone(), self.virtual_server(&snapshot, known));
        }
        servers
    }

    /// What servers were told of as and are not any more, with their ids.
    pub(super) fn gone(&self) -> Vec<(ServerId, Gone)> {
        let registry = self.declared.as_ref().map(|(registry, _)| registry);
        let mut gone = registry.map_or_else(Vec::new, |registry| registry.gone(self.tenant()));
        for (id, (removed, _)) in &self.front.virtuals().table().removed {
            gone.extend(removed.gone.iter().map(|gone| (id.clone(), gone.clone())));
        }
        gone
    }

    /// Whether a server of that id is declared, be it there or not.
    pub(crate) fn declares(&self, id: &ServerId) -> bool {
        let registry = self.declared.as_ref().map(|(registry, _)| registry);
        registry.is_some_and(|registry| registry.get(self.tenant(), id).is_some())
    }

    /// A virtual server as one: it is well while all are that it names.
    fn virtual_server(&self, snapshot: &Snapshot, known: &Virtual) -> Server {
        let id = &known.definition.id;
        let named = known
            .definition
            .items
            .iter()
            .filter_map(|item| item.server.as_ref());
        let away: BTreeSet<&str> = named
            .filter(|server| snapshot.server(server).is_none() || snapshot.trouble(server).is_some())
            .map(ServerId::as_str)
            .collect();
        let reason = (!away.is_empty()).then(|| {
            let away: Vec<&str> = away.into_iter().collect();
            format!("not all of its members can be used: {}", away.join(", "))
        });
        Server {
            id: id.clone(),
            status: if reason.is_some() {
                Status::Degraded
            } else {
                Status::Healthy
            },
            reason,
            declared: None,
            card: self.front.card(&Endpoint::Server(id.clone())),
            replicas: Vec::new(),
            seen: None,
            source: Source::Virtual,
        }
    }

    /// One server, if it is declared or on the bus.
    pub(crate) fn server(&self, id: &ServerId) -> Option<Server> {
        if let Some(known) = self.front.virtuals().get(id) {
            return Some(self.virtual_server(&self.front.directory().snapshot(), &known));
        }
        let registry = self.declared.as_ref().map(|(registry, _)| registry);
        let declared = registry.and_then(|registry| registry.get(self.tenant(), id));
        let declared = declared.map(|entry| (entry.value, entry.revision));
        let snapshot = self.front.directory().snapshot();
        let is_known = declared.is_some() || snapshot.server(id).is_some();
        is_known.then(|| self.server_of(&snapshot, id, declared))
    }

    fn server_of(&self, snapshot: &Snapshot, id: &ServerId, declared: Option<(Entry, u64)>) -> Server {
        let replicas = snapshot.replicas(id).to_vec();
        let (status, reason) = status_of(snapshot, id, || {
            let owners = self.declared.as_ref().map(|(_, owners)| owners);
            owners.map_or_else(Vec::new, |owners| owners.of(self.tenant(), id))
        });
        Server {
            id: id.clone(),
            status,
            reason,
            source: if declared.is_some() {
                Source::Registry
            } else {
                Source::Bus
            },
            declared,
            card: snapshot.server(id).cloned(),
            replicas,
            seen: self.front.directory().seen(id),
        }
    }

    /// What is told of it alone: by which rule its calls are spread, and what takes asking: how the replicas do, and what tools there are.
    pub(crate) async fn details(&self, server: &Server) -> Map<String, Value> {
        let mut details = Map::new();
        if let Some(rule) = self.front.directory().snapshot().rule(&server.id) {
            let mut told = members(&rule.kept.rule);
            told.insert("revision".to_owned(), json!(rule.revision));
            details.insert("traffic".to_owned(), Value::Object(told));
        }
        let declared = server.declared.as_ref().map(|(entry, _)| &entry.declaration);
        if let Some(declared) = declared {
            details.insert("declaration".to_owned(), json!(declared));
        }
        let mut loads = Vec::new();
        let mut tools = None;
        if !server.replicas.is_empty() {
            let asked = self
                .front
                .bus()
                .load(self.tenant(), &server.id, server.replicas.len());
            let listed = self.front.catalogue().list(&server.id, Listed::Tools);
            let (answered, listed) = tokio::join!(asked, listed);
            loads = answered.unwrap_or_default();
            tools = listed.ok();
            details.insert("replicas".to_owned(), server.replicas(&loads));
        }
        let longest = u64::try_from(self.front.call_timeout().as_millis()).unwrap_or(u64::MAX);
        if let Some(limits) = limits::in_effect(declared, &loads, longest) {
            details.insert("limits".to_owned(), limits);
        }
        if let Some(tools) = tools {
            let tools = tools.items.iter().filter_map(|tool| Tool::read(&tool.json));
            let tools = tools.map(|tool| json!({ "name": tool.name, "digest": tool.digest }));
            details.insert("tools".to_owned(), tools.collect());
        }
        details
    }
}

impl Server {
    /// What is told of it in lists.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let card = self.card.as_ref();
        let declared = self.declared.as_ref().map(|(entry, _)| &entry.declaration);
        let title = declared.and_then(|declared| declared.title.as_ref());
        let description = declared.and_then(|declared| declared.description.as_ref());
        let version = declared.and_then(|declared| declared.version.as_ref());
        let mut told = json!({
            "id": self.id,
            "title": title.or(card.map(|card| &card.title)),
            "description": description.or(card.and_then(|card| card.instructions.as_ref())),
            "version": version.or(card.map(|card| &card.version)),
            "tags": self.tags(),
            "source": self.source.as_str(),
            "status": self.status.as_str(),
            "reason": self.reason,
            "endpoint": format!("/servers/{}/mcp", self.id),
            "subject": self.subject(),
            "registeredAt": self.seen.and_then(|seen| rfc3339(seen.first)),
            "lastSeen": self.last_seen(),
            "replicas": self.replicas(&[]),
        });
        if let Some((entry, revision)) = &self.declared {
            told["name"] = json!(entry.declaration.name);
            told["url"] = json!(entry.declaration.url);
            told["auth"] = shown(&entry.declaration.auth);
            told["credentials"] = json!(entry.declaration.credentials);
            told["healthUrl"] = json!(entry.declaration.health_url);
            told["owner"] = json!(entry.declaration.owner);
            told["registeredAt"] = json!(entry.registered_at);
            told["updatedAt"] = json!(entry.updated_at);
            told["registeredBy"] = json!(entry.registered_by);
            told["revision"] = json!(revision);
        }
        if let Some(card) = card.filter(|_| self.source == Source::Virtual) {
            told["capabilities"] = json!(card.capabilities);
        } else if let Some(card) = card {
            told["protocol"] = json!({ "era": era(card), "version": card.protocol_version });
            told["capabilities"] = json!(card.capabilities);
            told["counts"] =
                json!({ "tools": card.tools, "prompts": card.prompts, "resources": card.resources });
        }
        let mut told = match told {
            Value::Object(told) => told,
            _ => Map::new(),
        };
        told.retain(|_, value| !value.is_null());
        told
    }

    /// Where it is on the bus, if it is.
    fn subject(&self) -> Option<String> {
        let (first, id) = (self.replicas.first()?, self.id.as_str());
        Some(subject::all_calls(
            &Token::encode(&first.tenant),
            &Token::encode(id),
        ))
    }

    /// What the overview says of it.
    pub(crate) fn summary(&self) -> Map<String, Value> {
        let told = [
            ("id", json!(self.id)),
            ("status", json!(self.status.as_str())),
            ("reason", json!(self.reason)),
            ("lastSeen", json!(self.last_seen())),
        ];
        told.map(|(member, value)| (member.to_owned(), value))
            .into_iter()
            .collect()
    }

    /// Its labels: those that were declared, and those that it came with.
    pub(crate) fn tags(&self) -> Vec<&str> {
        let declared = self
            .declared
            .iter()
            .flat_map(|(entry, _)| &entry.declaration.tags);
        let mut tags: Vec<&str> = declared
            .chain(self.card.iter().flat_map(|card| &card.tags))
            .map(String::as_str)
            .collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    fn last_seen(&self) -> Option<String> {
        rfc3339(self.seen?.last)
    }

    fn replicas(&self, loads: &[Load]) -> Value {
        let replica = |card: &ServerCard| {
            let mut told = match loads.iter().find(|load| load.instance == card.instance) {
                Some(load) => json!(load),
                None => json!({ "instance": card.instance, "maxInFlight": card.max_in_flight }),
            };
            told["version"] = json!(card.version);
            for (key, place) in [("node", &card.place.node), ("region", &card.place.region)] {
                if !place.is_empty() {
                    told[key] = json!(place);
                }
            }
            told
        };
        self.replicas.iter().map(replica).collect()
    }
}

/// The era of the version that is spoken behind a host.
fn era(card: &ServerCard) -> &'static str {
    match card
        .protocol_version
        .parse::<ProtocolVersion>()
        .map(ProtocolVersion::era)
    {
        Ok(Era::Legacy) => "legacy",
        Ok(Era::Modern) => "modern",
        Err(_) => "unknown",
    }
}

/// How the platform is let in, without the names of secrets.
fn shown(auth: &Auth) -> Value {
    match auth {
        Auth::None => json!({ "type": "none" }),
        Auth::Bearer { .. } => json!({ "type": "bearer" }),
        Auth::Oauth2 {
            token_endpoint,
            issuer,
            ..
        } => {
            let mut shown = json!({ "type": "oauth2" });
            for (key, url) in [("tokenEndpoint", token_endpoint), ("issuer", issuer)] {
                if let Some(url) = url {
                    shown[key] = json!(url);
                }
            }
            shown
        }
    }
}
