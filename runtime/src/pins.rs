//! What was approved of servers' tools: every process that hosts holds a picture of it, and the registry writes it.
//!
//! There is one watch for all hosts of a process. Definitions themselves are kept apart, by their digests, and read when somebody
//! wants to see what has changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bus_schema::{
    Principal, ServerId, Token,
    integrity::{
        self, Change, Decide, Decided, Decision, MAX_DEFINITION_BYTES, Offered, Pin, Pins, Policies, Policy,
        Record, Tool,
    },
};
use serde::{Deserialize, Deserializer};
use serde_json::Map;
use tokio::{
    sync::{OnceCell, watch},
    time::{sleep, timeout},
};
use tracing::debug;

use crate::{
    bus::Bus,
    own_request::{PLATFORM, own_request},
    registry::{RegistryError, answer_of},
    store::{Bucket, BucketOptions, Mirror, Picture, StoreError},
};

const PINS: BucketOptions = BucketOptions {
    name: "pins",
    max_age: Duration::ZERO,
    max_bytes: 256 * 1024 * 1024,
    max_record_bytes: 480 * 1024,
};
const DEFINITIONS: BucketOptions = BucketOptions {
    name: "definitions",
    max_age: Duration::ZERO,
    max_bytes: 1024 * 1024 * 1024,
    max_record_bytes: MAX_DEFINITION_BYTES as i32 + 1024,
};
/// The key of the platform's policies; no server has it, as theirs have a dot.
const POLICIES: &str = "policies";
/// How long a process waits before it tries again to open what it could not.
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// How long a host that starts waits for the picture.
const FIRST_PICTURE: Duration = Duration::from_secs(3);

/// A process's picture of what was approved.
#[derive(Clone)]
pub struct Pinned {
    picture: watch::Receiver<Option<Arc<Picture<Shared>>>>,
    store: Arc<OnceLock<PinStore>>,
}

/// A record that pictures share, as each change makes a new picture.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Record>);

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Record::deserialize(deserializer).map(|record| Self(Arc::new(record)))
    }
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What is done about its tools.
    pub policy: Policy,
    record: Option<Arc<Record>>,
}

impl Known {
    /// What was approved; `None` for a server that nothing was seen of.
    #[must_use]
    pub fn pins(&self) -> Option<&Pins> {
        match self.record.as_deref() {
            Some(Record::Pins(pins)) => Some(pins),
            _ => None,
        }
    }
}

impl Bus {
    /// What was approved of servers' tools, as this process hears; the first who asks begins to listen.
    #[must_use]
    pub fn pins(&self) -> Pinned {
        self.pinned()
            .get_or_init(|| {
                let (sender, picture) = watch::channel(None);
                let store = Arc::<OnceLock<PinStore>>::default();
                self.spawn(keep(self.clone(), sender, Arc::clone(&store)));
                Pinned { picture, store }
            })
            .clone()
    }

    /// Asks one replica for all tools that its server offers, approved or not.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not answer, or not as a host does.
    pub async fn offered(
        &self,
        server: &ServerId,
        tenant: &str,
        instance: &str,
    ) -> Result<Offered, RegistryError> {
        let principal = Principal::platform(PLATFORM, tenant);
        let method = integrity::OFFERED;
        let request = own_request(server.as_str(), method, Map::new(), &Map::new(), principal);
        let mut call = self.call_instance(request, instance);
        let (_, body) = call.last().await.map_err(RegistryError::Call)?;
        answer_of(&body)
    }

    /// Asks the registry to approve or reject tools.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn decide(
        &self,
        principal: &Principal,
        decision: Decision,
        wish: &Decide,
    ) -> Result<Decided, RegistryError> {
        // Made twice, a decision finds its own work.
        self.ask_registry(principal, decision.method(), wish, crate::Retry::Never)
            .await
    }
}

impl Pinned {
    /// Waits until there is a picture, or for long enough. Whether there is one of what is kept; without JetStream there is none.
    pub async fn ready(&self) -> bool {
        let mut picture = self.picture.clone();
        if timeout(FIRST_PICTURE, picture.wait_for(Option::is_some))
            .await
            .is_err()
        {
            debug!("what was approved of tools is not known yet");
            return false;
        }
        self.store.get().is_some()
    }

    /// What is known of a server at this moment.
    #[must_use]
    pub fn of(&self, tenant: &str, server: &ServerId) -> Known {
        let picture = self.picture.borrow().clone();
        let Some(picture) = picture else {
            return Known::default();
        };
        Known {
            policy: policies(&picture).of(tenant, server),
            record: picture
                .get(&key(tenant, server))
                .map(|record| Arc::clone(&record.value.0)),
        }
    }

    /// What was approved of all servers of a tenant.
    #[must_use]
    pub fn all(&self, tenant: &str) -> BTreeMap<ServerId, Pins> {
        let prefix = format!("{}.", Token::encode(tenant));
        let picture = self.picture.borrow().clone().unwrap_or_default();
        let of_tenant = picture.iter().filter_map(|(key, record)| {
            let id = key.strip_prefix(&prefix)?.parse().ok()?;
            match &*record.value.0 {
                Record::Pins(pins) => Some((id, pins.clone())),
                Record::Policies(_) => None,
            }
        });
        of_tenant.collect()
    }

