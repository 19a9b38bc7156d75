//! A server that was declared in the registry, as the bridge connects to it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bus_schema::registry::{Auth, Credentials, Declaration, SecretRef};
use url::Url;

use super::{
    error::RemoteError,
    options::{Bearer, ClientCredentials, HEALTH_EVERY, IssuedAt, RemoteOptions},
    users::{Connections, MOST_AT_ONCE, UserOptions},
};
use crate::{
    secrets::{Permitted, Secret, Source},
    upstream::AskingOptions,
};

/// Says which member of a declaration no process could use, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct BadMember {
    /// Which member.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub error: RemoteError,
}

impl RemoteOptions {
    /// The options of a declared server, as far as they are not about accounts of users. `secret` looks up what the declaration names.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no such secret, or it is not for where it would be sent.
    pub fn declared(
        declaration: &Declaration,
        secret: impl Fn(SecretRef<'_>) -> Option<Permitted>,
    ) -> Result<Self, RemoteError> {
        let find = |goes_to: Option<&str>| match declaration.auth.secret() {
            Some(named) => found(named, &secret, goes_to),
            None => Err(RemoteError::NoSecret(String::new())),
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
            asking: asking(declaration.credentials),
        })
    }

    /// Finds what of a declaration no process could use, whatever its secrets are.
    ///
    /// # Errors
    /// [`BadMember`] that names the member and what would be right.
    pub fn check_declared(declaration: &Declaration) -> Result<(), BadMember> {
        let any = Source::Fixed {
            name: String::new(),
            secret: Secret::new("any"),
        };
        let in_url = |error| BadMember { field: "url", error };
        let options = Self::declared(declaration, |_| Some(Permitted::anywhere(any.clone())));
        let options = options.map_err(in_url)?;
        options.check().map_err(in_url)?;
        let issuer = declaration
            .connect
            .as_ref()
            .and_then(|connect| connect.issuer.as_ref());
        let judged = issuer.map_or(Ok(()), |issuer| options.page(issuer).map(drop));
        judged.map_err(|error| BadMember {
            field: "connect.issuer",
            error,
        })
    }
}

impl UserOptions {
    /// How users connect to a declared server that takes their own accounts. `secret` looks up what the declaration names.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no such secret, or it is not for where it would be sent.
    pub fn declared(
        declaration: &Declaration,
        connections: &Connections,
        secret: impl Fn(SecretRef<'_>) -> Option<Permitted>,
    ) -> Result<Self, RemoteError> {
        let connect = declaration.connect.clone().unwrap_or_default();
        let goes_to = connect.issuer.as_deref();
        let own = connect
            .secret()
            .map(|named| found(named, &secret, goes_to))
            .transpose()?;
        Ok(Self {
            connections: connections.clone(),
            at: connect.issuer.clone().map_or(IssuedAt::Told, IssuedAt::Issuer),
            client: connect.client_id.map(|id| (id, own)),
            scopes: connect.scopes,
        })
    }
}

/// Each user of a server that takes their own accounts has a connection.
fn asking(credentials: Credentials) -> AskingOptions {
    let usual = AskingOptions::default();
    match credentials {
        Credentials::Platform => usual,
        Credentials::User => AskingOptions {
            max_children: MOST_AT_ONCE,
            ..usual
        },
    }
}

/// What a declaration calls a secret, if it may be sent there.
fn found(
    named: SecretRef<'_>,
    secret: impl Fn(SecretRef<'_>) -> Option<Permitted>,
    goes_to: Option<&str>,
) -> Result<Source, RemoteError> {
    let found = secret(named).ok_or_else(|| match named {
        SecretRef::Variable(name) => RemoteError::NoVariable(name.to_owned()),
        SecretRef::Named(name) => RemoteError::NoSecret(name.to_owned()),
    })?;
    permitted(named, found, goes_to)
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
