//! What crosses the internal bus: one [`Request`] towards a host, [`Frame`]s back.
//!
//! Both are small maps around an opaque [`Body`]. Every field that was added after the first version has a default, so
//! that old and new processes understand each other during a rolling upgrade.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{principal::Principal, trace::TraceContext};

/// The largest body that travels in one message; a larger one is cut into chunks.
pub const INLINE_BYTES: usize = 256 * 1024;
/// The size of one chunk of a large body.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// The largest body at all.
pub const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// How many frames, or chunks, a sender may be ahead of its reader's last credit.
pub const WINDOW: u32 = 64;
/// After how many frames, or chunks, a reader grants new credit.
pub const CREDIT_EVERY: u32 = 16;

/// A call on its way to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The instance that asks.
    pub caller: String,
    /// The call's number, unique within the caller.
    pub call: u64,
    /// The server that is asked, by id.
    pub server: String,
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or resource URI that the method names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who asks.
    pub principal: Principal,
    /// The protocol version that the client at the door speaks.
    pub protocol_version: String,
    /// The door it came through, such as `http`.
    pub door: String,
    /// How long the caller will wait from now on, in milliseconds. A span and not a time, as clocks differ.
    pub timeout_ms: u64,
    /// The trace that this call is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The length of a body that follows in chunks; 0 when `body` holds all of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub chunked_bytes: u64,
    /// The JSON-RPC request as the client sent it.
    pub body: Body,
}

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameKind {
    /// The host works on the call; sent when no answer was ready at once, and again as a heartbeat.
    Accept,
    /// The host waits for the body's chunks.
    SendBody,
    /// The host has taken the body's chunks up to `seq`.
    Credit,
    /// A notification that belongs to the call.
    Part,
    /// The one answer.
    Final,
    /// The host has no free slot; the call has not begun.
    Busy,
}

/// One step of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// The instance that speaks.
    pub instance: String,
    /// Counts `Part` and `Final` frames from 0; on `Credit` the next chunk that is expected.
    #[serde(default)]
    pub seq: u32,
    /// The code, when the answer is a JSON-RPC error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// The body goes on in the next frame of this kind.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
    /// The JSON-RPC notification or response, or a piece of it.
    pub body: Body,
}

/// One piece of a large request body, or a reader's grant of credit: what a caller tells one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The instance that made the call.
    pub caller: String,
    /// The call's number.
    pub call: u64,
    /// On a chunk its number from 0; on credit the next frame that is expected.
    #[serde(default)]
    pub seq: u32,
    /// The piece of the body; empty on credit.
    #[serde(default)]
    pub body: Body,
}

/// Bytes that nobody on the way looks into.
///
/// MessagePack carries them as `bin`; JSON as a string where they are UTF-8 and as `{"base64": "…"}` where not.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Body(pub Bytes);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(&self.0);
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Base64Body {
                base64: encode_base64(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| bytes.into_vec().into());
        }
        match ReadableBody::deserialize(deserializer)? {
            ReadableBody::Text(text) => Ok(text.into_bytes().into()),
            ReadableBody::Binary(Base64Body { base64 }) => {
                decode_base64(&base64).map(Self::from).map_err(de::Error::custom)
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Base64Body {
    base64: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReadableBody {
    Text(String),
    Binary(Base64Body),
}

fn encode_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}