    /// The platform's policies at this moment.
    #[must_use]
    pub fn policies(&self) -> Policies {
        let picture = self.picture.borrow().clone();
        picture.map(|picture| policies(&picture)).unwrap_or_default()
    }

    /// Waits for a change of anything that was approved.
    pub async fn changed(&mut self) {
        if self.picture.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The records themselves; `None` while they cannot be had.
    #[must_use]
    pub fn store(&self) -> Option<&PinStore> {
        self.store.get()
    }
}

fn policies(picture: &Picture<Shared>) -> Policies {
    match picture.get(POLICIES).map(|record| &*record.value.0) {
        Some(Record::Policies(policies)) => policies.clone(),
        _ => Policies::default(),
    }
}

/// Opens the bucket as soon as that can be, and keeps the picture up to date.
async fn keep(bus: Bus, sender: watch::Sender<Option<Arc<Picture<Shared>>>>, store: Arc<OnceLock<PinStore>>) {
    let mirror = loop {
        match open(&bus).await {
            Ok((mirror, opened)) => {
                let _ = store.set(opened);
                break mirror;
            }
            Err(error) => {
                debug!(%error, "cannot read what was approved of tools");
                // Whoever waits for a first picture has waited long enough when there is none to be had.
                sender.send_if_modified(|picture| {
                    picture
                        .is_none()
                        .then(|| *picture = Some(Arc::default()))
                        .is_some()
                });
                sleep(OPEN_AGAIN).await;
            }
        }
    };
    let mut changes = mirror.changes();
    loop {
        let picture = Arc::clone(&changes.borrow_and_update());
        sender.send_replace(Some(picture));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn open(bus: &Bus) -> Result<(Mirror<Shared>, PinStore), StoreError> {
    let bucket = Bucket::open(bus, PINS).await?;
    let mirror = Mirror::of(bucket.clone()).await?;
    let store = PinStore {
        bus: bus.clone(),
        bucket,
        definitions: Arc::default(),
    };
    Ok((mirror, store))
}

/// The records of what was approved, and the definitions.
#[derive(Clone)]
pub struct PinStore {
    bus: Bus,
    bucket: Bucket,
    /// Opened when the first definition is read or written.
    definitions: Arc<OnceCell<Bucket>>,
}

impl PinStore {
    /// Reads what was approved of a server, with its revision.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn read(&self, tenant: &str, server: &ServerId) -> Result<Option<(Pins, u64)>, StoreError> {
        let record = self.bucket.read(&key(tenant, server)).await?;
        Ok(record.map(|(record, revision)| match record {
            Record::Pins(pins) => (pins, revision),
            Record::Policies(_) => (Pins::default(), revision),
        }))
    }

    /// Writes it over the revision that was read, or where there was none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written in between.
    pub async fn write(
        &self,
        tenant: &str,
        server: &ServerId,
        pins: Pins,
        over: Option<u64>,
    ) -> Result<u64, StoreError> {
        self.bucket
            .write(&key(tenant, server), &Record::Pins(pins), over)
            .await
    }

    /// Makes these the platform's policies.
    ///
    /// # Errors
    /// [`StoreError`] when somebody else has written in between, or the broker does not answer.
    pub async fn set_policies(&self, policies: &Policies) -> Result<(), StoreError> {
        let known = self.bucket.read::<Record>(POLICIES).await?;
        let wanted = Record::Policies(policies.clone());
        if known.as_ref().is_some_and(|(known, _)| *known == wanted) {
            return Ok(());
        }
        let over = known.map(|(_, revision)| revision);
        self.bucket.write(POLICIES, &wanted, over).await.map(drop)
    }

    /// Keeps a definition, so that it can be shown later.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be kept.
    pub async fn keep_definition(&self, tool: &Tool) -> Result<(), StoreError> {
        let Some(definition) = &tool.definition else {
            return Ok(());
        };
        let value = definition.clone().into_bytes().into();
        match self
            .definitions()
            .await?
            .create(&definition_key(&tool.digest), value)
            .await
        {
            // Somebody else has kept the very same.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A definition by its digest, if it was kept.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn definition(&self, digest: &str) -> Result<Option<String>, StoreError> {
        let record = self.definitions().await?.get(&definition_key(digest)).await?;
        Ok(record.and_then(|record| String::from_utf8(record.value.to_vec()).ok()))
    }

    /// In what a tool differs from what was approved; `None` when it does not, or a definition is not to be had.
    pub async fn changes(&self, pin: &Pin) -> Option<Vec<Change>> {
        let (approved, pending) = (pin.approved.as_ref()?, pin.pending.as_ref()?);
        let (old, new) = tokio::join!(
            self.definition(&approved.digest),
            self.definition(&pending.digest)
        );
        let (old, new) = (old.ok()??, new.ok()??);
        Some(integrity::diff(&integrity::read(&old)?, &integrity::read(&new)?))
    }

    async fn definitions(&self) -> Result<&Bucket, StoreError> {
        self.definitions
            .get_or_try_init(|| Bucket::open(&self.bus, DEFINITIONS))
            .await
    }
}

fn key(tenant: &str, server: &ServerId) -> String {
    format!("{}.{server}", Token::encode(tenant))
}

/// A digest as a key, which takes no colon.
fn definition_key(digest: &str) -> String {
    digest.replace(':', ".")
}
