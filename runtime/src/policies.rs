//! The policies in force: every process holds them ready to decide, by the one watch on where they are kept.
//!
//! The policy of a tenant is the version that is kept for it, or else what stands in the configuration of the process, or else none, which
//! allows what is known. A version that cannot be read here does not take the place of one that can. Until a process knows what is kept
//! it lets nobody do anything: it must not be a way around a policy to ask a process that has just started.

mod store;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use bus_schema::{
    Principal, ServerId, Token,
    policy::{
        self, Action, Annotations, BadPolicy, Decision, Document, Effect, Explanation, Otherwise, Policy,
        ROLLBACK, Rollback, Rule, SET, Set, Version,
    },
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, error, info};

use crate::{
    Retry,
    bus::Bus,
    catalogue::{Item, Listed},
    registry::RegistryError,
    store::{Mirror, Picture, StoreError},
};
pub use store::PolicyStore;

/// How long a process waits before it tries again to open what it could not.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// How long who starts waits for the policies.
const FIRST_PICTURE: Duration = Duration::from_secs(3);
/// The rule by which everything is denied while nothing is known.
const UNKNOWN: &str = "the policy is not known yet";
/// The rule by which everything is denied of a tenant whose policy this process cannot read.
const UNREADABLE: &str = "the policy cannot be read by this process";

/// The policy of a tenant, ready to decide.
#[derive(Debug)]
pub struct InForce {
    /// Which version it is; `None` for what stands in the configuration, and where there is none.
    pub version: Option<u64>,
    /// Why a newer version is not in force here.
    pub behind: Option<String>,
    policy: Arc<Policy>,
}

impl InForce {
    /// Decides at this moment.
    #[must_use]
    pub fn decide(&self, principal: &Principal, action: &Action<'_>) -> Decision {
        policy::decide(&self.policy, principal, action, SystemTime::now())
    }

    /// The same, with the reasons.
    #[must_use]
    pub fn explain(&self, principal: &Principal, action: &Action<'_>) -> Explanation {
        policy::explain(&self.policy, principal, action, SystemTime::now())
    }

    /// Whether a list shows an item. Its text is asked for when it matters what the server says of it.
    #[must_use]
    pub fn shows<'t>(
        &self,
        principal: &Principal,
        server: &str,
        list: Listed,
        key: &str,
        item: impl FnOnce() -> &'t str,
    ) -> bool {
        let action = match list {
            Listed::Tools if self.policy.reads().annotations => {
                Action::tool(server, key).with_annotations(Annotations::of_tool(item()))
            }
            Listed::Tools => Action::tool(server, key),
            Listed::Prompts => Action::prompt(server, key),
            Listed::Resources | Listed::Templates => Action::resource(server, key),
        };
        self.decide(principal, &action).is_shown()
    }

    /// The policy itself.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// What somebody sees of lists that are made for everybody.
#[derive(Clone, Debug)]
pub struct Sight {
    in_force: Arc<InForce>,
    principal: Principal,
}

impl Sight {
    /// Whether it sees an item of a server's list.
    #[must_use]
    pub fn shows(&self, server: &ServerId, list: Listed, item: &Item) -> bool {
        self.shows_as(server, list, &item.key, item.json.get())
    }

    /// The same of an item that is known by this key at its server, whatever its text calls it.
    #[must_use]
    pub fn shows_as(&self, server: &ServerId, list: Listed, key: &str, item: &str) -> bool {
        self.in_force
            .shows(&self.principal, server.as_str(), list, key, || item)
    }

    /// Whether it sees a resource of a server.
    #[must_use]
    pub fn shows_resource(&self, server: &ServerId, uri: &str) -> bool {
        let action = Action::resource(server.as_str(), uri);
        self.in_force.decide(&self.principal, &action).is_shown()
    }
}

/// What holds where nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// What stands in the configuration.
    pub document: Option<Document>,
    /// The role that may do whatever operators do.
    pub operator: Option<String>,
}

/// The policies of all tenants, as this process knows them.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    store: OnceLock<PolicyStore>,
    /// Told when another policy is in force.
    changes: watch::Sender<u64>,
    /// Whether it is known what is kept.
    known: watch::Sender<bool>,
    configured: watch::Sender<Configured>,
}

