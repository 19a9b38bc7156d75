//! Listens at servers for changes of resources: one listen call to each replica of a server, for all clients of this process.
//!
//! The call names the union of what clients want. When that changes, the new call is acknowledged before the old one ends, so that
//! nothing is missed in between.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{
    Principal, ProtocolVersion, Request, RpcError, ServerId,
    mcp::{meta, method},
    rpc::Message,
};
use runtime::{Answer, Bus, Call, Directory};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::IMPLEMENTATION;

/// How long a listen call lasts before it is made anew.
const LISTEN_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a client waits for the word of its resources' servers.
const HONOUR_LIMIT: Duration = Duration::from_secs(5);
/// How long a replica that has ended a listen call is left alone.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Is told of each resource that has changed at a server.
type Tell = Arc<dyn Fn(&ServerId, &str) + Send + Sync>;

/// The servers that this process listens at.
pub(super) struct Keepers {
    bus: Bus,
    directory: Directory,
    /// Held only to look up, insert or remove.
    servers: Mutex<HashMap<ServerId, Arc<Keeper>>>,
}

/// What is wanted of one server, and what it honours.
struct Keeper {
    wanted: watch::Sender<Wanted>,
    honoured: watch::Sender<Honoured>,
}

#[derive(Clone, Default)]
struct Wanted {
    /// Counts the changes.
    version: u64,
    /// How many clients want each resource.
    uris: BTreeMap<String, usize>,
}

#[derive(Clone, Default)]
struct Honoured {
    version: u64,
    told: Told,
}

/// What a server says to a listen call.
#[derive(Clone, Default)]
struct Told {
    /// The resources that it will tell of.
    honoured: BTreeSet<String>,
    /// Why not of others, as far as it says.
    refused: BTreeMap<String, RpcError>,
}

impl Keepers {
    pub(super) fn new(bus: Bus, directory: Directory) -> Self {
        Self {
            bus,
            directory,
            servers: Mutex::default(),
        }
    }

    /// Adds one client's resources.
    pub(super) fn add(
        &self,
        server: &ServerId,
        uris: &BTreeSet<String>,
        tell: impl Fn(&ServerId, &str) + Send + Sync + 'static,
    ) {
        if uris.is_empty() {
            return;
        }
        let keeper = Arc::clone(self.servers().entry(server.clone()).or_insert_with(|| {
            let keeper = Arc::new(Keeper {
                wanted: watch::Sender::default(),
                honoured: watch::Sender::default(),
            });
            let running = Listening::new(self, server.clone(), &keeper, Arc::new(tell));
            tokio::spawn(running.run());
            keeper
        }));
        keeper.wanted.send_if_modified(|wanted| {
            let before = wanted.uris.len();
            for uri in uris {
                *wanted.uris.entry(uri.clone()).or_default() += 1;
            }
            let grown = wanted.uris.len() != before;
            wanted.version += u64::from(grown);
            grown
        });
    }

    /// Takes one client's resources away. A server that nobody wants anything of is no longer listened at.
    pub(super) fn remove(&self, server: &ServerId, uris: &BTreeSet<String>) {
        let mut servers = self.servers();
        let Some(keeper) = servers.get(server) else { return };
        keeper.wanted.send_if_modified(|wanted| {
            let before = wanted.uris.len();
            for uri in uris {
                if let Some(count) = wanted.uris.get_mut(uri) {
                    *count -= 1;
                    if *count == 0 {
                        wanted.uris.remove(uri);
                    }
                }
            }
            let shrunk = wanted.uris.len() != before;
            wanted.version += u64::from(shrunk);
            shrunk
        });
        if keeper.wanted.borrow().uris.is_empty() {
            servers.remove(server);
        }
    }

    /// Which of these resources the server will tell of, as far as it says so in time.
    pub(super) async fn honoured(&self, server: &ServerId, uris: &BTreeSet<String>) -> BTreeSet<String> {
        let told = self.told(server).await.unwrap_or_default();
        told.honoured.intersection(uris).cloned().collect()
    }

    /// The error by which a server refuses to tell of a resource, as far as it says so in time. `None` as well while it is away.
    pub(super) async fn refusal(&self, server: &ServerId, uri: &str) -> Option<RpcError> {
        self.directory.snapshot().server(server)?;
        let mut told = self.told(server).await?;
        // Where replicas differ, one that tells of it is enough.
        told.refused.remove(uri).filter(|_| !told.honoured.contains(uri))
    }

