//! What an operator says about authentication, and what of that cannot be used.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use bus_schema::{policy::Scope, principal::DEFAULT_TENANT};
use jsonwebtoken::Algorithm;
use url::Url;

use super::CertificateOptions;
use crate::{secrets::Secret, upstream::remote::RemoteError};

/// Who may come in.
#[derive(Clone, Default)]
pub enum Auth {
    /// Everybody that reaches the port, which has to be one of this machine only.
    #[default]
    None,
    /// Who shows a token of an issuer, or an API key.
    Required(Box<AuthOptions>),
}

impl Auth {
    /// Scheme and host of the URL where clients reach the platform, if the operator has said.
    ///
    /// # Errors
    /// [`AuthError::PublicUrl`] when it is none.
    pub(crate) fn public_origin(&self) -> Result<Option<String>, AuthError> {
        match self {
            Self::Required(options) => options
                .public_url
                .as_deref()
                .map(|url| public_url(url).map(|url| url.origin().ascii_serialization()))
                .transpose(),
            Self::None => Ok(None),
        }
    }
}

/// How clients are told apart. Not `Debug`, as it holds secrets.
#[derive(Clone, Default)]
pub struct AuthOptions {
    /// Where clients reach the platform, without a path of the platform's own. Left out, it is where the door listens.
    pub public_url: Option<String>,
    /// Whose tokens are taken.
    pub issuers: Vec<IssuerOptions>,
    /// Keys that are no tokens.
    pub api_keys: Vec<ApiKeyOptions>,
    /// Who comes with a client certificate.
    pub certificates: Vec<CertificateOptions>,
    /// How the door itself is spoken to, for the URL that it has when no other is written down.
    pub scheme: Scheme,
    /// What every caller needs, whatever it asks for.
    pub required_scopes: Vec<Scope>,
    /// The scopes that clients are told of beforehand; those that everybody needs, if nothing is said.
    pub scopes_supported: Option<Vec<Scope>>,
}

/// How a door is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// As it is.
    #[default]
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// As URLs spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An issuer of tokens.
#[derive(Clone)]
pub struct IssuerOptions {
    /// Its name, exactly as its tokens say it.
    pub issuer: String,
    /// Where its keys are. Left out, its metadata say so.
    pub jwks_url: Option<String>,
    /// The audiences that mean this platform; if there are none, the URL of the platform and of its endpoints.
    pub audiences: Vec<String>,
    /// How tokens may be signed.
    pub algorithms: Vec<SigningAlgorithm>,
    /// How far its clock and ours may be apart.
    pub clock_skew: Duration,
    /// The claim that holds the subject.
    pub subject_claim: String,
    /// The tenant of all its subjects, unless a claim names it.
    pub tenant: String,
    /// The claim that holds the tenant, if one does.
    pub tenant_claim: Option<String>,
    /// The claim that holds the roles; with dots it is found inside of others.
    pub roles_claim: String,
    /// After how long its keys are fetched again.
    pub refresh_after: Duration,
    /// How long nothing is fetched after an attempt, whatever tokens name.
    pub floor: Duration,
    /// How long its keys are used while it cannot be reached.
    pub keep_for: Duration,
    /// How it is asked about tokens that are not signed.
    pub introspection: Option<IntrospectionOptions>,
    /// The certificates that it is checked against, in PEM form, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be inside: at a loopback or private address, and without encryption.
    pub allow_private: bool,
}

impl IssuerOptions {
    /// An issuer with the usual settings.
    #[must_use]
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            jwks_url: None,
            audiences: Vec::new(),
            algorithms: SigningAlgorithm::USUAL.to_vec(),
            clock_skew: Duration::from_secs(60),
            subject_claim: "sub".to_owned(),
            tenant: DEFAULT_TENANT.to_owned(),
            tenant_claim: None,
            roles_claim: "roles".to_owned(),
            refresh_after: Duration::from_secs(60 * 60),
            floor: Duration::from_secs(30),
            keep_for: Duration::from_secs(24 * 60 * 60),
            introspection: None,
            ca_file: None,
            allow_private: false,
        }
    }
}

/// How an issuer is asked about a token (RFC 7662).
#[derive(Clone)]
pub struct IntrospectionOptions {
    /// Where.
    pub url: String,
    /// Who this platform is there.
    pub client_id: String,
    /// How it shows that.
    pub client_secret: Secret,
    /// How long an answer counts, so that a token that is taken back is refused after that at the latest.
    pub cache_for: Duration,
}

