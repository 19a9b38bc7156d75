//! Credentials that single users give the platform for a server: asked for by a link, kept sealed, and used for nobody else.
//!
//! `asking` makes a link for a user who has no credential yet, in the process that runs the server. `consent` is what the pages behind it do, in
//! any process with a door, and `login` finds out who follows it. `registration` makes the platform known where users agree. `token` is a
//! credential in use, `in_use` ends the connections of one that counts no more, and `accounts` lists and forgets. `store` keeps, and `seal`
//! closes what is kept. The pages themselves belong to the HTTP door.

mod accounts;
mod asking;
mod consent;
mod in_use;
mod login;
mod registration;
mod seal;
mod store;
mod token;

use std::{path::PathBuf, sync::Arc};

use runtime::{Bus, store::StoreError};
use url::Url;

use super::options::IssuedAt;
use crate::secrets::{Held, SecretError, Source};

pub use accounts::{Account, Accounts, Forgotten, MOST_ACCOUNTS, Own, Revocation, Which};
pub(in crate::upstream) use asking::Users;
pub(crate) use consent::{Answered, NotConnected};
pub(crate) use store::Whose;
pub(in crate::upstream::remote) use token::UserToken;

/// How many users may be connected to a server at once, unless somebody says otherwise. One that is idle gives way.
pub const MOST_AT_ONCE: usize = 250;

/// What users' credentials need. Not `Debug`, as sources may hold secrets.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The keys that what is kept is sealed with: the first seals, all open.
    pub keys: Vec<Source>,
    /// Where users reach the platform.
    pub public_url: String,
    /// Where they log in when they follow a link; without it nobody looks who does.
    pub login: Option<LoginOptions>,
}

/// Where users log in by `OpenID` Connect: at the issuer that vouches for them as callers, too.
#[derive(Clone)]
pub struct LoginOptions {
    /// Its name.
    pub issuer: String,
    /// Who the platform is there.
    pub client_id: String,
    /// The client's secret, if it has one.
    pub client_secret: Option<Source>,
    /// The claim that holds the subject as callers have it.
    pub subject_claim: String,
    /// Whether the issuer may be at a private address, and without encryption.
    pub allow_private: bool,
    /// The certificates that it is checked against instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Says why users' credentials cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A key cannot be had.
    #[error("the key for users' credentials is missing")]
    Key(#[from] SecretError),
    /// A key is none.
    #[error("a key for users' credentials cannot be used: {0}")]
    BadKey(String),
    /// Nobody reaches the platform there.
    #[error(
        "`{url}` cannot be where users reach the platform: {why}; write https://host, or http://127.0.0.1:port on one machine"
    )]
    BadUrl {
        /// As it was written.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody can log in.
    #[error("users cannot log in to connect accounts: {0}")]
    Login(String),
    /// They cannot be kept on this bus.
    #[error("users' credentials cannot be kept")]
    Store(#[from] StoreError),
}

/// The credentials of users, and the links by which they come.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    store: store::Store,
    login: Option<login::Login>,
    /// Without a slash at its end.
    public: String,
    is_https: bool,
}

/// How users connect to a server.
#[derive(Clone)]
pub struct UserOptions {
    /// Where their credentials are kept.
    pub connections: Connections,
    /// Who gives tokens.
    pub at: IssuedAt,
    /// Who the platform is there, and its secret, if it was registered by hand.
    pub client: Option<(String, Option<Source>)>,
    /// What is asked for.
    pub scopes: Vec<String>,
}

impl Connections {
    /// Opens what is kept.
    ///
    /// # Errors
    /// [`ConnectError`] when a key or the bus does not allow it.
    pub async fn open(bus: &Bus, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let mut keys = Vec::with_capacity(options.keys.len());
        for source in &options.keys {
            keys.push((*Held::new(source.clone()).get().await?.secret).clone());
        }
        let keys = seal::Keys::new(&keys).map_err(ConnectError::BadKey)?;
        let url = public(&options.public_url)?;
        Ok(Self(Arc::new(Inner {
            login: options.login.as_ref().map(login::Login::new).transpose()?,
            store: store::Store::open(bus, keys).await?,
            is_https: url.scheme() == "https",
            public: url.as_str().trim_end_matches('/').to_owned(),
        })))
    }

    fn at(&self, path: &str) -> String {
        format!("{}/connect/{path}", self.0.public)
    }

    /// Where issuers send users back to.
    fn callback(&self) -> String {
        self.at("callback")
    }

    /// Where the issuer of the platform's own users sends them back to.
    fn login_callback(&self) -> String {
        self.at("login")
    }

    /// The id of the platform as a client that tells of itself there, for issuers that read such documents. They read none without encryption.
    fn document_url(&self) -> Option<String> {
        self.0.is_https.then(|| self.at("client.json"))
    }

    /// Whether users reach the platform over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.0.is_https
    }
}

/// Where users reach the platform; without encryption on their own machine only.
fn public(text: &str) -> Result<Url, ConnectError> {
    let bad = |why: &str| ConnectError::BadUrl {
        url: text.to_owned(),
        why: why.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        _ => return Err(bad("it is not encrypted")),
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(bad("it has more than a host and a path"));
    }
    Ok(url)
}

/// The time, in milliseconds since 1970, as all processes count it.
fn now_ms() -> u64 {
    runtime::moment::now_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_over_tls_or_from_the_same_machine() {
        for (url, fine) in [
            ("https://mcp.example.com", true),
            ("https://example.com/gateway/", true),
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://mcp.example.com", false),
            ("https://mcp.example.com/?x", false),
            ("mcp.example.com", false),
        ] {
            assert_eq!(public(url).is_ok(), fine, "{url}");
        }
    }
}
