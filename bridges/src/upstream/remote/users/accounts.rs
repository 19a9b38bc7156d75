//! The accounts that users have connected, as they and operators see and forget them. What is secret of them is told to nobody.

use std::sync::Arc;

use bus_schema::{Principal, ServerId};
use futures::{StreamExt as _, stream};
use runtime::{Bus, moment, store::StoreError};
use serde::Serialize;
use tracing::{info, warn};

use super::{
    ConnectError, Connections,
    store::{Credential, Credentials, Listed, Whose, filter_of},
};
use crate::{
    secrets::{Held, Secret, Source},
    upstream::remote::oauth::{self, Hint},
};

/// The most accounts that a list has.
pub const MOST_ACCOUNTS: usize = 10_000;
/// How often a credential is forgotten that is exchanged at the same time.
const ATTEMPTS: usize = 8;
/// How many tokens are taken back at the same time.
const AT_ONCE: usize = 8;

/// The credentials that are kept, for who lists or forgets them.
#[derive(Clone)]
pub struct Accounts(Credentials);

/// Which of them.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// At this server only.
    pub server: Option<ServerId>,
    /// Of this subject only.
    pub subject: Option<String>,
    /// And only as a subject of this issuer.
    pub issuer: Option<String>,
}

/// An account that a user has connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The server that it is at.
    pub server: String,
    /// Whose it is; absent where that is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Who vouches for that user; absent where nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Who has let the platform in there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_by: Option<String>,
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<String>,
    /// When its token ends, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Whether the platform exchanges that for another before.
    pub renews: bool,
}

/// An account that was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// Which.
    #[serde(flatten)]
    pub account: Account,
    /// What its issuer was told.
    pub revocation: Revocation,
    /// Why that is not all, where something more is to be done there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What has become of a token at its issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Revocation {
    /// It was taken back.
    Revoked,
    /// The issuer takes none back by itself.
    Unsupported,
    /// It was to be taken back, and was not.
    Failed,
}

impl Revocation {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }
}

impl Which {
    fn fits(&self, credential: Option<&Credential>) -> bool {
        let whose = credential.and_then(|credential| credential.whose.as_ref());
        let is = |wanted: &Option<String>, is: fn(&Whose) -> &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| whose.is_some_and(|whose| is(whose) == wanted))
        };
        is(&self.subject, |whose| &whose.subject) && is(&self.issuer, |whose| &whose.issuer)
    }
}

/// What one user has.
#[derive(Clone, Debug)]
pub struct Own {
    whose: [String; 3],
    server: Option<ServerId>,
}

impl Own {
    /// That of a caller, at one server or at all.
    #[must_use]
    pub fn of(principal: &Principal, server: Option<ServerId>) -> Self {
        Self {
            whose: principal.identity().pieces().map(str::to_owned),
            server,
        }
    }
}

impl Accounts {
    /// Opens what is kept.
    ///
    /// # Errors
    /// [`ConnectError`] when a key or the bus does not allow it.
    pub async fn open(bus: &Bus, keys: &[Source]) -> Result<Self, ConnectError> {
        let mut read = Vec::with_capacity(keys.len());
        for source in keys {
            read.push((*Held::new(source.clone()).get().await?.secret).clone());
        }
        let keys = super::seal::Keys::new(&read).map_err(ConnectError::BadKey)?;
        Ok(Self(Credentials::open(bus, Arc::new(keys)).await?))
    }

