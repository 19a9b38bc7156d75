//! Tokens that the platform gets for itself: OAuth 2.0 client credentials (RFC 6749, section 4.4), for one resource (RFC 8707).
//!
//! Whose secret it is, is the issuer's; so it goes to one issuer only, also when that was named by the server: the first that
//! was found stays the only one for as long as the process knows the server.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use tracing::warn;
use url::Url;

use super::{
    asker::Asker,
    discovery,
    endpoint::{self, Client, NoToken, Shows, Token},
};
use crate::{
    secrets::{Held, Read, Secret},
    upstream::remote::{
        dial::Dialer,
        error::RemoteError,
        guard::Reach,
        options::{ClientCredentials, IssuedAt, shown},
    },
};

/// How much earlier than it ends a token is exchanged.
const EARLY: Duration = Duration::from_secs(30);
/// When an issuer is asked again that has just failed, while there is a token that still counts.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Gets tokens for one server.
pub(in crate::upstream::remote) struct Platform {
    asker: Asker,
    credentials: ClientCredentials,
    secret: Held,
    server: Url,
    /// The issuer that was found first, where none was named.
    first: OnceLock<String>,
    /// Held while a token is got, so that only one is.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    endpoint: Option<(String, Shows)>,
    token: Option<Kept>,
}

struct Kept {
    secret: Arc<Secret>,
    /// Until when nobody is asked.
    until: Instant,
    ends: Instant,
}

impl Platform {
    pub(in crate::upstream::remote) fn new(
        credentials: &ClientCredentials,
        server: &Url,
        dialer: Dialer,
        reach: Reach,
    ) -> Self {
        Self {
            asker: Asker::new(dialer, reach),
            secret: Held::new(credentials.client_secret.clone()),
            credentials: credentials.clone(),
            server: server.clone(),
            first: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// The token, and when it is to be asked for again. While an issuer cannot be asked, a token is used to its end.
    ///
    /// # Errors
    /// [`RemoteError`] when there is none.
    pub(in crate::upstream::remote) async fn get(&self) -> Result<Read, RemoteError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(kept) = state.token.as_ref().filter(|kept| now < kept.until) {
            return Ok(kept.to_read());
        }
        let failed = match self.renew(&mut state).await {
            Ok(read) => return Ok(read),
            Err(failed) => failed,
        };
        match state.token.as_mut().filter(|kept| now < kept.ends) {
            Some(kept) => {
                warn!(error = %failed, "a token cannot be exchanged before it ends; it is used until then");
                kept.until = kept.ends.min(now + AFTER_FAILURE);
                Ok(kept.to_read())
            }
            None => Err(failed),
        }
    }

    /// Another token than the one that was refused.
    ///
    /// # Errors
    /// [`RemoteError`] when there is none.
    pub(in crate::upstream::remote) async fn again(&self) -> Result<Read, RemoteError> {
        let mut state = self.state.lock().await;
        self.renew(&mut state).await
    }

    async fn renew(&self, state: &mut State) -> Result<Read, RemoteError> {
        let (url, shows) = match state.endpoint.take() {
            Some(known) => known,
            None => self.find().await.map_err(RemoteError::NoToken)?,
        };
        let token = self.issue(&url, shows).await?;
        // Forgotten when it fails: an issuer may move, and then says so.
        state.endpoint = Some((url, shows));
        let life = token.ends.saturating_duration_since(Instant::now());
        let kept = state.token.insert(Kept {
            secret: Arc::new(token.access),
            until: token.ends - EARLY.min(life / 2),
            ends: token.ends,
        });
        Ok(kept.to_read())
    }

    async fn issue(&self, url: &str, shows: Shows) -> Result<Token, RemoteError> {
        let secret = self.secret.get().await?.secret;
        match self.ask(url, shows, &secret).await {
            Err(NoToken::Client(why)) => {
                // It may have been exchanged there, and not yet be known here.
                let other = self.secret.again().await?.secret;
                if other == secret {
                    return Err(RemoteError::NoToken(format!(
                        "{why}; check the client id, and the secret in {}",
                        self.secret.source()
                    )));
                }
                self.ask(url, shows, &other).await
            }
            asked => asked,
        }
        .map_err(|refused| RemoteError::NoToken(refused.into_text()))
    }

    async fn ask(&self, url: &str, shows: Shows, secret: &Secret) -> Result<Token, NoToken> {
        let scopes = self.credentials.scopes.join(" ");
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("resource", self.server.as_str()),
        ];
        if !scopes.is_empty() {
            fields.push(("scope", &scopes));
        }
        let client = Client {
            id: &self.credentials.client_id,
            secret: Some(secret),
            shows,
        };
        endpoint::ask(&self.asker, url, client, &fields).await
    }

    /// Where tokens are got, and how the client shows there who it is.
    async fn find(&self) -> Result<(String, Shows), String> {
        let issuer = match &self.credentials.at {
            IssuedAt::Endpoint(url) => return Ok((url.clone(), Shows::Basic)),
            IssuedAt::Issuer(issuer) => issuer.clone(),
            IssuedAt::Told => {
                let told = discovery::issuers_of(&self.asker, &self.server).await?;
                let known = self.first.get();
                match (known, told.into_iter().next()) {
                    (Some(known), Some(told)) if *known != told => {
                        return Err(format!(
                            "it names another issuer than before, `{}`, and the client's secret is not for that; \
                             if that is right, name the issuer in its configuration",
                            shown(&told)
                        ));
                    }
                    (_, Some(told)) => told,
                    (_, None) => return Err("it names no issuer".to_owned()),
                }
            }
        };
        let metadata = discovery::metadata(&self.asker, &issuer).await?;
        if self.credentials.at == IssuedAt::Told {
            // Whoever comes second has found the same, or is refused the next time.
            let _ = self.first.set(issuer);
        }
        let shows = metadata.shows();
        Ok((metadata.token_endpoint, shows))
    }
}

impl Kept {
    fn to_read(&self) -> Read {
        Read {
            secret: Arc::clone(&self.secret),
            until: self.until,
        }
    }
}
