//! Where a page of the catalogue has ended. Clients may paste it into a URL as it is.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// The end of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The last entry's name.
    #[serde(rename = "n")]
    pub(super) name: String,
    /// The last entry's version.
    #[serde(rename = "v")]
    pub(super) version: String,
    /// What was searched for, in lower case.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(super) search: Option<String>,
}

impl Cursor {
    /// Reads one that this platform gave; `None` for any other text.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = Cursor {
            name: "com.example/ä".to_owned(),
            version: "1.0.0+x".to_owned(),
            search: None,
        };
        let text = cursor.to_string();
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_eq!(Cursor::read(&text), Some(cursor));
        for other in ["", "x", "com.example/a:1.0.0", "e30"] {
            assert_eq!(Cursor::read(other), None, "{other}");
        }
    }
}
