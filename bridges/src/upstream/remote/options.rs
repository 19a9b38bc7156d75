//! What the platform must know of a remote server, as its operator writes it, and what of that cannot be used.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header as http};
use bus_schema::{ServerId, header, task::TaskKnob};
use url::{Host, Url};

use crate::{
    secrets::Source,
    upstream::{AskingOptions, BreakerKnob, EraKnob, RetryKnob},
};

pub use bus_schema::upstream::TransportKnob;

use super::{dial, error::RemoteError, guard::Reach, users::UserOptions};

/// A server at a URL. Not `Debug`, as headers may hold secrets.
#[derive(Clone)]
pub struct RemoteOptions {
    /// Its id on the bus.
    pub id: ServerId,
    /// Where it is: `https://` or `wss://`, and with `allow_private` also `http://` or `ws://`.
    pub url: String,
    /// How messages travel.
    pub transport: TransportKnob,
    /// The era that it speaks.
    pub era: EraKnob,
    /// Headers of every request to it.
    pub headers: BTreeMap<String, String>,
    /// Further headers, with what is secret.
    pub secret_headers: BTreeMap<String, Source>,
    /// What this platform shows it to be let in.
    pub bearer: Bearer,
    /// How users connect to it with credentials of their own. Then what the platform shows is for its lists only.
    pub users: Option<UserOptions>,
    /// A page that answers with a status of success while the server is well.
    pub health_url: Option<String>,
    /// How often that is asked.
    pub health_every: Duration,
    /// The number of its owner, which the server is told: it grows with each.
    pub epoch: Option<u64>,
    /// The certificates that it is checked against, in PEM form, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be inside: at a loopback or private address, and without encryption.
    pub allow_private: bool,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// How many calls run at once; beyond, callers hear "busy".
    pub max_in_flight: u32,
    /// The longest that calls of single tools may take, by their names.
    pub tool_timeouts: HashMap<String, Duration>,
    /// The longest that any call may take.
    pub call_timeout: Option<Duration>,
    /// When calls are stopped because they keep failing.
    pub breaker: BreakerKnob,
    /// How often calls are made that were lost.
    pub retry: RetryKnob,
    /// Which of its calls become tasks of the platform.
    pub tasks: TaskKnob,
    /// For callers that it may ask for input.
    pub asking: AskingOptions,
}

/// How often health pages are asked unless somebody says otherwise.
pub const HEALTH_EVERY: Duration = Duration::from_secs(30);

/// A token that the platform shows to a server.
#[derive(Clone, Default)]
pub enum Bearer {
    /// None.
    #[default]
    None,
    /// The one that comes from here.
    From(Source),
    /// One that is got from an issuer, and again before it ends.
    Client(ClientCredentials),
}

/// Who the platform is at an issuer of tokens.
#[derive(Clone)]
pub struct ClientCredentials {
    /// Where tokens are got.
    pub at: IssuedAt,
    /// The client's id.
    pub client_id: String,
    /// Where its secret comes from.
    pub client_secret: Source,
    /// What is asked for.
    pub scopes: Vec<String>,
}

/// Where tokens for a server are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuedAt {
    /// At this token endpoint.
    Endpoint(String),
    /// At the token endpoint of which this issuer's metadata tell.
    Issuer(String),
    /// At the issuer that the server names (RFC 9728).
    Told,
}

/// Headers that belong to the protocol or the connection.
const OWN_HEADERS: [HeaderName; 11] = [
    http::ACCEPT,
    http::ACCEPT_ENCODING,
    http::CONNECTION,
    http::CONTENT_LENGTH,
    http::CONTENT_TYPE,
    http::EXPECT,
    http::HOST,
    http::TE,
    http::TRAILER,
    http::TRANSFER_ENCODING,
    http::UPGRADE,
];
const OWN_MCP_HEADERS: [&str; 6] = [
    header::EPOCH,
    header::PROTOCOL_VERSION,
    header::METHOD,
    header::NAME,
    header::SESSION_ID,
    header::LAST_EVENT_ID,
];

impl RemoteOptions {
    /// Finds what cannot work before anything is connected.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting and what would be right.
    pub fn check(&self) -> Result<(), RemoteError> {
        let url = self.url()?;
        self.transport_of(&url)?;
        self.standing_headers()?;
        self.health_page()?;
        self.secret_header_names()?;
        self.check_issuer()
    }

    /// Where its health page is.
    pub(super) fn health_page(&self) -> Result<Option<Url>, RemoteError> {
        self.health_url.as_deref().map(|url| self.page(url)).transpose()
    }

