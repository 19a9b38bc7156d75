//! Who serves what: every process's own picture of the servers on the bus.
//!
//! It is made of what instances announce, of the broker's word that a connection has ended, and of a sweep that asks everybody
//! from time to time. It is never on the way of a call: a call goes to a subject, and whoever is there answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use async_nats::{Message, Subscriber};
use bus_schema::{
    ContentType, Principal, ProtocolVersion, Request, ServerCard, ServerId, Token,
    mcp::{meta, method},
    rpc,
    subject::{self, EventKind},
};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tracing::{debug, info};

use crate::{
    bus::{Bus, BusError},
    host::{HostError, HostOptions, McpServer, Parts},
};

/// How often everybody is asked.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How many sweeps an instance may leave unanswered.
const MISSED_SWEEPS: u64 = 2;
/// How long a newcomer listens for answers: until none has come for the first, and never longer than the second.
const SETTLE_QUIET: Duration = Duration::from_millis(150);
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// The most pages that a server's list may have.
const MAX_PAGES: usize = 1_000;

/// The servers on the bus at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up at each change.
    pub generation: u64,
    servers: BTreeMap<ServerId, Vec<ServerCard>>,
}

impl Snapshot {
    /// All servers in the order of their ids, each with the card that stands for its replicas.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerId, &ServerCard)> {
        self.servers
            .iter()
            .filter_map(|(id, replicas)| replicas.last().map(|card| (id, card)))
    }

    /// The card that stands for a server's replicas: the one of the newest version.
    #[must_use]
    pub fn server(&self, id: &ServerId) -> Option<&ServerCard> {
        self.servers.get(id).and_then(|replicas| replicas.last())
    }

    /// The cards of a server's replicas.
    #[must_use]
    pub fn replicas(&self, id: &ServerId) -> &[ServerCard] {
        self.servers.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A process's picture of the servers on the bus.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    tenant: String,
    snapshot: ArcSwap<Snapshot>,
    /// Held only to apply one change.
    known: Mutex<BTreeMap<(ServerId, String), Known>>,
    changed: watch::Sender<u64>,
}

struct Known {
    card: ServerCard,
    seen_in_sweep: u64,
}

impl Directory {
    /// Starts to watch one tenant's servers, and waits until those that are there have answered.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses a subscription.
    pub async fn start(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        let token = Token::encode(tenant);
        let up = bus.subscribe(subject::all_events(&token, EventKind::Up)).await?;
        let down = bus
            .subscribe(subject::all_events(&token, EventKind::Down))
            .await?;
        let inbox = bus.new_library_inbox();
        let mut answers = bus.subscribe(inbox.clone()).await?;
        let directory = Self(Arc::new(Inner {
            tenant: tenant.to_owned(),
            snapshot: ArcSwap::default(),
            known: Mutex::default(),
            changed: watch::channel(0).0,
        }));
        bus.publish_with_reply(subject::ask_all_services(), inbox.clone(), Vec::new())
            .await?;
        let limit = Instant::now() + SETTLE_LIMIT;
        while let Ok(Some(message)) =
            timeout_at(limit.min(Instant::now() + SETTLE_QUIET), answers.next()).await
        {
            directory.take_answer(&message, 0);
        }
        bus.spawn(directory.clone().watch(bus.clone(), up, down, answers, inbox));
        Ok(directory)
    }