/// A key that the operator has given to somebody.
#[derive(Clone, Debug)]
pub struct ApiKeyOptions {
    /// The SHA-256 of the key, in hexadecimal digits.
    pub sha256: String,
    /// Who comes with it.
    pub subject: String,
    /// Whose servers it may see.
    pub tenant: String,
    /// What it is in its organisation.
    pub roles: Vec<String>,
    /// What it may do here.
    pub scopes: Vec<Scope>,
}

/// How a token may be signed: with a private key, so that nobody who can check it can make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningAlgorithm(pub(super) Algorithm);

impl SigningAlgorithm {
    /// What is taken when nothing is said.
    pub const USUAL: [Self; 4] = [
        Self(Algorithm::RS256),
        Self(Algorithm::PS256),
        Self(Algorithm::ES256),
        Self(Algorithm::EdDSA),
    ];
    const ALL: [Self; 9] = [
        Self(Algorithm::RS256),
        Self(Algorithm::RS384),
        Self(Algorithm::RS512),
        Self(Algorithm::PS256),
        Self(Algorithm::PS384),
        Self(Algorithm::PS512),
        Self(Algorithm::ES256),
        Self(Algorithm::ES384),
        Self(Algorithm::EdDSA),
    ];
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for SigningAlgorithm {
    type Err = AuthError;

    fn from_str(text: &str) -> Result<Self, AuthError> {
        let known = Self::ALL.into_iter().find(|known| known.to_string() == text);
        known.ok_or_else(|| AuthError::Algorithm {
            given: text.to_owned(),
            known: Self::ALL.map(|known| known.to_string()).join(", "),
        })
    }
}

/// Says what of an operator's settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Nobody could come in.
    #[error(
        "auth has neither an issuer nor an API key nor a certificate, so nobody could come in; add [[auth.issuers]], [[auth.api_keys]] or [[auth.certificates]]"
    )]
    Nobody,
    /// The address is none that clients could use.
    #[error(
        "public_url `{url}` cannot be used: {why}; write where clients reach the platform, such as https://mcp.example.com"
    )]
    PublicUrl {
        /// As it was written.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Tokens are made for a URL, and nobody says which.
    #[error(
        "auth needs public_url, as this door listens on {0}, which is not where clients reach it; write public_url = \"https://mcp.example.com\""
    )]
    NoPublicUrl(std::net::SocketAddr),
    /// A name is used twice.
    #[error("issuer `{0}` is there twice; keep one")]
    SameIssuer(String),
    /// A URL or a certificate of an issuer cannot be used.
    #[error("issuer `{issuer}` cannot be used")]
    Issuer {
        /// Which.
        issuer: String,
        /// Why not.
        #[source]
        source: RemoteError,
    },
    /// Tokens of that issuer could never be checked.
    #[error("issuer `{0}` has no algorithms; name at least one, such as RS256, or leave the setting out")]
    NoAlgorithms(String),
    /// An algorithm is unknown, or one that everybody can sign with who can check.
    #[error("`{given}` is no algorithm that tokens may be signed with; known are {known}")]
    Algorithm {
        /// As it was written.
        given: String,
        /// What would do.
        known: String,
    },
    /// A digest is none.
    #[error(
        "the API key of `{subject}` has sha256 = \"{sha256}\", where 64 hexadecimal digits are expected; `trunkline keys new` prints a key and its line"
    )]
    Digest {
        /// Whose.
        subject: String,
        /// As it was written.
        sha256: String,
    },
    /// One key cannot be two people's.
    #[error("the API keys of `{0}` and of somebody else are the same; give each its own")]
    SameKey(String),
    /// The credentials for introspection do not fit into a header.
    #[error("issuer `{0}` has a client_id or client_secret for introspection that cannot be sent")]
    Credentials(String),
}

/// Reads where clients reach the platform: scheme, host and perhaps a path, without a slash at its end.
pub(super) fn public_url(text: &str) -> Result<Url, AuthError> {
    let bad = |why: &str| AuthError::PublicUrl {
        url: text.to_owned(),
        why: why.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it is no http or https URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or a fragment"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds credentials"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_that_the_checker_could_sign_with_is_none() {
        for bad in ["HS256", "none", "", "rs256"] {
            let error = bad.parse::<SigningAlgorithm>().expect_err(bad).to_string();
            assert!(error.contains("RS256, RS384"), "{error}");
        }
        assert_eq!(
            "ES256".parse::<SigningAlgorithm>().expect("known").to_string(),
            "ES256"
        );
    }

    #[test]
    fn a_public_url_is_where_a_client_can_go() {
        for bad in [
            "mcp.example.com",
            "ftp://a",
            "https://a?x=1",
            "https://a#x",
            "https://u:p@a",
        ] {
            assert!(public_url(bad).is_err(), "{bad}");
        }
        assert!(public_url("https://a/gateway").is_ok());
    }
}
