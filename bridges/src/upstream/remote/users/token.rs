//! A user's credential in use. It is exchanged before it ends, by one process for all: refresh tokens often count once.

use std::{sync::Arc, time::Duration};

use runtime::store::StoreError;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    accounts::revoke,
    asking::Users,
    consent::ends_ms,
    in_use::InUse,
    now_ms,
    store::{Credential, Kept, Whose},
};
use crate::{
    secrets::{Read, Secret},
    upstream::remote::{
        error::RemoteError,
        oauth::{self, NoToken},
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
    used: Arc<InUse>,
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
            used: users.uses.enter(&whose),
            users,
            whose,
            state: Mutex::default(),
        }
    }

    /// Cancelled when the credential was forgotten, or its user has connected anew.
    pub(in crate::upstream::remote) fn gone(&self) -> CancellationToken {
        self.used.gone().clone()
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
        let store = &self.users.connections.0.store.credentials;
        let kept = store.read(&self.whose.key()).await.map_err(unreadable)?;
        let kept = kept.filter(|kept: &Kept<Credential>| self.users.is_for_here(&kept.value));
        let Some(Kept { value, revision }) = kept else {
            return Err(RemoteError::NotConnected);
        };
        self.used.is(&value);
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
            let why = "it has ended, and cannot be exchanged";
            return Err(self.lost(&value, revision, why).await);
        };
        let mut mine = value;
        mine.exchanging_ms = now + EXCHANGE_MS;
        let revision = match store.write(&self.whose.key(), &mine, Some(revision)).await {
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
        let secret = mine.client.secret();
        let client = mine.client.showing(secret.as_ref());
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.expose()),
            ("resource", mine.resource.as_str()),
        ];
        let asked = oauth::ask(&self.users.asker, &mine.issuer.token_endpoint, client, &fields).await;
        mine.exchanging_ms = 0;
        let failed = match asked {
            Ok(token) => {
                mine.access = token.access.expose().to_owned();
                mine.ends_ms = ends_ms(&token);
                // An issuer that says nothing of another lets the present one count on.
                if let Some(next) = token.refresh {
                    mine.refresh = Some(next.expose().to_owned());
                }
                return match self.keep(&mine, revision).await? {
                    Written::Kept => Ok(Tried::Done(used(&mine, EARLY_MS))),
                    Written::Gone => {
                        // Whoever forgets a credential means this token, too.
                        let (revocation, _) = revoke(&mine).await;
                        debug!(server.id = %self.whose.server, revocation = revocation.as_str(), "a credential was forgotten while it was exchanged");
                        Err(RemoteError::NotConnected)
                    }
                    Written::Other => Ok(Tried::Again),
                };
            }
            Err(NoToken::Grant(why)) => return Err(self.lost(&mine, revision, &why).await),
            Err(NoToken::Client(why)) => {
                self.users.connections.unregister(&mine.client).await;
                return Err(self.lost(&mine, revision, &why).await);
            }
            Err(NoToken::Other(why)) => why,
        };
        if self.keep(&mine, revision).await? != Written::Kept {
            return Ok(Tried::Again);
        }
        if !is_refused && now_ms() < mine.ends_ms {
            warn!(server.id = %self.whose.server, error = failed, "a user's token cannot be exchanged before it ends; it is used until then");
            return Ok(Tried::Done(used(&mine, 0)));
        }
        Err(RemoteError::NoToken(failed))
    }

    /// Writes what has become of the credential, if nobody else has written or forgotten it.
    async fn keep(&self, mine: &Credential, revision: u64) -> Result<Written, RemoteError> {
        let (store, key) = (&self.users.connections.0.store.credentials, self.whose.key());
        match store.write(&key, mine, Some(revision)).await {
            Ok(_) => Ok(Written::Kept),
            Err(StoreError::Conflict) => {
                let there = store.read::<Credential>(&key).await.map_err(unreadable)?;
                Ok(there.map_or(Written::Gone, |_| Written::Other))
            }
            Err(error) => Err(unreadable(error)),
        }
    }

    /// A credential that counts no more is forgotten, so that its user is asked anew.
    async fn lost(&self, mine: &Credential, revision: u64, why: &str) -> RemoteError {
        debug!(server.id = %self.whose.server, issuer = mine.issuer.name, why, "a user's credential counts no more");
        self.users.used(&self.whose);
        let store = &self.users.connections.0.store.credentials;
        match store.remove(&self.whose.key(), revision).await {
            Ok(()) | Err(StoreError::Conflict) => RemoteError::NotConnected,
            Err(error) => unreadable(error),
        }
    }
}

/// What has become of a credential that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Kept,
    /// It was forgotten.
    Gone,
    /// Its user has connected anew, which counts more.
    Other,
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
