//! A borrowed look at a JSON-RPC message: what is needed to route it, while the rest stays bytes.
//!
//! Nothing is ever parsed and written again: where a name must change, [`splice`] exchanges that piece of the text.
//! Number spelling, key order and unknown fields survive.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::mcp::{RpcError, error};

/// One JSON-RPC message, not yet judged.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// Must be `"2.0"`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub jsonrpc: Option<Cow<'a, str>>,
    /// The id as spelled; `null` is present, absent is `None`.
    #[serde(borrow, default, deserialize_with = "present")]
    pub id: Option<&'a RawValue>,
    /// The method of a request or notification.
    #[serde(borrow, default, deserialize_with = "text")]
    pub method: Option<Cow<'a, str>>,
    /// The parameters as spelled.
    #[serde(borrow, default, deserialize_with = "present")]
    pub params: Option<&'a RawValue>,
    /// The result of a response, as spelled.
    #[serde(borrow, default, deserialize_with = "present")]
    pub result: Option<&'a RawValue>,
    /// The error of a response, as spelled.
    #[serde(borrow, default, deserialize_with = "present")]
    pub error: Option<&'a RawValue>,
}

/// What a message turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has an id and a method.
    Request,
    /// It has a method and no id.
    Notification,
    /// It has an id and a result or an error.
    Response,
}

/// What routing reads of a request's parameters; values of the wrong type are found by whoever uses them.
#[derive(Debug, Default, Deserialize)]
pub struct Params<'a> {
    /// The metadata object.
    #[serde(borrow, default, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
    /// A tool or prompt.
    #[serde(borrow, default)]
    pub name: Option<&'a RawValue>,
    /// A task.
    #[serde(borrow, default, rename = "taskId")]
    pub task_id: Option<&'a RawValue>,
    /// A resource.
    #[serde(borrow, default)]
    pub uri: Option<&'a RawValue>,
    /// What `completion/complete` completes for.
    #[serde(borrow, default, rename = "ref")]
    pub reference: Option<&'a RawValue>,
    /// A tool's or prompt's arguments.
    #[serde(borrow, default)]
    pub arguments: Option<&'a RawValue>,
    /// Where a list goes on.
    #[serde(borrow, default)]
    pub cursor: Option<&'a RawValue>,
    /// Which request a cancellation means.
    #[serde(borrow, default, rename = "requestId")]
    pub request_id: Option<&'a RawValue>,
    /// What a server gave the client to send back with the next round of a call.
    #[serde(borrow, default, rename = "requestState")]
    pub request_state: Option<&'a RawValue>,
    /// The client's answers to what a server asked in the last round.
    #[serde(borrow, default, rename = "inputResponses")]
    pub input_responses: Option<&'a RawValue>,
    /// What a client wants to be told of.
    #[serde(borrow, default)]
    pub notifications: Option<&'a RawValue>,
    /// Which request a progress notification belongs to.
    #[serde(borrow, default, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
}

/// Borrows a text that is spelled without escapes; serde copies every one inside an `Option`.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Option::<Text<'de>>::deserialize(deserializer).map(|text| text.map(|text| text.0))
}

/// Keeps a JSON `null` apart from an absent key.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Message<'a> {
    /// Reads one message.
    ///
    /// # Errors
    /// A parse error when the text is not UTF-8 JSON; an invalid-request error when it is JSON but no single JSON-RPC 2.0 object.
    pub fn parse(body: &'a [u8]) -> Result<Self, RpcError> {
        let parse_error = |why: String| RpcError::new(error::PARSE, format!("the body is not JSON: {why}"));
        let text = std::str::from_utf8(body).map_err(|e| parse_error(e.to_string()))?;
        match text
            .trim_start_matches([' ', '\t', '\r', '\n'])
            .as_bytes()
            .first()
        {
            Some(b'{') => {}
            Some(b'[') => {
                let whole: Result<&RawValue, _> = serde_json::from_str(text);
                return Err(match whole {
                    Ok(_) => {
                        RpcError::invalid_request("batches are not accepted; send one message at a time")
                    }
                    Err(e) => parse_error(e.to_string()),
                });
            }
            _ => {
                let whole: Result<&RawValue, _> = serde_json::from_str(text);
                return Err(match whole {
                    Ok(_) => RpcError::invalid_request("a JSON-RPC message is an object"),
                    Err(e) => parse_error(e.to_string()),
                });
            }
        }
        let message: Self = serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => {
                RpcError::invalid_request(format!("not a JSON-RPC message: {e}"))
            }
            _ => parse_error(e.to_string()),
        })?;
        if message.jsonrpc.as_deref() != Some("2.0") {
            return Err(RpcError::invalid_request("`jsonrpc` must be \"2.0\""));
        }
        Ok(message)
    }

    /// Tells what the message is.
    ///
    /// # Errors
    /// An invalid-request error when it is none of the three, or its id is neither a string nor a number.
    pub fn kind(&self) -> Result<Kind, RpcError> {
        let id_is_usable = self
            .id
            .is_none_or(|id| matches!(id.get().as_bytes()[0], b'"' | b'-' | b'0'..=b'9'));
        let answers = self.result.is_some() || self.error.is_some();
        match (self.method.is_some(), self.id.is_some(), answers) {
            (true, _, false) | (false, true, true) if !id_is_usable => {
                Err(RpcError::invalid_request("`id` must be a string or a number"))
            }
            (true, true, false) => Ok(Kind::Request),
            (true, false, false) => Ok(Kind::Notification),
            (false, true, true) => Ok(Kind::Response),
            _ => Err(RpcError::invalid_request(
                "the message is no request, notification or response",
            )),
        }
    }

    /// Looks into the parameters; absent ones read as empty.
    ///
    /// # Errors
    /// An invalid-params error when `params` is not an object, or names a key twice.
    pub fn peek_params(&self) -> Result<Params<'a>, RpcError> {
        let Some(params) = self.params else {
            return Ok(Params::default());
        };
        if !params.get().starts_with('{') {
            return Err(RpcError::invalid_params("`params` must be an object"));
        }
        serde_json::from_str(params.get()).map_err(|e| RpcError::invalid_params(format!("`params`: {e}")))
    }
}

