//! Who may send requests from where: the guard against DNS rebinding.
//!
//! A page of a foreign site must not reach a platform on the visitor's own machine, so a browser's `Origin`, and on loopback
//! also `Host`, must be one that is expected here.

use std::collections::HashSet;

use axum::http::{HeaderMap, Uri, header};

/// The hosts and origins that are served.
#[derive(Debug)]
pub struct Allowed {
    /// Bound to loopback: only loopback names can be the right `Host`.
    loopback_only: bool,
    /// Further host names, without ports, lower case.
    hosts: HashSet<String>,
}

/// Says that a configured name is neither a host nor an origin.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` in allowed_hosts is neither a host name (such as mcp.example.com) nor an origin (such as https://app.example.com)"
)]
pub struct BadOrigin(String);

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("origin `{0}` is not allowed here; add its host to allowed_hosts if it should be")]
    Origin(String),
    #[error("host `{0}` is not served here; add it to allowed_hosts if it should be")]
    Host(String),
}

impl Allowed {
    /// The guard for a listener.
    ///
    /// # Errors
    /// [`BadOrigin`] for a name that cannot be understood.
    pub fn new(loopback_only: bool, names: &[String]) -> Result<Self, BadOrigin> {
        let hosts = names
            .iter()
            .map(|name| host_of(name).ok_or_else(|| BadOrigin(name.clone())))
            .collect::<Result<_, _>>()?;
        Ok(Self { loopback_only, hosts })
    }

    /// Checks a request's `Origin` and `Host`.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name| {
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let host = text(header::HOST);
        if let Some(origin) = text(header::ORIGIN) {
            let from = host_of(&origin).ok_or_else(|| Refusal::Origin(origin.clone()))?;
            if !self.knows(&from) {
                return Err(Refusal::Origin(origin));
            }
        }
        // Behind a proxy any name may stand there; on loopback a foreign one means a rebound DNS name.
        if let Some(host) = host.filter(|_| self.loopback_only) {
            let name = host_of(&host).ok_or_else(|| Refusal::Host(host.clone()))?;
            if !self.knows(&name) {
                return Err(Refusal::Host(host));
            }
        }
        Ok(())
    }

    fn knows(&self, host: &str) -> bool {
        matches!(host, "localhost" | "127.0.0.1" | "[::1]") || self.hosts.contains(host)
    }
}

/// The host of an origin or of a `Host` header, in lower case and without its port.
fn host_of(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let known_scheme = matches!(uri.scheme_str(), None | Some("http" | "https"));
    let authority = uri.authority()?;
    let bare = uri.path().is_empty() || uri.path() == "/";
    (known_scheme && bare && uri.query().is_none() && !authority.as_str().contains('@'))
        .then(|| authority.host().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_origins_and_hosts_are_refused() {
        let allowed = Allowed::new(true, &["app.example.com".to_owned()]).expect("names");
        for (origin, host, expected) in [
            (None, "127.0.0.1:8080", true),
            (None, "localhost", true),
            (None, "[::1]:8080", true),
            (None, "evil.example", false),
            (Some("http://localhost:3000"), "localhost:8080", true),
            (Some("https://app.example.com"), "localhost:8080", true),
            (Some("https://APP.example.com:444"), "localhost:8080", true),
            (Some("https://evil.example"), "localhost:8080", false),
            (Some("null"), "localhost:8080", false),
            (Some("https://localhost.evil.example"), "localhost:8080", false),
            (Some("https://localhost@evil.example"), "localhost:8080", false),
            (Some("file://"), "localhost:8080", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("host"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("origin"));
            }
            assert_eq!(allowed.check(&headers).is_ok(), expected, "{origin:?} {host}");
        }
    }

    #[test]
    fn a_public_listener_checks_the_origin_only() {
        let allowed = Allowed::new(false, &[]).expect("names");
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "mcp.example.com".parse().expect("host"));
        assert_eq!(allowed.check(&headers), Ok(()));
        headers.insert(header::ORIGIN, "https://evil.example".parse().expect("origin"));
        assert!(allowed.check(&headers).is_err());
    }

    #[test]
    fn a_name_that_is_no_host_is_refused_at_start() {
        assert!(Allowed::new(true, &["not a host".to_owned()]).is_err());
    }
}
