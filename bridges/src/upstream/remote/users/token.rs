//! A user's credential in use. It is exchanged before it ends, by one process for all: refresh tokens often count once.

use std::{sync::Arc, time::Duration};

use runtime::store::StoreError;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::{
    asking::Users,
    consent::ends_ms,
    now_ms,
    store::{Credential, Kept, Whose},
};
use crate::{
    secrets::{Read, Secret},
    upstream::remote::{
        error::RemoteError,
        oauth::{self, Client, NoToken},
    },
};

/// How much earlier than it ends a token is exchanged, in milliseconds.
const EARLY_MS: u64 = 30_000;
/// How old a look at what is kept may be: so late it is noticed that a user has taken a credential back.
const LOOK: Duration = Duration::from_secs(30);
/// How long an exchange may take, in milliseconds, before another process may try. An issuer has ten seconds.
const EXCHANGE_MS: u64 = 15_000;
/// How often it is looked whether another process has done it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often that is looked.
const LOOKS: u64 = EXCHANGE_MS / 200 + 10;

/// A user's credential for a server.
pub(in crate::upstream::remote) struct UserToken {
    users: Arc<Users>,
    whose: Whose,
    /// Held while it is read or exchanged, so that this is done once for all who wait.
    state: Mutex<Option<(Arc<Secret>, Instant)>>,
}

/// What became of an attempt.
enum Tried {
    Done(Read),
    /// Somebody else is at it, or was quicker.
    Again,
}

impl UserToken {
    pub(in crate::upstream::remote) fn new(users: Arc<Users>, whose: Whose) -> Self {
        Self {
            users,
            whose,
            state: Mutex::default(),
        }
    }

    /// The token, and when it is to be asked for again.
    ///
    /// # Errors
    /// [`RemoteError::NotConnected`] when the user has none.
    pub(in crate::upstream::remote) async fn get(&self) -> Result<Read, RemoteError> {
        let mut state = self.state.lock().await;
        if let Some((secret, until)) = state.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(Read {
                secret: Arc::clone(secret),
                until: *until,
            });
        }
        let read = self.read(None).await?;
        *state = Some((Arc::clone(&read.secret), read.until));
        Ok(read)
    }

    /// Another token than the one that was refused.
    ///
    /// # Errors
    /// As [`UserToken::get`].
    pub(in crate::upstream::remote) async fn again(&self) -> Result<Read, RemoteError> {
        let mut state = self.state.lock().await;
        let refused = state.take().map(|(secret, _)| secret);
        let read = self.read(refused.as_deref()).await?;
        *state = Some((Arc::clone(&read.secret), read.until));
        Ok(read)
    }

    async fn read(&self, refused: Option<&Secret>) -> Result<Read, RemoteError> {
        for _ in 0..LOOKS {
            match self.attempt(refused).await? {
                Tried::Done(read) => return Ok(read),
                Tried::Again => sleep(LOOK_AGAIN).await,
            }
        }
        Err(RemoteError::NoToken(
            "another process does not get one in its time".to_owned(),
        ))
    }

    async fn attempt(&self, refused: Option<&Secret>) -> Result<Tried, RemoteError> {
        let store = &self.users.connections.0.store;
        let kept = store.credential(&self.whose).await.map_err(unreadable)?;
        let Some(Kept { value, revision }) = kept else {
            return Err(RemoteError::NotConnected);
        };
        let now = now_ms();
        let is_refused = refused.is_some_and(|refused| refused.expose() == value.access);
        let early = if value.refresh.is_some() { EARLY_MS } else { 0 };
        if !is_refused && now.saturating_add(early) < value.ends_ms {
            return Ok(Tried::Done(used(&value, early)));
        }
        if value.exchanging_ms > now {
            return Ok(Tried::Again);
        }
        let Some(refresh) = value.refresh.clone().map(Secret::new) else {
            return Err(self.lost(revision, "it has ended, and cannot be exchanged").await);
        };
        let mut mine = value;
        mine.exchanging_ms = now + EXCHANGE_MS;
        let revision = match store.keep(&self.whose, &mine, Some(revision)).await {
            Ok(revision) => revision,
            Err(StoreError::Conflict) => return Ok(Tried::Again),
            Err(error) => return Err(unreadable(error)),
        };
        self.exchange(mine, revision, &refresh, is_refused).await
    }

    async fn exchange(
        &self,
        mut mine: Credential,
        revision: u64,
        refresh: &Secret,
        is_refused: bool,
    ) -> Result<Tried, RemoteError> {
        let secret = mine.client.secret.as_deref().map(Secret::new);
        let client = Client {
            id: &mine.client.id,
            secret: secret.as_ref(),
            shows: mine.client.shows,
        };
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.expose()),
            ("resource", mine.resource.as_str()),
        ];
        let asked = oauth::ask(&self.users.asker, &mine.token_endpoint, client, &fields).await;
        mine.exchanging_ms = 0;
        let failed = match asked {
            Ok(token) => {
                mine.access = token.access.expose().to_owned();
                mine.ends_ms = ends_ms(&token);
                // An issuer that says nothing of another lets the present one count on.
                if let Some(next) = token.refresh {
                    mine.refresh = Some(next.expose().to_owned());
                }
                self.keep(&mine, revision).await?;
                return Ok(Tried::Done(used(&mine, EARLY_MS)));
            }
            Err(NoToken::Grant(why) | NoToken::Client(why)) => return Err(self.lost(revision, &why).await),
            Err(NoToken::Other(why)) => why,
        };
        self.keep(&mine, revision).await?;
        if !is_refused && now_ms() < mine.ends_ms {
            warn!(server.id = %self.whose.server, error = failed, "a user's token cannot be exchanged before it ends; it is used until then");
            return Ok(Tried::Done(used(&mine, 0)));
        }
        Err(RemoteError::NoToken(failed))
    }

    async fn keep(&self, mine: &Credential, revision: u64) -> Result<(), RemoteError> {
        let store = &self.users.connections.0.store;
        match store.keep(&self.whose, mine, Some(revision)).await {
            // The user has taken it back, or connected anew, which counts more.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// A credential that counts no more is forgotten, so that its user is asked anew.
    async fn lost(&self, revision: u64, why: &str) -> RemoteError {
        debug!(server.id = %self.whose.server, why, "a user's credential counts no more");
        self.users.used(&self.whose);
        let store = &self.users.connections.0.store;
        match store.forget(&self.whose, revision).await {
            Ok(()) | Err(StoreError::Conflict) => RemoteError::NotConnected,
            Err(error) => unreadable(error),
        }
    }
}

fn used(credential: &Credential, early: u64) -> Read {
    let left = credential.ends_ms.saturating_sub(early).saturating_sub(now_ms());
    Read {
        secret: Arc::new(Secret::new(credential.access.as_str())),
        until: Instant::now() + Duration::from_millis(left).min(LOOK),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn unreadable(error: StoreError) -> RemoteError {
    RemoteError::NoToken(format!("users' credentials cannot be read or written ({error})"))
}
