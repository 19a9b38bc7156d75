//! Tokens that say nothing by themselves: their issuer is asked what they mean, and its answer counts for a short while.
//!
//! Source: RFC 7662.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::http::HeaderValue;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::warn;
use url::form_urlencoded;

use super::{
    Refusal,
    api_keys::sha256,
    claims::{self, Claims},
    options::{AuthError, IntrospectionOptions, IssuerOptions},
};
use crate::upstream::remote::fetch::{Fetcher, basic};

/// How many answers are remembered; beyond, those that are over make room, and then all of them.
const MAX_ANSWERS: usize = 10_000;

/// How often an issuer is asked about a token of somebody who stays, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Asks one issuer about tokens.
pub(super) struct Introspection {
    issuer: String,
    url: String,
    authorization: HeaderValue,
    cache_for: Duration,
    fetcher: Arc<Fetcher>,
    /// What genuine tokens mean, by their digests. Held only to look and to write.
    answers: Mutex<HashMap<[u8; 32], Answer>>,
}

struct Answer {
    claims: Arc<Claims>,
    until: Instant,
}

/// A token that somebody came with who stays: its issuer is asked about it again, for as long as that is.
#[derive(Clone)]
pub(crate) struct Standing {
    asks: Arc<Introspection>,
    token: Arc<str>,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}

impl Standing {
    pub(super) fn new(asks: &Arc<Introspection>, token: &str) -> Self {
        Self {
            asks: Arc::clone(asks),
            token: token.into(),
        }
    }

    /// Waits until the issuer says that the token counts no more. One that cannot be asked has not said so.
    pub(crate) async fn taken_back(&self) {
        let every = self.asks.cache_for.max(LOOK_AGAIN);
        loop {
            sleep(every).await;
            let digest = sha256(&self.token);
            if self.asks.known(&digest).is_some() {
                continue;
            }
            match self.asks.ask(&self.token).await {
                Ok(Some(claims)) => drop(self.asks.remember(digest, claims)),
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }
}

impl Introspection {
    pub(super) fn new(
        issuer: &str,
        options: &IntrospectionOptions,
        fetcher: Arc<Fetcher>,
    ) -> Result<Self, AuthError> {
        let authorization = basic(&options.client_id, &options.client_secret)
            .map_err(|_| AuthError::Credentials(issuer.to_owned()))?;
        Ok(Self {
            issuer: issuer.to_owned(),
            url: options.url.clone(),
            authorization,
            cache_for: options.cache_for,
            fetcher,
            answers: Mutex::default(),
        })
    }

    /// The claims of a token; `None` when it is none of this issuer's, or counts no more.
    ///
    /// # Errors
    /// [`Refusal`] when the issuer cannot be asked, or says what cannot be.
    pub(super) async fn claims(
        &self,
        token: &str,
        options: &IssuerOptions,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        let digest = sha256(token);
        let known = self.known(&digest);
        let claims = match known {
            Some(claims) => claims,
            None => match self.ask(token).await? {
                Some(claims) => self.remember(digest, claims),
                None => return Ok(None),
            },
        };
        claims::check_plain(&claims, options, SystemTime::now())?;
        Ok(Some(claims))
    }

    async fn ask(&self, token: &str) -> Result<Option<Claims>, Refusal> {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .finish();
        let answer = match self.fetcher.post(&self.url, &self.authorization, form).await {
            Ok(answer) => answer,
            Err(error) => {
                warn!(issuer = %self.issuer, %error, "an issuer cannot be asked about a token");
                return Err(Refusal::Unavailable);
            }
        };
        match serde_json::from_slice::<Claims>(&answer) {
            Ok(claims) => Ok((claims.get("active") == Some(&Value::Bool(true))).then_some(claims)),
            Err(_) => {
                warn!(issuer = %self.issuer, "what an issuer says about a token is no JSON object");
                Err(Refusal::Unavailable)
            }
        }
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Arc<Claims>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(digest)?;
        (answer.until > Instant::now()).then(|| Arc::clone(&answer.claims))
    }

    fn remember(&self, digest: [u8; 32], claims: Claims) -> Arc<Claims> {
        let claims = Arc::new(claims);
        let now = Instant::now();
        let Some(until) = now.checked_add(self.cache_for) else {
            return claims;
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, answer| answer.until > now);
        }
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        let answer = Answer {
            claims: Arc::clone(&claims),
            until,
        };
        answers.insert(digest, answer);
        claims
    }
}
