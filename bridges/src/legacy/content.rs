//! Content blocks for clients whose version does not know their kind.
//!
//! Audio came with 2025-03-26, links to resources with 2025-06-18, icons with 2025-11-25. A block keeps its place, its other members
//! and its `_meta`: only what the client could not read becomes text.

use std::borrow::Cow;

use bus_schema::{
    ProtocolVersion,
    edit::{Edits, Members, is_key},
    mcp::meta,
    rpc,
};
use serde_json::value::RawValue;

/// Changes a content block into one that a client of this version can read.
pub(super) fn fit(version: ProtocolVersion, block: &Members<'_>, edits: &mut Edits<'_>) {
    let Some(kind) = block.get("type") else { return };
    match meta::as_text(kind).as_deref() {
        Some("resource_link") if version < ProtocolVersion::V2025_06_18 => {
            let gone = ["text", "title", "icons"];
            to_text(block, kind, &link_text(block), &gone, edits);
        }
        Some("resource_link") if version < ProtocolVersion::V2025_11_25 => edits.remove(block, "icons"),
        Some("audio") if version < ProtocolVersion::V2025_03_26 => {
            let text = audio_text(version, block);
            to_text(block, kind, &text, &["text", "data"], edits);
        }
        _ => {}
    }
}

/// Whether a client of this version may meet a content block that it cannot read.
pub(super) fn may_differ(version: ProtocolVersion) -> bool {
    version < ProtocolVersion::V2025_11_25
}

fn to_text(block: &Members<'_>, kind: &RawValue, text: &str, gone: &[&str], edits: &mut Edits<'_>) {
    edits.replace(kind.get(), format!(r#""text","text":{}"#, rpc::quote(text)));
    edits.remove_where(block, |key| gone.iter().any(|name| is_key(key, name)));
}

fn link_text(block: &Members<'_>) -> String {
    let member = |name| block.get(name).and_then(meta::as_text);
    let label = member("title").or_else(|| member("name"));
    let mut text = format!("{}: ", label.unwrap_or(Cow::Borrowed("resource")));
    text.push_str(&member("uri").unwrap_or_default());
    if let Some(kind) = member("mimeType") {
        text.push_str(&format!(" ({kind})"));
    }
    if let Some(description) = member("description") {
        text.push_str(&format!("\n{description}"));
    }
    text
}

fn audio_text(version: ProtocolVersion, block: &Members<'_>) -> String {
    let kind = block.get("mimeType").and_then(meta::as_text);
    format!(
        "An audio clip ({}) is left out here: protocol version {version} has no audio content.",
        kind.unwrap_or(Cow::Borrowed("of unknown type"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion as V;

    fn fitted(version: V, block: &str) -> String {
        let mut edits = Edits::new(block.as_bytes());
        fit(version, &Members::read(block).unwrap(), &mut edits);
        String::from_utf8(edits.apply()).unwrap()
    }

    #[test]
    fn links_and_sounds_become_text_where_they_are_not_known() {
        let link = r#"{ "type":"resource_link","uri":"a://b","name":"n","title":"T","mimeType":"x/y","description":"d\n","icons":[],"_meta":{"k":1.0},"z":1e400}"#;
        let linked = r#"{ "type":"text","text":"T: a://b (x/y)\nd\n","uri":"a://b","name":"n","mimeType":"x/y","description":"d\n","_meta":{"k":1.0},"z":1e400}"#;
        let sound = r#"{"data":"AAAA","mimeType":"audio/wav","annotations":{"priority":1.0},"type":"audio"}"#;
        let silent = r#"{"mimeType":"audio/wav","annotations":{"priority":1.0},"type":"text","text":"An audio clip (audio/wav) is left out here: protocol version 2024-11-05 has no audio content."}"#;
        let without_icons = link.replace(r#""icons":[],"#, "");
        for (version, block, expected) in [
            (V::V2024_11_05, link, linked),
            (V::V2025_03_26, link, linked),
            (V::V2025_06_18, link, without_icons.as_str()),
            (V::V2025_11_25, link, link),
            (V::V2024_11_05, sound, silent),
            (V::V2025_03_26, sound, sound),
            (V::V2025_11_25, sound, sound),
        ] {
            assert_eq!(fitted(version, block), expected, "{version}");
        }
    }

    #[test]
    fn every_other_block_stays() {
        for block in [
            r#"{"type":"text","text":"\ud800","data":1e400}"#,
            r#"{"type":"image","data":"AA==","mimeType":"image/png"}"#,
            r#"{"type":"resource","resource":{"uri":"ui://a","text":"","_meta":{"ui":{"csp":{}}}}}"#,
            r#"{"type":7}"#,
            "{}",
        ] {
            for version in V::ALL {
                assert_eq!(fitted(version, block), block);
            }
        }
    }
}
