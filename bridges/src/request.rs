//! A client's message, read once: what doors check and route by, as places in the untouched text.

use std::ops::Range;

use bus_schema::{
    RpcError, TraceContext,
    mcp::{meta, method},
    rpc::{self, Kind, Message, Params},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A piece of a message's text, with its decoded value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The value.
    pub value: String,
    /// Where its JSON stands in the text.
    pub place: Range<usize>,
}

/// What a message's `_meta` says.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// The protocol version, when it is a string.
    pub protocol_version: Option<String>,
    /// Whether the client's capabilities are there and an object.
    pub has_capabilities: bool,
    /// Where the client's capabilities stand, if they are there.
    pub capabilities: Option<Range<usize>>,
    /// Whether any key of the modern era is there.
    pub is_modern: bool,
    /// Whether the client wants progress.
    pub wants_progress: bool,
    /// Whether the client's capabilities have the extension for tasks.
    pub declares_tasks: bool,
    /// The client's trace.
    pub trace: Option<TraceContext>,
}

/// One message of a client.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The text as it came.
    pub body: Bytes,
    /// What it is.
    pub kind: Kind,
    /// The id as spelled; absent on notifications.
    pub id: Option<String>,
    /// The method; empty on responses.
    pub method: String,
    /// The tool, prompt or resource that the method names.
    pub name: Option<Piece>,
    /// What a completion is for: a prompt's name or a resource's URI or template.
    pub reference: Option<Reference>,
    /// What `_meta` says.
    pub meta: Meta,
    /// Where the `params` object stands, if there is one.
    pub params: Option<Range<usize>>,
    /// Where the `_meta` object stands, if there is one.
    pub meta_place: Option<Range<usize>>,
    /// Where the `arguments` stand, if there are any.
    pub arguments: Option<Range<usize>>,
    /// Where a list goes on.
    pub cursor: Option<String>,
    /// Which request a cancellation means, as spelled.
    pub request_id: Option<String>,
    /// What a server gave the client to send back with this round of a call.
    pub request_state: Option<String>,
    /// Where the method's JSON stands, if it is spelled without escapes.
    pub method_place: Option<Range<usize>>,
}

/// What a completion is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A prompt by name.
    Prompt(Piece),
    /// A resource by URI or template.
    Resource(String),
}

/// A message that cannot be used, and the id that the error answers.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The id as spelled, where it could be read.
    pub id: Option<String>,
    /// What is wrong.
    pub error: RpcError,
}

impl Incoming {
    /// Reads one message.
    ///
    /// # Errors
    /// [`Refused`] when it is no JSON-RPC message, or a parameter that routing needs has the wrong type.
    pub fn read(body: Bytes) -> Result<Self, Refused> {
        let whole = body.clone();
        let message = Message::parse(&whole).map_err(|error| Refused { id: None, error })?;
        let id = message.id.map(RawValue::get);
        let refused = |error| Refused {
            id: usable_id(id),
            error,
        };
        let kind = message.kind().map_err(|error| Refused { id: None, error })?;
        let params = message.peek_params().map_err(refused)?;
        let place = |raw: &RawValue| place_in(&whole, raw);
        let method = message.method.as_deref().unwrap_or_default();
        Ok(Self {
            kind,
            id: id.map(str::to_owned),
            name: read_name(&whole, method, &params).map_err(refused)?,
            reference: read_reference(&whole, params.reference).map_err(refused)?,
            meta: read_meta(&whole, params.meta).map_err(refused)?,
            params: message.params.map(place),
            meta_place: params.meta.map(place),
            arguments: params.arguments.map(place),
            cursor: read_cursor(params.cursor).map_err(refused)?,
            request_id: params.request_id.map(|raw| raw.get().to_owned()),
            request_state: params
                .request_state
                .and_then(meta::as_text)
                .map(std::borrow::Cow::into_owned),
            method_place: message
                .method
                .as_deref()
                .and_then(|method| method_place(&whole, method)),
            method: method.to_owned(),
            body,
        })
    }