    /// The servers at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// Tells of changes; the value is the snapshot's generation.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    async fn watch(
        self,
        bus: Bus,
        mut up: Subscriber,
        mut down: Subscriber,
        mut answers: Subscriber,
        inbox: String,
    ) {
        let mut lost = bus.lost_instances();
        let mut sweeps = interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweeps.reset();
        let mut sweep = 0;
        loop {
            tokio::select! {
                Some(message) = up.next() => if let Some(card) = read_card(&message) {
                    self.insert(card, sweep);
                },
                Some(message) = down.next() => if let Some(card) = read_card(&message) {
                    self.remove(|known| known.id == card.id && known.instance == card.instance);
                },
                Ok(instance) = lost.recv() => self.remove(|known| *known.instance == *instance),
                Some(message) = answers.next() => self.take_answer(&message, sweep),
                _ = sweeps.tick() => {
                    // While the connection is down nobody can answer, which says nothing about them.
                    if bus.is_connected() {
                        self.forget_silent(sweep);
                        sweep += 1;
                    }
                    let asked = bus.publish_with_reply(subject::ask_all_services(), inbox.clone(), Vec::new()).await;
                    if asked.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn take_answer(&self, message: &Message, sweep: u64) {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            metadata: BTreeMap<String, String>,
        }
        let Ok(info) = serde_json::from_slice::<Info>(&message.payload) else {
            return;
        };
        let Some(card) = info.metadata.get(crate::host::CARD_KEY) else {
            return;
        };
        match serde_json::from_str::<ServerCard>(card) {
            Ok(card) if card.tenant == self.0.tenant => self.insert(card, sweep),
            Ok(_) => {}
            Err(error) => debug!(%error, "ignored a server whose card cannot be read"),
        }
    }

    fn insert(&self, card: ServerCard, sweep: u64) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (card.id.clone(), card.instance.clone());
        let old = known.insert(
            key,
            Known {
                card: card.clone(),
                seen_in_sweep: sweep,
            },
        );
        if old.as_ref().map(|known| &known.card) != Some(&card) {
            if old.is_none() {
                debug!(server.id = %card.id, instance = %card.instance, "found a replica");
            }
            self.publish(&known);
        }
    }

    fn remove(&self, gone: impl Fn(&ServerCard) -> bool) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|_, known| !gone(&known.card));
        if known.len() != before {
            self.publish(&known);
        }
    }

    fn forget_silent(&self, sweep: u64) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|(id, instance), known| {
            let silent = sweep.saturating_sub(known.seen_in_sweep) >= MISSED_SWEEPS;
            if silent {
                info!(server.id = %id, %instance, "a replica does not answer any more");
            }
            !silent
        });
        if known.len() != before {
            self.publish(&known);
        }
    }

    fn publish(&self, known: &BTreeMap<(ServerId, String), Known>) {
        let mut servers: BTreeMap<ServerId, Vec<ServerCard>> = BTreeMap::new();
        for known in known.values() {
            servers
                .entry(known.card.id.clone())
                .or_default()
                .push(known.card.clone());
        }
        for replicas in servers.values_mut() {
            replicas.sort_by(|a, b| (&a.version, &a.instance).cmp(&(&b.version, &b.instance)));
        }
        let generation = self.0.snapshot.load().generation + 1;
        self.0.snapshot.store(Arc::new(Snapshot { generation, servers }));
        self.0.changed.send_replace(generation);
    }
}

fn read_card(message: &Message) -> Option<ServerCard> {
    ContentType::Json
        .decode(&message.payload)
        .inspect_err(|error| debug!(%error, "ignored a card that cannot be read"))
        .ok()
}

