//! How the platform is let in by a declared server. Secrets are named here, and never declared.

use serde::{Deserialize, Serialize};

use super::{BadDeclaration, bad, check_url};

/// What the variables of secrets begin with that a declaration may name. Any other is not the registry's to send anywhere.
pub const SECRET_PREFIX: &str = "TRUNKLINE_SECRET_";
/// How long the name of a secret may be.
const MAX_SECRET_NAME: usize = 128;

/// How the platform is let in by a declared server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "lowercase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Auth {
    /// It asks for nothing.
    #[default]
    None,
    /// By a token.
    Bearer {
        /// The variable that holds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_env: Option<String>,
        /// Or the name of the secret, as it is configured where upstreams run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_name: Option<String>,
    },
    /// By a token that is got for client credentials (RFC 6749, section 4.4).
    Oauth2 {
        /// Where tokens are got.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_endpoint: Option<String>,
        /// Or the issuer that says where. With neither, the server says who its issuer is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
        /// Who the platform is there.
        client_id: String,
        /// The variable that holds the client's secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_secret_env: Option<String>,
        /// Or the name of the secret, as it is configured where upstreams run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_secret_name: Option<String>,
        /// What is asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
    },
}

/// What a declaration calls a secret, which itself is never declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRef<'a> {
    /// A variable of the processes that run upstreams.
    Variable(&'a str),
    /// A name in their configuration.
    Named(&'a str),
}

impl<'a> SecretRef<'a> {
    /// How it is called there.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Variable(name) | Self::Named(name) => name,
        }
    }

    pub(super) fn of(variable: Option<&'a String>, name: Option<&'a String>) -> Option<Self> {
        let variable = variable.map(|variable| Self::Variable(variable));
        variable.or(name.map(|name| Self::Named(name)))
    }
}

impl Auth {
    pub(super) fn check(&self) -> Result<(), BadDeclaration> {
        match self {
            Self::None => Ok(()),
            Self::Bearer {
                token_env,
                token_name,
            } => check_secret(
                ("auth.tokenEnv", token_env.as_deref()),
                ("auth.tokenName", token_name.as_deref()),
            ),
            Self::Oauth2 {
                token_endpoint,
                issuer,
                client_id,
                client_secret_env,
                client_secret_name,
                ..
            } => {
                for (field, url) in [("auth.tokenEndpoint", token_endpoint), ("auth.issuer", issuer)] {
                    if let Some(url) = url {
                        check_url(field, url, &["https", "http"])?;
                    }
                }
                if token_endpoint.is_some() && issuer.is_some() {
                    return Err(bad("auth.issuer", "stands beside tokenEndpoint; keep one"));
                }
                if client_id.is_empty() {
                    return Err(bad("auth.clientId", "is empty; write the client's id"));
                }
                check_secret(
                    ("auth.clientSecretEnv", client_secret_env.as_deref()),
                    ("auth.clientSecretName", client_secret_name.as_deref()),
                )
            }
        }
    }

    /// What is called a secret in it.
    #[must_use]
    pub fn secret(&self) -> Option<SecretRef<'_>> {
        match self {
            Self::None => None,
            Self::Bearer {
                token_env,
                token_name,
            } => SecretRef::of(token_env.as_ref(), token_name.as_ref()),
            Self::Oauth2 {
                client_secret_env,
                client_secret_name,
                ..
            } => SecretRef::of(client_secret_env.as_ref(), client_secret_name.as_ref()),
        }
    }
}

/// Whether a secret can be called so: a word that is also the name of a file, and of none that hides or lies elsewhere.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    (1..=MAX_SECRET_NAME).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Finds what is wrong with how a secret is called: by a variable, or by a name.
pub(super) fn check_secret(
    (variable_field, variable): (&'static str, Option<&str>),
    (name_field, name): (&'static str, Option<&str>),
) -> Result<(), BadDeclaration> {
    match (variable, name) {
        (Some(variable), None) => check_variable(variable_field, variable),
        (None, Some(name)) if is_secret_name(name) => Ok(()),
        (None, Some(name)) => Err(bad(
            name_field,
            format!(
                "is `{name}`; use 1 to {MAX_SECRET_NAME} letters, digits and `.`, `_`, `-`, with a letter or digit first"
            ),
        )),
        (Some(_), Some(_)) => Err(bad(name_field, "stands beside the name of a variable; keep one")),
        (None, None) => Err(bad(
            variable_field,
            format!(
                "is missing; name a variable that begins with {SECRET_PREFIX}, or a configured secret by {}",
                name_field
                    .trim_start_matches("auth.")
                    .trim_start_matches("connect.")
            ),
        )),
    }
}

fn check_variable(field: &'static str, name: &str) -> Result<(), BadDeclaration> {
    match name.strip_prefix(SECRET_PREFIX) {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err(bad(
            field,
            format!(
                "is `{name}`; only variables that begin with {SECRET_PREFIX} may be named, as others are no secrets of servers"
            ),
        )),
    }
}