struct Table {
    /// Of tenants that have one, by their tokens.
    kept: HashMap<String, Arc<InForce>>,
    /// Of all others.
    otherwise: Arc<InForce>,
}

/// A record as it is kept. What it says may be of another version of the program.
#[derive(Clone)]
struct Text(Arc<str>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.get().into()))
    }
}

/// The policy that denies everything, by a rule that says why.
fn closed(rule: &str) -> Arc<Policy> {
    let document = Document {
        default: Otherwise::Allow,
        roles: Default::default(),
        scopes: Default::default(),
        rules: vec![Rule {
            name: rule.to_owned(),
            effect: Effect::Deny,
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            methods: Vec::new(),
            admin: Vec::new(),
            scopes: Vec::new(),
            when: None,
        }],
    };
    Arc::new(Policy::compile(&document).expect("a document without patterns compiles"))
}

static NOT_KNOWN: LazyLock<Arc<Policy>> = LazyLock::new(|| closed(UNKNOWN));
static NOT_READ: LazyLock<Arc<Policy>> = LazyLock::new(|| closed(UNREADABLE));

impl Bus {
    /// The policies, as this process hears of them; the first who asks begins to listen.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies_once()
            .get_or_init(|| {
                let policies = Policies::unknown();
                self.spawn(keep(self.clone(), policies.clone()));
                policies
            })
            .clone()
    }

    /// Asks the registry to take a document.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn set_policy(&self, principal: &Principal, wish: &Set) -> Result<Version, RegistryError> {
        self.ask_registry(principal, SET, wish, Retry::Never).await
    }

    /// Asks the registry to take an earlier version again.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn roll_policy_back(
        &self,
        principal: &Principal,
        wish: &Rollback,
    ) -> Result<Version, RegistryError> {
        self.ask_registry(principal, ROLLBACK, wish, Retry::Never).await
    }
}

impl Policies {
    fn unknown() -> Self {
        let otherwise = InForce {
            version: None,
            behind: None,
            policy: Arc::clone(&NOT_KNOWN),
        };
        Self(Arc::new(Inner {
            table: ArcSwap::from_pointee(Table {
                kept: HashMap::new(),
                otherwise: Arc::new(otherwise),
            }),
            store: OnceLock::new(),
            changes: watch::Sender::new(0),
            known: watch::Sender::new(false),
            configured: watch::Sender::default(),
        }))
    }

    /// Says what holds where nothing is kept, and waits until it is known whether something is, or for long enough. Called before doors
    /// open and hosts start.
    ///
    /// # Errors
    /// [`BadPolicy`] when the document cannot be meant.
    pub async fn configure(&self, configured: Configured) -> Result<(), BadPolicy> {
        if let Some(document) = &configured.document {
            Policy::compile(document)?;
        }
        self.0.configured.send_replace(configured);
        if !self.ready().await {
            debug!("which policies are kept is not known yet");
        }
        Ok(())
    }

    /// Waits until it is known what is kept, or for long enough. Whether it is.
    pub async fn ready(&self) -> bool {
        let mut known = self.0.known.subscribe();
        timeout(FIRST_PICTURE, known.wait_for(|known| *known))
            .await
            .is_ok()
    }

