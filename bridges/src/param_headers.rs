//! Checks the `Mcp-Param-*` headers of a tool call against its arguments, as far as the tool's schema asks for them.

use axum::http::HeaderMap;
use bus_schema::{
    RpcError, ServerId, header,
    mcp::mirrored::{self, Mirrored},
};
use runtime::catalogue::Listed;
use serde_json::Value;

use crate::{
    front::{Endpoint, Front},
    request::Incoming,
};

/// Checks one call.
///
/// # Errors
/// A header-mismatch error when a header that the tool's schema asks for is missing, undecodable, or says something else.
pub(crate) async fn check(
    front: &Front,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    incoming: &Incoming,
) -> Result<(), RpcError> {
    let Some(name) = &incoming.name else { return Ok(()) };
    let (server, tool) = match endpoint {
        Endpoint::Server(id) => (id.clone(), name.value.as_str()),
        Endpoint::All => match ServerId::split_prefixed(&name.value) {
            Some(split) => split,
            None => return Ok(()),
        },
    };
    // A tool whose schema is not known is called without headers, as the protocol lets clients do.
    let Some(tools) = front.catalogue().list_soon(&server, Listed::Tools).await else {
        return Ok(());
    };
    let Some(tool) = tools.get(tool).filter(|tool| !tool.mirrored.is_empty()) else {
        return Ok(());
    };
    let arguments = incoming.arguments.clone().map(|place| &incoming.body[place]);
    let arguments: Value = arguments
        .and_then(|text| serde_json::from_slice(text).ok())
        .unwrap_or_default();
    tool.mirrored
        .iter()
        .try_for_each(|mirrored| compare(mirrored, headers, &arguments))
}

fn compare(mirrored: &Mirrored, headers: &HeaderMap, arguments: &Value) -> Result<(), RpcError> {
    let shown = format!("{}{}", header::PARAM_PREFIX, mirrored.name.to_ascii_lowercase());
    let argument = mirrored
        .path
        .iter()
        .try_fold(arguments, |value, key| value.get(key))
        .filter(|value| !value.is_null());
    let value = headers.get(&shown);
    let (value, argument) = match (value, argument) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(RpcError::header_mismatch(format!("header `{shown}` is missing"))),
        (Some(_), None) => {
            let path = mirrored.path.join(".");
            return Err(RpcError::header_mismatch(format!(
                "header `{shown}` is there, but argument `{path}` is not"
            )));
        }
        (Some(value), Some(argument)) => (value, argument),
    };
    let undecodable =
        |why: String| RpcError::header_mismatch(format!("header `{shown}` cannot be decoded: {why}"));
    let text = value
        .to_str()
        .map_err(|error| undecodable(error.to_string()))?
        .trim();
    let text = header::decode_value(text).map_err(|error| undecodable(error.to_string()))?;
    if mirrored::says_the_same(&text, argument) {
        return Ok(());
    }
    Err(RpcError::header_mismatch(format!(
        "header `{shown}` says `{text}`, but the argument is {argument}"
    )))
}
