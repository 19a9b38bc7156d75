//! A server that was declared in the registry, as the bridge connects to it.

use std::{collections::HashMap, time::Duration};

use bus_schema::registry::{Auth, Declaration};

use super::{
    error::RemoteError,
    options::{Bearer, ClientCredentials, HEALTH_EVERY, RemoteOptions, Secret},
};
use crate::upstream::AskingOptions;

impl RemoteOptions {
    /// The options of a declared server. `secret` looks up a variable that the declaration names.
    ///
    /// # Errors
    /// [`RemoteError::NoSecret`] when there is no such variable.
    pub fn declared(
        declaration: &Declaration,
        secret: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, RemoteError> {
        let find = |name: &str| {
            let found = secret(name).map(Secret::new);
            found.ok_or_else(|| RemoteError::NoSecret(name.to_owned()))
        };
        let bearer = match &declaration.auth {
            Auth::None => Bearer::None,
            Auth::Bearer { token_env } => Bearer::Token(find(token_env)?),
            Auth::Oauth2 {
                token_endpoint,
                client_id,
                client_secret_env,
                scopes,
            } => Bearer::Client(ClientCredentials {
                token_endpoint: token_endpoint.clone(),
                client_id: client_id.clone(),
                client_secret: find(client_secret_env)?,
                scopes: scopes.clone(),
            }),
        };
        Ok(Self {
            id: declaration.id.clone(),
            url: declaration.url.clone(),
            transport: declaration.transport,
            era: declaration.era,
            headers: declaration.headers.clone(),
            bearer,
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
            asking: AskingOptions::default(),
        })
    }

    /// Finds what of a declaration no process could use, whatever its secrets are.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting and what would be right.
    pub fn check_declared(declaration: &Declaration) -> Result<(), RemoteError> {
        Self::declared(declaration, |_| Some("any".to_owned()))?.check()
    }
}
