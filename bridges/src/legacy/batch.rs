//! Several messages in one array, as 2025-03-26 allows them and no other version does.
//!
//! A door splits an array with [`split`], takes each message as if it had come alone, and puts the answers together with [`join`].
//! Source: MCP 2025-03-26, base protocol, batching.

use std::{collections::HashSet, fmt};

use bus_schema::{
    ProtocolVersion, RpcError,
    mcp::{error, method},
    rpc::{Kind, Message},
};
use bytes::Bytes;
use serde::{
    Deserializer as _,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// How many messages one array may hold.
pub const MAX_MESSAGES: usize = 100;

/// The messages of an array, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Requests and notifications; each request wants an answer.
    Asking(Vec<Bytes>),
    /// Answers of the client to requests that it was sent.
    Answering(Vec<Bytes>),
}

/// Whether a body is an array, and so no single message.
#[must_use]
pub fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// Whether a session of this version may send arrays.
#[must_use]
pub fn is_allowed(version: ProtocolVersion) -> bool {
    version == ProtocolVersion::V2025_03_26
}

/// Takes an array apart; the messages share its memory.
///
/// # Errors
/// A parse error when the body is no JSON. An invalid-request error when it is no array, is empty or too long, holds anything but
/// requests and notifications or anything but responses, holds `initialize`, or uses one id for two requests.
pub fn split(body: &Bytes) -> Result<Batch, RpcError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let messages = reader
        .deserialize_seq(Bounded)
        .and_then(|messages| reader.end().map(|()| messages))
        .map_err(|error| match error.classify() {
            serde_json::error::Category::Data => invalid(error),
            _ => RpcError::new(error::PARSE, format!("the batch is not JSON: {error}")),
        })?;
    if messages.is_empty() {
        return Err(invalid("it is empty"));
    }
    let (mut answers, mut ids) = (0, HashSet::new());
    for (at, raw) in messages.iter().enumerate() {
        let kind = check(raw, &mut ids).map_err(|error| {
            let at = at + 1;
            RpcError::new(error.code, format!("message {at} of the batch: {error}"))
        })?;
        answers += usize::from(kind == Kind::Response);
    }
    let count = messages.len();
    let messages = messages
        .into_iter()
        .map(|raw| body.slice_ref(raw.get().as_bytes()))
        .collect();
    match answers {
        0 => Ok(Batch::Asking(messages)),
        all if all == count => Ok(Batch::Answering(messages)),
        _ => Err(invalid(
            "it mixes responses with requests; send each kind in a batch of its own",
        )),
    }
}

fn check<'a>(raw: &'a RawValue, ids: &mut HashSet<&'a str>) -> Result<Kind, RpcError> {
    let message = Message::parse(raw.get().as_bytes())?;
    let kind = message.kind()?;
    if kind == Kind::Request {
        if message.method.as_deref() == Some(method::INITIALIZE) {
            return Err(RpcError::invalid_request("`initialize` has to be sent alone"));
        }
        if let Some(id) = message.id
            && !ids.insert(id.get())
        {
            return Err(RpcError::invalid_request(format!("the id {id} is used twice")));
        }
    }
    Ok(kind)
}

fn invalid(why: impl fmt::Display) -> RpcError {
    RpcError::invalid_request(format!("the batch cannot be taken: {why}"))
}

/// Puts answers into one array. `None` when there is nothing to answer.
#[must_use]
pub fn join(answers: &[Bytes]) -> Option<Bytes> {
    if answers.is_empty() {
        return None;
    }
    let length: usize = answers.iter().map(|answer| answer.len() + 1).sum();
    let mut out = Vec::with_capacity(length + 1);
    for answer in answers {
        out.push(if out.is_empty() { b'[' } else { b',' });
        out.extend_from_slice(answer);
    }
    out.push(b']');
    Some(out.into())
}

/// Reads an array of whatever, up to [`MAX_MESSAGES`].
struct Bounded;

