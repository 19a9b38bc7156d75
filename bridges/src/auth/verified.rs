//! Signed tokens that were found genuine a moment ago: checking a signature costs more than everything else that is done for a call.
//!
//! What is remembered is the signature alone, by the digest of the token. It counts for as long as its issuer still has the very key that
//! has made it, and within the token's own times; for whom the token was made, and what comes with it, is looked at for each request.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::Value;

use super::{api_keys::Digest, claims::Claims, keys::Key, options::IssuerOptions};

/// How many tokens are remembered at most; a power of two. A newer one takes the place of an older one.
const MOST: usize = 1024;
/// How long the text of a remembered token may be, so that long ones do not add up.
const MAX_TOKEN_BYTES: usize = 4 * 1024;

/// Genuine tokens, by their digests.
pub(super) struct Verified(Box<[ArcSwapOption<Genuine>]>);

/// A token that was found genuine.
pub(super) struct Genuine {
    digest: Digest,
    /// Which of the door's issuers has made it.
    pub(super) issuer: usize,
    /// The key by which it was checked.
    pub(super) key: Arc<Key>,
    pub(super) claims: Claims,
    /// When it ends and begins, in seconds since 1970.
    ends: u64,
    begins: Option<u64>,
}

impl Default for Verified {
    fn default() -> Self {
        Self((0..MOST).map(|_| ArcSwapOption::empty()).collect())
    }
}

impl Verified {
    /// A token of this digest, if it was found genuine.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Genuine>> {
        self.place(digest)
            .load_full()
            .filter(|genuine| genuine.digest == *digest)
    }

    /// Remembers one that was found genuine, unless it is long, or has no times that can be looked at again.
    pub(super) fn remember(
        &self,
        token: &str,
        digest: Digest,
        issuer: usize,
        key: Arc<Key>,
        claims: &Claims,
    ) {
        let times = (seconds(claims, "exp"), seconds(claims, "nbf"));
        let (Ok(Some(ends)), Ok(begins)) = times else {
            return;
        };
        if token.len() > MAX_TOKEN_BYTES {
            return;
        }
        let genuine = Genuine {
            digest,
            issuer,
            key,
            claims: claims.clone(),
            ends,
            begins,
        };
        self.place(&digest).store(Some(Arc::new(genuine)));
    }

    fn place(&self, digest: &Digest) -> &ArcSwapOption<Genuine> {
        let [one, other, ..] = *digest;
        &self.0[usize::from(u16::from_be_bytes([one, other])) % MOST]
    }
}

impl Genuine {
    /// Whether it counts at a moment, in seconds since 1970.
    pub(super) fn counts_at(&self, now: u64, options: &IssuerOptions) -> bool {
        let skew = options.clock_skew.as_secs();
        now <= self.ends.saturating_add(skew) && self.begins.is_none_or(|begins| begins <= now + skew)
    }
}

/// A time among the claims, if it is there.
fn seconds(claims: &Claims, key: &str) -> Result<Option<u64>, NoTime> {
    match claims.get(key) {
        None => Ok(None),
        Some(value) => Value::as_u64(value).map(Some).ok_or(NoTime),
    }
}

/// A claim that should be a time and is none.
struct NoTime;

#[cfg(test)]
mod tests {
    use jsonwebtoken::DecodingKey;
    use serde_json::json;

    use super::*;

    fn remembered(verified: &Verified, token: &str, claims: Value) -> Option<Arc<Genuine>> {
        let key = Arc::new(Key::of(DecodingKey::from_secret(b"x")));
        let digest = super::super::api_keys::sha256(token);
        let Value::Object(claims) = claims else {
            panic!("no claims")
        };
        verified.remember(token, digest, 3, key, &claims);
        verified.find(&digest)
    }

    #[test]
    fn a_genuine_token_counts_within_its_own_times_and_no_longer() {
        let verified = Verified::default();
        let token = remembered(&verified, "a.b.c", json!({ "exp": 1_000, "nbf": 500 })).expect("remembered");
        assert_eq!(token.issuer, 3);
        let mut options: IssuerOptions = IssuerOptions::new("https://id.example");
        options.clock_skew = std::time::Duration::from_secs(60);
        for (now, expected) in [
            (439, false),
            (440, true),
            (1_000, true),
            (1_060, true),
            (1_061, false),
        ] {
            assert_eq!(token.counts_at(now, &options), expected, "{now}");
        }
        assert!(verified.find(&super::super::api_keys::sha256("a.b.d")).is_none());
    }

    #[test]
    fn what_has_no_end_or_is_long_is_not_remembered() {
        let verified = Verified::default();
        for claims in [
            json!({}),
            json!({ "exp": "soon" }),
            json!({ "exp": 1.5 }),
            json!({ "exp": 1, "nbf": "now" }),
        ] {
            assert!(
                remembered(&verified, "a.b.c", claims.clone()).is_none(),
                "{claims}"
            );
        }
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert!(remembered(&verified, &long, json!({ "exp": 1 })).is_none());
    }
}
