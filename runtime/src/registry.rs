//! The declarations of the registry: every process holds a picture of them, and writes are fenced by revision.
//!
//! Reading asks nobody. What may be declared is judged by who writes; who serves a declared server is decided in `placement`.

mod wishes;

use std::{sync::Arc, time::Duration};

use bus_schema::{
    Principal, RpcError, ServerId, Token,
    registry::{self, Entry, Gone, Put, Record, Refusal, Remove, Removed, Written},
    rpc::Message,
    subject::CallerClass,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    bus::Bus,
    call::{CallError, Retry},
    own_request::own_request,
    store::{Bucket, BucketOptions, Mirror, Mirrored, Picture, StoreError},
};

const BUCKET: BucketOptions = BucketOptions {
    name: "registry",
    max_age: Duration::ZERO,
    max_bytes: 256 * 1024 * 1024,
    max_record_bytes: 128 * 1024,
};

/// The declared servers of all tenants, and what is left of those that were removed.
#[derive(Clone)]
pub struct Registry {
    bucket: Bucket,
    picture: Mirror<Record>,
}

impl Registry {
    /// Opens the registry, and reads what is declared.
    ///
    /// # Errors
    /// [`StoreError`] when the broker has no JetStream or does not answer.
    pub async fn open(bus: &Bus) -> Result<Self, StoreError> {
        let bucket = Bucket::open(bus, BUCKET).await?;
        Ok(Self {
            picture: Mirror::of(bucket.clone()).await?,
            bucket,
        })
    }

    /// What is declared for a server, as this process has heard.
    #[must_use]
    pub fn get(&self, tenant: &str, id: &ServerId) -> Option<Mirrored<Entry>> {
        self.picture.picture().get(&key(tenant, id)).and_then(declared)
    }

    /// All that is declared for a tenant, in the order of the ids.
    #[must_use]
    pub fn all(&self, tenant: &str) -> Vec<Mirrored<Entry>> {
        let prefix = format!("{}.", Token::encode(tenant));
        let picture = self.picture.picture();
        let of_tenant = picture.iter().filter(|(key, _)| key.starts_with(&prefix));
        of_tenant.filter_map(|(_, record)| declared(record)).collect()
    }

    /// What servers of a tenant were told of as and are not any more, with their ids.
    #[must_use]
    pub fn gone(&self, tenant: &str) -> Vec<(ServerId, Gone)> {
        let prefix = format!("{}.", Token::encode(tenant));
        let picture = self.picture.picture();
        let of_tenant = picture.iter().filter_map(|(key, record)| {
            let id: ServerId = key.strip_prefix(&prefix)?.parse().ok()?;
            Some((id, record.value.gone()))
        });
        let each = of_tenant.flat_map(|(id, gone)| gone.iter().map(move |gone| (id.clone(), gone.clone())));
        each.collect()
    }

    /// Tells of each change, with all records by their keys.
    #[must_use]
    pub fn changes(&self) -> tokio::sync::watch::Receiver<Arc<Picture<Record>>> {
        self.picture.changes()
    }

    /// Reads what is kept under an id as it is, with its revision.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn read(&self, tenant: &str, id: &ServerId) -> Result<Option<(Record, u64)>, StoreError> {
        self.bucket.read(&key(tenant, id)).await
    }

    /// Writes a declaration: over the revision that was read, or where none was. Gives the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written or removed it in between.
    pub async fn write(&self, tenant: &str, entry: &Entry, over: Option<u64>) -> Result<u64, StoreError> {
        let key = key(tenant, &entry.declaration.id);
        self.bucket.write(&key, entry, over).await
    }

    /// Leaves of a declaration what is to be told of it, at the revision that was read. Gives the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written in between.
    pub async fn remove(
        &self,
        tenant: &str,
        id: &ServerId,
        left: &Removed,
        revision: u64,
    ) -> Result<u64, StoreError> {
        self.bucket.write(&key(tenant, id), left, Some(revision)).await
    }

    /// Forgets for good what a tenant has removed before a moment. Gives how many servers that were.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn forget_before(&self, tenant: &str, moment: &str) -> Result<usize, StoreError> {
        let prefix = format!("{}.", Token::encode(tenant));
        let picture = self.picture.picture();
        let mut forgotten = 0;
        for (key, record) in picture.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            let Record::Removed(removed) = &record.value else {
                continue;
            };
            if removed.removed_at.as_str() >= moment {
                continue;
            }
            match self.bucket.remove_at(key, record.revision).await {
                Ok(()) => forgotten += 1,
                // Another registry was quicker, or it is declared again.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(forgotten)
    }
}

/// What of a record is declared.
fn declared(record: &Mirrored<Record>) -> Option<Mirrored<Entry>> {
    Some(Mirrored {
        value: record.value.entry()?.clone(),
        revision: record.revision,
        heard: record.heard,
    })
}

/// Says why the registry has not done as it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It does not, and says why.
    #[error("{message}")]
    Refused {
        /// In words.
        message: String,
        /// What a program can use; `None` for what no registry should say.
        refusal: Option<Refusal>,
    },
    /// It could not be asked.
    #[error(
        "the tenant's registry does not answer; `trunkline serve registry` starts one for each tenant of its configuration"
    )]
    Call(#[source] CallError),
    /// Its answer makes no sense.
    #[error("the registry's answer cannot be read")]
    Answer,
}

impl Bus {
    /// Asks the registry to keep a declaration.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn register(&self, principal: &Principal, put: &Put) -> Result<Written, RegistryError> {
        // Made twice, it finds its own work.
        self.ask_registry(principal, registry::PUT, put, Retry::Safe)
            .await
    }

    /// Asks the registry to forget a declaration.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not.
    pub async fn unregister(&self, principal: &Principal, remove: &Remove) -> Result<Written, RegistryError> {
        self.ask_registry(principal, registry::REMOVE, remove, Retry::Never)
            .await
    }

    pub(crate) async fn ask_registry<T: DeserializeOwned>(
        &self,
        principal: &Principal,
        method: &str,
        params: &impl Serialize,
        retry: Retry,
    ) -> Result<T, RegistryError> {
        let Ok(Value::Object(params)) = serde_json::to_value(params) else {
            return Err(RegistryError::Answer);
        };
        // The broker lets the command line speak to the registry there only, where it is taken for nobody else.
        let desk = match self.class() {
            CallerClass::Cli => ServerId::operators(),
            _ => ServerId::registry(),
        };
        let request = own_request(desk.as_str(), method, params, &Map::new(), principal.clone());
        let (_, body) = self.ask(request, retry).await.map_err(RegistryError::Call)?;
        answer_of(&body)
    }
}

/// The result of an answer, or the error that it is.
pub(crate) fn answer_of<T: DeserializeOwned>(body: &[u8]) -> Result<T, RegistryError> {
    let message = Message::parse(body).map_err(|_| RegistryError::Answer)?;
    if let Some(error) = message.error {
        let error: RpcError = serde_json::from_str(error.get()).map_err(|_| RegistryError::Answer)?;
        return Err(RegistryError::Refused {
            message: error.message,
            refusal: error.data.and_then(|data| serde_json::from_value(data).ok()),
        });
    }
    let result = message.result.ok_or(RegistryError::Answer)?;
    serde_json::from_str(result.get()).map_err(|_| RegistryError::Answer)
}

fn key(tenant: &str, id: &ServerId) -> String {
    format!("{}.{id}", Token::encode(tenant))
}
