//! The resource `server://version` of every server that is hosted here: which protocol versions, which SDK, which version of the
//! server, and which versions of its tools' schemas.
//!
//! It stands beside the handler's own resources, whether or not the handler has any. A tool may declare a version of its own with the
//! `_meta` key `io.trunkline/version`; its digest changes whenever its input or output schema does.

use bus_schema::{ProtocolVersion, mcp::method};
use rmcp::{
    ErrorData, RoleServer, ServerHandler, Service,
    model::{
        CacheScope, ClientRequest, ListToolsResult, ReadResourceResult, Resource, ResourceContents,
        ServerResult,
    },
    service::RequestContext,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::catalogue::MAX_PAGES;

/// Where it is read.
pub const VERSION_URI: &str = "server://version";
/// The `_meta` key by which a tool declares its version.
pub(super) const VERSION_KEY: &str = "io.trunkline/version";
const MEDIA_TYPE: &str = "application/json";
/// For how long a client may keep it. A tool that changes is announced as a changed list.
const TTL_MS: u64 = 60_000;

/// Handles a request as the handler does, with this resource beside the handler's own.
pub(super) async fn handle<H: ServerHandler>(
    handler: &H,
    request: ClientRequest,
    context: RequestContext<RoleServer>,
) -> Result<ServerResult, ErrorData> {
    let first_page = match &request {
        ClientRequest::ReadResourceRequest(read) if read.params.uri == VERSION_URI => {
            return read_version(handler, context)
                .await
                .map(ServerResult::ReadResourceResult);
        }
        ClientRequest::ListResourcesRequest(list) => {
            let cursor = list.params.as_ref().and_then(|params| params.cursor.as_deref());
            cursor.is_none_or(str::is_empty)
        }
        _ => false,
    };
    let mut result = handler.handle_request(request, context).await?;
    match &mut result {
        ServerResult::DiscoverResult(discovered) => {
            discovered.capabilities.resources.get_or_insert_default();
        }
        ServerResult::ListResourcesResult(list)
            if first_page && list.resources.iter().all(|other| other.uri != VERSION_URI) =>
        {
            list.resources.push(resource());
        }
        _ => {}
    }
    Ok(result)
}

fn resource() -> Resource {
    Resource::new(VERSION_URI, "version")
        .with_title("Version")
        .with_description("Protocol versions, SDK, server version, and a digest of each tool's schemas")
        .with_mime_type(MEDIA_TYPE)
}

async fn read_version<H: ServerHandler>(
    handler: &H,
    context: RequestContext<RoleServer>,
) -> Result<ReadResourceResult, ErrorData> {
    let versions: Vec<&str> = ProtocolVersion::ALL
        .iter()
        .map(|version| version.as_str())
        .collect();
    let info = handler.get_info();
    // What rmcp was built as; the program that hosts it has a version of its own.
    let sdk = rmcp::model::Implementation::from_build_env();
    let mut server = json!({ "name": info.server_info.name, "version": info.server_info.version });
    if let Some(title) = info.server_info.title {
        server["title"] = title.into();
    }
    let mut about = json!({
        "protocolVersions": versions,
        "sdk": { "name": sdk.name, "version": sdk.version },
        "server": server,
    });
    if info.capabilities.tools.is_some() {
        about["tools"] = tools(handler, &context).await?.into();
    }
    let contents = ResourceContents::text(about.to_string(), VERSION_URI).with_mime_type(MEDIA_TYPE);
    let mut result = ReadResourceResult::new(vec![contents]);
    // Who asks may decide which tools there are.
    result.cache_scope = Some(CacheScope::Private);
    result.ttl_ms = Some(TTL_MS);
    Ok(result)
}

/// Every tool with its versions, in the server's own order.
async fn tools<H: ServerHandler>(
    handler: &H,
    context: &RequestContext<RoleServer>,
) -> Result<Vec<Value>, ErrorData> {
    let mut all = Vec::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let page = page(handler, context, cursor).await?;
        for tool in page.tools {
            let tool = serde_json::to_value(tool)
                .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            all.push(versions(&tool));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(all)
}

async fn page<H: ServerHandler>(
    handler: &H,
    context: &RequestContext<RoleServer>,
    cursor: Option<String>,
) -> Result<ListToolsResult, ErrorData> {
    let mut params = Map::new();
    if let Some(cursor) = cursor {
        params.insert("cursor".to_owned(), cursor.into());
    }
    let request = json!({ "method": method::TOOLS_LIST, "params": params });
    let wrong =
        |why: String| ErrorData::internal_error(format!("the server does not list its tools: {why}"), None);
    let request: ClientRequest = serde_json::from_value(request).map_err(|error| wrong(error.to_string()))?;
    match handler.handle_request(request, context.clone()).await? {
        ServerResult::ListToolsResult(page) => Ok(page),
        _ => Err(wrong("its answer is no list".to_owned())),
    }
}

fn versions(tool: &Value) -> Value {
    let schemas = json!({ "inputSchema": tool.get("inputSchema"), "outputSchema": tool.get("outputSchema") });
    let digest: String = Sha256::digest(schemas.to_string())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut versions = json!({ "name": tool.get("name"), "schemaDigest": format!("sha256:{digest}") });
    if let Some(declared) = tool.get("_meta").and_then(|meta| meta.get(VERSION_KEY)) {
        versions["version"] = declared.clone();
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_schemas_alone() {
        let tool =
            json!({ "name": "a", "description": "x", "inputSchema": { "type": "object", "properties": {} } });
        let digest = |tool: &Value| versions(tool)["schemaDigest"].clone();
        let mut reworded = tool.clone();
        reworded["description"] = "y".into();
        assert_eq!(digest(&tool), digest(&reworded));
        let reordered = json!({ "inputSchema": { "properties": {}, "type": "object" }, "name": "a" });
        assert_eq!(digest(&tool), digest(&reordered));
        let mut other = tool.clone();
        other["outputSchema"] = json!({ "type": "object" });
        assert_ne!(digest(&tool), digest(&other));
        let declared = json!({ "name": "a", "inputSchema": {}, "_meta": { VERSION_KEY: "2.1" } });
        assert_eq!(versions(&declared)["version"], "2.1");
    }
}