    /// The accounts of a tenant's users, by server and subject.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn list(&self, tenant: &str, which: &Which) -> Result<Vec<Account>, StoreError> {
        let listed = self.those(tenant, which).await?;
        Ok(told(&listed))
    }

    /// The accounts of one user.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub async fn list_own(&self, own: &Own) -> Result<Vec<Account>, StoreError> {
        Ok(told(&self.own(own).await?))
    }

    /// Forgets accounts of a tenant's users, and has their tokens taken back. From then on no process works with them. Where everybody at
    /// a server is meant, so is the client that the platform has registered there for itself.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read or forgotten.
    pub async fn forget(&self, tenant: &str, which: &Which) -> Result<Vec<Forgotten>, StoreError> {
        let listed = self.those(tenant, which).await?;
        if let (Some(server), None) = (&which.server, &which.subject) {
            self.forget_clients(tenant, server).await?;
        }
        self.forget_all(listed).await
    }

    /// Forgets who the platform is at the issuers of a server where it has registered itself, so that it does so anew.
    async fn forget_clients(&self, tenant: &str, server: &ServerId) -> Result<(), StoreError> {
        let filter = filter_of(tenant, Some(server), Some("client.*"));
        for client in self.0.list(&filter, MOST_ACCOUNTS).await? {
            match self.0.remove(&client.key, client.revision).await {
                // Somebody registers it at this moment.
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The same for those of one user.
    ///
    /// # Errors
    /// As [`Accounts::forget`].
    pub async fn forget_own(&self, own: &Own) -> Result<Vec<Forgotten>, StoreError> {
        let listed = self.own(own).await?;
        self.forget_all(listed).await
    }

    async fn those(&self, tenant: &str, which: &Which) -> Result<Vec<Listed>, StoreError> {
        let filter = filter_of(tenant, which.server.as_ref(), None);
        let mut listed = self.0.list(&filter, MOST_ACCOUNTS).await?;
        listed.retain(|listed| which.fits(listed.credential.as_ref()));
        Ok(listed)
    }

    async fn own(&self, own: &Own) -> Result<Vec<Listed>, StoreError> {
        let [tenant, issuer, subject] = own.whose.clone();
        let person = super::seal::digest_of(&[&tenant, &issuer, &subject]);
        let filter = filter_of(&tenant, own.server.as_ref(), Some(&person));
        self.0.list(&filter, MOST_ACCOUNTS).await
    }

    /// All of them are forgotten before the first issuer is asked, as that may take its time.
    async fn forget_all(&self, listed: Vec<Listed>) -> Result<Vec<Forgotten>, StoreError> {
        let mut gone = Vec::with_capacity(listed.len());
        for listed in listed {
            gone.extend(self.forget_one(listed).await?);
        }
        Ok(stream::iter(gone)
            .map(take_back)
            .buffered(AT_ONCE)
            .collect()
            .await)
    }

    /// Forgets a credential as it is by then; `None` when it was forgotten in between.
    async fn forget_one(&self, mut listed: Listed) -> Result<Option<Listed>, StoreError> {
        for _ in 0..ATTEMPTS {
            match self.0.remove(&listed.key, listed.revision).await {
                Ok(()) => return Ok(Some(listed)),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
            // It was exchanged, and what there is now is to be taken back.
            let Some(kept) = self.0.read::<Credential>(&listed.key).await? else {
                return Ok(None);
            };
            (listed.revision, listed.credential) = (kept.revision, Some(kept.value));
        }
        Err(StoreError::Conflict)
    }
}

impl Connections {
    /// The same credentials, for who lists or forgets them.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        Accounts(self.0.store.credentials.clone())
    }
}

impl Account {
    fn of(listed: &Listed) -> Self {
        let credential = listed.credential.as_ref();
        let whose = credential.and_then(|credential| credential.whose.as_ref());
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let connected = credential.map_or(0, |credential| credential.connected_ms);
        // The id of a server is a piece of the key as it is.
        let server = listed.key.split('.').nth(1).unwrap_or_default();
        Self {
            server: server.to_owned(),
            subject: whose.map(|whose| whose.subject.clone()),
            issuer: whose.and_then(|whose| named(&whose.issuer)),
            granted_by: credential.and_then(|credential| named(&credential.issuer.name)),
            connected_at: (connected > 0).then(|| moment::of_ms(connected)),
            expires_at: credential.map(|credential| moment::of_ms(credential.ends_ms)),
            renews: credential.is_some_and(|credential| credential.refresh.is_some()),
        }
    }
}

/// Tells of an account that was forgotten, after its issuer was told.
async fn take_back(listed: Listed) -> Forgotten {
    let account = Account::of(&listed);
    let (revocation, reason) = match &listed.credential {
        Some(credential) => revoke(credential).await,
        None => {
            let why = "it was sealed with a key that is not known any more";
            (Revocation::Failed, Some(why.to_owned()))
        }
    };
    info!(
        server.id = account.server,
        revocation = revocation.as_str(),
        "a user's account was forgotten"
    );
    Forgotten {
        account,
        revocation,
        reason,
    }
}

fn told(listed: &[Listed]) -> Vec<Account> {
    let mut told: Vec<_> = listed.iter().map(Account::of).collect();
    told.sort_by(|one, other| (&one.server, &one.subject).cmp(&(&other.server, &other.subject)));
    told
}

/// Has what a user has given taken back at its issuer, as far as that does so.
pub(super) async fn revoke(credential: &Credential) -> (Revocation, Option<String>) {
    let Some(endpoint) = &credential.issuer.revocation_endpoint else {
        let why = "the issuer says nowhere that it takes tokens back; the user may do so there";
        return (Revocation::Unsupported, Some(why.to_owned()));
    };
    let asker = match credential.issuer.asker() {
        Ok(asker) => asker,
        Err(why) => return (Revocation::Failed, Some(why)),
    };
    let secret = credential.client.secret();
    let client = credential.client.showing(secret.as_ref());
    let refresh = credential.refresh.as_deref().map(|token| (token, Hint::Refresh));
    let mut failed = None;
    for (token, hint) in refresh
        .into_iter()
        .chain([(credential.access.as_str(), Hint::Access)])
    {
        let token = Secret::new(token);
        if let Err(why) = oauth::revoke(&asker, endpoint, client, &token, hint).await {
            warn!(why, "a token could not be taken back at its issuer");
            failed.get_or_insert(why);
        }
    }
    match failed {
        None => (Revocation::Revoked, None),
        Some(why) => (Revocation::Failed, Some(why)),
    }
}