    /// Finds what cannot be used of where tokens for it are got.
    fn check_issuer(&self) -> Result<(), RemoteError> {
        let own = match &self.bearer {
            Bearer::Client(credentials) => Some(&credentials.at),
            Bearer::None | Bearer::From(_) => None,
        };
        let of_users = self.users.as_ref().map(|users| &users.at);
        for at in own.into_iter().chain(of_users) {
            match at {
                IssuedAt::Endpoint(url) | IssuedAt::Issuer(url) => self.page(url).map(drop)?,
                IssuedAt::Told => {}
            }
        }
        Ok(())
    }

    /// A URL that is asked by plain HTTP, under the same rules as the server's.
    pub(super) fn page(&self, url: &str) -> Result<Url, RemoteError> {
        let url = self.usable(url)?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            _ => Err(RemoteError::BadUrl {
                url: shown(url.as_str()),
                why: "it is asked by HTTP; write https://host/path".to_owned(),
            }),
        }
    }

    /// The transport, when the settings leave no choice.
    pub(super) fn transport_of(&self, url: &Url) -> Result<TransportKnob, RemoteError> {
        let bad = |transport, other| Err(RemoteError::BadTransport { transport, other });
        let socket = matches!(url.scheme(), "ws" | "wss");
        match (self.transport, socket) {
            (TransportKnob::Auto | TransportKnob::Ws, true) => Ok(TransportKnob::Ws),
            (TransportKnob::Ws, false) => {
                bad("ws", "this URL; write wss://, or ws:// with allow_private = true")
            }
            (TransportKnob::Http, true) => bad("http", "a WebSocket URL; write https://"),
            (TransportKnob::Sse, true) => bad("sse", "a WebSocket URL; write https://"),
            (TransportKnob::Sse, false) if self.era == EraKnob::Modern => bad(
                "sse",
                "era `modern`, which it never carried; leave one of the two out",
            ),
            (knob, false) => Ok(knob),
        }
    }

    /// The URL, when it may be connected to as far as can be told without a resolver.
    pub(super) fn url(&self) -> Result<Url, RemoteError> {
        self.usable(&self.url)
    }

    fn usable(&self, text: &str) -> Result<Url, RemoteError> {
        judged(text, Reach::of(self.allow_private))
    }

    /// The headers that every request has, beside those that are secret.
    pub(super) fn standing_headers(&self) -> Result<HeaderMap, RemoteError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = self.header_name(name)?;
            let mut value = HeaderValue::from_str(value).map_err(|_| RemoteError::BadHeader {
                name: name.clone(),
                why: "its value is not visible ASCII",
            })?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        if let Some(epoch) = self.epoch {
            headers.insert(header::EPOCH, epoch.into());
        }
        Ok(headers)
    }

    /// The names of headers that are secret, as HTTP has them.
    pub(super) fn secret_header_names(&self) -> Result<Vec<HeaderName>, RemoteError> {
        self.secret_headers
            .keys()
            .map(|name| self.header_name(name))
            .collect()
    }

    fn header_name(&self, name: &str) -> Result<HeaderName, RemoteError> {
        let bad = |why| RemoteError::BadHeader {
            name: name.to_owned(),
            why,
        };
        let parsed =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("that is no name of a header"))?;
        let own = OWN_HEADERS.contains(&parsed)
            || OWN_MCP_HEADERS.contains(&parsed.as_str())
            || parsed.as_str().starts_with(header::PARAM_PREFIX);
        if own {
            return Err(bad("the transport sets it by itself"));
        }
        if parsed == http::AUTHORIZATION && !matches!(self.bearer, Bearer::None) {
            return Err(bad("bearer or oauth sets it already"));
        }
        Ok(parsed)
    }
}

/// A URL, when it may be connected to as far as can be told without a resolver.
///
/// # Errors
/// [`RemoteError`] that says what is wrong with it, and what would be right.
pub(super) fn judged(text: &str, reach: Reach) -> Result<Url, RemoteError> {
    let bad = |why: &str| RemoteError::BadUrl {
        url: shown(text),
        why: why.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| bad(&format!("{error}; write https://host/path")))?;
    match url.scheme() {
        "https" | "wss" => {}
        "http" | "ws" if reach == Reach::Private => {}
        "http" | "ws" => {
            return Err(bad(
                "it is not encrypted; write https:// or wss://, or set allow_private = true for a server in your own network",
            ));
        }
        _ => return Err(bad("its scheme is none of https, wss, http and ws")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds credentials; give them with bearer or headers"));
    }
    if url.fragment().is_some() {
        return Err(bad("a server never sees what follows the #; leave it out"));
    }
    match url.host() {
        Some(Host::Ipv4(address)) => dial::check(reach, &address.to_string(), address.into())?,
        Some(Host::Ipv6(address)) => dial::check(reach, &address.to_string(), address.into())?,
        Some(Host::Domain(_)) => {}
        None => return Err(bad("it has no host")),
    }
    Ok(url)
}

/// A URL as a message may show it: without what may be secret in it.
pub(super) fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return crate::lines::excerpt(
            url.split(['?', '#', '@']).next().unwrap_or_default().as_bytes(),
            200,
        );
    };
    // A URL that cannot hold them has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// A URL as hyper takes it.
