//! Every header name of the HTTP and NATS doors, and the encoding of values that mirror names from the body.
//!
//! Source: MCP 2026-07-28, Streamable HTTP (standard request headers) and W3C Trace Context.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The protocol version of a request.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// The method of a request, mirrored from its body.
pub const METHOD: &str = "mcp-method";
/// The tool, prompt or resource of a request, mirrored from its body.
pub const NAME: &str = "mcp-name";
/// By which a remote server is told the number of its owner, which grows with each; what comes with a smaller one is of the past.
pub const EPOCH: &str = "trunkline-epoch";
/// What the names of headers begin with that repeat a tool's arguments.
pub const PARAM_PREFIX: &str = "mcp-param-";
/// The session of a legacy client.
pub const SESSION_ID: &str = "mcp-session-id";
/// The last event that a reconnecting legacy client has seen.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// The trace that a request is part of.
pub const TRACEPARENT: &str = "traceparent";
/// The vendors' part of that trace.
pub const TRACESTATE: &str = "tracestate";
/// The encoding of a NATS payload.
pub const CONTENT_TYPE: &str = "Content-Type";
/// What the broker says of the client behind a service import; a client cannot set it across accounts.
pub const NATS_REQUEST_INFO: &str = "Nats-Request-Info";

/// The key that the broker has sealed a question of its auth callout with.
pub const NATS_SERVER_XKEY: &str = "Nats-Server-Xkey";
/// How many calls a limit allows in a window.
pub const RATE_LIMIT: &str = "ratelimit-limit";
/// How many of them are left.
pub const RATE_LIMIT_REMAINING: &str = "ratelimit-remaining";
/// In how many seconds the window ends.
pub const RATE_LIMIT_RESET: &str = "ratelimit-reset";
/// What a message adds to the counter of its subject (NATS ADR-49).
pub const NATS_INCREMENT: &str = "Nats-Incr";
/// When a message is to be published (NATS ADR-51).
pub const NATS_SCHEDULE: &str = "Nats-Schedule";
/// On which subject it is published then.
pub const NATS_SCHEDULE_TARGET: &str = "Nats-Schedule-Target";

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// Says that a mirrored value claims to be Base64 and is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not valid Base64 of UTF-8 text")]
pub struct BadEncodedValue(pub String);

/// Reads a mirrored value: `=?base64?…?=` is decoded, anything else is taken literally.
///
/// # Errors
/// [`BadEncodedValue`] when the markers are there and what they enclose is not Base64 of UTF-8 text.
pub fn decode_value(value: &str) -> Result<Cow<'_, str>, BadEncodedValue> {
    let Some(encoded) = value.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE)) else {
        return Ok(Cow::Borrowed(value));
    };
    let bad = || BadEncodedValue(encoded.to_owned());
    let bytes = STANDARD.decode(encoded).map_err(|_| bad())?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| bad())
}

/// Writes a value so that a header can carry it and [`decode_value`] gives it back.
#[must_use]
pub fn encode_value(value: &str) -> Cow<'_, str> {
    let visible = value.bytes().all(|b| matches!(b, 0x20..=0x7e | b'\t'));
    let trimmed = value.trim_matches([' ', '\t']) == value;
    let looks_encoded = value.starts_with(OPEN) && value.ends_with(CLOSE);
    if visible && trimmed && !looks_encoded {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_decode_as_the_specification_says() {
        for (value, expected) in [
            ("plain", Ok("plain")),
            ("=?base64?SGVsbG8=?=", Ok("Hello")),
            ("=?BASE64?SGVsbG8=?=", Ok("=?BASE64?SGVsbG8=?=")),
            ("=?base64?SGVsbG8=", Ok("=?base64?SGVsbG8=")),
            ("=?base64??=", Ok("")),
            ("=?base64?SGVsbG8?=", Err(())),
            ("=?base64?@@@@?=", Err(())),
            ("=?base64?/w==?=", Err(())),
        ] {
            let decoded = decode_value(value);
            assert_eq!(decoded.as_deref().map_err(|_| ()), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in ".*") {
            let encoded = encode_value(&value).into_owned();
            prop_assert!(encoded.bytes().all(|b| matches!(b, 0x20..=0x7e | b'\t')));
            let decoded = decode_value(&encoded).expect("decodes").into_owned();
            prop_assert_eq!(decoded, value);
        }
    }
}
