//! The auth callout: plain NATS clients show what other clients show over HTTP, and the broker holds each to the subjects that it may use.
//!
//! This is the second wall. The NATS door looks at every call again, so what is let in here too widely would still be refused there, and what
//! a broken door would let through never reaches it.

mod grants;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bus_schema::{
    Principal,
    audit::{Kind, Record},
    subject,
};
use runtime::{
    callout::{Answerer, CalloutError, CalloutOptions, Entry, Question},
    moment,
};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info};

use crate::{
    auth::{Auth, AuthError, Gate},
    front::Front,
    tenants::Tenants,
};

/// The longest that a client stays on what it has shown once, in seconds: what was taken back in the meantime ends then.
pub const LONGEST_STAY_SECS: u64 = 3_600;
/// The name of this door in records.
const DOOR: &str = "callout";
/// How long an answer may take; the broker waits a little longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// How many clients may come in at one moment; others are told to come again.
const MAX_QUESTIONS: usize = 256;
/// How long a principal may be that travels as a user's name.
const MAX_NAME_BYTES: usize = 16 * 1024;
/// How many subjects one client may be given.
const MAX_SUBJECTS: usize = 8_192;

/// Says why the callout cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody has to show anything, so there is nothing to check.
    #[error(
        "the auth callout checks what clients show, and [auth] asks for nothing; configure it, or leave the callout out"
    )]
    NoAuth,
    /// The settings cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// NATS does not take it.
    #[error(transparent)]
    Callout(#[from] CalloutError),
}

/// What answers the broker.
pub struct Callout {
    checks: Arc<Checks>,
    callout: runtime::callout::Callout,
}

struct Checks {
    gate: Gate,
    fronts: Tenants<Front>,
    answers: Answerer,
}

/// Why a client does not come in.
struct KeptOut {
    reason: String,
    /// Who it is, if what it has shown is genuine.
    principal: Option<Box<Principal>>,
}

impl KeptOut {
    fn of(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            principal: None,
        }
    }

    fn by(self, principal: &Principal) -> Self {
        Self {
            principal: Some(Box::new(principal.clone())),
            ..self
        }
    }
}

impl Callout {
    /// Connects, and listens to the broker. `local` is where HTTP listens, which tokens are for if the operator has not said otherwise;
    /// `fronts` are those of the tenants that have an account.
    ///
    /// # Errors
    /// [`OpenError`] that names what to change.
    pub async fn open(
        fronts: Tenants<Front>,
        auth: &Auth,
        local: SocketAddr,
        options: CalloutOptions,
    ) -> Result<Self, OpenError> {
        if matches!(auth, Auth::None) {
            return Err(OpenError::NoAuth);
        }
        let gate = Gate::new(auth, local, &fronts.names())?;
        let callout = runtime::callout::Callout::open(options).await?;
        let answers = callout.answerer();
        Ok(Self {
            checks: Arc::new(Checks {
                gate,
                fronts,
                answers,
            }),
            callout,
        })
    }

    /// Answers until `stop`. Clients that are in stay in.
    pub async fn serve(mut self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_QUESTIONS));
        let running = TaskTracker::new();
        loop {
            let question = tokio::select! {
                () = stop.cancelled() => break,
                question = self.callout.next() => question,
            };
            let Some(question) = question else { break };
            let slot = Arc::clone(&slots).try_acquire_owned().ok();
            let checks = Arc::clone(&self.checks);
            running.spawn(async move {
                let entry = match &slot {
                    Some(_) => checks.entry(&question).await,
                    None => Err(KeptOut::of("too many clients come at once; come again shortly")),
                };
                match entry {
                    Ok(entry) => {
                        debug!(client = %question, tenant = entry.tenant, subjects = entry.publish.len(), "let a plain NATS client in");
                        checks.answers.admit(&question, &entry).await;
                    }
                    Err(kept_out) => {
                        info!(client = %question, reason = kept_out.reason, "kept a plain NATS client out");
                        checks.put(&question, &kept_out);
                        checks.answers.refuse(&question, &kept_out.reason).await;
                    }
                }
            });
        }
        running.close();
        running.wait().await;
        self.callout.close().await;
    }
}

impl Checks {
    /// Puts on record who was kept out: with the tenant that it concerns, if that is known and one of ours.
    fn put(&self, question: &Question, kept_out: &KeptOut) {
        let Some((_, front)) = self.fronts.each().next() else {
            return;
        };
        let refused = Record::refused(Kind::Callout, "kept_out").through(DOOR);
        let refused = refused.from(question.address()).because(kept_out.reason.clone());
        let known = kept_out.principal.as_deref();
        let of_ours = known.filter(|principal| self.fronts.of(&principal.tenant).is_some());
        front.bus().audit().put(match of_ours {
            Some(principal) => refused.by(principal),
            None => refused,
        });
    }

    /// What a client may do, or why it does not come in.
    async fn entry(&self, question: &Question) -> Result<Entry, KeptOut> {
        let looking = async {
            let shown = question.shown();
            let admitted = self.gate.admit_token(shown).await;
            let admitted = admitted.map_err(|(refusal, principal)| KeptOut {
                reason: refusal.to_string(),
                principal,
            })?;
            let now = moment::now_secs();
            let longest = now + LONGEST_STAY_SECS;
            let expires_at = admitted
                .expires_at
                .map_or(longest, |expires| expires.min(longest));
            let principal = admitted.principal;
            // The clocks of issuers may be behind, which doors allow for; the broker ends a connection to the second.
            if expires_at <= now {
                return Err(KeptOut::of("the token has expired").by(&principal));
            }
            self.granted(&principal, shown.unwrap_or_default(), expires_at)
                .await
                .map_err(|reason| KeptOut::of(reason).by(&principal))
        };
        timeout(ANSWER_LIMIT, looking)
            .await
            .unwrap_or_else(|_| Err(KeptOut::of("what the client shows could not be checked in time")))
    }

    /// What somebody may do who is known.
    async fn granted(&self, principal: &Principal, shown: &str, expires_at: u64) -> Result<Entry, String> {
        let name = principal.to_user_name();
        if name.len() > MAX_NAME_BYTES {
            return Err("the token has more roles or scopes than a NATS connection carries".to_owned());
        }
        let Some(front) = self.fronts.of(&principal.tenant) else {
            return Err("the servers of this caller's tenant are not here".to_owned());
        };
        let publish = grants::publish(front, principal).await;
        if publish.len() > MAX_SUBJECTS {
            return Err(format!(
                "the client may use {} subjects, and {MAX_SUBJECTS} are what a NATS connection is given; let it use the HTTP door",
                publish.len()
            ));
        }
        let hooks = grants::hooks(front, principal);
        let mut subscribe = vec![subject::private_inboxes(&inbox_of(shown))];
        subscribe.extend(hooks.iter().cloned());
        Ok(Entry {
            tenant: principal.tenant.clone(),
            name,
            publish,
            subscribe,
            answers: !hooks.is_empty(),
            expires_at,
        })
    }
}

/// What the inboxes of a client are called, which only somebody knows who has what it shows.
fn inbox_of(shown: &str) -> String {
    let digest = Sha256::digest(shown.as_bytes());
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_named_as_clients_work_it_out() {
        // python3 -c 'import hashlib; print(hashlib.sha256(b"tlk_x").hexdigest()[:32])'
        let expected = "64dc05ff1dc8b8a450b4082af939df82";
        assert_eq!(inbox_of("tlk_x"), expected);
        assert_eq!(subject::private_inboxes(expected), format!("_INBOX_{expected}.>"));
    }
}