    /// The message with one piece exchanged for another JSON text.
    #[must_use]
    pub fn with_piece(&self, place: &Range<usize>, new: &str) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len() + new.len());
        out.extend_from_slice(&self.body[..place.start]);
        out.extend_from_slice(new.as_bytes());
        out.extend_from_slice(&self.body[place.end..]);
        out.into()
    }

    /// The message with further keys at the front of its `_meta`, which is made if it is not there. `keys` is JSON without braces.
    #[must_use]
    pub fn with_metadata(&self, keys: &str) -> Bytes {
        let insert = |at: usize, text: &str| {
            let empty = self.body[at..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
            let comma = if empty { "" } else { "," };
            self.with_piece(&(at..at), &format!("{text}{comma}"))
        };
        match (&self.meta_place, &self.params) {
            (Some(place), _) => insert(place.start + 1, keys),
            (None, Some(place)) => insert(place.start + 1, &format!(r#""_meta":{{{keys}}}"#)),
            (None, None) => {
                let brace = self
                    .body
                    .iter()
                    .position(|byte| *byte == b'{')
                    .unwrap_or_default();
                insert(brace + 1, &format!(r#""params":{{"_meta":{{{keys}}}}}"#))
            }
        }
    }

    /// The answer to this request with an error.
    #[must_use]
    pub fn error(&self, error: &RpcError) -> Bytes {
        rpc::error_response(self.id.as_deref(), error).into()
    }
}

fn usable_id(id: Option<&str>) -> Option<String> {
    id.filter(|id| id.starts_with(['"', '-']) || id.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

fn place_in(whole: &Bytes, raw: &RawValue) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - whole.as_ptr() as usize;
    start..start + raw.get().len()
}

/// The method with its quotes, when it is a slice of the text.
fn method_place(whole: &Bytes, method: &str) -> Option<Range<usize>> {
    let start = (method.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start + method.len() + 1;
    (end <= whole.len()).then_some(start.checked_sub(1)?..end)
}

fn read_name(whole: &Bytes, called: &str, params: &Params<'_>) -> Result<Option<Piece>, RpcError> {
    let Some(key) = method::name_key(called) else {
        return Ok(None);
    };
    let raw = match key {
        "uri" => params.uri,
        "taskId" => params.task_id,
        _ => params.name,
    };
    let raw = raw.ok_or_else(|| RpcError::invalid_params(format!("`{called}` needs `params.{key}`")))?;
    let value = meta::as_text(raw)
        .ok_or_else(|| RpcError::invalid_params(format!("`params.{key}` of `{called}` must be a string")))?;
    Ok(Some(Piece {
        value: value.into_owned(),
        place: place_in(whole, raw),
    }))
}

fn read_reference(whole: &Bytes, raw: Option<&RawValue>) -> Result<Option<Reference>, RpcError> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(borrow, default)]
        uri: Option<&'a RawValue>,
    }
    let Some(raw) = raw else { return Ok(None) };
    let wrong = || {
        RpcError::invalid_params(
            "`ref` must be {\"type\":\"ref/prompt\",\"name\":…} or {\"type\":\"ref/resource\",\"uri\":…}",
        )
    };
    let peek: Peek<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let text = |raw: Option<&RawValue>| {
        raw.and_then(meta::as_text)
            .map(std::borrow::Cow::into_owned)
            .ok_or_else(wrong)
    };
    match &*peek.kind {
        "ref/prompt" => {
            let value = text(peek.name)?;
            let place = peek.name.map(|raw| place_in(whole, raw)).ok_or_else(wrong)?;
            Ok(Some(Reference::Prompt(Piece { value, place })))
        }
        "ref/resource" => Ok(Some(Reference::Resource(text(peek.uri)?))),
        _ => Err(wrong()),
    }
}

fn read_meta(whole: &Bytes, raw: Option<&RawValue>) -> Result<Meta, RpcError> {
    let Some(raw) = raw else {
        return Ok(Meta::default());
    };
    if !meta::is_object(raw) {
        return Err(RpcError::invalid_params("`params._meta` must be an object"));
    }
    let peek: meta::RequestMeta<'_> = serde_json::from_str(raw.get())
        .map_err(|error| RpcError::invalid_params(format!("`params._meta`: {error}")))?;
    let text = |raw: Option<&RawValue>| raw.and_then(meta::as_text).map(std::borrow::Cow::into_owned);
    let trace_state = text(peek.trace_state);
    Ok(Meta {
        protocol_version: text(peek.protocol_version),
        has_capabilities: peek.client_capabilities.is_some_and(meta::is_object),
        capabilities: peek.client_capabilities.map(|raw| place_in(whole, raw)),
        is_modern: peek.protocol_version.is_some()
            || peek.client_capabilities.is_some()
            || peek.client_info.is_some(),
        wants_progress: peek.progress_token.is_some(),
        declares_tasks: peek.client_capabilities.is_some_and(declares_tasks),
        trace: text(peek.trace_parent)
            .and_then(|parent| TraceContext::parse(&parent, trace_state.as_deref())),
    })
}

/// Looks for the extension by its name before anything is taken apart, as nearly all clients have none.
fn declares_tasks(capabilities: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Peek {
        #[serde(default)]
        extensions: serde_json::Map<String, serde_json::Value>,
    }
    capabilities.get().contains(meta::TASKS_EXTENSION)
        && serde_json::from_str::<Peek>(capabilities.get())
            .is_ok_and(|peek| peek.extensions.contains_key(meta::TASKS_EXTENSION))
}

fn read_cursor(raw: Option<&RawValue>) -> Result<Option<String>, RpcError> {
    raw.map(|raw| {
        meta::as_text(raw)
            .map(std::borrow::Cow::into_owned)
            .ok_or_else(|| RpcError::invalid_params("`params.cursor` must be a string"))
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Incoming, Refused> {
        Incoming::read(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_call_is_read_without_touching_it() {
        let text = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x\u0041","arguments":{"n":1e400},"_meta":{"progressToken":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
        let incoming = read(text).expect("reads");
        assert_eq!(incoming.id.as_deref(), Some("\"a\""));
        let name = incoming.name.clone().expect("name");
        assert_eq!(
            (name.value.as_str(), &text[name.place.clone()]),
            ("xA", "\"x\\u0041\"")
        );
        assert_eq!(
            &text[incoming.arguments.clone().expect("arguments")],
            r#"{"n":1e400}"#
        );
        assert!(incoming.meta.is_modern && incoming.meta.has_capabilities && incoming.meta.wants_progress);
        assert_eq!(
            incoming.with_piece(&name.place, "\"y\""),
            text.replace("\"x\\u0041\"", "\"y\"").as_bytes()
        );
    }

    #[test]
    fn metadata_is_added_wherever_it_belongs() {
        for (text, expected) in [
            (
                r#"{"id":1,"method":"a","jsonrpc":"2.0"}"#,
                r#"{"params":{"_meta":{"k":1}},"id":1,"method":"a","jsonrpc":"2.0"}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{ }}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"k":1} }}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"k":1},"x":1}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"t":2}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"k":1,"t":2}}}"#,
            ),
        ] {
            assert_eq!(
                read(text).expect("reads").with_metadata(r#""k":1"#),
                expected.as_bytes()
            );
        }
    }

    #[test]
    fn what_routing_needs_is_checked_and_the_id_is_kept() {
        for (text, id) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
                Some("1"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#,
                Some("1"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
                Some("1"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":[]}}"#,
                Some("1"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":1}}"#,
                Some("1"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"x"}}}"#,
                Some("1"),
            ),
            (r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#, None),
            ("nonsense", None),
        ] {
            assert_eq!(read(text).expect_err(text).id.as_deref(), id, "{text}");
        }
    }
}
