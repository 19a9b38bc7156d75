//! What a `requestState` of ours carries past the client: which parked call, sealed so that nobody can change or reuse it elsewhere.
//!
//! The seal is ChaCha20-Poly1305 with a key that is drawn when the process starts and never leaves it. What the state is bound to
//! (who asks, and for what) is not in it: it is authenticated along with it, so whoever presents it must bring the same again.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bus_schema::Principal;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use tokio::time::Instant;

/// A number of 8 bytes for the park, 4 for the round, 8 for the expiry.
const TOKEN_BYTES: usize = 20;

/// Seals and opens.
pub(super) struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
    /// What expiries count from, as they mean nothing outside this process.
    started: Instant,
}

/// What a state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Which parked call.
    pub(super) park: u64,
    /// How often it has asked its caller before.
    pub(super) round: u32,
    /// Until when it waits.
    pub(super) expires: Instant,
}

/// What a state is bound to: the caller, the method, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding([u8; digest::SHA256_OUTPUT_LEN]);

impl Binding {
    /// `asked` is everything of the request that its retry must repeat, in one spelling.
    pub(super) fn new(principal: &Principal, server: &str, method: &str, asked: &str) -> Self {
        let mut all = digest::Context::new(&digest::SHA256);
        let who = principal.identity().pieces();
        for piece in who.into_iter().chain([server, method, asked]) {
            // The lengths keep two texts from running into each other.
            all.update(&(piece.len() as u64).to_be_bytes());
            all.update(piece.as_bytes());
        }
        let mut sum = [0; digest::SHA256_OUTPUT_LEN];
        sum.copy_from_slice(all.finish().as_ref());
        Self(sum)
    }
}

impl Sealer {
    /// A sealer with a new key.
    ///
    /// # Panics
    /// When the system gives no random numbers, without which nothing here is safe.
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let mut key = [0; 32];
        random.fill(&mut key).expect("the system gives random numbers");
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("the key has the right length");
        Self {
            key: LessSafeKey::new(key),
            random,
            started: Instant::now(),
        }
    }

    /// Seals a token for whoever repeats what it is bound to.
    ///
    /// # Panics
    /// When the system gives no random numbers.
    pub(super) fn seal(&self, token: Token, binding: &Binding) -> String {
        let expires = token.expires.saturating_duration_since(self.started).as_millis();
        let mut plain = Vec::with_capacity(TOKEN_BYTES + CHACHA20_POLY1305.tag_len());
        plain.extend_from_slice(&token.park.to_be_bytes());
        plain.extend_from_slice(&token.round.to_be_bytes());
        plain.extend_from_slice(&u64::try_from(expires).unwrap_or(u64::MAX).to_be_bytes());
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .expect("the system gives random numbers");
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&binding.0),
                &mut plain,
            )
            .expect("a token is short enough to be sealed");
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&plain);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Opens what was sealed here for the same binding; `None` for everything else.
    pub(super) fn open(&self, sealed: &str, binding: &Binding) -> Option<Token> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, rest) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(&binding.0), rest).ok()?;
        let (park, rest) = plain.split_first_chunk()?;
        let (round, rest) = rest.split_first_chunk()?;
        let (expires, _) = rest.split_first_chunk()?;
        Some(Token {
            park: u64::from_be_bytes(*park),
            round: u32::from_be_bytes(*round),
            expires: self
                .started
                .checked_add(Duration::from_millis(u64::from_be_bytes(*expires)))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(tenant: &str, subject: &str, method: &str, asked: &str) -> Binding {
        Binding::new(&Principal::new(subject, tenant), "s", method, asked)
    }

    #[test]
    fn only_who_repeats_everything_opens_a_state() {
        let sealer = Sealer::new();
        let expires = sealer.started + Duration::from_millis(1_234);
        let token = Token {
            park: 7,
            round: 2,
            expires,
        };
        let own = binding("t", "ann", "tools/call", "{}");
        let sealed = sealer.seal(token, &own);
        assert_eq!(sealer.open(&sealed, &own), Some(token));
        let elsewhere = Principal {
            issuer: Some("https://id.example".to_owned()),
            ..Principal::new("ann", "t")
        };
        assert_ne!(sealed, sealer.seal(token, &own), "each has its own nonce");
        for other in [
            binding("t", "bob", "tools/call", "{}"),
            binding("u", "ann", "tools/call", "{}"),
            binding("ta", "nn", "tools/call", "{}"),
            binding("t", "ann", "prompts/get", "{}"),
            binding("t", "ann", "tools/call", r#"{"a":1}"#),
            Binding::new(&Principal::new("ann", "t"), "other", "tools/call", "{}"),
            Binding::new(&elsewhere, "s", "tools/call", "{}"),
        ] {
            assert_eq!(sealer.open(&sealed, &other), None, "{other:?}");
        }
        assert_eq!(Sealer::new().open(&sealed, &own), None, "another process");
    }

    #[test]
    fn no_bit_of_a_state_can_be_changed() {
        let sealer = Sealer::new();
        let own = binding("t", "ann", "tools/call", "{}");
        let token = Token {
            park: 1,
            round: 0,
            expires: sealer.started,
        };
        let sealed = URL_SAFE_NO_PAD.decode(sealer.seal(token, &own)).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                sealer.open(&URL_SAFE_NO_PAD.encode(flipped), &own),
                None,
                "bit {bit}"
            );
        }
        for garbage in ["", "AAAA", "not base64!", &"A".repeat(1000)] {
            assert_eq!(sealer.open(garbage, &own), None, "{garbage}");
        }
    }
}