///
/// # Errors
/// [`RemoteError::BadUrl`] when hyper sees it otherwise.
pub(super) fn to_uri(url: &Url) -> Result<Uri, RemoteError> {
    url.as_str().parse().map_err(|error| RemoteError::BadUrl {
        url: shown(url.as_str()),
        why: format!("{error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> RemoteOptions {
        RemoteOptions {
            id: "there".parse().unwrap(),
            url: url.to_owned(),
            transport: TransportKnob::Auto,
            era: EraKnob::Auto,
            headers: BTreeMap::new(),
            secret_headers: BTreeMap::new(),
            bearer: Bearer::None,
            users: None,
            health_url: None,
            health_every: HEALTH_EVERY,
            epoch: None,
            ca_file: None,
            allow_private: false,
            tags: Vec::new(),
            max_in_flight: 1,
            tool_timeouts: HashMap::new(),
            call_timeout: None,
            breaker: BreakerKnob::default(),
            retry: RetryKnob::default(),
            tasks: TaskKnob::default(),
            asking: AskingOptions::default(),
        }
    }

    #[test]
    fn what_cannot_work_is_told_with_what_would() {
        for (url, words) in [
            ("mcp.example.com/mcp", "https://host/path"),
            ("ftp://example.com", "none of https"),
            ("http://example.com/mcp", "allow_private = true"),
            ("ws://example.com/mcp", "allow_private = true"),
            ("https://me:secret@example.com/mcp", "with bearer"),
            ("https://example.com/mcp#x", "leave it out"),
            ("https://10.0.0.1/mcp", "allow_private = true"),
            ("https://0x7f.1/mcp", "a loopback address"),
            ("https://[::ffff:10.0.0.1]/mcp", "a private address"),
            ("https://169.254.169.254/latest", "metadata service"),
        ] {
            let error = options(url).check().expect_err(url).to_string();
            assert!(error.contains(words), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for url in [
            "https://example.com/mcp?x=1",
            "wss://example.com",
            "https://8.8.8.8/mcp",
        ] {
            options(url).check().expect(url);
        }
        for url in [
            "http://127.0.0.1:8080/mcp",
            "ws://[::1]/",
            "http://mcp.internal/mcp",
        ] {
            let inside = RemoteOptions {
                allow_private: true,
                ..options(url)
            };
            inside.check().expect(url);
        }
        let metadata = RemoteOptions {
            allow_private: true,
            ..options("http://169.254.169.254/")
        };
        assert!(metadata.check().is_err());
    }

    #[test]
    fn transport_and_url_must_go_together() {
        for (url, transport, era, fits) in [
            ("https://a.example", TransportKnob::Sse, EraKnob::Auto, true),
            ("https://a.example", TransportKnob::Sse, EraKnob::Modern, false),
            ("https://a.example", TransportKnob::Ws, EraKnob::Auto, false),
            ("wss://a.example", TransportKnob::Auto, EraKnob::Modern, true),
            ("wss://a.example", TransportKnob::Http, EraKnob::Auto, false),
        ] {
            let options = RemoteOptions {
                transport,
                era,
                ..options(url)
            };
            assert_eq!(options.check().is_ok(), fits, "{url} {transport:?} {era:?}");
        }
    }

    #[test]
    fn headers_of_the_protocol_are_not_the_operators() {
        for (name, value, words) in [
            ("X-Tenant", "a", None),
            ("Authorization", "Basic eA==", None),
            ("Mcp-Method", "tools/call", Some("by itself")),
            ("mcp-param-x", "1", Some("by itself")),
            ("Host", "other", Some("by itself")),
            ("bad name", "1", Some("no name of a header")),
            ("X-A", "a\nb", Some("visible ASCII")),
        ] {
            let mut options = options("https://a.example");
            options.headers.insert(name.to_owned(), value.to_owned());
            let error = options.check().err().map(|error| error.to_string());
            assert_eq!(error.is_some(), words.is_some(), "{name}");
            assert!(error.unwrap_or_default().contains(words.unwrap_or_default()));
        }
        let mut twice = options("https://a.example");
        twice.headers.insert("authorization".to_owned(), "x".to_owned());
        twice.bearer = Bearer::From(Source::File("t".into()));
        assert!(twice.check().is_err());
    }
}
