//! How the servers of the platform are named to clients of its catalogue: the domain that their names begin with, and where they are.

use axum::http::{HeaderMap, Uri, header};

/// What names begin with on a platform that was given no domain. No public domain ends so.
const NAMESPACE: &str = "local.trunkline";

/// The names that the catalogue gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    namespace: String,
    /// Without a slash at its end.
    public_url: Option<String>,
}

/// Says what of the names cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNaming {
    /// The namespace is no reversed domain.
    #[error(
        "namespace is `{0}`; write a domain of yours from its end, such as com.example, in letters, digits, `.` and `-`"
    )]
    Namespace(String),
    /// The URL is none that clients can be sent to.
    #[error(
        "public_url is `{0}`; write where clients reach this platform, such as https://mcp.example.com, without a query"
    )]
    PublicUrl(String),
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            public_url: None,
        }
    }
}

impl Naming {
    /// Names under a namespace, at a URL; both have a default: `local.trunkline`, and the host that a client asks.
    ///
    /// # Errors
    /// [`BadNaming`] with what would be right.
    pub fn new(namespace: Option<&str>, public_url: Option<&str>) -> Result<Self, BadNaming> {
        let namespace = namespace.unwrap_or(NAMESPACE);
        let fits =
            |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if namespace.len() > 100 || !namespace.split('.').all(fits) {
            return Err(BadNaming::Namespace(namespace.to_owned()));
        }
        if let Some(url) = public_url {
            let parsed = url.parse::<Uri>().ok().filter(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.query().is_none()
                    && uri
                        .authority()
                        .is_some_and(|authority| !authority.as_str().contains('@'))
            });
            if parsed.is_none() || url.contains('#') {
                return Err(BadNaming::PublicUrl(url.to_owned()));
            }
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
        })
    }

    /// The name of a server that has none of its own.
    pub(super) fn name(&self, id: &str) -> String {
        format!("{}/{id}", self.namespace)
    }

    /// The id in a name that this platform gives.
    pub(super) fn id_in<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.namespace.as_str())?.strip_prefix('/')
    }

    /// Where a client that sends these headers finds the platform; `None` when it names no host, and none is configured.
    pub(super) fn base(&self, headers: &HeaderMap) -> Option<String> {
        if let Some(url) = &self.public_url {
            return Some(url.clone());
        }
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let authority: axum::http::uri::Authority = host.parse().ok()?;
        (!host.contains('@')).then(|| format!("http://{authority}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_name_is_told_with_what_would() {
        for (namespace, url, words) in [
            (Some("com..example"), None, "com.example"),
            (Some("com.example/x"), None, "com.example"),
            (Some(""), None, "com.example"),
            (None, Some("mcp.example.com"), "https://mcp.example.com"),
            (None, Some("https://a.example/?x=1"), "without a query"),
            (None, Some("https://me@a.example"), "https://mcp.example.com"),
            (None, Some("ftp://a.example"), "https://mcp.example.com"),
        ] {
            let error = Naming::new(namespace, url).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn clients_are_sent_where_they_came_to_unless_an_operator_says_otherwise() {
        let mut headers = HeaderMap::new();
        let (own, told) = (
            Naming::default(),
            Naming::new(Some("com.example"), Some("https://mcp.example.com/x/")).unwrap(),
        );
        assert_eq!(own.base(&headers), None);
        headers.insert(header::HOST, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(own.base(&headers).as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(told.base(&headers).as_deref(), Some("https://mcp.example.com/x"));
        assert_eq!(told.name("a"), "com.example/a");
        assert_eq!(told.id_in("com.example/a"), Some("a"));
        assert_eq!(told.id_in("com.examples/a"), None);
    }
}
