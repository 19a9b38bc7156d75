//! A user of a server who has no credential for it yet gets a link. What the pages behind it need to know is found out before.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::ServerId;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};
use url::Url;

use super::{
    Connections, UserOptions,
    in_use::Uses,
    registration::Wish,
    store::{Credential, Issuer, Known, LINK_LIFE, Link, Whose},
};
use crate::{
    secrets::Held,
    upstream::remote::{
        dial::Dialer,
        guard::Reach,
        oauth::{self, Asker, Metadata, Shows},
        options::{IssuedAt, RemoteOptions, shown},
    },
};

/// For how much of its life the same link is given again.
const GIVEN_AGAIN: Duration = Duration::from_secs(LINK_LIFE.as_secs() / 2);
/// How many users have a link that is given again; the others get a new one each time.
const MOST_LINKS: usize = 10_000;
/// How often it is looked whether a user has connected.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many bytes of certificates a link may hold.
const MAX_ROOTS: usize = 32 * 1024;
/// What the platform is called at issuers.
pub(super) const CLIENT_NAME: &str = "Trunkline";

/// The users of one server.
pub(in crate::upstream) struct Users {
    pub(super) connections: Connections,
    pub(super) asker: Asker,
    pub(super) server: ServerId,
    /// The credentials that connections work with at this moment.
    pub(super) uses: Uses,
    options: UserOptions,
    /// The secret of the client that the operator has registered, if it has one.
    secret: Option<Held>,
    url: Url,
    private: bool,
    ca_file: Option<PathBuf>,
    /// What was found out of the issuer; as long as nothing was, it is asked again.
    found: OnceCell<Found>,
    /// Links that were given. Held only to look or add.
    links: Mutex<HashMap<Whose, Given>>,
}

/// A link that was given.
#[derive(Clone)]
struct Given {
    /// What stands in it.
    secret: String,
    /// As which client its user is sent to the issuer.
    client: String,
    /// Until when it is given again.
    until: Instant,
}

/// An issuer.
struct Found {
    metadata: Metadata,
    authorization_endpoint: String,
}

impl Users {
    pub(in crate::upstream::remote) fn new(
        options: &UserOptions,
        server: &RemoteOptions,
        url: &Url,
        dialer: Dialer,
    ) -> Arc<Self> {
        let reach = Reach::of(server.allow_private);
        let secret = options.client.as_ref().and_then(|(_, secret)| secret.clone());
        Arc::new(Self {
            connections: options.connections.clone(),
            asker: Asker::new(dialer, reach),
            server: server.id.clone(),
            uses: Uses::default(),
            secret: secret.map(Held::new),
            options: options.clone(),
            url: url.clone(),
            private: server.allow_private,
            ca_file: server.ca_file.clone(),
            found: OnceCell::new(),
            links: Mutex::default(),
        })
    }

    /// Whether a credential was given for the server as it is declared now: one that was given for another is not shown to this one.
    pub(super) fn is_for_here(&self, credential: &Credential) -> bool {
        credential.resource == self.url.as_str()
    }

    /// Whether a user has a credential.
    ///
    /// # Errors
    /// When that cannot be read at the moment.
    pub(in crate::upstream) async fn knows(&self, whose: &Whose) -> Result<bool, String> {
        let credentials = &self.connections.0.store.credentials;
        let kept = credentials.read::<Credential>(&whose.key()).await;
        let kept = kept.map_err(|error| format!("users' credentials cannot be read ({error})"))?;
        Ok(kept.is_some_and(|kept| self.is_for_here(&kept.value)))
    }