impl<'de> Visitor<'de> for Bounded {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut messages = Vec::new();
        while let Some(message) = array.next_element()? {
            if messages.len() == MAX_MESSAGES {
                return Err(A::Error::custom(format_args!(
                    "it holds more than {MAX_MESSAGES} messages"
                )));
            }
            messages.push(message);
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: &str = r#"{ "jsonrpc":"2.0","id":1,"method":"a","params":{"n":1e400}}"#;
    const NOTE: &str = r#"{"jsonrpc":"2.0","method":"b"}"#;
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":"d-1","result":{}}"#;

    #[test]
    fn an_array_falls_into_its_messages() {
        let body = Bytes::from(format!(" [{CALL} ,{NOTE}]\n"));
        assert!(is_batch(&body) && !is_batch(CALL.as_bytes()) && !is_batch(b""));
        let Ok(Batch::Asking(messages)) = split(&body) else {
            panic!("no batch of requests");
        };
        assert_eq!(messages, [CALL, NOTE]);
        assert!(body.as_ptr_range().contains(&messages[0].as_ptr()));
        let Ok(Batch::Answering(messages)) = split(&Bytes::from(format!("[{ANSWER},{ANSWER}]"))) else {
            panic!("no batch of answers");
        };
        assert_eq!(messages, [ANSWER, ANSWER]);
    }

    #[test]
    fn an_array_that_is_no_batch_is_refused_with_the_reason() {
        let many = format!("[{}]", vec![NOTE; MAX_MESSAGES + 1].join(","));
        for (body, code, word) in [
            ("[]", error::INVALID_REQUEST, "empty"),
            (&many, error::INVALID_REQUEST, "more than 100"),
            (&format!("[{CALL},{ANSWER}]"), error::INVALID_REQUEST, "mixes"),
            (&format!("[{CALL},{CALL}]"), error::INVALID_REQUEST, "message 2"),
            (
                r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#,
                error::INVALID_REQUEST,
                "alone",
            ),
            ("[7]", error::INVALID_REQUEST, "message 1"),
            ("[[]]", error::INVALID_REQUEST, "message 1"),
            (
                r#"[{"jsonrpc":"2.0","id":null,"method":"a"}]"#,
                error::INVALID_REQUEST,
                "id",
            ),
            (CALL, error::INVALID_REQUEST, "array"),
            ("[", error::PARSE, "JSON"),
            (&format!("[{NOTE}]]"), error::PARSE, "JSON"),
            ("[\u{0}]", error::PARSE, "JSON"),
        ] {
            let refusal = split(&Bytes::copy_from_slice(body.as_bytes())).expect_err(body);
            assert_eq!(refusal.code, code, "{body}");
            assert!(refusal.message.contains(word), "{refusal}");
        }
    }

    #[test]
    fn a_hundred_messages_are_taken() {
        let body = format!("[{}]", vec![NOTE; MAX_MESSAGES].join(","));
        assert!(matches!(split(&body.into()), Ok(Batch::Asking(all)) if all.len() == MAX_MESSAGES));
    }

    #[test]
    fn only_2025_03_26_has_batches() {
        let having: Vec<_> = ProtocolVersion::ALL
            .into_iter()
            .filter(|version| is_allowed(*version))
            .collect();
        assert_eq!(having, [ProtocolVersion::V2025_03_26]);
    }

    #[test]
    fn answers_are_put_together_and_no_answers_are_nothing() {
        assert_eq!(join(&[]), None);
        assert_eq!(join(&[Bytes::from(ANSWER)]).unwrap(), format!("[{ANSWER}]"));
        let two = join(&[Bytes::from(ANSWER), Bytes::from(CALL)]).unwrap();
        assert_eq!(two, format!("[{ANSWER},{CALL}]"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(&bytes.into());
        }

        #[test]
        fn what_is_split_joins_again(ids in prop::collection::hash_set(any::<u32>(), 1..20)) {
            let calls: Vec<Bytes> = ids
                .iter()
                .map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#).into())
                .collect();
            let body = join(&calls).unwrap();
            prop_assert_eq!(split(&body), Ok(Batch::Asking(calls)));
        }
    }
}
