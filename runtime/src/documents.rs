//! Documents by which operators rule a tenant, such as its policy: every process holds the present version of each tenant's ready to use, by the one
//! watch on where they are kept.
//!
//! That of a tenant is the version that is kept for it, or else what stands in the configuration of the process. A version that cannot be
//! read here does not take the place of one that can. Until a process knows what is kept, what is in force is what the kind of document says
//! for that: it must not be a way around a document to ask a process that has just started.

mod store;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use bus_schema::{
    Principal, Token,
    kept::{Rollback, Set, Version},
};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, error, info};

use crate::{
    Retry,
    bus::Bus,
    registry::RegistryError,
    store::{BucketOptions, Mirror, Picture, StoreError},
};

pub use store::{MAX_BYTES, Store};

/// How documents in force are kept.
pub(crate) const fn current(name: &'static str) -> BucketOptions {
    BucketOptions {
        name,
        max_age: Duration::ZERO,
        max_bytes: 64 * 1024 * 1024,
        max_record_bytes: MAX_BYTES,
    }
}

/// How their former versions are kept.
pub(crate) const fn history(name: &'static str) -> BucketOptions {
    BucketOptions {
        max_bytes: 256 * 1024 * 1024,
        ..current(name)
    }
}

/// How long a process waits before it tries again to open what it could not.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// How long who starts waits for what is kept.
const FIRST_PICTURE: Duration = Duration::from_secs(3);

/// What kind of document it is.
pub trait Kind: Send + Sync + 'static {
    /// What people write.
    type Document: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What stands in the configuration of a process.
    type Configured: Clone + Default + Send + Sync + 'static;
    /// A document in the form in which it is used.
    type Ready: Clone + fmt::Debug + Send + Sync + 'static;

    /// What people call it.
    const WHAT: &'static str;
    /// Where the present versions are.
    const CURRENT: BucketOptions;
    /// Where the versions are that were before them.
    const HISTORY: BucketOptions;
    /// The method by which the registry is asked to take one.
    const SET: &'static str;
    /// The method by which it is asked to take an earlier one again.
    const ROLLBACK: &'static str;

    /// The documents of that kind, as a process hears of them.
    fn heard(bus: &Bus) -> Documents<Self>
    where
        Self: Sized;

    /// Makes a document ready.
    ///
    /// # Errors
    /// What is wrong with it.
    fn ready(document: &Self::Document, configured: &Self::Configured) -> Result<Self::Ready, Unusable>;

    /// What is in force where nothing is kept.
    fn otherwise(configured: &Self::Configured) -> Self::Ready;

    /// What is in force while it is not known what is kept.
    fn not_known() -> Self::Ready;

    /// What is in force of a tenant whose document cannot be read here, and never could be.
    fn not_read() -> Self::Ready;
}

/// Says why a document cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    /// The place, as keys with dots between.
    pub at: String,
    /// What is wrong there, and what would be right.
    pub why: String,
}

/// What is in force of a tenant.
pub struct InForce<K: Kind> {
    /// Which version it is; `None` for what stands in the configuration, and where there is none.
    pub version: Option<u64>,
    /// Why a newer version is not in force here.
    pub behind: Option<String>,
    pub(crate) ready: K::Ready,
}

impl<K: Kind> fmt::Debug for InForce<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InForce")
            .field("version", &self.version)
            .field("behind", &self.behind)
            .field("ready", &self.ready)
            .finish()
    }
}

/// The documents of all tenants, as this process knows them.
pub struct Documents<K: Kind>(Arc<Inner<K>>);

impl<K: Kind> Clone for Documents<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<K: Kind> {
    table: ArcSwap<Table<K>>,
    store: OnceLock<Store<K>>,
    /// Told when another version is in force.
    changes: watch::Sender<u64>,
    /// Whether it is known what is kept.
    known: watch::Sender<bool>,
    configured: watch::Sender<K::Configured>,
}