    /// Waits until a user has a credential, or for so long. Whether there is one then.
    ///
    /// # Errors
    /// As [`Users::knows`].
    pub(in crate::upstream) async fn wait_for(&self, whose: &Whose, limit: Duration) -> Result<bool, String> {
        let until = Instant::now() + limit;
        loop {
            if self.knows(whose).await? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The link by which a user connects.
    ///
    /// # Errors
    /// Why there can be none at the moment.
    pub(in crate::upstream) async fn link(&self, whose: &Whose) -> Result<String, String> {
        let found = self.found.get_or_try_init(|| self.find()).await?;
        let client = self.client(whose, &found.metadata).await?;
        let given = self.links().get(whose).cloned();
        let counts = |given: &Given| Instant::now() < given.until && given.client == client.id;
        if let Some(Given { secret, .. }) = given.filter(counts)
            && self.connections.look(&secret).await.is_ok()
        {
            return Ok(self.connections.at(&secret));
        }
        let store = &self.connections.0.store;
        let secret = store.keys.draw();
        let link = Link {
            whose: whose.clone(),
            authorization_endpoint: found.authorization_endpoint.clone(),
            issuer: Issuer {
                name: found.metadata.issuer.clone(),
                token_endpoint: found.metadata.token_endpoint.clone(),
                revocation_endpoint: found.metadata.revocation_endpoint.clone(),
                private: self.private,
                roots: self.roots().await?,
            },
            says_iss: found.metadata.authorization_response_iss_parameter_supported,
            client: client.clone(),
            resource: self.url.to_string(),
            scopes: self.options.scopes.clone(),
            verifier: store.keys.draw(),
            browser: None,
            login: None,
        };
        let kept = store.put_link(&secret, &link).await;
        kept.map_err(|error| format!("no link can be kept at the moment ({error})"))?;
        let url = self.connections.at(&secret);
        let mut links = self.links();
        let now = Instant::now();
        if links.len() >= MOST_LINKS {
            links.retain(|_, given| now < given.until);
        }
        if links.len() < MOST_LINKS {
            let given = Given {
                secret,
                client: client.id,
                until: now + GIVEN_AGAIN,
            };
            links.insert(whose.clone(), given);
        }
        Ok(url)
    }

    /// A user's link is of no use any more, or was used.
    pub(in crate::upstream) fn used(&self, whose: &Whose) {
        self.links().remove(whose);
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Whose, Given>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self) -> Result<Found, String> {
        let metadata = match &self.options.at {
            IssuedAt::Issuer(issuer) => oauth::metadata(&self.asker, issuer).await?,
            _ => {
                let issuers = oauth::issuers_of(&self.asker, &self.url).await?;
                oauth::metadata(&self.asker, &issuers[0]).await?
            }
        };
        let Some(endpoint) = &metadata.authorization_endpoint else {
            return Err("its issuer has no page where users agree (authorization_endpoint)".to_owned());
        };
        // Users are sent there by their browsers, so it has to be a page.
        let endpoint = self.asker.judge(endpoint)?;
        if !matches!(endpoint.scheme(), "https" | "http") {
            return Err(format!("`{}` is no page", shown(endpoint.as_str())));
        }
        if !metadata.binds_codes() {
            return Err("its issuer does not say that it takes PKCE with S256".to_owned());
        }
        Ok(Found {
            authorization_endpoint: endpoint.to_string(),
            metadata,
        })
    }

    /// Who the platform is at an issuer: as its operator says, else by a document of its own, else by registering itself.
    async fn client(&self, whose: &Whose, metadata: &Metadata) -> Result<Known, String> {
        if let Some((id, _)) = &self.options.client {
            let secret = match &self.secret {
                Some(held) => {
                    let read = held.get().await.map_err(|error| error.to_string())?;
                    Some(read.secret.expose().to_owned())
                }
                None => None,
            };
            let shows = match secret {
                Some(_) => metadata.shows(),
                None => Shows::Nothing,
            };
            return Ok(Known {
                id: id.clone(),
                secret,
                shows,
                registered: None,
            });
        }
        let document = self.connections.document_url();
        if let Some(id) = document.filter(|_| metadata.client_id_metadata_document_supported) {
            return Ok(Known {
                id,
                secret: None,
                shows: Shows::Nothing,
                registered: None,
            });
        }
        let Some(endpoint) = &metadata.registration_endpoint else {
            return Err(
                "its issuer neither registers clients by itself nor reads their documents; register the platform there, and write client_id"
                    .to_owned(),
            );
        };
        let wish = Wish {
            asker: &self.asker,
            whose,
            issuer: &metadata.issuer,
            endpoint,
            scopes: &self.options.scopes,
        };
        self.connections.registered(&wish).await
    }

    /// The certificates that its issuer is checked against, for processes that have no such file.
    async fn roots(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.ca_file else {
            return Ok(None);
        };
        let failed = |why: String| format!("its ca_file {} cannot be used: {why}", path.display());
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|error| failed(error.to_string()))?;
        match text.len() > MAX_ROOTS {
            true => Err(failed(format!(
                "it has more than {MAX_ROOTS} bytes, and each link holds a copy; write the authorities of the server and its issuer only"
            ))),
            false => Ok(Some(text)),
        }
    }
}
