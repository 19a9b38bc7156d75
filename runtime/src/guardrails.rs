//! The guardrails in force: every process that serves holds them ready, by one watch on where they are kept.
//!
//! Those of a tenant are the version that is kept for it, or else what stands in the configuration of the process, or else none. A version that
//! cannot be read here does not take the place of one that can. Until a process knows what is kept it lets no call through: a process
//! that has just started must not be a way around a guardrail.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use bus_schema::{
    Principal, Token,
    guardrails::{BadGuardrails, Document, Guardrails, SET, Set, Version},
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
    registry::RegistryError,
    store::{Bucket, BucketOptions, Mirror, Picture, StoreError},
};

const BUCKET: BucketOptions = BucketOptions {
    name: "guardrails",
    max_age: Duration::ZERO,
    max_bytes: 64 * 1024 * 1024,
    max_record_bytes: 480 * 1024,
};
/// How long a process waits before it tries again to open what it could not.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// How long who starts waits for the guardrails.
const FIRST_PICTURE: Duration = Duration::from_secs(3);

/// The guardrails of a tenant, ready to use.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Which version they are; `None` for what stands in the configuration, and where there are none.
    pub version: Option<u64>,
    /// Why a newer version is not in force here.
    pub behind: Option<String>,
    /// What is done; otherwise why nothing goes through.
    pub rails: Result<Arc<Guardrails>, &'static str>,
}

/// The guardrails of all tenants, as this process knows them.
#[derive(Clone)]
pub struct AllGuardrails(Arc<Inner>);

struct Inner {
    table: ArcSwap<Table>,
    store: OnceLock<GuardrailStore>,
    /// Told when others are in force.
    changes: watch::Sender<u64>,
    /// Whether it is known what is kept.
    known: watch::Sender<bool>,
    /// What holds where nothing is kept.
    configured: watch::Sender<Document>,
}

struct Table {
    /// Of tenants that have some, by their tokens.
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

/// The records of all tenants.
#[derive(Clone)]
pub struct GuardrailStore(Bucket);

impl GuardrailStore {
    /// Reads what is kept for a tenant, with its revision; `None` when that is nothing.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer, or the record cannot be read.
    pub async fn read(&self, tenant: &str) -> Result<Option<(Version, u64)>, StoreError> {
        self.0.read(Token::encode(tenant).as_str()).await
    }

    /// Writes a version over the revision that was read.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written in between.
    pub async fn write(&self, tenant: &str, version: &Version, over: Option<u64>) -> Result<(), StoreError> {
        let key = Token::encode(tenant);
        self.0.write(key.as_str(), version, over).await.map(drop)
    }
}

impl Bus {
    /// The guardrails, as this process hears of them; the first who asks begins to listen.
    #[must_use]
    pub fn guardrails(&self) -> AllGuardrails {
        self.guardrails_once()
            .get_or_init(|| {
                let all = AllGuardrails::unknown();
                self.spawn(keep(self.clone(), all.clone()));
                all
            })
            .clone()
    }

    /// Asks the registry to take a document.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn set_guardrails(&self, principal: &Principal, wish: &Set) -> Result<Version, RegistryError> {
        self.ask_registry(principal, SET, wish, Retry::Never).await
    }
}

