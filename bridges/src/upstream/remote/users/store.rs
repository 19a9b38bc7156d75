//! What is kept for users: their credentials for servers, and links that nobody has followed yet. All of it is sealed.

use std::{sync::Arc, time::Duration};

use bus_schema::{Principal, ServerId, Token};
use runtime::{
    Bus,
    store::{Bucket, BucketOptions, Changes, Record, StoreError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    login::Begun,
    seal::{Keys, digest_of},
};
use crate::secrets::Secret;
use crate::upstream::remote::{
    dial::Dialer,
    guard::Reach,
    oauth::{Asker, Client, Shows},
    tls,
};

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
    pub(super) fn key(&self) -> String {
        key_of(&self.tenant, self.server.as_str(), &self.person())
    }

    /// What stands for the user in keys.
    pub(super) fn person(&self) -> String {
        digest_of(&[&self.tenant, &self.issuer, &self.subject])
    }
}

/// The key of a credential, or a filter of such keys.
pub(super) fn filter_of(tenant: &str, server: Option<&ServerId>, person: Option<&str>) -> String {
    let server = server.map_or_else(
        || ANY.to_owned(),
        |server| Token::encode(server.as_str()).to_string(),
    );
    format!("{}.{server}.{}", Token::encode(tenant), person.unwrap_or(ANY))
}

fn key_of(tenant: &str, server: &str, person: &str) -> String {
    format!("{}.{}.{person}", Token::encode(tenant), Token::encode(server))
}

/// Any one piece of a key.
const ANY: &str = "*";

/// The client that the platform is at an issuer.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) shows: Shows,
    /// Whether it registered itself, under which key of what is kept.
    #[serde(default)]
    pub(super) registered: Option<String>,
}

/// An issuer as every process reaches it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Issuer {
    /// Its name.
    #[serde(default, rename = "issuer")]
    pub(super) name: String,
    pub(super) token_endpoint: String,
    /// Where tokens are taken back (RFC 7009), if it does that.
    #[serde(default)]
    pub(super) revocation_endpoint: Option<String>,
    /// Whether it may be at a private address.
    #[serde(default)]
    pub(super) private: bool,
    /// The certificates that it is checked against instead of the system's, in PEM form.
    #[serde(default)]
    pub(super) roots: Option<String>,
}

impl Issuer {
    /// What asks it.
    ///
    /// # Errors
    /// When TLS cannot be set up with what is kept.
    pub(super) fn asker(&self) -> Result<Asker, String> {
        let reach = Reach::of(self.private);
        let connector = tls::connector_of(self.roots.as_deref()).map_err(|error| error.to_string())?;
        Ok(Asker::new(Dialer::new(reach, connector), reach))
    }
}

impl Known {
    /// Its secret, for as long as it is shown.
    pub(super) fn secret(&self) -> Option<Secret> {
        self.secret.as_deref().map(Secret::new)
    }

    /// The client, with that.
    pub(super) fn showing<'a>(&'a self, secret: Option<&'a Secret>) -> Client<'a> {
        Client {
            id: &self.id,
            secret,
            shows: self.shows,
        }
    }
}

/// What a server takes for a user, and everything that is needed to exchange it before it ends.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Credential {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub(super) ends_ms: u64,
    #[serde(flatten)]
    pub(super) issuer: Issuer,
    pub(super) client: Known,
    pub(super) resource: String,
    /// What tells one connection of an account from the next, whatever tokens it has had.
    #[serde(default)]
    pub(super) grant: String,
    /// Whose it is: the key has a digest only.
    #[serde(default)]
    pub(super) whose: Option<Whose>,
    /// When the account was connected, in milliseconds since 1970.
    #[serde(default)]
    pub(super) connected_ms: u64,
    /// Until when somebody is about to exchange it, in milliseconds since 1970.
    #[serde(default)]
    pub(super) exchanging_ms: u64,
}

/// A link that a user was given.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) whose: Whose,
    pub(super) authorization_endpoint: String,
    #[serde(flatten)]
    pub(super) issuer: Issuer,
    /// Whether its answers always say whose they are (RFC 9207).
    pub(super) says_iss: bool,
    pub(super) client: Known,
    pub(super) resource: String,
    pub(super) scopes: Vec<String>,
    pub(super) verifier: String,
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