    /// What a server says to what is wanted of it now; `None` when it does not say so in time.
    async fn told(&self, server: &ServerId) -> Option<Told> {
        let keeper = self.servers().get(server).cloned()?;
        let version = keeper.wanted.borrow().version;
        let mut honoured = keeper.honoured.subscribe();
        let told = honoured.wait_for(|honoured| honoured.version >= version);
        match timeout(HONOUR_LIMIT, told).await {
            Ok(Ok(honoured)) => Some(honoured.told.clone()),
            _ => None,
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<ServerId, Arc<Keeper>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listen calls to one server's replicas.
struct Listening {
    bus: Bus,
    directory: Directory,
    server: ServerId,
    wanted: watch::Receiver<Wanted>,
    keeper: std::sync::Weak<Keeper>,
    tell: Tell,
    replicas: HashMap<String, Replica>,
    words_in: mpsc::Sender<Word>,
    words: mpsc::Receiver<Word>,
}

/// One replica, and the calls to it: the one that is acknowledged, and the one that will take its place.
#[derive(Default)]
struct Replica {
    active: Option<Listen>,
    opening: Option<Listen>,
    told: Told,
    /// The replica has ended a call: when it is called again.
    again: Option<Instant>,
}

/// One listen call, ended when this is dropped.
struct Listen {
    version: u64,
    task: AbortHandle,
}

impl Drop for Listen {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task of one call says.
struct Word {
    instance: String,
    version: u64,
    kind: WordKind,
}

enum WordKind {
    Acknowledged(Told),
    Ended,
}

impl Listening {
    fn new(keepers: &Keepers, server: ServerId, keeper: &Arc<Keeper>, tell: Tell) -> Self {
        let (words_in, words) = mpsc::channel(64);
        Self {
            bus: keepers.bus.clone(),
            directory: keepers.directory.clone(),
            server,
            wanted: keeper.wanted.subscribe(),
            keeper: Arc::downgrade(keeper),
            tell,
            replicas: HashMap::new(),
            words_in,
            words,
        }
    }

    /// Goes on until nobody wants anything of the server.
    async fn run(mut self) {
        let mut replicas_changed = self.directory.changes();
        loop {
            self.open_calls();
            self.say_what_is_honoured();
            let again = self.replicas.values().filter_map(|replica| replica.again).min();
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                changed = replicas_changed.changed() => if changed.is_err() { return },
                Some(word) = self.words.recv() => self.take(word),
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    for replica in self.replicas.values_mut() {
                        replica.again = None;
                    }
                }
            }
        }
    }

    /// Makes the calls that are missing, and forgets replicas that are gone.
    fn open_calls(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let snapshot = self.directory.snapshot();
        let present: BTreeSet<&str> = snapshot
            .replicas(&self.server)
            .iter()
            .map(|card| card.instance.as_str())
            .collect();
        self.replicas
            .retain(|instance, _| present.contains(instance.as_str()));
        for instance in present {
            let replica = self.replicas.entry(instance.to_owned()).or_default();
            let newest = replica.opening.as_ref().or(replica.active.as_ref());
            let is_right = newest.is_some_and(|listen| listen.version == wanted.version);
            if is_right || replica.again.is_some() || wanted.uris.is_empty() {
                continue;
            }
            let call = self.bus.call_instance(
                listen_request(self.directory.tenant(), &self.server, &wanted),
                instance,
            );
            let task = Task {
                call,
                server: self.server.clone(),
                instance: instance.to_owned(),
                version: wanted.version,
                tell: Arc::clone(&self.tell),
                words: self.words_in.clone(),
            };
            replica.opening = Some(Listen {
                version: wanted.version,
                task: tokio::spawn(task.run()).abort_handle(),
            });
        }
    }

    fn take(&mut self, word: Word) {
        let Some(replica) = self.replicas.get_mut(&word.instance) else {
            return;
        };
        let is = |listen: &Option<Listen>| {
            listen
                .as_ref()
                .is_some_and(|listen| listen.version == word.version)
        };
        match word.kind {
            WordKind::Acknowledged(told) if is(&replica.opening) => {
                replica.active = replica.opening.take();
                replica.told = told;
            }
            WordKind::Acknowledged(_) => {}
            WordKind::Ended => {
                if is(&replica.opening) {
                    replica.opening = None;
                    replica.again = Some(Instant::now() + AGAIN_AFTER);
                } else if is(&replica.active) {
                    replica.active = None;
                    replica.again = Some(Instant::now() + AGAIN_AFTER);
                    // Changes until it is called again are not told, so each may have changed.
                    for uri in &replica.told.honoured {
                        (self.tell)(&self.server, uri);
                    }
                }
            }
        }
    }

    /// Once every replica has answered about what is wanted now, or has ended the call.
    fn say_what_is_honoured(&self) {
        let version = self.wanted.borrow().version;
        let settled = self.replicas.values().all(|replica| {
            let right = replica
                .active
                .as_ref()
                .is_some_and(|listen| listen.version == version);
            right || replica.again.is_some()
        });
        if !settled || self.replicas.is_empty() {
            return;
        }
        let mut told = Told::default();
        for replica in self.replicas.values() {
            told.honoured.extend(replica.told.honoured.iter().cloned());
            told.refused.extend(replica.told.refused.clone());
        }
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.honoured.send_replace(Honoured { version, told });
        }
    }
}

fn listen_request(tenant: &str, server: &ServerId, wanted: &Wanted) -> Request {
    let version = ProtocolVersion::MODERN.as_str();
    let uris: Vec<&String> = wanted.uris.keys().collect();
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": method::LISTEN,
        "params": {
            "notifications": { "resourceSubscriptions": uris },
            "_meta": {
                meta::PROTOCOL_VERSION: version,
                meta::CLIENT_CAPABILITIES: {},
                meta::CLIENT_INFO: { "name": IMPLEMENTATION, "version": env!("CARGO_PKG_VERSION") },
            },
        },
    });
    Request {
        caller: String::new(),
        call: 0,
        server: server.to_string(),
        method: method::LISTEN.to_owned(),
        name: None,
        principal: Principal::platform("door", tenant),
        protocol_version: version.to_owned(),
        door: "platform".to_owned(),
        timeout_ms: u64::try_from(LISTEN_FOR.as_millis()).unwrap_or(u64::MAX),
        trace: None,
        chunked_bytes: 0,
        body: body.to_string().into_bytes().into(),
    }
}

