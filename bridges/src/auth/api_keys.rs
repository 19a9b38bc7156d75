//! API keys: long random texts that the operator has given out, and of which only digests are written down.
//!
//! A key is as random as the digest is long, so a plain hash is enough: there is nothing to guess.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bus_schema::Principal;
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};

use super::options::{ApiKeyOptions, AuthError};

/// What every key begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "tlk_";
/// Who vouches for those that come with a key.
const ISSUER: &str = "urn:trunkline:api-key";
const KEY_BYTES: usize = 32;

/// What is kept of a secret.
pub(super) type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// A key that was just made. It is shown once, and kept by nobody here.
pub struct NewApiKey {
    /// The key itself.
    pub key: String,
    /// What is written down of it.
    pub sha256: String,
}

/// Makes a key.
///
/// # Panics
/// When the system gives no random numbers, without which no key is worth anything.
#[must_use]
pub fn new_api_key() -> NewApiKey {
    let mut random = [0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .expect("the system gives random numbers");
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let sha256 = sha256(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    NewApiKey { key, sha256 }
}

/// The keys of the configuration, by their digests.
#[derive(Default)]
pub(super) struct ApiKeys(HashMap<Digest, Principal>);

impl ApiKeys {
    pub(super) fn new(keys: &[ApiKeyOptions]) -> Result<Self, AuthError> {
        let mut all = HashMap::new();
        for key in keys {
            let digest = read_digest(&key.sha256).ok_or_else(|| AuthError::Digest {
                subject: key.subject.clone(),
                sha256: key.sha256.clone(),
            })?;
            let principal = Principal {
                issuer: Some(ISSUER.to_owned()),
                roles: key.roles.clone(),
                scopes: key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
                ..Principal::new(&key.subject, &key.tenant)
            };
            if all.insert(digest, principal).is_some() {
                return Err(AuthError::SameKey(key.subject.clone()));
            }
        }
        Ok(Self(all))
    }

    /// Whether a text is a key by its looks, so that it is shown to no issuer.
    pub(super) fn looks_like_one(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, digest: &Digest) -> Option<&Principal> {
        self.0.get(digest)
    }
}

/// The SHA-256 of a secret, which is all that is ever kept of it.
pub(super) fn sha256(secret: &str) -> Digest {
    let mut sum = [0; digest::SHA256_OUTPUT_LEN];
    sum.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    sum
}

fn read_digest(text: &str) -> Option<Digest> {
    let mut digest = [0; digest::SHA256_OUTPUT_LEN];
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sha256: &str) -> ApiKeyOptions {
        ApiKeyOptions {
            sha256: sha256.to_owned(),
            subject: "ci".to_owned(),
            tenant: "t".to_owned(),
            roles: vec!["robot".to_owned()],
            scopes: vec!["a".parse().expect("a scope")],
        }
    }

    #[test]
    fn a_key_is_known_by_its_digest_only() {
        let new = new_api_key();
        assert!(
            new.key.starts_with(PREFIX) && new.key.len() == PREFIX.len() + 43,
            "{}",
            new.key
        );
        assert_ne!(new.key, new_api_key().key);
        let keys = ApiKeys::new(&[written(&new.sha256)]).expect("keys");
        let who = keys.find(&sha256(&new.key)).expect("it is known");
        assert_eq!(
            (who.subject.as_str(), who.issuer.as_deref()),
            ("ci", Some(ISSUER))
        );
        assert_eq!(
            (who.roles.as_slice(), who.scopes.as_slice()),
            (&["robot".to_owned()][..], &["a".to_owned()][..])
        );
        for other in ["", PREFIX, &new.sha256, &new.key[..new.key.len() - 1]] {
            assert!(keys.find(&sha256(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn what_is_no_digest_or_two_peoples_is_refused() {
        let new = new_api_key();
        for bad in [
            "",
            "abc",
            &new.key,
            &"zz".repeat(32),
            &"+1".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(
                matches!(ApiKeys::new(&[written(bad)]), Err(AuthError::Digest { .. })),
                "{bad}"
            );
        }
        let twice = [written(&new.sha256), written(&new.sha256.to_uppercase())];
        assert!(matches!(ApiKeys::new(&twice), Err(AuthError::SameKey(_))));
    }
}
