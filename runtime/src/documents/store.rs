//! The versions of documents: the present one of each tenant, and all that were before it.
//!
//! The present version is one record, written over the revision that was read. What it takes the place of is kept under its number first,
//! so no version is lost whoever stops where.

use std::{marker::PhantomData, sync::Arc};

use bus_schema::{Token, kept::Version};
use tokio::sync::OnceCell;

use super::Kind;
use crate::{
    bus::Bus,
    store::{Bucket, StoreError},
};

/// How many bytes one version may take.
pub const MAX_BYTES: i32 = 480 * 1024;

/// The versions of all tenants' documents of a kind.
pub struct Store<K> {
    bus: Bus,
    current: Bucket,
    /// Opened when an earlier version is first read or written.
    history: Arc<OnceCell<Bucket>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            current: self.current.clone(),
            history: Arc::clone(&self.history),
            kind: PhantomData,
        }
    }
}

impl<K: Kind> Store<K> {
    pub(super) async fn open(bus: &Bus) -> Result<Self, StoreError> {
        Ok(Self {
            bus: bus.clone(),
            current: Bucket::open(bus, K::CURRENT).await?,
            history: Arc::default(),
            kind: PhantomData,
        })
    }

    pub(super) fn current(&self) -> &Bucket {
        &self.current
    }

    /// Reads the present version of a tenant's document, with its revision; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer, or the record cannot be read.
    pub async fn read(&self, tenant: &str) -> Result<Option<(Version<K::Document>, u64)>, StoreError> {
        self.current.read(Token::encode(tenant).as_str()).await
    }

    /// Writes a version over the one that was read, which is kept among those before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written in between.
    pub async fn write(
        &self,
        tenant: &str,
        version: &Version<K::Document>,
        over: Option<&(Version<K::Document>, u64)>,
    ) -> Result<(), StoreError> {
        if let Some((before, _)) = over {
            match self
                .history()
                .await?
                .write(&key(tenant, before.version), before, None)
                .await
            {
                // It was kept by somebody who wrote nothing then, or is about to.
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        let key = Token::encode(tenant);
        let over = over.map(|(_, revision)| *revision);
        self.current.write(key.as_str(), version, over).await.map(drop)
    }

    /// One version; `None` when there is none of that number.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn version(
        &self,
        tenant: &str,
        number: u64,
    ) -> Result<Option<Version<K::Document>>, StoreError> {
        match self.read(tenant).await? {
            Some((version, _)) if version.version == number => return Ok(Some(version)),
            Some((version, _)) if version.version < number => return Ok(None),
            _ => {}
        }
        let kept = self.history().await?.read(&key(tenant, number)).await?;
        Ok(kept.map(|(version, _)| version))
    }

    /// The latest versions, the newest first, at most so many.
    ///
    /// # Errors
    /// [`StoreError::Broker`] when the broker does not answer.
    pub async fn versions(&self, tenant: &str, most: usize) -> Result<Vec<Version<K::Document>>, StoreError> {
        let Some((present, _)) = self.read(tenant).await? else {
            return Ok(Vec::new());
        };
        let mut number = present.version;
        let mut versions = vec![present];
        while versions.len() < most && number > 1 {
            number -= 1;
            let kept = self.history().await?.read(&key(tenant, number)).await?;
            versions.extend(kept.map(|(version, _)| version));
        }
        Ok(versions)
    }

    async fn history(&self) -> Result<&Bucket, StoreError> {
        self.history
            .get_or_try_init(|| Bucket::open(&self.bus, K::HISTORY))
            .await
    }
}

fn key(tenant: &str, number: u64) -> String {
    format!("{}.{number}", Token::encode(tenant))
}
