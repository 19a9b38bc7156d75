//! One subject token: the only shape in which a name from outside enters a subject.
//!
//! NATS gives dots, stars, blanks and `>` a meaning, and MCP allows some of them in names, so no name is ever
//! pasted into a subject. Two different names never give the same token (short of a SHA-256 collision).

use std::fmt;

use sha2::{Digest, Sha256};

/// The longest token; a longer name is replaced by its digest.
const MAX_LEN: usize = 64;
/// What a digest token starts with. A name that itself starts so is escaped, to keep the two apart.
const DIGEST_PREFIX: &str = "h-";

/// A subject token: 1 to 64 characters of `[A-Za-z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(String);

/// Says why a text is not a subject token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a subject token (1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`)")]
pub struct BadToken(pub String);

impl Token {
    /// Encodes any name: letters, digits and `-` stay, every other byte becomes `_XX` (upper-case hex), the empty
    /// name becomes `_`, and what would exceed 64 characters becomes `h-` and 16 hex digits of its SHA-256.
    #[must_use]
    pub fn encode(name: &str) -> Self {
        let mut out = String::with_capacity(name.len());
        Self::encode_into(name, &mut out);
        Self(out)
    }

    /// Encodes a name at the end of a text, as [`Token::encode`] does.
    pub(crate) fn encode_into(name: &str, out: &mut String) {
        let start = out.len();
        for (at, byte) in name.bytes().enumerate() {
            let looks_like_a_digest = at == 0 && name.starts_with(DIGEST_PREFIX);
            if (byte.is_ascii_alphanumeric() || byte == b'-') && !looks_like_a_digest {
                out.push(char::from(byte));
            } else {
                push_escaped(out, byte);
            }
        }
        if name.is_empty() {
            out.push('_');
        }
        if out.len() - start > MAX_LEN {
            out.truncate(start);
            out.push_str(&digest_token(name));
        }
    }

    /// Takes a token as it stands in a subject.
    ///
    /// # Errors
    /// [`BadToken`] when the text is empty, too long, or has a character that no token has.
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        if !is_token(text) {
            return Err(BadToken(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The token's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a token.
pub(crate) fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= MAX_LEN && text.bytes().all(plain)
}

fn push_escaped(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('_');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

fn digest_token(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{DIGEST_PREFIX}{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_tokens() {
        let long = "x".repeat(65);
        for (name, token) in [
            ("search", "search"),
            ("get_customer", "get_5Fcustomer"),
            ("com.example", "com_2Eexample"),
            ("", "_"),
            ("h-00", "_68-00"),
            ("é", "_C3_A9"),
            (long.as_str(), "h-9537c5fdf120482f"),
        ] {
            assert_eq!(Token::encode(name).as_str(), token, "{name}");
        }
    }

    #[test]
    fn what_no_token_has_is_refused() {
        for bad in ["", "a.b", "*", ">", "a b", "é", &"x".repeat(65)] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_gives_a_token_that_parses(name in ".*") {
            let token = Token::encode(&name);
            prop_assert_eq!(Token::parse(token.as_str()), Ok(token));
        }

        #[test]
        fn different_names_give_different_tokens(a in "[a-z_.h-]{0,70}", b in "[a-z_.h-]{0,70}") {
            prop_assert_eq!(a == b, Token::encode(&a) == Token::encode(&b));
        }
    }
}