struct Table<K: Kind> {
    /// Of tenants that have one, by their tokens.
    kept: HashMap<String, Arc<InForce<K>>>,
    /// Of all others.
    otherwise: Arc<InForce<K>>,
}

/// A record as it is kept. What it says may be of another version of the program.
#[derive(Clone)]
pub(crate) struct Text(Arc<str>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.get().into()))
    }
}

impl Bus {
    /// Asks the registry to take a document.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn set_document<K: Kind>(
        &self,
        principal: &Principal,
        wish: &Set<K::Document>,
    ) -> Result<Version<K::Document>, RegistryError> {
        self.ask_registry(principal, K::SET, wish, Retry::Never).await
    }

    /// Asks the registry to take an earlier version again.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn roll_back<K: Kind>(
        &self,
        principal: &Principal,
        wish: &Rollback,
    ) -> Result<Version<K::Document>, RegistryError> {
        self.ask_registry(principal, K::ROLLBACK, wish, Retry::Never)
            .await
    }
}

impl<K: Kind> Documents<K> {
    /// Begins to listen.
    pub(crate) fn hear(bus: &Bus) -> Self {
        let documents = Self::unknown();
        bus.spawn(keep(bus.clone(), documents.clone()));
        documents
    }

    fn unknown() -> Self {
        Self(Arc::new(Inner {
            table: ArcSwap::from_pointee(Table {
                kept: HashMap::new(),
                otherwise: Arc::new(InForce::configured(K::not_known())),
            }),
            store: OnceLock::new(),
            changes: watch::Sender::new(0),
            known: watch::Sender::new(false),
            configured: watch::Sender::default(),
        }))
    }

    /// Says what holds where nothing is kept. Whoever knows the kind has checked it.
    pub(crate) fn put_configured(&self, configured: K::Configured) {
        self.0.configured.send_replace(configured);
    }

    /// What stands in the configuration of this process.
    #[must_use]
    pub fn configured(&self) -> K::Configured {
        self.0.configured.borrow().clone()
    }

    /// Waits until it is known what is kept, or for long enough. Whether it is.
    pub async fn ready(&self) -> bool {
        let mut known = self.0.known.subscribe();
        timeout(FIRST_PICTURE, known.wait_for(|known| *known))
            .await
            .is_ok()
    }

    /// What is in force of a tenant at this moment.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Arc<InForce<K>> {
        let table = self.0.table.load();
        if table.kept.is_empty() {
            return Arc::clone(&table.otherwise);
        }
        let kept = table.kept.get(Token::encode(tenant).as_str());
        Arc::clone(kept.unwrap_or(&table.otherwise))
    }

    /// Tells whenever something else is in force, by a number that counts up.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The versions themselves; `None` while they cannot be had.
    #[must_use]
    pub fn store(&self) -> Option<&Store<K>> {
        self.0.store.get()
    }

    /// Puts in force what was heard.
    fn take(&self, picture: &Picture<Text>, seen: &mut HashMap<String, u64>) {
        let before = self.0.table.load_full();
        let configured = self.0.configured.borrow().clone();
        let mut kept = before.kept.clone();
        for (tenant, record) in picture {
            if seen.insert(tenant.clone(), record.revision) == Some(record.revision) {
                continue;
            }
            let now = match read::<K>(&record.value, &configured) {
                Ok(now) => {
                    info!(tenant, version = now.version, "the tenant's {} in force", K::WHAT);
                    now
                }
                Err(why) => {
                    error!(
                        tenant,
                        why,
                        what = K::WHAT,
                        "a newer version cannot be read by this version of the program; what was in force stays"
                    );
                    unread(before.kept.get(tenant), why)
                }
            };
            kept.insert(tenant.clone(), Arc::new(now));
        }
        let otherwise = Arc::new(InForce::configured(K::otherwise(&configured)));
        self.0.table.store(Arc::new(Table { kept, otherwise }));
        self.0.changes.send_modify(|count| *count += 1);
        self.0.known.send_replace(true);
    }
}

