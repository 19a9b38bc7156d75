//! Whose account a declared server is used with, and how users connect theirs. Secrets are named here, and never declared.

use serde::{Deserialize, Serialize};

use super::{BadDeclaration, SecretRef, auth::check_secret, bad, check_url};

/// The most scopes that users may be asked for.
const MAX_SCOPES: usize = 64;
/// How long a scope may be, in bytes.
const MAX_SCOPE: usize = 256;

/// Whose credentials a declared server takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// Those of the platform, whoever asks.
    #[default]
    Platform,
    /// Those of the user who asks, who connects an account of their own.
    User,
}

impl Credentials {
    pub(super) fn is_usual(&self) -> bool {
        *self == Self::Platform
    }
}

/// How users connect their accounts at a declared server, where something of that has to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Connect {
    /// Where they agree. Without it the server says who its issuer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Who the platform is there. Without it the platform tells of itself, or registers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The variable that holds the client's secret, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_env: Option<String>,
    /// Or the name of the secret, as it is configured where upstreams run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_name: Option<String>,
    /// What users are asked to agree to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

impl Connect {
    /// What is called a secret in it.
    #[must_use]
    pub fn secret(&self) -> Option<SecretRef<'_>> {
        SecretRef::of(self.client_secret_env.as_ref(), self.client_secret_name.as_ref())
    }

    fn check(&self) -> Result<(), BadDeclaration> {
        if let Some(issuer) = &self.issuer {
            check_url("connect.issuer", issuer, &["https", "http"])?;
        }
        match (&self.client_id, self.secret()) {
            (Some(id), _) if id.is_empty() => {
                let why =
                    "is empty; write the client's id, or leave it out for a client that registers itself";
                return Err(bad("connect.clientId", why));
            }
            (None, Some(_)) => {
                let why = "is missing beside a client's secret; write both, or none";
                return Err(bad("connect.clientId", why));
            }
            (Some(_), Some(_)) => check_secret(
                ("connect.clientSecretEnv", self.client_secret_env.as_deref()),
                ("connect.clientSecretName", self.client_secret_name.as_deref()),
            )?,
            (_, None) => {}
        }
        if self.scopes.len() > MAX_SCOPES {
            let why = format!("has {} scopes; use at most {MAX_SCOPES}", self.scopes.len());
            return Err(bad("connect.scopes", why));
        }
        match self.scopes.iter().find(|scope| !is_scope(scope)) {
            Some(scope) => Err(bad(
                "connect.scopes",
                format!(
                    "has `{}`; write each scope by itself, of 1 to {MAX_SCOPE} visible characters without quotes and backslashes",
                    scope.escape_debug()
                ),
            )),
            None => Ok(()),
        }
    }
}

/// RFC 6749, section 3.3.
fn is_scope(scope: &str) -> bool {
    (1..=MAX_SCOPE).contains(&scope.len())
        && scope
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
}

/// Finds what cannot be meant of both together.
pub(super) fn check(credentials: Credentials, connect: Option<&Connect>) -> Result<(), BadDeclaration> {
    match (credentials, connect) {
        (_, None) => Ok(()),
        (Credentials::User, Some(connect)) => connect.check(),
        (Credentials::Platform, Some(_)) => Err(bad(
            "connect",
            "says how users connect accounts, and credentials is `platform`; write credentials as `user`, or leave connect out",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Declaration;

    fn judged(credentials: &str, connect: Value) -> Result<(), (String, String)> {
        let mut text = json!({ "id": "a", "url": "https://a.example/mcp", "credentials": credentials });
        if !connect.is_null() {
            text["connect"] = connect;
        }
        let declaration: Declaration = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(
            serde_json::from_value::<Declaration>(serde_json::to_value(&declaration).unwrap()).unwrap(),
            declaration
        );
        let judged = declaration.check();
        judged.map_err(|bad| (bad.field.to_owned(), bad.to_string()))
    }

    #[test]
    fn users_may_connect_with_as_little_as_a_word() {
        for connect in [
            Value::Null,
            json!({}),
            json!({ "issuer": "https://id.example", "scopes": ["a", "https://x/y.z:r"] }),
            json!({ "clientId": "me" }),
            json!({ "clientId": "me", "clientSecretEnv": "TRUNKLINE_SECRET_A" }),
            json!({ "clientId": "me", "clientSecretName": "a" }),
        ] {
            assert_eq!(judged("user", connect.clone()), Ok(()), "{connect}");
        }
        assert_eq!(judged("platform", Value::Null), Ok(()));
        let plain = Declaration::new("a".parse().unwrap(), "https://a.example");
        let text = serde_json::to_string(&plain).unwrap();
        assert!(
            !text.contains("credentials") && !text.contains("connect"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_what_would_be_right() {
        for (credentials, connect, field, words) in [
            ("platform", json!({}), "connect", "as `user`"),
            (
                "user",
                json!({ "issuer": "id.example" }),
                "connect.issuer",
                "https://host/path",
            ),
            (
                "user",
                json!({ "clientId": "" }),
                "connect.clientId",
                "leave it out",
            ),
            (
                "user",
                json!({ "clientSecretEnv": "TRUNKLINE_SECRET_A" }),
                "connect.clientId",
                "both, or none",
            ),
            (
                "user",
                json!({ "clientId": "me", "clientSecretEnv": "AWS_SECRET" }),
                "connect.clientSecretEnv",
                "TRUNKLINE_SECRET_",
            ),
            (
                "user",
                json!({ "clientId": "me", "clientSecretName": "../a" }),
                "connect.clientSecretName",
                "letters, digits",
            ),
            (
                "user",
                json!({ "clientId": "me", "clientSecretName": "a", "clientSecretEnv": "TRUNKLINE_SECRET_A" }),
                "connect.clientSecretName",
                "keep one",
            ),
            (
                "user",
                json!({ "scopes": ["a b"] }),
                "connect.scopes",
                "by itself",
            ),
            (
                "user",
                json!({ "scopes": vec!["a"; 65] }),
                "connect.scopes",
                "at most 64",
            ),
        ] {
            let (at, said) = judged(credentials, connect.clone()).unwrap_err();
            assert_eq!(at, field, "{connect}");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in [
            json!({ "id": "a", "url": "https://a", "credentials": "users" }),
            json!({ "id": "a", "url": "https://a", "credentials": "user", "connect": { "clientSecret": "s3cret" } }),
        ] {
            assert!(
                serde_json::from_value::<Declaration>(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
    }
}