/// What is kept, and the keys that it is sealed with.
pub(super) struct Store {
    pub(super) keys: Arc<Keys>,
    pub(super) credentials: Credentials,
    links: Bucket,
}

/// The bucket of credentials, and of the clients that the platform has registered.
#[derive(Clone)]
pub(super) struct Credentials {
    keys: Arc<Keys>,
    bucket: Bucket,
}

impl Store {
    pub(super) async fn open(bus: &Bus, keys: Keys) -> Result<Self, StoreError> {
        let keys = Arc::new(keys);
        Ok(Self {
            credentials: Credentials::open(bus, Arc::clone(&keys)).await?,
            links: Bucket::open(bus, LINKS).await?,
            keys,
        })
    }

    /// Reads a link by what stands in it.
    pub(super) async fn link(&self, secret: &str) -> Result<Option<Kept<Link>>, StoreError> {
        let key = digest_of(&[secret]);
        let record = self.links.get(&key).await?;
        Ok(record.and_then(|record| opened(&self.keys, &key, &record)))
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
}

impl Credentials {
    pub(super) async fn open(bus: &Bus, keys: Arc<Keys>) -> Result<Self, StoreError> {
        let bucket = Bucket::open(bus, CREDENTIALS).await?;
        Ok(Self { keys, bucket })
    }

    /// Reads a record. One that cannot be opened, as its key is gone, is as good as none.
    pub(super) async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Kept<T>>, StoreError> {
        let record = self.bucket.get(key).await?;
        Ok(record.and_then(|record| opened(&self.keys, key, &record)))
    }

    /// Writes a record: over the revision that was read, or over whatever is there. Gives the new revision.
    pub(super) async fn write(
        &self,
        key: &str,
        record: &impl Serialize,
        over: Option<u64>,
    ) -> Result<u64, StoreError> {
        let sealed: bytes::Bytes = self.keys.seal(key, record).into();
        if let Some(revision) = over {
            return self.bucket.update(key, sealed, revision).await;
        }
        match self.bucket.get(key).await? {
            Some(there) => self.bucket.update(key, sealed, there.revision).await,
            None => self.bucket.create(key, sealed).await,
        }
    }

    /// Writes a record where none was, or over the revision that was read, and never over anything else.
    pub(super) async fn claim(
        &self,
        key: &str,
        record: &impl Serialize,
        over: Option<u64>,
    ) -> Result<u64, StoreError> {
        let sealed: bytes::Bytes = self.keys.seal(key, record).into();
        match over {
            Some(revision) => self.bucket.update(key, sealed, revision).await,
            None => self.bucket.create(key, sealed).await,
        }
    }

    /// Removes a record, if it is the one that was read.
    pub(super) async fn remove(&self, key: &str, revision: u64) -> Result<(), StoreError> {
        self.bucket.remove_at(key, revision).await
    }

    /// The credentials whose keys fit, each with its key; `None` of those that cannot be opened.
    pub(super) async fn list(&self, filter: &str, most: usize) -> Result<Vec<Listed>, StoreError> {
        let records = self.bucket.list(filter, most).await?;
        let listed = records.into_iter().map(|(key, record)| Listed {
            revision: record.revision,
            credential: self.keys.open(&key, &record.value),
            key,
        });
        Ok(listed.collect())
    }

    /// How the credentials of a server change.
    pub(super) fn changes(&self, server: &ServerId) -> Changes {
        self.bucket
            .changes(&format!("{ANY}.{}.{ANY}", Token::encode(server.as_str())))
    }

    /// What was written under a key, if it can be opened.
    pub(super) fn unseal<T: DeserializeOwned>(&self, key: &str, sealed: &[u8]) -> Option<T> {
        self.keys.open(key, sealed)
    }
}

/// A credential in a list.
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) revision: u64,
    pub(super) credential: Option<Credential>,
}

fn opened<T: DeserializeOwned>(keys: &Keys, key: &str, record: &Record) -> Option<Kept<T>> {
    Some(Kept {
        value: keys.open(key, &record.value)?,
        revision: record.revision,
    })
}