impl<K: Kind> InForce<K> {
    fn configured(ready: K::Ready) -> Self {
        Self {
            version: None,
            behind: None,
            ready,
        }
    }
}

fn read<K: Kind>(text: &Text, configured: &K::Configured) -> Result<InForce<K>, String> {
    let version: Version<K::Document> = serde_json::from_str(&text.0).map_err(|error| error.to_string())?;
    let ready = K::ready(&version.document, configured).map_err(|error| error.to_string())?;
    Ok(InForce {
        version: Some(version.version),
        behind: None,
        ready,
    })
}

/// What stays in force when a version cannot be read: the one before it, or what holds for tenants whose document never could be.
fn unread<K: Kind>(before: Option<&Arc<InForce<K>>>, why: String) -> InForce<K> {
    InForce {
        version: before.and_then(|before| before.version),
        behind: Some(why),
        ready: before.map_or_else(K::not_read, |before| before.ready.clone()),
    }
}

/// Opens where documents are kept as soon as that can be, and keeps those in force up to date. One that is gone there stays in force.
async fn keep<K: Kind>(bus: Bus, documents: Documents<K>) {
    let mut configured = documents.0.configured.subscribe();
    let mut seen = HashMap::new();
    let mirror = loop {
        let opened = tokio::select! {
            opened = open(&bus) => opened,
            () = bus.closed().cancelled() => return,
        };
        match opened {
            Ok((mirror, store)) => {
                let _ = documents.0.store.set(store);
                break mirror;
            }
            Err(error) => {
                debug!(%error, what = K::WHAT, "cannot read what is kept");
                if error.is_no_jetstream() {
                    configured.borrow_and_update();
                    documents.take(&Picture::new(), &mut seen);
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
        // What is kept may be used otherwise by another configuration.
        if configured.has_changed().unwrap_or_default() {
            configured.borrow_and_update();
            seen.clear();
        }
        documents.take(&picture, &mut seen);
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

async fn open<K: Kind>(bus: &Bus) -> Result<(Mirror<Text>, Store<K>), StoreError> {
    let store = Store::open(bus).await?;
    Ok((Mirror::of(store.current().clone()).await?, store))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guardrails::Rails, store::Mirrored};

    fn picture(text: &str, revision: u64) -> Picture<Text> {
        let record = Mirrored {
            value: Text(text.into()),
            revision,
            heard: tokio::time::Instant::now(),
        };
        Picture::from([("default".to_owned(), record)])
    }

    const STEP: &str =
        r#"{"version":1,"at":"","by":"","document":{"steps":[{"name":"a","check":"schema"}]}}"#;
    const LATER: &str =
        r#"{"version":2,"at":"","by":"","document":{"steps":[{"name":"a","check":"of a later program"}]}}"#;

    #[test]
    fn nothing_goes_through_until_it_is_known_what_is_kept() {
        let all = Documents::<Rails>::unknown();
        assert!(all.of("default").rails().is_err());
        all.take(&Picture::new(), &mut HashMap::new());
        assert!(all.of("default").rails().is_ok_and(|rails| rails.is_empty()));
    }

    #[test]
    fn what_cannot_be_read_leaves_what_was_in_force_or_lets_nothing_through() {
        let all = Documents::<Rails>::unknown();
        let mut seen = HashMap::new();
        all.take(&picture(STEP, 1), &mut seen);
        all.take(&picture(LATER, 2), &mut seen);
        let in_force = all.of("default");
        assert!(in_force.rails().is_ok_and(|rails| !rails.is_empty()));
        assert_eq!(in_force.version, Some(1));
        assert!(in_force.behind.is_some());
        let all = Documents::<Rails>::unknown();
        all.take(&picture(LATER, 2), &mut HashMap::new());
        assert!(all.of("default").rails().is_err());
        // Others are not concerned.
        assert!(all.of("acme").rails().is_ok());
    }
}