/// Exchanges one piece of a text for another. `piece` must be a slice of `whole`, as the fields of [`Message`] are.
///
/// # Panics
/// When `piece` lies outside `whole`, which is a fault of the code and never of a message.
#[must_use]
pub fn splice(whole: &[u8], piece: &str, new: &str) -> Vec<u8> {
    let start = (piece.as_ptr() as usize)
        .checked_sub(whole.as_ptr() as usize)
        .filter(|start| start + piece.len() <= whole.len())
        .expect("the piece was cut from the whole");
    let mut out = Vec::with_capacity(whole.len() - piece.len() + new.len());
    out.extend_from_slice(&whole[..start]);
    out.extend_from_slice(new.as_bytes());
    out.extend_from_slice(&whole[start + piece.len()..]);
    out
}

/// Spells a JSON string.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes a response around a result that is JSON already.
#[must_use]
pub fn result_response(id: &str, result: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(result.len() + id.len() + 40);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(result);
    out.push(b'}');
    out
}

/// Writes an error response; without an id where the request's could not be read.
#[must_use]
pub fn error_response(id: Option<&str>, error: &RpcError) -> Vec<u8> {
    let error = serde_json::to_string(error).expect("an error object is always JSON");
    match id {
        Some(id) => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#),
    }
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_told_by_its_members() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, Ok(Kind::Request)),
            (
                r#"{"jsonrpc":"2.0","id":"x","method":"a","params":{}}"#,
                Ok(Kind::Request),
            ),
            (r#"{"jsonrpc":"2.0","method":"a"}"#, Ok(Kind::Notification)),
            (r#"{"jsonrpc":"2.0","id":-1,"result":null}"#, Ok(Kind::Response)),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
                Err(error::INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#,
                Err(error::INVALID_REQUEST),
            ),
            (r#"{"jsonrpc":"2.0","id":1}"#, Err(error::INVALID_REQUEST)),
            (
                r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
                Err(error::INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
                Err(error::INVALID_REQUEST),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
                Err(error::INVALID_REQUEST),
            ),
            (
                r#"[{"jsonrpc":"2.0","id":1,"method":"a"}]"#,
                Err(error::INVALID_REQUEST),
            ),
            ("7", Err(error::INVALID_REQUEST)),
            ("", Err(error::PARSE)),
            ("{", Err(error::PARSE)),
            ("{]", Err(error::PARSE)),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a"} x"#, Err(error::PARSE)),
        ] {
            let kind = Message::parse(text.as_bytes())
                .and_then(|m| m.kind())
                .map_err(|e| e.code);
            assert_eq!(kind, expected, "{text}");
        }
        assert_eq!(
            Message::parse(b"\xff{}").map_err(|e| e.code).err(),
            Some(error::PARSE)
        );
    }

    #[test]
    fn deep_nesting_is_carried_without_a_crash() {
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{}1{}}}}}"#,
            "[".repeat(200_000),
            "]".repeat(200_000)
        );
        let outcome = Message::parse(deep.as_bytes()).and_then(|m| m.peek_params().map(|_| ()));
        assert!(outcome.is_ok() || outcome.is_err_and(|e| e.code == error::PARSE));
    }

    #[test]
    fn a_name_changes_and_every_other_byte_stays() {
        let body = br#"{ "jsonrpc":"2.0","id":7.0,"params":{"x":1e400,"name":"a__b","y":12345678901234567890123},"method":"tools/call"}"#;
        let message = Message::parse(body).expect("message");
        let name = message.peek_params().expect("params").name.expect("name").get();
        let spliced = splice(body, name, &quote("b"));
        assert_eq!(
            std::str::from_utf8(&spliced).expect("text"),
            r#"{ "jsonrpc":"2.0","id":7.0,"params":{"x":1e400,"name":"b","y":12345678901234567890123},"method":"tools/call"}"#
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::parse(&bytes) {
                let _ = message.kind();
                let _ = message.peek_params();
            }
        }

        #[test]
        fn an_answer_reads_back(id in "[1-9][0-9]{0,8}", text in ".*") {
            let body = result_response(&id, quote(&text).as_bytes());
            let message = Message::parse(&body).expect("message");
            prop_assert_eq!(message.kind(), Ok(Kind::Response));
            prop_assert_eq!(message.id.expect("id").get(), id.as_str());
            prop_assert_eq!(message.result.expect("result").get(), quote(&text));
        }
    }
}
