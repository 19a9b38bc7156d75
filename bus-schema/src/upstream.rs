//! What an operator may say of a server that is not ours: how it is spoken with.

use serde::{Deserialize, Serialize};

/// Whether the era of an upstream server is known beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EraKnob {
    /// It is found out: a modern question first, and a legacy handshake when that is not understood.
    #[default]
    Auto,
    /// It begins with `initialize`.
    Legacy,
    /// It takes metadata with every request.
    Modern,
}

/// Whether the transport of a remote server is known beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKnob {
    /// WebSocket for `ws` and `wss` URLs; for others Streamable HTTP, and HTTP+SSE when that is not understood.
    #[default]
    Auto,
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE, the transport of 2024-11-05.
    Sse,
    /// WebSocket.
    Ws,
}

/// The most failures that a breaker may wait for.
const MOST_FAILURES: u32 = 10_000;
/// The longest that a breaker may count back, or stay open at first, in seconds.
const LONGEST_SECS: u32 = 3_600;

/// When calls to a server are stopped because they keep failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BreakerKnob {
    /// After so many failures, if half of the calls fail; 0 is never.
    pub failures: u32,
    /// The time that they count for, in seconds.
    #[serde(alias = "within_secs")]
    pub within_secs: u32,
    /// How long the server is left alone then, in seconds; longer each time that it fails again.
    #[serde(alias = "open_secs")]
    pub open_secs: u32,
}

impl Default for BreakerKnob {
    fn default() -> Self {
        Self {
            failures: 5,
            within_secs: 30,
            open_secs: 10,
        }
    }
}

impl BreakerKnob {
    /// Whether nothing was said of it.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Finds what cannot be used.
    ///
    /// # Errors
    /// What is wrong and what would be right, to stand behind the name of the setting.
    pub fn check(&self) -> Result<(), String> {
        check_numbers(&[
            ("failures", self.failures, 0, MOST_FAILURES),
            ("within_secs", self.within_secs, 1, LONGEST_SECS),
            ("open_secs", self.open_secs, 1, LONGEST_SECS),
        ])
    }
}

/// The most times that a call may be made.
const MOST_ATTEMPTS: u32 = 10;
/// The longest pause before a call is made again, in milliseconds.
const LONGEST_BACKOFF_MS: u32 = 60_000;

/// How often a call is made that was lost. Only calls that read, and those of tools that say that they are idempotent, are ever made
/// again, and never after their caller has heard something of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryKnob {
    /// How often in all; 1 is never again, whatever the call.
    pub attempts: u32,
    /// How long is waited before the next, in milliseconds; twice as long each time.
    #[serde(alias = "backoff_ms")]
    pub backoff_ms: u32,
}

impl Default for RetryKnob {
    fn default() -> Self {
        Self {
            attempts: 2,
            backoff_ms: 100,
        }
    }
}

impl RetryKnob {
    /// Whether nothing was said of it.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Whether calls are made once, and not again.
    #[must_use]
    pub const fn is_never(&self) -> bool {
        self.attempts == 1
    }

    /// Finds what cannot be used.
    ///
    /// # Errors
    /// What is wrong and what would be right, to stand behind the name of the setting.
    pub fn check(&self) -> Result<(), String> {
        check_numbers(&[
            ("attempts", self.attempts, 1, MOST_ATTEMPTS),
            ("backoff_ms", self.backoff_ms, 0, LONGEST_BACKOFF_MS),
        ])
    }
}

/// Finds a number that is less than the least or more than the most.
fn check_numbers(numbers: &[(&str, u32, u32, u32)]) -> Result<(), String> {
    for (key, number, least, most) in numbers {
        if !(least..=most).contains(&number) {
            return Err(format!("has {key} = {number}; use {least} to {most}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_spelled_as_files_and_as_json_spell_names() {
        let said = RetryKnob {
            backoff_ms: 5,
            ..RetryKnob::default()
        };
        for text in [r#"{"backoffMs":5}"#, r#"{"backoff_ms":5}"#] {
            assert_eq!(serde_json::from_str::<RetryKnob>(text).unwrap(), said);
        }
        assert_eq!((said.check(), said.is_never()), (Ok(()), false));
        let never = RetryKnob { attempts: 0, ..said };
        assert_eq!(never.check(), Err("has attempts = 0; use 1 to 10".to_owned()));
    }

    #[test]
    fn a_breaker_is_spelled_as_files_and_as_json_spell_names() {
        let said = BreakerKnob {
            open_secs: 3,
            ..BreakerKnob::default()
        };
        for text in [r#"{"openSecs":3}"#, r#"{"open_secs":3}"#] {
            assert_eq!(serde_json::from_str::<BreakerKnob>(text).unwrap(), said);
        }
        assert!(serde_json::from_str::<BreakerKnob>(r#"{"open":3}"#).is_err());
        assert_eq!(said.check(), Ok(()));
        let endless = BreakerKnob {
            within_secs: 0,
            ..said
        };
        assert_eq!(
            endless.check(),
            Err("has within_secs = 0; use 1 to 3600".to_owned())
        );
    }
}
