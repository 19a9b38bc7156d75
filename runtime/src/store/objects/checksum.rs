//! A SHA-256 that can be put down and gone on with, by another process if need be.
//!
//! The hasher of the `sha2` crate keeps its state to itself; its compression function is public, and what is around that is padding.

use serde::{Deserialize, Serialize};
use sha2::compress256;

use super::hex;

/// How many bytes are compressed at a time.
const BLOCK: usize = 64;
/// Where the padding of the last block ends, and the length of all in bits begins.
const LENGTH_AT: usize = BLOCK - 8;

/// The checksum of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checksum {
    state: [u32; 8],
    bytes: u64,
    /// What does not fill a block yet.
    rest: Vec<u8>,
}

impl Default for Checksum {
    fn default() -> Self {
        Self {
            // FIPS 180-4, 5.3.3.
            state: [
                0x6a09_e667,
                0xbb67_ae85,
                0x3c6e_f372,
                0xa54f_f53a,
                0x510e_527f,
                0x9b05_688c,
                0x1f83_d9ab,
                0x5be0_cd19,
            ],
            bytes: 0,
            rest: Vec::new(),
        }
    }
}

impl Checksum {
    /// The checksum of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut checksum = Self::default();
        checksum.update(bytes);
        checksum
    }

    /// How many bytes it is of.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes at the end.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.bytes = self.bytes.wrapping_add(bytes.len() as u64);
        if !self.rest.is_empty() {
            let taken = bytes.len().min(BLOCK.saturating_sub(self.rest.len()));
            self.rest.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.rest.len() < BLOCK {
                return;
            }
            let full = std::mem::take(&mut self.rest);
            self.compress(&full);
        }
        let whole = bytes.len() - bytes.len() % BLOCK;
        self.compress(&bytes[..whole]);
        self.rest.extend_from_slice(&bytes[whole..]);
    }

    /// The SHA-256 of all bytes, in hexadecimal.
    #[must_use]
    pub fn finish(&self) -> String {
        let mut last = self.rest.clone();
        last.push(0x80);
        while last.len() % BLOCK != LENGTH_AT {
            last.push(0);
        }
        last.extend_from_slice(&self.bytes.wrapping_mul(8).to_be_bytes());
        let mut end = self.clone();
        end.compress(&last);
        hex(&end.state.map(u32::to_be_bytes).concat())
    }

    /// Takes in whole blocks.
    fn compress(&mut self, bytes: &[u8]) {
        for block in bytes.as_chunks::<BLOCK>().0 {
            compress256(&mut self.state, &[(*block).into()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn it_is_the_usual_one_wherever_it_was_put_down() {
        let bytes: Vec<u8> = (0..400_u32).map(|n| (n * 7 % 251) as u8).collect();
        for length in 0..bytes.len() {
            let expected = hex(&Sha256::digest(&bytes[..length]));
            assert_eq!(Checksum::of(&bytes[..length]).finish(), expected, "{length}");
            let put_down = serde_json::to_string(&Checksum::of(&bytes[..length])).unwrap();
            let mut taken_up: Checksum = serde_json::from_str(&put_down).unwrap();
            taken_up.update(&bytes[length..]);
            assert_eq!(taken_up.finish(), hex(&Sha256::digest(&bytes)), "{length}");
            assert_eq!(taken_up.bytes(), 400);
        }
    }

    #[test]
    fn nothing_at_all_has_one_too() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Checksum::default().finish(), expected);
    }
}
