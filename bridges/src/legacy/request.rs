//! Requests without the parameters that their reader's version does not know.

use bus_schema::{
    ProtocolVersion,
    edit::{Edits, Members},
    mcp::method,
    rpc::Message,
};
use bytes::Bytes;

/// A request from the bus, as a server of this version may get it.
///
/// Only a server that was asked for a task may read the wish for one, and its answer has another shape; whoever asks for tasks adds
/// the wish to what this gives. What else is known of an argument that is to be completed came with 2025-06-18.
#[must_use]
pub fn for_server(version: ProtocolVersion, called: &str, request: &Bytes) -> Bytes {
    match called {
        method::TOOLS_CALL if version == ProtocolVersion::V2025_11_25 => without(request, "task"),
        method::COMPLETE if version < ProtocolVersion::V2025_06_18 => without(request, "context"),
        _ => request.clone(),
    }
}

/// The request without that parameter.
pub(super) fn without(request: &Bytes, name: &str) -> Bytes {
    // Nearly no request has it, and this is told sooner than a long one is read.
    if !std::str::from_utf8(request).is_ok_and(|text| text.contains(name)) {
        return request.clone();
    }
    let params = Message::parse(request).ok().and_then(|message| message.params);
    let Some(params) = params.and_then(Members::of) else {
        return request.clone();
    };
    let mut edits = Edits::new(request);
    edits.remove(&params, name);
    if edits.is_empty() {
        request.clone()
    } else {
        edits.apply().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion as V;

    #[test]
    fn a_server_gets_what_its_version_knows() {
        let request =
            |params: &str| Bytes::from(format!(r#"{{"id":1.0,"params":{params},"jsonrpc":"2.0"}}"#));
        let call = r#"{ "name":"task","task":{"ttl":1},"arguments":{"task":1e400}}"#;
        let bare = r#"{ "name":"task","arguments":{"task":1e400}}"#;
        let completion = r#"{"ref":{},"argument":{},"context":{"arguments":{}}}"#;
        let older = r#"{"ref":{},"argument":{}}"#;
        for (version, called, params, expected) in [
            (V::V2025_11_25, method::TOOLS_CALL, call, bare),
            (V::V2025_11_25, method::TOOLS_CALL, bare, bare),
            (V::V2025_06_18, method::TOOLS_CALL, call, call),
            (V::V2026_07_28, method::TOOLS_CALL, call, call),
            (V::V2025_11_25, method::PROMPTS_GET, call, call),
            (V::V2024_11_05, method::COMPLETE, completion, older),
            (V::V2025_03_26, method::COMPLETE, completion, older),
            (V::V2025_06_18, method::COMPLETE, completion, completion),
            (V::V2026_07_28, method::COMPLETE, completion, completion),
        ] {
            let sent = for_server(version, called, &request(params));
            assert_eq!(sent, request(expected), "{version} {called}");
        }
        for garbage in ["task", "[\"task\"]", ""] {
            let garbage = Bytes::from(garbage);
            assert_eq!(for_server(V::V2025_11_25, method::TOOLS_CALL, &garbage), garbage);
        }
    }
}
