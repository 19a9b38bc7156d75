//! A server that was declared in the registry, as the bridge connects to it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bus_schema::registry::{Auth, Declaration, SecretRef};
use url::Url;

use super::{
    error::RemoteError,
    options::{Bearer, ClientCredentials, HEALTH_EVERY, IssuedAt, RemoteOptions},
};
use crate::{
    secrets::{Permitted, Secret, Source},
    upstream::AskingOptions,
};

impl RemoteOptions {
    /// The options of a declared server. `secret` looks up what the declaration names.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no such secret, or it is not for where it would be sent.
    pub fn declared(
        declaration: &Declaration,
        secret: impl Fn(SecretRef<'_>) -> Option<Permitted>,
    ) -> Result<Self, RemoteError> {
        let find = |goes_to: Option<&str>| {
            let Some(named) = declaration.auth.secret() else {
                return Err(RemoteError::NoSecret(String::new()));
            };
            let found = secret(named).ok_or_else(|| match named {
                SecretRef::Variable(name) => RemoteError::NoVariable(name.to_owned()),
                SecretRef::Named(name) => RemoteError::NoSecret(name.to_owned()),
            })?;
            permitted(named, found, goes_to)
        };
        let bearer = match &declaration.auth {
            Auth::None => Bearer::None,
            Auth::Bearer { .. } => Bearer::From(find(Some(&declaration.url))?),
            Auth::Oauth2 {
                token_endpoint,
                issuer,
                client_id,
                scopes,
                ..
            } => Bearer::Client(ClientCredentials {
                at: match (token_endpoint, issuer) {
                    (Some(url), _) => IssuedAt::Endpoint(url.clone()),
                    (None, Some(issuer)) => IssuedAt::Issuer(issuer.clone()),
                    (None, None) => IssuedAt::Told,
                },
                client_id: client_id.clone(),
                client_secret: find(token_endpoint.as_deref().or(issuer.as_deref()))?,
                scopes: scopes.clone(),
            }),
        };
        Ok(Self {
            id: declaration.id.clone(),
            url: declaration.url.clone(),
            transport: declaration.transport,
            era: declaration.era,
            headers: declaration.headers.clone(),
            secret_headers: BTreeMap::new(),
            bearer,
            users: None,
            health_url: declaration.health_url.clone(),
            health_every: HEALTH_EVERY,
            epoch: None,
            ca_file: None,
            allow_private: declaration.allow_private,
            tags: declaration.tags.clone(),
            max_in_flight: declaration.max_in_flight,
            tool_timeouts: HashMap::new(),
            call_timeout: declaration.call_timeout_ms.map(Duration::from_millis),
            breaker: declaration.breaker,
            retry: declaration.retry,
            tasks: declaration.tasks.clone(),
            asking: AskingOptions::default(),
        })
    }

    /// Finds what of a declaration no process could use, whatever its secrets are.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting and what would be right.
    pub fn check_declared(declaration: &Declaration) -> Result<(), RemoteError> {
        let any = Source::Fixed {
            name: String::new(),
            secret: Secret::new("any"),
        };
        Self::declared(declaration, |_| Some(Permitted::anywhere(any.clone())))?.check()
    }
}

/// The secret, if it may be sent there; `None` is wherever the server itself says.
fn permitted(named: SecretRef<'_>, found: Permitted, goes_to: Option<&str>) -> Result<Source, RemoteError> {
    let Some(hosts) = &found.hosts else {
        return Ok(found.source);
    };
    let host = goes_to
        .and_then(|url| Url::parse(url).ok())
        .and_then(|url| url.host_str().map(str::to_owned));
    match host {
        Some(host) if hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host)) => Ok(found.source),
        host => Err(RemoteError::ElsewhereSecret {
            name: named.name().to_owned(),
            host: host.unwrap_or_else(|| "whoever the server names as its issuer".to_owned()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_goes_where_its_operator_says_and_nowhere_else() {
        let only = |hosts: Option<&[&str]>| Permitted {
            source: Source::File("s".into()),
            hosts: hosts.map(|hosts| hosts.iter().map(|&host| host.to_owned()).collect()),
        };
        let bearer = json!({ "type": "bearer", "tokenName": "crm" });
        let client = |more: &str, at: &str| {
            let mut auth = json!({ "type": "oauth2", "clientId": "c", "clientSecretName": "crm" });
            if !more.is_empty() {
                auth[more] = json!(at);
            }
            auth
        };
        for (auth, hosts, is_fine) in [
            (bearer.clone(), None, true),
            (bearer.clone(), Some(&["a.example"][..]), true),
            (bearer.clone(), Some(&["A.EXAMPLE"][..]), true),
            (bearer.clone(), Some(&["b.example"][..]), false),
            (bearer, Some(&[][..]), false),
            (
                client("issuer", "https://id.example/x"),
                Some(&["id.example"][..]),
                true,
            ),
            (
                client("tokenEndpoint", "https://id.example/x"),
                Some(&["id.example"][..]),
                true,
            ),
            (
                client("issuer", "https://evil.example"),
                Some(&["id.example"][..]),
                false,
            ),
            (client("", ""), Some(&["a.example"][..]), false),
            (client("", ""), None, true),
        ] {
            let declaration = json!({ "id": "a", "url": "https://a.example/mcp", "auth": auth });
            let declaration: Declaration = serde_json::from_value(declaration).unwrap();
            let options = RemoteOptions::declared(&declaration, |named| {
                assert_eq!(named, SecretRef::Named("crm"));
                Some(only(hosts))
            });
            assert_eq!(options.is_ok(), is_fine, "{auth} {hosts:?}");
        }
    }
}
