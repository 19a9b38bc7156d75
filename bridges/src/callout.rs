//! The auth callout: plain NATS clients show what other clients show over HTTP, and the broker holds each to the subjects that it may use.
//!
//! This is the second wall. The NATS door looks at every call again, so what is let in here too widely would still be refused there, and what
//! a broken door would let through never reaches it.

mod grants;
mod staying;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bus_schema::{
    Principal,
    audit::{Kind, Record},
    subject,
};
use runtime::{
    callout::{Answerer, CalloutError, CalloutOptions, Entry, Question, Word},
    moment,
};
use sha2::{Digest as _, Sha256};
use staying::{Changes, LetIn, SHORT_STAY_SECS, Staying};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info};

use crate::{
    auth::{Auth, AuthError, Gate},
    front::Front,
    tenants::Tenants,
};

/// The longest that a client stays on what it has shown once, in seconds: what its issuer has taken back in the meantime ends then.
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
    staying: Staying,
}

/// A client that may come in.
struct Entering {
    entry: Entry,
    who: LetIn,
    /// What has changed since its grants were worked out.
    changes: Changes,
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
                staying: Staying::default(),
            }),
            callout,
        })
    }

    /// Answers until `stop`. Clients that are in stay in.
    pub async fn serve(mut self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_QUESTIONS));
        let running = TaskTracker::new();
        loop {
            let word = tokio::select! {
                () = stop.cancelled() => break,
                word = self.callout.next() => word,
            };
            let question = match word {
                Some(Word::Asks(question)) => question,
                Some(Word::Left(connection)) => {
                    self.checks.staying.left(&connection);
                    continue;
                }
                None => break,
            };
            let slot = Arc::clone(&slots).try_acquire_owned().ok();
            let (checks, stop) = (Arc::clone(&self.checks), stop.clone());
            running.spawn(async move {
                let entering = match &slot {
                    Some(_) => checks.entry(&question).await,
                    None => Err(KeptOut::of("too many clients come at once; come again shortly")),
                };
                match entering {
                    Ok(entering) => checks.let_in(&question, entering, slot, &stop).await,
                    Err(kept_out) => checks.keep_out(&question, &kept_out).await,
                }
            });
        }
        running.close();
        running.wait().await;
        self.callout.close().await;
    }
}

impl Checks {
    /// Lets a client in, and follows it for as long as it stays.
    async fn let_in(
        &self,
        question: &Question,
        entering: Entering,
        slot: Option<OwnedSemaphorePermit>,
        stop: &CancellationToken,
    ) {
        let Entering {
            mut entry,
            who,
            changes,
        } = entering;
        debug!(client = %question, tenant = entry.tenant, subjects = entry.publish.len(), "let a plain NATS client in");
        // Before it comes in, so that its end is not missed.
        let stay = self.staying.begin(question.connection(), &who.grounds);
        if stay.is_none() {
            entry.expires_at = entry.expires_at.min(moment::now_secs() + SHORT_STAY_SECS);
        }
        self.answers.admit(question, &entry).await;
        drop((slot, entry));
        if let Some(stay) = stay {
            stay.follow(who, changes, &self.answers, stop).await;
        }
    }

    /// Keeps a client out, and puts that on record.
    async fn keep_out(&self, question: &Question, kept_out: &KeptOut) {
        info!(client = %question, reason = kept_out.reason, "kept a plain NATS client out");
        self.put(question, kept_out);
        self.answers.refuse(question, &kept_out.reason).await;
    }

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
    async fn entry(&self, question: &Question) -> Result<Entering, KeptOut> {
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
            self.entering(principal.clone(), shown.unwrap_or_default(), expires_at)
                .await
                .map_err(|reason| KeptOut::of(reason).by(&principal))
        };
        timeout(ANSWER_LIMIT, looking)
            .await
            .unwrap_or_else(|_| Err(KeptOut::of("what the client shows could not be checked in time")))
    }

    /// What somebody may do whose token or key is good until a time.
    async fn entering(&self, principal: Principal, shown: &str, expires_at: u64) -> Result<Entering, String> {
        let name = principal.to_user_name();
        if name.len() > MAX_NAME_BYTES {
            return Err("the token has more roles or scopes than a NATS connection carries".to_owned());
        }
        let Some(front) = self.fronts.of(&principal.tenant) else {
            return Err("the servers of this caller's tenant are not here".to_owned());
        };
        if front.blocks().stops(&principal) {
            return Err("this caller is blocked".to_owned());
        }
        let changes = Changes::of(front);
        let publish = grants::publish(front, &principal).await;
        if publish.len() > MAX_SUBJECTS {
            return Err(format!(
                "the client may use {} subjects, and {MAX_SUBJECTS} are what a NATS connection is given; let it use the HTTP door",
                publish.len()
            ));
        }
        let hooks = grants::hooks(front, &principal);
        let answers = !hooks.is_empty();
        let (publish, mut grounds): (Vec<_>, Vec<_>) = publish.into_iter().unzip();
        let (hooks, of_hooks): (Vec<_>, Vec<_>) = hooks.into_iter().unzip();
        grounds.extend(of_hooks);
        let own = subject::private_inboxes(&inbox_of(shown));
        Ok(Entering {
            entry: Entry {
                tenant: principal.tenant.clone(),
                name,
                publish,
                subscribe: [own].into_iter().chain(hooks).collect(),
                answers,
                expires_at,
            },
            who: LetIn {
                front: front.clone(),
                principal,
                grounds,
                expires_at,
            },
            changes,
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
