//! What is kept of users' credentials is sealed with a key of the operator, so that whoever reads the bus or its disk reads nothing.
//!
//! Each record is sealed for its own key in its bucket: moved elsewhere, or to somebody else, it cannot be opened.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::secrets::Secret;

const KEY_BYTES: usize = 32;
/// How many bytes of a key's digest tell which key it was.
const NAME_BYTES: usize = 4;

/// The keys that records are sealed with: the first seals, all open.
pub(super) struct Keys {
    keys: Vec<([u8; NAME_BYTES], LessSafeKey)>,
    random: SystemRandom,
}

impl Keys {
    /// Reads keys, each 32 bytes in base64 or in hexadecimal.
    ///
    /// # Errors
    /// What is wrong with one of them, and never the key.
    pub(super) fn new(keys: &[Secret]) -> Result<Self, String> {
        let keys = keys.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        match keys.is_empty() {
            true => Err("there is none".to_owned()),
            false => Ok(Self {
                keys,
                random: SystemRandom::new(),
            }),
        }
    }

    /// Random bytes for links and the like, as text that can stand in a URL.
    ///
    /// # Panics
    /// When the system gives no random numbers, without which nothing here is safe.
    pub(super) fn draw(&self) -> String {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.random
            .fill(&mut *bytes)
            .expect("the system gives random numbers");
        URL_SAFE_NO_PAD.encode(*bytes)
    }

    /// Seals a record that is kept under a key of its bucket.
    ///
    /// # Panics
    /// When the system gives no random numbers.
    pub(super) fn seal(&self, under: &str, record: &impl Serialize) -> Vec<u8> {
        let (name, key) = &self.keys[0];
        let mut plain = Zeroizing::new(serde_json::to_vec(record).expect("a record is always JSON"));
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .expect("the system gives random numbers");
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(under.as_bytes()),
                &mut plain,
            )
            .expect("a record is short enough to be sealed");
        [name.as_slice(), &nonce, &plain, tag.as_ref()].concat()
    }

    /// Opens a record that was sealed for the same key of its bucket; `None` for everything else.
    pub(super) fn open<T: DeserializeOwned>(&self, under: &str, sealed: &[u8]) -> Option<T> {
        let (name, rest) = sealed.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let mut text = Zeroizing::new(rest.to_vec());
        let plain = key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(under.as_bytes()),
                &mut text,
            )
            .ok()?;
        serde_json::from_slice(plain).ok()
    }
}

fn read(secret: &Secret) -> Result<([u8; NAME_BYTES], LessSafeKey), String> {
    let text = secret.expose();
    let decoded = hex(text).or_else(|| {
        [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
            .iter()
            .find_map(|engine| engine.decode(text).ok())
    });
    let bytes = Zeroizing::new(decoded.unwrap_or_default());
    if bytes.len() != KEY_BYTES {
        return Err(format!(
            "it is not {KEY_BYTES} bytes in base64; `openssl rand -base64 {KEY_BYTES}` makes one"
        ));
    }
    let unbound = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| "it is no key".to_owned())?;
    let digest = digest::digest(&digest::SHA256, &bytes);
    let mut name = [0; NAME_BYTES];
    name.copy_from_slice(&digest.as_ref()[..NAME_BYTES]);
    Ok((name, LessSafeKey::new(unbound)))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The digest of a text, as a key of a bucket.
pub(super) fn digest_of(pieces: &[&str]) -> String {
    let mut all = digest::Context::new(&digest::SHA256);
    for piece in pieces {
        // The lengths keep two texts from running into each other.
        all.update(&(piece.len() as u64).to_be_bytes());
        all.update(piece.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(all.finish())
}

/// What a client shows at the beginning of what it can only end with the text itself (RFC 7636, section 4.2).
pub(super) fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Keys {
        let keys: Vec<_> = bytes
            .iter()
            .map(|byte| Secret::new(STANDARD.encode([*byte; KEY_BYTES])))
            .collect();
        Keys::new(&keys).unwrap()
    }

    #[test]
    fn a_record_is_opened_where_it_belongs_with_a_key_that_is_known() {
        let sealed = keys(&[1]).seal("t.s.ann", &"s3cret");
        assert!(!sealed.windows(6).any(|part| part == b"s3cret"));
        let opened = |keys: &Keys, under: &str| keys.open::<String>(under, &sealed);
        assert_eq!(opened(&keys(&[1]), "t.s.ann").as_deref(), Some("s3cret"));
        assert_eq!(opened(&keys(&[2, 1]), "t.s.ann").as_deref(), Some("s3cret"));
        assert_eq!(opened(&keys(&[1]), "t.s.bob"), None, "somebody else's");
        assert_eq!(opened(&keys(&[2]), "t.s.ann"), None, "another key");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys(&[1]).open::<String>("t.s.ann", &flipped), None, "bit {bit}");
        }
        assert_eq!(keys(&[1]).open::<String>("t.s.ann", b"short"), None);
    }

    #[test]
    fn a_key_is_32_bytes_and_is_not_shown_when_it_is_not() {
        assert!(Keys::new(&[Secret::new("ab".repeat(32))]).is_ok(), "hexadecimal");
        for wrong in ["", "s3cret", &STANDARD.encode([1; 16])] {
            let error = Keys::new(&[Secret::new(wrong)]).err().unwrap();
            assert!(error.contains("openssl") && !error.contains("s3cret"), "{error}");
        }
        assert!(Keys::new(&[]).is_err());
    }

    #[test]
    fn a_challenge_is_as_the_standard_has_it() {
        // RFC 7636, appendix B.
        let challenge = challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        assert_ne!(digest_of(&["ab", "c"]), digest_of(&["a", "bc"]));
    }
}
