//! Calls to servers that know nothing of tasks, as tasks: what goes out, and what came of it.
//!
//! A server that asks something is asked again with the answers, as the protocol has it: once all are there, the call is made anew.

use std::collections::BTreeMap;

use bus_schema::{
    Body,
    edit::{Edits, Members},
    mcp::meta,
    rpc::{Message, quote},
    task::{Asked, IDEMPOTENCY_KEY},
};
use bytes::Bytes;

/// The step under which a server's own state is kept until its question is answered.
pub const STATE: &str = "request-state";

const META: &str = "_meta";
const RESPONSES: &str = "inputResponses";
const REQUEST_STATE: &str = "requestState";

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Its result, as JSON.
    Result(Bytes),
    /// An error, as JSON.
    Error(Bytes),
    /// The server asks its client.
    Asks {
        /// Each request, as JSON, by a key that the task has not used.
        requests: BTreeMap<String, Body>,
        /// What the server wants back with the answers, as JSON; `null` when nothing.
        state: String,
    },
    /// It is no response.
    Unreadable,
}

/// Reads what came of a call. `round` counts how often the task has waited, so that keys are used once.
#[must_use]
pub fn came(response: &[u8], round: u32) -> Came {
    let Ok(message) = Message::parse(response) else {
        return Came::Unreadable;
    };
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match (message.result, message.error) {
        (None, Some(error)) => Came::Error(bytes(error.get())),
        (Some(result), None) => {
            let members = Members::of(result).unwrap_or_default();
            let kind = members.get("resultType").and_then(meta::as_text);
            if kind.as_deref() != Some("input_required") {
                return Came::Result(bytes(result.get()));
            }
            let requests = members
                .get("inputRequests")
                .and_then(Members::of)
                .unwrap_or_default();
            let requests = requests.iter().filter_map(|(key, request)| {
                let key = meta::as_text(key)?;
                Some((format!("{round}.{key}"), Body(bytes(request.get()))))
            });
            let state = members.get(REQUEST_STATE).map_or("null", |state| state.get());
            Came::Asks {
                requests: requests.collect(),
                state: state.to_owned(),
            }
        }
        _ => Came::Unreadable,
    }
}

/// The call as it goes out: with its idempotency key, and with the answers of the last round and the server's state if it had asked.
/// `None` when the body is no call.
#[must_use]
pub fn outgoing(
    body: &[u8],
    key: &str,
    asked: &BTreeMap<String, Asked>,
    state: Option<&str>,
) -> Option<Bytes> {
    let message = Message::parse(body).ok()?;
    let params = message.params?;
    let members = Members::of(params)?;
    let mut edits = Edits::new(body);
    let known = format!("{}:{}", quote(IDEMPOTENCY_KEY), quote(key));
    let mut first = Vec::new();
    match members.get(META) {
        Some(meta) => edits.insert_first(meta.get(), &known),
        None => first.push(format!("{}:{{{known}}}", quote(META))),
    }
    let round = asked
        .keys()
        .filter_map(|key| key.split_once('.')?.0.parse::<u32>().ok())
        .max();
    if let Some(round) = round {
        let answers: Vec<String> = asked
            .iter()
            .filter_map(|(key, asked)| {
                let (of, own) = key.split_once('.')?;
                let answer = asked.answer.as_ref().filter(|_| of.parse() == Ok(round))?;
                Some(format!("{}:{}", quote(own), String::from_utf8_lossy(&answer.0)))
            })
            .collect();
        edits.remove(&members, RESPONSES);
        edits.remove(&members, REQUEST_STATE);
        first.push(format!("{}:{{{}}}", quote(RESPONSES), answers.join(",")));
        if let Some(state) = state.filter(|state| *state != "null") {
            first.push(format!("{}:{state}", quote(REQUEST_STATE)));
        }
    }
    if !first.is_empty() {
        edits.insert_first(params.get(), &first.join(","));
    }
    Some(edits.apply().into())
}

/// What a notification of progress says: for people, and how far it is from 0 to 1, if a total is known.
#[must_use]
pub fn progress(notification: &Message<'_>) -> Option<(Option<String>, Option<f64>)> {
    #[derive(serde::Deserialize)]
    struct Progress {
        progress: f64,
        total: Option<f64>,
        message: Option<String>,
    }
    let params = notification.params?;
    let told: Progress = serde_json::from_str(params.get()).ok()?;
    let fraction = told
        .total
        .filter(|total| *total > 0.0)
        .map(|total| told.progress / total);
    Some((told.message, fraction.map(|fraction| fraction.clamp(0.0, 1.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_call_is_told_apart_and_keeps_its_spelling() {
        let result = br#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"n":1.00}}"#;
        assert_eq!(came(result, 0), Came::Result(r#"{"content":[],"n":1.00}"#.into()));
        let error = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}"#;
        assert_eq!(came(error, 0), Came::Error(r#"{"code":-1,"message":"m"}"#.into()));
        let asks = br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}},"requestState":"s"}}"#;
        let Came::Asks { requests, state } = came(asks, 2) else {
            panic!("it asks");
        };
        assert_eq!(state, r#""s""#);
        assert_eq!(requests["2.a"].0, r#"{"method":"roots/list"}"#);
        assert_eq!(came(b"no", 0), Came::Unreadable);
    }

    #[test]
    fn a_call_goes_out_with_its_key_and_the_answers_of_the_last_round() {
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","arguments":{"x":1e400},"_meta":{"a":1}}}"#;
        let plain = outgoing(body, "t:1", &BTreeMap::new(), None).expect("a call");
        assert_eq!(
            std::str::from_utf8(&plain).unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","arguments":{"x":1e400},"_meta":{"io.trunkline/idempotency-key":"t:1","a":1}}}"#
        );
        let asked = |answer: &str| Asked {
            request: Body::default(),
            answer: Some(Body(Bytes::copy_from_slice(answer.as_bytes()))),
        };
        let all = BTreeMap::from([("1.a".to_owned(), asked("1")), ("2.b".to_owned(), asked("2"))]);
        let again = outgoing(body, "t:2", &all, Some(r#""s""#)).expect("a call");
        let text = std::str::from_utf8(&again).unwrap();
        assert!(
            text.contains(r#""params":{"inputResponses":{"b":2},"requestState":"s","name":"n""#),
            "{text}"
        );
        serde_json::from_str::<serde_json::Value>(&text.replace("1e400", "1")).expect("JSON");
        assert_eq!(outgoing(b"[]", "k", &all, None), None);
    }
}
