//! What the platform is called by those who make tokens for it: one resource for each endpoint, and a document about each.
//!
//! Source: RFC 9728 (protected resource metadata), RFC 8707 (resource indicators).

use bus_schema::{ServerId, policy::Scope};
use serde_json::{Value, json};
use url::Url;

/// Where the documents are, before the path of the resource.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// What the resources are called for people.
const NAME: &str = "Trunkline";

/// The platform's own URLs.
pub(super) struct Resources {
    /// Scheme and authority.
    origin: String,
    /// The path under which the platform stands there; empty, or with a slash before and none behind.
    prefix: String,
}

impl Resources {
    pub(super) fn new(public: &Url) -> Self {
        Self {
            origin: public.origin().ascii_serialization(),
            prefix: public.path().trim_end_matches('/').to_owned(),
        }
    }

    /// The resource of an endpoint by its path; of the whole platform for an empty one.
    pub(super) fn uri(&self, path: &str) -> String {
        format!("{}{}{path}", self.origin, self.prefix)
    }

    /// Where the document about a resource is.
    pub(super) fn metadata_url(&self, path: &str) -> String {
        format!("{}{WELL_KNOWN}{}{path}", self.origin, self.prefix)
    }

    /// The path of the resource that a document is asked for, whether or not a proxy has taken the prefix away; `None` for what is no
    /// resource of the platform.
    pub(super) fn described(&self, asked: &str) -> Option<String> {
        let path = asked.trim_end_matches('/');
        if path.is_empty() || path == self.prefix {
            return Some(String::new());
        }
        let inside = path.strip_prefix(&self.prefix).and_then(endpoint);
        inside.or_else(|| endpoint(path))
    }
}

/// The document about a resource.
pub(super) fn document(resource: &str, issuers: &[&str], scopes: &[Scope]) -> Value {
    let mut document = json!({
        "resource": resource,
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
        "resource_name": NAME,
    });
    if !scopes.is_empty() {
        document["scopes_supported"] = scopes.iter().map(Scope::as_str).collect();
    }
    document
}

/// The endpoint that a request's path belongs to; `None` for what is no endpoint, and so for an id that no server can have.
pub(crate) fn endpoint(path: &str) -> Option<String> {
    let (server, rest) = match path.strip_prefix("/servers/") {
        Some(rest) => {
            let (id, rest) = rest.split_once('/')?;
            (format!("/servers/{}", id.parse::<ServerId>().ok()?), rest)
        }
        None => (String::new(), path.strip_prefix('/')?),
    };
    match rest.split_once('/') {
        None if matches!(rest, "mcp" | "ws" | "sse") => Some(format!("{server}/{rest}")),
        // Another view of the same resource.
        Some((transport @ ("mcp" | "ws"), "all" | "search")) if server.is_empty() => {
            Some(format!("/{transport}"))
        }
        // What is posted there belongs to the stream.
        Some(("messages", channel)) if !channel.contains('/') => Some(format!("{server}/sse")),
        _ => None,
    }
}

/// A resource in one spelling: scheme and host in lower case, no usual port, no slash at the end, no fragment. What is no URL stays.
pub(super) fn canonical(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.has_host() => {
            url.set_fragment(None);
            url.as_str().trim_end_matches('/').to_owned()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_is_a_resource_and_nothing_else_is() {
        for (path, expected) in [
            ("/mcp", Some("/mcp")),
            ("/ws", Some("/ws")),
            ("/sse", Some("/sse")),
            ("/messages/a.b", Some("/sse")),
            ("/servers/products/mcp", Some("/servers/products/mcp")),
            ("/servers/products/messages/x", Some("/servers/products/sse")),
            ("/servers/pro%64ucts/mcp", None),
            ("/servers/\"/mcp", None),
            ("/servers//mcp", None),
            ("/servers/products", None),
            ("/mcp/", None),
            ("/healthz", None),
            ("", None),
        ] {
            assert_eq!(endpoint(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_document_stands_between_the_host_and_the_path() {
        let plain = Resources::new(&Url::parse("https://MCP.example.com:443/").expect("a URL"));
        assert_eq!(plain.uri("/mcp"), "https://mcp.example.com/mcp");
        let metadata = plain.metadata_url("/mcp");
        assert_eq!(metadata, format!("https://mcp.example.com{WELL_KNOWN}/mcp"));
        let below = Resources::new(&Url::parse("https://example.com/gateway/").expect("a URL"));
        assert_eq!(below.uri("/mcp"), "https://example.com/gateway/mcp");
        let metadata = below.metadata_url("/mcp");
        assert_eq!(metadata, format!("https://example.com{WELL_KNOWN}/gateway/mcp"));
        for (asked, expected) in [
            ("", Some("")),
            ("/", Some("")),
            ("/gateway", Some("")),
            ("/gateway/mcp", Some("/mcp")),
            ("/mcp", Some("/mcp")),
            ("/gateway/servers/a/ws", Some("/servers/a/ws")),
            ("/other", None),
        ] {
            assert_eq!(below.described(asked).as_deref(), expected, "{asked}");
        }
    }

    #[test]
    fn a_resource_has_one_spelling() {
        for (given, expected) in [
            ("HTTPS://Mcp.Example.COM/mcp", "https://mcp.example.com/mcp"),
            ("https://mcp.example.com:443/mcp/", "https://mcp.example.com/mcp"),
            ("https://mcp.example.com/", "https://mcp.example.com"),
            ("https://mcp.example.com/mcp#x", "https://mcp.example.com/mcp"),
            ("https://mcp.example.com/MCP", "https://mcp.example.com/MCP"),
            ("trunkline", "trunkline"),
            ("urn:trunkline", "urn:trunkline"),
        ] {
            assert_eq!(canonical(given), expected, "{given}");
        }
    }
}