/// Asks a server to describe itself, through the same requests that any client makes.
pub(crate) async fn describe(
    bus: &Bus,
    server: &Arc<dyn McpServer>,
    options: &HostOptions,
) -> Result<ServerCard, HostError> {
    let mut digest = Sha256::new();
    let discovered = ask(bus, server, options, method::DISCOVER, None).await?;
    let capabilities = discovered
        .get("capabilities")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let info = discovered.pointer(&format!("/_meta/{}", meta::SERVER_INFO.replace('/', "~1")));
    let text = |key: &str| {
        info.and_then(|i| i.get(key))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    digest.update(serde_json::to_vec(&capabilities).unwrap_or_default());
    let mut counts = [0; 4];
    for (at, (capability, list, key)) in LISTS.into_iter().enumerate() {
        if capabilities.contains_key(capability) {
            counts[at] = count_list(bus, server, options, (list, key), &mut digest).await?;
        }
    }
    let id = options.id.clone();
    Ok(ServerCard {
        instance: bus.instance().to_owned(),
        tenant: options.tenant.clone(),
        title: text("title")
            .or_else(|| text("name"))
            .unwrap_or_else(|| id.to_string()),
        version: text("version").unwrap_or_else(|| "0.0.0".to_owned()),
        instructions: discovered
            .get("instructions")
            .and_then(Value::as_str)
            .map(str::to_owned),
        tags: options.tags.clone(),
        protocol_version: server.protocol_version(),
        capabilities,
        revision: digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        tools: counts[0],
        prompts: counts[1],
        resources: counts[2] + counts[3],
        max_in_flight: options.max_in_flight,
        id,
    })
}

/// The lists of a server: the capability that they stand under, the method, and where the items are.
pub(crate) const LISTS: [(&str, &str, &str); 4] = [
    ("tools", method::TOOLS_LIST, "tools"),
    ("prompts", method::PROMPTS_LIST, "prompts"),
    ("resources", method::RESOURCES_LIST, "resources"),
    ("resources", method::TEMPLATES_LIST, "resourceTemplates"),
];

async fn count_list(
    bus: &Bus,
    server: &Arc<dyn McpServer>,
    options: &HostOptions,
    (list, key): (&'static str, &str),
    digest: &mut Sha256,
) -> Result<u32, HostError> {
    let mut count = 0;
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        // A server may offer resources and know no templates.
        let page = match ask(bus, server, options, list, cursor.as_deref()).await {
            Ok(page) => page,
            Err(_) if list == method::TEMPLATES_LIST => break,
            Err(error) => return Err(error),
        };
        let items = page
            .get(key)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        count += u32::try_from(items.len()).unwrap_or(u32::MAX);
        digest.update(serde_json::to_vec(items).unwrap_or_default());
        cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(count)
}

async fn ask(
    bus: &Bus,
    server: &Arc<dyn McpServer>,
    options: &HostOptions,
    method: &'static str,
    cursor: Option<&str>,
) -> Result<Value, HostError> {
    let wrong = |why: String| HostError::Description { method, why };
    let principal = Principal {
        subject: "host".to_owned(),
        tenant: options.tenant.clone(),
        client: None,
    };
    let request = Request {
        caller: bus.instance().to_owned(),
        ..list_request(options.id.as_str(), method, cursor, principal)
    };
    // Nobody listens for notifications here: without a receiver they are dropped.
    let (parts, _) = mpsc::channel(1);
    let asked = Arc::clone(server).handle(request, Parts::new(parts));
    let limit = Instant::now() + Duration::from_secs(30);
    let outcome = timeout_at(limit, asked)
        .await
        .map_err(|_| wrong("none within 30 s".to_owned()))?;
    let message = rpc::Message::parse(&outcome.body).map_err(|error| wrong(error.message))?;
    match (message.result, message.error) {
        (Some(result), _) => serde_json::from_str(result.get()).map_err(|error| wrong(error.to_string())),
        (None, error) => Err(wrong(error.map_or("it is no response", RawValue::get).to_owned())),
    }
}

/// A request that the platform itself makes of a server, to learn what it offers.
pub(crate) fn list_request(
    server: &str,
    method: &str,
    cursor: Option<&str>,
    principal: Principal,
) -> Request {
    let mut params = Map::new();
    if let Some(cursor) = cursor {
        params.insert("cursor".to_owned(), json!(cursor));
    }
    let version = ProtocolVersion::MODERN.as_str();
    params.insert(
        "_meta".to_owned(),
        json!({
            meta::PROTOCOL_VERSION: version,
            meta::CLIENT_CAPABILITIES: {},
            meta::CLIENT_INFO: { "name": "trunkline", "version": env!("CARGO_PKG_VERSION") },
        }),
    );
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    Request {
        caller: String::new(),
        call: 0,
        server: server.to_owned(),
        method: method.to_owned(),
        name: None,
        principal,
        protocol_version: version.to_owned(),
        door: "platform".to_owned(),
        timeout_ms: 30_000,
        trace: None,
        chunked_bytes: 0,
        body: body.to_string().into_bytes().into(),
    }
}
