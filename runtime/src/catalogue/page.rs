//! Reads pages of servers' lists.

use std::{borrow::Cow, collections::HashMap};

use bus_schema::{
    RpcError,
    mcp::{meta, mirrored},
    rpc,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tracing::{debug, warn};

use super::{Item, Listed};
use crate::call::Retry;

impl Listed {
    /// By what an item is known: its name, its URI, or its template's text. `None` when that cannot be read, or stands twice.
    #[must_use]
    pub fn key_of(self, item: &RawValue) -> Option<Cow<'_, str>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Peek<'a> {
            #[serde(borrow, default)]
            name: Option<&'a RawValue>,
            #[serde(borrow, default)]
            uri: Option<&'a RawValue>,
            #[serde(borrow, default)]
            uri_template: Option<&'a RawValue>,
        }
        let peek: Peek<'_> = serde_json::from_str(item.get()).ok()?;
        meta::as_text(match self {
            Self::Tools | Self::Prompts => peek.name,
            Self::Resources => peek.uri,
            Self::Templates => peek.uri_template,
        }?)
    }
}

/// Adds a page's items, and gives the cursor of the next page. An item that has no key is left out, and the others stay.
pub(super) fn read_page(body: &[u8], key: &str, items: &mut Vec<Item>) -> Result<Option<String>, RpcError> {
    let message = rpc::Message::parse(body)?;
    if let Some(error) = message.error {
        let fallback = |_| RpcError::internal("the server answered with an error that cannot be read");
        return Err(serde_json::from_str(error.get()).unwrap_or_else(fallback));
    }
    let result = message
        .result
        .ok_or_else(|| RpcError::internal("the server's answer has no result"))?;
    let bad =
        |error: serde_json::Error| RpcError::internal(format!("the server's list cannot be read: {error}"));
    let fields: HashMap<String, &RawValue> = serde_json::from_str(result.get()).map_err(bad)?;
    let page: Vec<&RawValue> = fields
        .get(key)
        .map_or(Ok(Vec::new()), |raw| serde_json::from_str(raw.get()))
        .map_err(bad)?;
    for raw in page {
        match read_item(raw) {
            Some(item) => items.push(item),
            None => debug!("left out an item of a list that has no name"),
        }
    }
    Ok(fields
        .get("nextCursor")
        .and_then(|raw| meta::as_text(raw))
        .map(Cow::into_owned))
}

pub(super) fn read_item(raw: &RawValue) -> Option<Item> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, default, rename = "uri")]
        uri: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "uriTemplate")]
        uri_template: Option<&'a RawValue>,
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(default, deserialize_with = "lenient")]
        annotations: Annotations,
        #[serde(default, rename = "inputSchema")]
        input_schema: Value,
    }
    let peek: Peek<'_> = serde_json::from_str(raw.get()).ok()?;
    let key = meta::as_text(peek.uri.or(peek.uri_template).or(peek.name)?)?.into_owned();
    let mirrored = mirrored::mirrored(&peek.input_schema).unwrap_or_else(|error| {
        warn!(%error, tool.name = %key, "the tool's header annotations cannot be used");
        Vec::new()
    });
    let retry = match peek.annotations {
        Annotations {
            read_only_hint: true, ..
        } => Retry::Reads,
        Annotations {
            idempotent_hint: true,
            ..
        } => Retry::Safe,
        _ => Retry::Never,
    };
    Some(Item {
        key,
        json: raw.to_owned(),
        retry,
        mirrored,
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: bool,
    idempotent_hint: bool,
}

/// Annotations are hints of a server; malformed ones count as none.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}