    /// The policy of a tenant at this moment.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Arc<InForce> {
        let table = self.0.table.load();
        if table.kept.is_empty() {
            return Arc::clone(&table.otherwise);
        }
        let kept = table.kept.get(Token::encode(tenant).as_str());
        Arc::clone(kept.unwrap_or(&table.otherwise))
    }

    /// What somebody sees of lists at this moment; `None` when nothing can be hidden.
    #[must_use]
    pub fn sight(&self, principal: &Principal) -> Option<Sight> {
        let in_force = self.of(&principal.tenant);
        in_force.policy.may_hide().then(|| Sight {
            in_force,
            principal: principal.clone(),
        })
    }

    /// Tells whenever another policy is in force, by a number that counts up.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The versions themselves; `None` while they cannot be had.
    #[must_use]
    pub fn store(&self) -> Option<&PolicyStore> {
        self.0.store.get()
    }

    /// Makes what was heard the policies in force.
    fn take(&self, picture: &Picture<Text>, seen: &mut HashMap<String, u64>) {
        let before = self.0.table.load_full();
        let configured = self.0.configured.borrow().clone();
        let mut kept = before.kept.clone();
        for (tenant, record) in picture {
            if seen.insert(tenant.clone(), record.revision) == Some(record.revision) {
                continue;
            }
            let now = match read(&record.value, &configured) {
                Ok(policy) => {
                    info!(tenant, version = policy.version, "a policy is in force");
                    policy
                }
                Err(why) => {
                    error!(
                        tenant,
                        why,
                        "a newer policy cannot be read by this version of the program; what was in force stays"
                    );
                    unread(before.kept.get(tenant), why)
                }
            };
            kept.insert(tenant.clone(), Arc::new(now));
        }
        let otherwise = Arc::new(configured.in_force());
        self.0.table.store(Arc::new(Table { kept, otherwise }));
        self.0.changes.send_modify(|count| *count += 1);
        self.0.known.send_replace(true);
    }
}

impl Configured {
    fn in_force(&self) -> InForce {
        let nothing = Document {
            default: Otherwise::Allow,
            roles: Default::default(),
            scopes: Default::default(),
            rules: Vec::new(),
        };
        let document = self.document.as_ref().unwrap_or(&nothing);
        let policy = Policy::compile(document).map(|policy| self.operated(policy));
        InForce {
            version: None,
            behind: None,
            policy: policy.map_or_else(|_| Arc::clone(&NOT_READ), Arc::new),
        }
    }

    fn operated(&self, policy: Policy) -> Policy {
        match &self.operator {
            Some(role) => policy.with_operator(role),
            None => policy,
        }
    }
}

fn read(text: &Text, configured: &Configured) -> Result<InForce, String> {
    let version: Version = serde_json::from_str(&text.0).map_err(|error| error.to_string())?;
    let policy = Policy::compile(&version.document).map_err(|error| error.to_string())?;
    Ok(InForce {
        version: Some(version.version),
        behind: None,
        policy: Arc::new(configured.operated(policy)),
    })
}

/// What stays in force when a version cannot be read: the one before it, or nothing at all.
fn unread(before: Option<&Arc<InForce>>, why: String) -> InForce {
    InForce {
        version: before.and_then(|before| before.version),
        behind: Some(why),
        policy: before.map_or_else(|| Arc::clone(&NOT_READ), |before| Arc::clone(&before.policy)),
    }
}

/// Opens where policies are kept as soon as that can be, and keeps those in force up to date. One that is gone there stays in force.
async fn keep(bus: Bus, policies: Policies) {
    let mut configured = policies.0.configured.subscribe();
    let mut seen = HashMap::new();
    let mirror = loop {
        let opened = tokio::select! {
            opened = open(&bus) => opened,
            () = bus.closed().cancelled() => return,
        };
        match opened {
            Ok((mirror, store)) => {
                let _ = policies.0.store.set(store);
                break mirror;
            }
            Err(error) => {
                debug!(%error, "cannot read policies");
                if error.is_no_jetstream() {
                    configured.borrow_and_update();
                    policies.take(&Picture::new(), &mut seen);
                }
            }
        }
        tokio::select! {
            () = sleep(OPEN_AGAIN) => {}
            changed = configured.changed() => if changed.is_err() { return },
        }
    };
    let mut changes = mirror.changes();
    loop {
        let picture = Arc::clone(&changes.borrow_and_update());
        if configured.has_changed().unwrap_or_default() {
            configured.borrow_and_update();
            seen.clear();
        }
        policies.take(&picture, &mut seen);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = configured.changed() => {
                if changed.is_err() {
                    return;
                }
                seen.clear();
            }
        }
    }
}

async fn open(bus: &Bus) -> Result<(Mirror<Text>, PolicyStore), StoreError> {
    let store = PolicyStore::open(bus).await?;
    Ok((Mirror::of(store.current().clone()).await?, store))
}
