//! What is kept for users: their credentials for servers, and links that nobody has followed yet. All of it is sealed.

use std::time::Duration;

use bus_schema::{Principal, ServerId, Token};
use runtime::{
    Bus,
    store::{Bucket, BucketOptions, StoreError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    login::Begun,
    seal::{Keys, digest_of},
};
use crate::upstream::remote::oauth::Shows;

/// How long a link can be followed.
pub(super) const LINK_LIFE: Duration = Duration::from_secs(600);

const CREDENTIALS: BucketOptions = BucketOptions {
    name: "credentials",
    max_age: Duration::ZERO,
    max_bytes: 256 * 1024 * 1024,
    max_record_bytes: 64 * 1024,
};
const LINKS: BucketOptions = BucketOptions {
    name: "links",
    max_age: LINK_LIFE,
    max_bytes: 64 * 1024 * 1024,
    max_record_bytes: 64 * 1024,
};

/// Whose credential, and for which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Whose {
    pub(crate) tenant: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) server: ServerId,
}

impl Whose {
    pub(crate) fn of(principal: &Principal, server: &ServerId) -> Self {
        let [tenant, issuer, subject] = principal.identity().pieces().map(str::to_owned);
        Self {
            tenant,
            issuer,
            subject,
            server: server.clone(),
        }
    }

    /// The key of the record: who it is stands there as a digest only.
    fn key(&self) -> String {
        let digest = digest_of(&[&self.tenant, &self.issuer, &self.subject]);
        format!(
            "{}.{}.{digest}",
            Token::encode(&self.tenant),
            Token::encode(self.server.as_str())
        )
    }
}

/// The client that the platform is at an issuer.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) shows: Shows,
}

/// What a server takes for a user, and everything that is needed to exchange it before it ends.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Credential {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub(super) ends_ms: u64,
    pub(super) token_endpoint: String,
    pub(super) client: Known,
    pub(super) resource: String,
    /// Until when somebody is about to exchange it, in milliseconds since 1970.
    #[serde(default)]
    pub(super) exchanging_ms: u64,
}

/// A link that a user was given.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) whose: Whose,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) issuer: String,
    /// Whether its answers always say whose they are (RFC 9207).
    pub(super) says_iss: bool,
    pub(super) client: Known,
    pub(super) resource: String,
    pub(super) scopes: Vec<String>,
    pub(super) verifier: String,
    /// Whether the issuer may be at a private address.
    pub(super) private: bool,
    /// The digest of what the browser has to show that has followed it.
    #[serde(default)]
    pub(super) browser: Option<String>,
    /// The login that its user is at.
    #[serde(default)]
    pub(super) login: Option<Begun>,
}

/// A record, and the revision to write over.
pub(super) struct Kept<T> {
    pub(super) value: T,
    pub(super) revision: u64,
}

/// The two buckets.
pub(super) struct Store {
    pub(super) keys: Keys,
    credentials: Bucket,
    links: Bucket,
}

impl Store {
    pub(super) async fn open(bus: &Bus, keys: Keys) -> Result<Self, StoreError> {
        Ok(Self {
            keys,
            credentials: Bucket::open(bus, CREDENTIALS).await?,
            links: Bucket::open(bus, LINKS).await?,
        })
    }

    /// Reads a credential. One that cannot be opened, as its key is gone, is as good as none.
    pub(super) async fn credential(&self, whose: &Whose) -> Result<Option<Kept<Credential>>, StoreError> {
        self.read(&self.credentials, &whose.key()).await
    }

    /// Writes a credential: over the revision that was read, or over whatever is there. Gives the new revision.
    pub(super) async fn keep(
        &self,
        whose: &Whose,
        credential: &Credential,
        over: Option<u64>,
    ) -> Result<u64, StoreError> {
        let key = whose.key();
        let sealed: bytes::Bytes = self.keys.seal(&key, credential).into();
        if let Some(revision) = over {
            return self.credentials.update(&key, sealed, revision).await;
        }
        match self.credentials.get(&key).await? {
            Some(there) => self.credentials.update(&key, sealed, there.revision).await,
            None => self.credentials.create(&key, sealed).await,
        }
    }

    /// Forgets a credential, if it is the one that was read.
    pub(super) async fn forget(&self, whose: &Whose, revision: u64) -> Result<(), StoreError> {
        self.credentials.remove_at(&whose.key(), revision).await
    }

    /// Reads a link by what stands in it.
    pub(super) async fn link(&self, secret: &str) -> Result<Option<Kept<Link>>, StoreError> {
        self.read(&self.links, &digest_of(&[secret])).await
    }

    /// Keeps a link under what stands in it, of which only a digest is kept.
    pub(super) async fn put_link(&self, secret: &str, link: &Link) -> Result<(), StoreError> {
        let key = digest_of(&[secret]);
        let sealed = self.keys.seal(&key, link);
        self.links.create(&key, sealed.into()).await.map(drop)
    }

    /// Uses a link up. Only one of several who try at once does.
    pub(super) async fn use_link(&self, secret: &str, revision: u64) -> Result<(), StoreError> {
        self.links.remove_at(&digest_of(&[secret]), revision).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        bucket: &Bucket,
        key: &str,
    ) -> Result<Option<Kept<T>>, StoreError> {
        let record = bucket.get(key).await?;
        Ok(record.and_then(|record| {
            Some(Kept {
                value: self.keys.open(key, &record.value)?,
                revision: record.revision,
            })
        }))
    }
}
