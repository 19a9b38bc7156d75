//! The public keys of one issuer: fetched when they are needed, kept while it cannot be reached, and fetched again when a token names
//! one that is not there.
//!
//! Whoever sends tokens with invented keys makes it fetch once in a while and no more. Source: RFC 7517, RFC 8414.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use tracing::{debug, info, warn};
use url::Url;

use super::options::IssuerOptions;
use crate::upstream::remote::{RemoteError, fetch::Fetcher};

/// How many keys an issuer may have.
const MAX_KEYS: usize = 100;
/// How many keys are tried for a token that names none.
const MAX_TRIED: usize = 8;

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    jwks_url: Option<String>,
    refresh_after: Duration,
    floor: Duration,
    keep_for: Duration,
    fetcher: Arc<Fetcher>,
    known: ArcSwapOption<Known>,
    /// The last attempt to fetch. Held while one is under way, so that there is never a second.
    attempt: Mutex<Option<Attempt>>,
}

/// What was fetched last.
struct Known {
    keys: Vec<Arc<Key>>,
    at: Instant,
}

/// One key, and what it may be used for.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    pub(super) decoding: DecodingKey,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    came_to: Outcome,
}

/// What a fetch has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Fetched,
    Failed,
}

/// What is known of the key that a token names.
pub(super) enum Found {
    /// Those that it may mean; more than one only when it names none.
    Keys(Vec<Arc<Key>>),
    /// The issuer has no such key.
    Unknown,
    /// The issuer cannot be asked, and what it has said is missing or too old.
    Unreachable,
}

/// The part of an issuer's metadata that counts here.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("cannot fetch `{url}`")]
    Fetch {
        url: String,
        #[source]
        source: RemoteError,
    },
    #[error("what `{url}` gives is no {what}")]
    Unreadable { url: String, what: &'static str },
    #[error("the metadata at `{url}` are of issuer `{found}`")]
    OtherIssuer { url: String, found: String },
    #[error("`{0}` has no key that tokens can be checked with")]
    Empty(String),
}

impl Keys {
    pub(super) fn new(options: &IssuerOptions, fetcher: Arc<Fetcher>) -> Self {
        Self {
            issuer: options.issuer.clone(),
            jwks_url: options.jwks_url.clone(),
            refresh_after: options.refresh_after,
            floor: options.floor,
            keep_for: options.keep_for,
            fetcher,
            known: ArcSwapOption::empty(),
            attempt: Mutex::default(),
        }
    }

    /// The keys that a token may mean.
    pub(super) async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Found {
        let select = || self.usable().map(|known| (known.select(id, algorithm), known.at));
        if let Some((keys, at)) = select()
            && !keys.is_empty()
        {
            if at.elapsed() >= self.refresh_after {
                // These still do; whoever comes next may find newer ones.
                tokio::spawn(Arc::clone(self).refresh());
            }
            return Found::Keys(keys);
        }
        // In a task of its own: a client that goes away must not take the attempt with it. It ends with the fetcher's limit, and
        // nothing is lost when the process ends before.
        let outcome = tokio::spawn(Arc::clone(self).refresh()).await;
        match select() {
            Some((keys, _)) if !keys.is_empty() => Found::Keys(keys),
            Some(_) if matches!(outcome, Ok(Outcome::Fetched)) => Found::Unknown,
            _ => Found::Unreachable,
        }
    }

    /// Whether the issuer has a key still, as far as is known. Whoever asks after a while has it fetched again.
    pub(super) fn has(self: &Arc<Self>, key: &Arc<Key>) -> bool {
        let Some(known) = self.usable() else { return false };
        if known.at.elapsed() >= self.refresh_after {
            tokio::spawn(Arc::clone(self).refresh());
        }
        known.keys.iter().any(|one| Arc::ptr_eq(one, key))
    }

    /// What was fetched, while it counts.
    fn usable(&self) -> Option<Arc<Known>> {
        self.known
            .load_full()
            .filter(|known| known.at.elapsed() < self.keep_for)
    }

    /// Fetches the keys, unless somebody has just tried.
    async fn refresh(self: Arc<Self>) -> Outcome {
        let mut attempt = self.attempt.lock().await;
        if let Some(last) = *attempt
            && last.at.elapsed() < self.floor
        {
            return last.came_to;
        }
        let came_to = match self.fetch().await {
            Ok(keys) => {
                debug!(issuer = %self.issuer, keys = keys.len(), "fetched the keys of an issuer");
                let at = Instant::now();
                self.known.store(Some(Arc::new(Known { keys, at })));
                Outcome::Fetched
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let kept = self.usable().is_some();
                warn!(issuer = %self.issuer, %error, cause, kept, "cannot fetch the keys of an issuer");
                Outcome::Failed
            }
        };
        *attempt = Some(Attempt {
            at: Instant::now(),
            came_to,
        });
        came_to
    }