impl AllGuardrails {
    fn unknown() -> Self {
        let otherwise = InForce {
            version: None,
            behind: None,
            rails: Err("which guardrails there are is not known yet"),
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

    /// Says what holds where nothing is kept.
    ///
    /// # Errors
    /// [`BadGuardrails`] when the document cannot be meant; then nothing changes.
    pub fn configure(&self, configured: Document) -> Result<(), BadGuardrails> {
        Guardrails::compile(&configured)?;
        self.0.configured.send_if_modified(|present| {
            let is_new = *present != configured;
            *present = configured;
            is_new
        });
        Ok(())
    }

    /// Waits until it is known what is kept, or for long enough. Whether it is.
    pub async fn ready(&self) -> bool {
        let mut known = self.0.known.subscribe();
        timeout(FIRST_PICTURE, known.wait_for(|known| *known))
            .await
            .is_ok()
    }

    /// Those of a tenant at this moment.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Arc<InForce> {
        let table = self.0.table.load();
        if table.kept.is_empty() {
            return Arc::clone(&table.otherwise);
        }
        let kept = table.kept.get(Token::encode(tenant).as_str());
        Arc::clone(kept.unwrap_or(&table.otherwise))
    }

    /// Tells whenever others are in force, by a number that counts up.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The records themselves; `None` while they cannot be had.
    #[must_use]
    pub fn store(&self) -> Option<&GuardrailStore> {
        self.0.store.get()
    }

    /// Makes what was heard the guardrails in force.
    fn take(&self, picture: &Picture<Text>, seen: &mut HashMap<String, u64>) {
        let before = self.0.table.load_full();
        let mut kept = before.kept.clone();
        for (tenant, record) in picture {
            if seen.insert(tenant.clone(), record.revision) == Some(record.revision) {
                continue;
            }
            let now = match read(&record.value) {
                Ok(now) => {
                    info!(tenant, version = now.version, "guardrails are in force");
                    now
                }
                Err(why) => {
                    error!(
                        tenant,
                        why,
                        "newer guardrails cannot be read by this version of the program; what was in force stays"
                    );
                    unread(before.kept.get(tenant), why)
                }
            };
            kept.insert(tenant.clone(), Arc::new(now));
        }
        let rails = Guardrails::compile(&self.0.configured.borrow());
        let otherwise = Arc::new(InForce {
            version: None,
            behind: None,
            rails: rails
                .map(Arc::new)
                .map_err(|_| "the configured guardrails cannot be used"),
        });
        self.0.table.store(Arc::new(Table { kept, otherwise }));
        self.0.changes.send_modify(|count| *count += 1);
        self.0.known.send_replace(true);
    }
}

fn read(text: &Text) -> Result<InForce, String> {
    let version: Version = serde_json::from_str(&text.0).map_err(|error| error.to_string())?;
    let rails = Guardrails::compile(&version.document).map_err(|error| error.to_string())?;
    Ok(InForce {
        version: Some(version.version),
        behind: None,
        rails: Ok(Arc::new(rails)),
    })
}

/// What stays in force when a version cannot be read: the one before it, or nothing goes through.
fn unread(before: Option<&Arc<InForce>>, why: String) -> InForce {
    let nothing = Err("the guardrails that are kept cannot be read by this process");
    InForce {
        version: before.and_then(|before| before.version),
        behind: Some(why),
        rails: before.map_or(nothing, |before| before.rails.clone()),
    }
}

/// Opens where guardrails are kept as soon as that can be, and keeps those in force up to date.
async fn keep(bus: Bus, all: AllGuardrails) {
    let mut configured = all.0.configured.subscribe();
    let mut seen = HashMap::new();
    let mirror = loop {
        let opened = tokio::select! {
            opened = open(&bus) => opened,
            () = bus.closed().cancelled() => return,
        };
        match opened {
            Ok((mirror, store)) => {
                let _ = all.0.store.set(store);
                break mirror;
            }
            Err(error) => {
                debug!(%error, "cannot read guardrails");
                if error.is_no_jetstream() {
                    configured.borrow_and_update();
                    all.take(&Picture::new(), &mut seen);
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
        configured.borrow_and_update();
        all.take(&picture, &mut seen);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = configured.changed() => if changed.is_err() { return },
        }
    }
}

async fn open(bus: &Bus) -> Result<(Mirror<Text>, GuardrailStore), StoreError> {
    let bucket = Bucket::open(bus, BUCKET).await?;
    Ok((Mirror::of(bucket.clone()).await?, GuardrailStore(bucket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Mirrored;

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
        let all = AllGuardrails::unknown();
        assert!(all.of("default").rails.is_err());
        all.take(&Picture::new(), &mut HashMap::new());
        assert!(
            all.of("default")
                .rails
                .as_ref()
                .is_ok_and(|rails| rails.is_empty())
        );
    }

    #[test]
    fn what_cannot_be_read_leaves_what_was_in_force_or_lets_nothing_through() {
        let all = AllGuardrails::unknown();
        let mut seen = HashMap::new();
        all.take(&picture(STEP, 1), &mut seen);
        all.take(&picture(LATER, 2), &mut seen);
        let in_force = all.of("default");
        assert!(in_force.rails.as_ref().is_ok_and(|rails| !rails.is_empty()));
        assert_eq!(in_force.version, Some(1));
        assert!(in_force.behind.is_some());
        let all = AllGuardrails::unknown();
        all.take(&picture(LATER, 2), &mut HashMap::new());
        assert!(all.of("default").rails.is_err());
        // Others are not concerned.
        assert!(all.of("acme").rails.is_ok());
    }
}
