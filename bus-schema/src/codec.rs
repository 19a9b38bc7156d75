//! JSON and MessagePack, chosen by content type; whoever asks in one is answered in the same.
//!
//! Envelopes are MessagePack maps by default and JSON for whoever wants to read along. The JSON-RPC message inside an
//! envelope is opaque bytes in both. Only the public plane, where a client may speak MessagePack itself, ever
//! transcodes a message.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The encoding of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/msgpack`.
    #[default]
    MessagePack,
}

/// Says why a payload could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The content type is neither of the two.
    #[error("content type `{0}` is not supported; use application/json or application/msgpack")]
    UnknownContentType(String),
    /// Not JSON, or JSON of another shape.
    #[error("the payload is not the JSON that was expected")]
    Json(#[source] serde_json::Error),
    /// Not MessagePack, or of another shape.
    #[error("the payload is not the MessagePack that was expected")]
    Decode(#[source] rmp_serde::decode::Error),
    /// A value that MessagePack cannot carry.
    #[error("the value cannot be written as MessagePack")]
    Encode(#[source] rmp_serde::encode::Error),
}

impl ContentType {
    /// Reads a `Content-Type` value; parameters such as `charset` are ignored.
    ///
    /// # Errors
    /// [`CodecError::UnknownContentType`] when it names anything else.
    pub fn parse(value: &str) -> Result<Self, CodecError> {
        let essence = value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Self::Json),
            "application/msgpack" | "application/vnd.msgpack" | "application/x-msgpack" => {
                Ok(Self::MessagePack)
            }
            _ => Err(CodecError::UnknownContentType(value.to_owned())),
        }
    }

    /// The registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MessagePack => "application/msgpack",
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`CodecError`] when the value cannot be written in this encoding.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Json => serde_json::to_vec(value).map_err(CodecError::Json),
            Self::MessagePack => rmp_serde::to_vec_named(value).map_err(CodecError::Encode),
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`CodecError`] when the payload is not a value of this shape in this encoding.
    pub fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, CodecError> {
        match self {
            Self::Json => serde_json::from_slice(payload).map_err(CodecError::Json),
            Self::MessagePack => rmp_serde::from_slice(payload).map_err(CodecError::Decode),
        }
    }

    /// Turns a client's message of this encoding into JSON text; JSON comes back as it is.
    ///
    /// # Errors
    /// [`CodecError`] when MessagePack is malformed or holds what JSON has no form for (binary, maps with keys other than strings).
    pub fn to_json(self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Json => Ok(payload.to_vec()),
            Self::MessagePack => {
                let value: Value = rmp_serde::from_slice(payload).map_err(CodecError::Decode)?;
                serde_json::to_vec(&value).map_err(CodecError::Json)
            }
        }
    }

    /// Turns JSON text into this encoding; JSON comes back as it is.
    ///
    /// # Errors
    /// [`CodecError`] when the text is not JSON.
    pub fn from_json(self, json: &[u8]) -> Result<Vec<u8>, CodecError> {
        match self {
            Self::Json => Ok(json.to_vec()),
            Self::MessagePack => {
                let value: Value = serde_json::from_slice(json).map_err(CodecError::Json)?;
                rmp_serde::to_vec_named(&value).map_err(CodecError::Encode)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_leniently_and_refused_by_name() {
        for (text, expected) in [
            ("application/json", ContentType::Json),
            ("Application/JSON; charset=utf-8", ContentType::Json),
            ("application/msgpack", ContentType::MessagePack),
            ("application/vnd.msgpack", ContentType::MessagePack),
        ] {
            assert_eq!(ContentType::parse(text).expect(text), expected);
        }
        let error = ContentType::parse("text/xml").expect_err("unknown").to_string();
        assert!(
            error.contains("text/xml") && error.contains("application/json"),
            "{error}"
        );
    }

    #[test]
    fn a_message_survives_the_way_through_messagepack() {
        let json = br#"{"id":1,"method":"ping","params":{"a":[1,2.5,null,true,"x"]}}"#;
        let packed = ContentType::MessagePack.from_json(json).expect("packed");
        let back = ContentType::MessagePack.to_json(&packed).expect("json");
        let (a, b): (Value, Value) = (
            serde_json::from_slice(json).expect("a"),
            serde_json::from_slice(&back).expect("b"),
        );
        assert_eq!(a, b);
    }

    #[test]
    fn binary_messagepack_is_refused_not_guessed() {
        assert!(ContentType::MessagePack.to_json(&[0xc4, 1, 7]).is_err());
    }
}