    async fn fetch(&self) -> Result<Vec<Arc<Key>>, KeysError> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let document = self.get(&url).await?;
        let keys = read(&document).ok_or_else(|| KeysError::Unreadable {
            url: url.clone(),
            what: "JSON Web Key Set",
        })?;
        if keys.is_empty() {
            return Err(KeysError::Empty(url));
        }
        Ok(keys)
    }

    /// Where the issuer's metadata say that its keys are.
    async fn discover(&self) -> Result<String, KeysError> {
        let mut failed = KeysError::Unreadable {
            url: self.issuer.clone(),
            what: "URL of an issuer",
        };
        for url in metadata_urls(&self.issuer) {
            let document = match self.get(&url).await {
                Ok(document) => document,
                Err(error) => {
                    failed = error;
                    continue;
                }
            };
            match serde_json::from_slice::<Metadata>(&document) {
                Ok(metadata) if metadata.issuer == self.issuer => {
                    info!(issuer = %self.issuer, jwks = %metadata.jwks_uri, "an issuer says where its keys are");
                    return Ok(metadata.jwks_uri);
                }
                // Whoever speaks for somebody else is not believed, and not asked in another way.
                Ok(Metadata { issuer: found, .. }) => return Err(KeysError::OtherIssuer { url, found }),
                Err(_) => {
                    let what = "metadata of an issuer";
                    failed = KeysError::Unreadable { url, what };
                }
            }
        }
        Err(failed)
    }

    async fn get(&self, url: &str) -> Result<Bytes, KeysError> {
        self.fetcher.get(url).await.map_err(|source| KeysError::Fetch {
            url: url.to_owned(),
            source,
        })
    }
}

impl Known {
    fn select(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<Arc<Key>> {
        self.keys
            .iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id)
            .filter(|key| key.fits(algorithm))
            .take(MAX_TRIED)
            .map(Arc::clone)
            .collect()
    }
}

impl Key {
    /// A key without a name, for tests of those who keep one.
    #[cfg(test)]
    pub(super) fn of(decoding: DecodingKey) -> Self {
        Self {
            id: None,
            algorithm: None,
            decoding,
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let named = self
            .algorithm
            .as_ref()
            .is_none_or(|own| *own == format!("{algorithm:?}"));
        named && self.decoding.family() == algorithm.family()
    }
}

/// Reads a key set; `None` when it is none. Keys that are for something else, or of a kind that is not known, are left out.
fn read(document: &[u8]) -> Option<Vec<Arc<Key>>> {
    let set: KeySet = serde_json::from_slice(document).ok()?;
    let keys = set.keys.into_iter().take(MAX_KEYS).filter_map(|value| {
        let algorithm = value.get("alg").and_then(Value::as_str).map(str::to_owned);
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let signs = match &jwk.common.public_key_use {
            None | Some(PublicKeyUse::Signature) => true,
            Some(_) => false,
        };
        let verifies = jwk
            .common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let public = decoding.family() != AlgorithmFamily::Hmac;
        (signs && verifies && public).then(|| {
            Arc::new(Key {
                id: jwk.common.key_id,
                algorithm,
                decoding,
            })
        })
    });
    Some(keys.collect())
}

/// Where an issuer's metadata may be, in the order in which they are looked for.
pub(crate) fn metadata_urls(issuer: &str) -> Vec<String> {
    let Ok(url) = Url::parse(issuer) else {
        return Vec::new();
    };
    let origin = url.origin().ascii_serialization();
    let path = url.path().trim_end_matches('/');
    let mut urls = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        urls.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    urls
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_are_looked_for_where_the_protocol_says() {
        assert_eq!(
            metadata_urls("https://id.example/realms/acme"),
            [
                "https://id.example/.well-known/oauth-authorization-server/realms/acme",
                "https://id.example/.well-known/openid-configuration/realms/acme",
                "https://id.example/realms/acme/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            metadata_urls("https://id.example/"),
            [
                "https://id.example/.well-known/oauth-authorization-server",
                "https://id.example/.well-known/openid-configuration",
            ]
        );
        assert!(metadata_urls("acme").is_empty());
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let ec = |more: Value| {
            let mut key = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": x });
            key.as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            key
        };
        let set = json!({ "keys": [
            ec(json!({ "kid": "plain" })),
            ec(json!({ "kid": "signs", "use": "sig", "alg": "ES256", "key_ops": ["verify"] })),
            ec(json!({ "kid": "encrypts", "use": "enc" })),
            ec(json!({ "kid": "other", "key_ops": ["wrapKey"] })),
            { "kty": "oct", "kid": "secret", "k": "c2VjcmV0" },
            { "kty": "new", "kid": "unknown" },
            7,
        ]});
        let keys = read(set.to_string().as_bytes()).expect("a set");
        let ids: Vec<_> = keys
            .iter()
            .map(|key| key.id.as_deref().unwrap_or_default())
            .collect();
        assert_eq!(ids, ["plain", "signs"]);
        let known = Known {
            keys,
            at: Instant::now(),
        };
        assert_eq!(known.select(Some("plain"), Algorithm::ES256).len(), 1);
        assert_eq!(known.select(None, Algorithm::ES256).len(), 2);
        // Its own word pins the algorithm, and so does its kind.
        assert_eq!(known.select(Some("signs"), Algorithm::ES384).len(), 0);
        assert_eq!(known.select(None, Algorithm::RS256).len(), 0);
        assert_eq!(known.select(None, Algorithm::HS256).len(), 0);
        assert!(read(b"{}").is_none() && read(b"no").is_none());
    }
}
