//! Secrets of well-known services, told by how they begin, how long they are, and which characters they have.

use std::ops::Range;

use aho_corasick::AhoCorasick;
use memchr::memmem;

use super::What;

/// Which characters a secret has.
#[derive(Clone, Copy, Debug)]
enum Letters {
    /// Capitals and digits.
    Capitals,
    /// Letters and digits.
    Plain,
    /// The same and `_`.
    Words,
    /// The same and `-`.
    Url,
    /// The same and `.`.
    Dotted,
    /// The same and `/`.
    Path,
}

impl Letters {
    const fn has(self, byte: u8) -> bool {
        match self {
            Self::Capitals => matches!(byte, b'A'..=b'Z' | b'0'..=b'9'),
            Self::Plain => byte.is_ascii_alphanumeric(),
            Self::Words => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Path => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/'),
        }
    }
}

/// How a kind of secret looks: how it begins, which letters follow, and how many at least and at most.
type Look = (&'static str, What, Letters, usize, usize);

const PEM: &str = "-----BEGIN ";
const LOOKS: [Look; 42] = [
    ("AKIA", What::AwsKey, Letters::Capitals, 16, 16),
    ("ASIA", What::AwsKey, Letters::Capitals, 16, 16),
    ("ABIA", What::AwsKey, Letters::Capitals, 16, 16),
    ("ACCA", What::AwsKey, Letters::Capitals, 16, 16),
    ("ghp_", What::GithubToken, Letters::Words, 36, 255),
    ("gho_", What::GithubToken, Letters::Words, 36, 255),
    ("ghu_", What::GithubToken, Letters::Words, 36, 255),
    ("ghs_", What::GithubToken, Letters::Words, 36, 255),
    ("ghr_", What::GithubToken, Letters::Words, 36, 255),
    ("github_pat_", What::GithubToken, Letters::Words, 36, 255),
    ("xoxb-", What::SlackToken, Letters::Url, 10, 255),
    ("xoxp-", What::SlackToken, Letters::Url, 10, 255),
    ("xoxa-", What::SlackToken, Letters::Url, 10, 255),
    ("xoxr-", What::SlackToken, Letters::Url, 10, 255),
    ("xoxs-", What::SlackToken, Letters::Url, 10, 255),
    ("xoxe-", What::SlackToken, Letters::Url, 10, 255),
    ("xapp-", What::SlackToken, Letters::Url, 10, 255),
    (
        "hooks.slack.com/services/",
        What::SlackToken,
        Letters::Path,
        20,
        255,
    ),
    ("eyJ", What::Jwt, Letters::Dotted, 20, usize::MAX),
    (PEM, What::PrivateKey, Letters::Plain, 0, 0),
    ("AIza", What::ApiKey, Letters::Url, 35, 35),
    ("ya29.", What::ApiKey, Letters::Dotted, 20, 2_048),
    ("sk_live_", What::ApiKey, Letters::Plain, 16, 255),
    ("sk_test_", What::ApiKey, Letters::Plain, 16, 255),
    ("rk_live_", What::ApiKey, Letters::Plain, 16, 255),
    ("rk_test_", What::ApiKey, Letters::Plain, 16, 255),
    ("whsec_", What::ApiKey, Letters::Plain, 16, 255),
    ("sk-ant-", What::ApiKey, Letters::Url, 20, 255),
    ("sk-proj-", What::ApiKey, Letters::Url, 20, 255),
    ("sk-svcacct-", What::ApiKey, Letters::Url, 20, 255),
    ("glpat-", What::ApiKey, Letters::Dotted, 20, 255),
    ("npm_", What::ApiKey, Letters::Plain, 36, 36),
    ("pypi-AgEI", What::ApiKey, Letters::Url, 50, 1_024),
    ("hf_", What::ApiKey, Letters::Plain, 30, 64),
    ("hvs.", What::ApiKey, Letters::Url, 24, 255),
    ("SG.", What::ApiKey, Letters::Dotted, 60, 80),
    ("dop_v1_", What::ApiKey, Letters::Plain, 64, 64),
    ("shpat_", What::ApiKey, Letters::Plain, 32, 32),
    ("shpss_", What::ApiKey, Letters::Plain, 32, 32),
    ("lin_api_", What::ApiKey, Letters::Plain, 32, 64),
    ("tlk_", What::ApiKey, Letters::Url, 20, 255),
    ("dapi", What::ApiKey, Letters::Plain, 32, 32),
];

/// The longest label of a key between `-----BEGIN ` and `-----`.
const MAX_LABEL: usize = 48;

/// Finds how secrets begin, all at once.
#[derive(Debug)]
pub(super) struct Secrets(AhoCorasick);

impl Secrets {
    pub(super) fn new() -> Self {
        let begins = LOOKS.map(|(begins, ..)| begins);
        Self(AhoCorasick::new(begins).expect("a few short words make a small machine"))
    }

    pub(super) fn find(&self, text: &str, steps: &mut u64, take: &mut impl FnMut(What, Range<usize>)) {
        *steps += text.len() as u64;
        let mut key_end = 0;
        // A run of letters belongs to the first beginning in it, so no byte is read twice for the same letters.
        let mut read = [0; LOOKS.len()];
        for found in self.0.find_overlapping_iter(text) {
            let at = found.pattern().as_usize();
            let (begins, what, letters, least, most) = LOOKS[at];
            let start = found.start();
            if what == What::PrivateKey {
                if start >= key_end
                    && let Some(end) = end_of_key(text, start, steps)
                {
                    take(what, start..end);
                    key_end = end;
                }
                continue;
            }
            let before = start.checked_sub(1).map(|at| text.as_bytes()[at]);
            let is_inside = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if is_inside || start < read[at] {
                continue;
            }
            let rest = &text.as_bytes()[start + begins.len()..];
            let length = rest.iter().take_while(|byte| letters.has(**byte)).count();
            *steps += length as u64;
            read[at] = start + begins.len() + length;
            // It ends where no letter of a word goes on.
            let is_cut = rest.get(length).is_some_and(|byte| byte.is_ascii_alphanumeric());
            if !is_cut && (least..=most).contains(&length) {
                let end = start + begins.len() + length;
                let end = start + text[start..end].trim_end_matches(['.', '-']).len();
                if what != What::Jwt || is_jwt(&text[start..end]) {
                    take(what, start..end);
                }
            }
        }
    }
}

/// Three parts, or five of one that is encrypted, the first of which is an object in base64.
fn is_jwt(text: &str) -> bool {
    let parts = text.split('.').take(6).count();
    let is_whole = text.split('.').take(2).all(|part| part.len() > 4);
    is_whole && matches!(parts, 3 | 5)
}

/// Where the block of a private key ends that begins here: behind its last line, or with the text.
fn end_of_key(text: &str, start: usize, steps: &mut u64) -> Option<usize> {
    let rest = &text[start + PEM.len()..];
    let window = &rest.as_bytes()[..rest.len().min(MAX_LABEL)];
    *steps += window.len() as u64;
    let label = memmem::find(window, b"-----")?;
    let label = std::str::from_utf8(&window[..label]).ok()?;
    if !label.ends_with("PRIVATE KEY") && !label.ends_with("PRIVATE KEY BLOCK") {
        return None;
    }
    let ends = format!("-----END {label}-----");
    let end = memmem::find(rest.as_bytes(), ends.as_bytes());
    *steps += end.unwrap_or(rest.len()) as u64;
    Some(end.map_or(text.len(), |end| start + PEM.len() + end + ends.len()))
}