/// One listen call.
struct Task {
    call: Call,
    server: ServerId,
    instance: String,
    version: u64,
    tell: Tell,
    words: mpsc::Sender<Word>,
}

impl Task {
    async fn run(mut self) {
        loop {
            match self.call.next().await {
                Ok(Answer::Part(part)) => self.take(&part).await,
                Ok(Answer::Final { .. }) => break,
                Err(error) => {
                    debug!(%error, server.id = %self.server, "a listen call has ended");
                    break;
                }
            }
        }
        self.say(WordKind::Ended).await;
    }

    async fn take(&self, part: &[u8]) {
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(default)]
            uri: Option<String>,
            #[serde(borrow, default)]
            notifications: Option<&'a RawValue>,
            #[serde(default, rename = "_meta")]
            meta: Metadata,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Metadata {
            #[serde(rename = "io.trunkline/refused")]
            refused: BTreeMap<String, RpcError>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Granted {
            #[serde(default)]
            resource_subscriptions: BTreeSet<String>,
        }
        let Ok(message) = Message::parse(part) else { return };
        let params = message.params.map(RawValue::get).unwrap_or("{}");
        let Ok(params) = serde_json::from_str::<Params<'_>>(params) else {
            return;
        };
        match (message.method.as_deref(), params.uri, params.notifications) {
            (Some(method::UPDATED), Some(uri), _) => (self.tell)(&self.server, &uri),
            (Some(method::ACKNOWLEDGED), _, Some(granted)) => {
                if let Ok(granted) = serde_json::from_str::<Granted>(granted.get()) {
                    let told = Told {
                        honoured: granted.resource_subscriptions,
                        refused: params.meta.refused,
                    };
                    self.say(WordKind::Acknowledged(told)).await;
                }
            }
            _ => {}
        }
    }

    async fn say(&self, kind: WordKind) {
        let word = Word {
            instance: self.instance.clone(),
            version: self.version,
            kind,
        };
        // Without the keeper there is nobody to tell.
        let _ = self.words.send(word).await;
    }
}
