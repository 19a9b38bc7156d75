//! A request to the client's model, as the client's version knows it.
//!
//! Tools, and messages of several blocks, came with 2025-11-25; audio with 2025-03-26.

use bus_schema::{
    ProtocolVersion, RpcError,
    edit::{Edits, Members, is_key},
    mcp::meta,
};
use serde_json::value::RawValue;

use super::{asking::Askable, content};

/// Makes of the parameters of `sampling/createMessage` those that a client of this version can use.
///
/// # Errors
/// An internal error when the server asks for what the client did not declare.
pub(super) fn fit(version: ProtocolVersion, askable: Askable, params: &str) -> Result<String, RpcError> {
    let members = Members::read(params).ok_or_else(|| unusable("its parameters are no object"))?;
    if !askable.sampling_tools && (has_tools(&members) || members.get("toolChoice").is_some()) {
        return Err(unusable(
            "it brings tools, which the client did not declare to use",
        ));
    }
    let mut edits = Edits::new(params.as_bytes());
    // Without a say, nothing of the client's context is included.
    edits.remove_where(&members, |key| {
        is_key(key, "task")
            || (!askable.sampling_context && is_key(key, "includeContext"))
            || (!askable.sampling_tools && is_key(key, "tools"))
    });
    if version < ProtocolVersion::V2025_11_25
        && let Some(messages) = members.get("messages")
    {
        let messages: Vec<&RawValue> =
            serde_json::from_str(messages.get()).map_err(|_| unusable("its messages are no array"))?;
        for message in messages {
            fit_message(version, message, &mut edits)?;
        }
    }
    String::from_utf8(edits.apply()).map_err(|_| unusable("its parameters are no text"))
}

fn has_tools(params: &Members<'_>) -> bool {
    let tools = params.get("tools").map(RawValue::get);
    tools.is_some_and(|tools| !tools[1..].trim_start().starts_with(']'))
}

/// A message of several blocks becomes several messages of the same speaker.
fn fit_message(version: ProtocolVersion, message: &RawValue, edits: &mut Edits<'_>) -> Result<(), RpcError> {
    let Some(content) = Members::of(message).and_then(|members| members.get("content")) else {
        return Ok(());
    };
    if !content.get().starts_with('[') {
        let block = fit_block(version, content)?;
        if block != content.get() {
            edits.replace(content.get(), block);
        }
        return Ok(());
    }
    let blocks: Vec<&RawValue> =
        serde_json::from_str(content.get()).map_err(|_| unusable("its messages cannot be read"))?;
    let mut messages = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut one = Edits::new(message.get().as_bytes());
        one.replace(content.get(), fit_block(version, block)?);
        messages.push(String::from_utf8_lossy(&one.apply()).into_owned());
    }
    if messages.is_empty() {
        return Err(unusable("one of its messages has no content"));
    }
    edits.replace(message.get(), messages.join(","));
    Ok(())
}

fn fit_block(version: ProtocolVersion, block: &RawValue) -> Result<String, RpcError> {
    let Some(members) = Members::of(block) else {
        return Ok(block.get().to_owned());
    };
    let kind = members.get("type").and_then(meta::as_text);
    if matches!(kind.as_deref(), Some("tool_use" | "tool_result")) {
        return Err(unusable(format!(
            "its messages tell of tools, which protocol version {version} has not"
        )));
    }
    let mut edits = Edits::new(block.get().as_bytes());
    content::fit(version, &members, &mut edits);
    Ok(String::from_utf8_lossy(&edits.apply()).into_owned())
}

fn unusable(why: impl std::fmt::Display) -> RpcError {
    RpcError::internal(format!(
        "the server's request to the client's model cannot be passed on: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion as V;

    const NOTHING: Askable = Askable {
        roots: false,
        sampling: true,
        sampling_tools: false,
        sampling_context: false,
        forms: false,
        urls: false,
    };
    const TOOLS: Askable = Askable {
        sampling_tools: true,
        sampling_context: true,
        ..NOTHING
    };

    #[test]
    fn a_request_keeps_what_the_client_can_use() {
        let several = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image","data":"","mimeType":"i"}],"_meta":{"k":1.0}},{"role":"assistant","content":{"type":"text","text":"b"}}],"maxTokens":1.0,"x":1e400}"#;
        let split = r#"{"messages":[{"role":"user","content":{"type":"text","text":"a"},"_meta":{"k":1.0}},{"role":"user","content":{"type":"image","data":"","mimeType":"i"},"_meta":{"k":1.0}},{"role":"assistant","content":{"type":"text","text":"b"}}],"maxTokens":1.0,"x":1e400}"#;
        let sound =
            r#"{"messages":[{"role":"user","content":{"type":"audio","data":"AA==","mimeType":"a/b"}}]}"#;
        let silent = r#"{"messages":[{"role":"user","content":{"type":"text","text":"An audio clip (a/b) is left out here: protocol version 2024-11-05 has no audio content.","mimeType":"a/b"}}]}"#;
        let context = r#"{"includeContext":"thisServer","messages":[],"tools":[ ],"task":{"ttl":1}}"#;
        for (version, askable, params, expected) in [
            (V::V2025_06_18, NOTHING, several, split),
            (V::V2025_11_25, NOTHING, several, several),
            (V::V2024_11_05, NOTHING, sound, silent),
            (V::V2025_03_26, NOTHING, sound, sound),
            (V::V2025_11_25, NOTHING, context, r#"{"messages":[]}"#),
            (
                V::V2025_11_25,
                TOOLS,
                r#"{"includeContext":"allServers","tools":[{"name":"t"}],"toolChoice":{},"task":{}}"#,
                r#"{"includeContext":"allServers","tools":[{"name":"t"}],"toolChoice":{}}"#,
            ),
        ] {
            assert_eq!(
                fit(version, askable, params).as_deref(),
                Ok(expected),
                "{version}"
            );
        }
    }

    #[test]
    fn what_the_client_cannot_do_is_an_error_that_says_so() {
        for (version, params, word) in [
            (V::V2025_11_25, r#"{"tools":[{"name":"t"}]}"#, "tools"),
            (V::V2025_11_25, r#"{"toolChoice":{"mode":"auto"}}"#, "tools"),
            (
                V::V2025_06_18,
                r#"{"messages":[{"role":"user","content":{"type":"tool_result"}}]}"#,
                "tools",
            ),
            (
                V::V2025_06_18,
                r#"{"messages":[{"role":"user","content":[{"type":"tool_use"}]}]}"#,
                "2025-06-18",
            ),
            (
                V::V2025_06_18,
                r#"{"messages":[{"role":"user","content":[]}]}"#,
                "content",
            ),
            (V::V2025_06_18, r#"{"messages":7}"#, "messages"),
            (V::V2025_06_18, "[]", "object"),
        ] {
            let error = fit(version, NOTHING, params).expect_err(params);
            assert!(error.message.contains(word), "{error}");
        }
    }
}
