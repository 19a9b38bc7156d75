//! The platform as a client that registers itself (RFC 7591): once for each tenant, server and issuer, for all processes.
//!
//! Whoever needs a client that is not there yet writes over the revision that it has read that it is about to register one, and the
//! others wait for what becomes of that.

use std::time::Duration;

use runtime::store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;
use tracing::info;

use super::{
    Connections, now_ms,
    seal::digest_of,
    store::{Kept, Known, Whose, filter_of},
};
use crate::upstream::remote::oauth::{Asker, Shows};

/// How long a registration may take, in milliseconds, before another process may try. An issuer has ten seconds.
const LIMIT_MS: u64 = 15_000;
/// How often it is looked whether another process has done it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often that is looked.
const LOOKS: u64 = LIMIT_MS / 200 + 10;
/// How much earlier than it ends a client is registered anew, in milliseconds: a user has so long to agree.
const EARLY_MS: u64 = 3_600_000;

/// What is kept of a registration.
#[derive(Serialize, Deserialize)]
struct Registration {
    /// `None` while somebody is at it.
    client: Option<Known>,
    /// When the client ends, or until when somebody is at it, in milliseconds since 1970; zero is never.
    #[serde(default)]
    until_ms: u64,
}

/// What an issuer answers.
#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<String>,
    /// In seconds since 1970; zero is never.
    #[serde(default)]
    client_secret_expires_at: u64,
    token_endpoint_auth_method: Option<String>,
}

/// Where the platform registers itself, and for what.
pub(super) struct Wish<'a> {
    pub(super) asker: &'a Asker,
    pub(super) whose: &'a Whose,
    pub(super) issuer: &'a str,
    /// Where clients are registered there.
    pub(super) endpoint: &'a str,
    pub(super) scopes: &'a [String],
}

impl Connections {
    /// The client that the platform is at an issuer that registers such.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn registered(&self, wish: &Wish<'_>) -> Result<Known, String> {
        let (kept, scope) = (&self.0.store.credentials, wish.scopes.join(" "));
        // What it was registered for: another redirect URI or other scopes are another client's.
        let client = digest_of(&[wish.issuer, &self.callback(), &scope]);
        let Whose { tenant, server, .. } = wish.whose;
        let key = filter_of(tenant, Some(server), Some(&format!("client.{client}")));
        for _ in 0..LOOKS {
            let there = kept.read::<Registration>(&key).await.map_err(unreadable)?;
            let now = now_ms();
            let over = match there {
                Some(Kept { value, revision }) => match value.client {
                    Some(client) if value.until_ms == 0 || now + EARLY_MS < value.until_ms => {
                        return Ok(client);
                    }
                    None if now < value.until_ms => {
                        sleep(LOOK_AGAIN).await;
                        continue;
                    }
                    _ => Some(revision),
                },
                None => None,
            };
            let mine = Registration {
                client: None,
                until_ms: now + LIMIT_MS,
            };
            let revision = match kept.claim(&key, &mine, over).await {
                Ok(revision) => revision,
                Err(StoreError::Conflict) => continue,
                Err(error) => return Err(unreadable(error)),
            };
            match self.register(wish, &key, &scope).await {
                Ok(registered) => match kept.write(&key, &registered, Some(revision)).await {
                    Ok(_) => {
                        info!(server.id = %server, "the platform has registered itself at a server's issuer")
                    }
                    // Somebody else has taken this for dead, and what they have registered counts.
                    Err(StoreError::Conflict) => {}
                    Err(error) => return Err(unreadable(error)),
                },
                Err(why) => {
                    // Whoever is next may try at once; if that cannot be written, after a while.
                    let _ = kept.remove(&key, revision).await;
                    return Err(why);
                }
            }
        }
        Err("another process does not register the platform at its issuer in its time".to_owned())
    }

    /// Forgets a client that its issuer does not know any more, so that the platform registers itself anew.
    pub(super) async fn unregister(&self, client: &Known) {
        let Some(key) = &client.registered else {
            return;
        };
        let kept = &self.0.store.credentials;
        let there = kept.read::<Registration>(key).await.ok().flatten();
        let is_same = |known: &Kept<Registration>| {
            known
                .value
                .client
                .as_ref()
                .is_some_and(|known| known.id == client.id)
        };
        if let Some(there) = there.filter(is_same) {
            // Whoever was quicker has forgotten it, or registered another.
            let _ = kept.remove(key, there.revision).await;
        }
    }

    async fn register(&self, wish: &Wish<'_>, key: &str, scope: &str) -> Result<Registration, String> {
        let mut document = self.client_document();
        if !scope.is_empty() {
            document["scope"] = json!(scope);
        }
        let answer = wish.asker.post_json(wish.endpoint, document.to_string()).await?;
        if !answer.status.is_success() {
            return Err(format!(
                "its issuer does not register the platform ({})",
                answer.status
            ));
        }
        let registered: Registered = serde_json::from_slice(&answer.body)
            .map_err(|_| "its issuer's answer to a registration holds no client_id".to_owned())?;
        let method = registered.token_endpoint_auth_method.as_deref();
        let shows = match (&registered.client_secret, method) {
            (None, _) | (_, Some("none")) => Shows::Nothing,
            (Some(_), Some("client_secret_post")) => Shows::Post,
            (Some(_), _) => Shows::Basic,
        };
        Ok(Registration {
            until_ms: registered.client_secret_expires_at.saturating_mul(1_000),
            client: Some(Known {
                id: registered.client_id,
                secret: registered.client_secret,
                shows,
                registered: Some(key.to_owned()),
            }),
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn unreadable(error: StoreError) -> String {
    format!("what is kept of the platform's registrations cannot be read or written ({error})")
}
