//! A user of a server who has no credential for it yet gets a link. What the pages behind it need to know is found out before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};
use url::Url;

use super::{
    Connections, UserOptions,
    store::{Known, LINK_LIFE, Link, Whose},
};
use crate::{
    secrets::Held,
    upstream::remote::{
        dial::Dialer,
        guard::Reach,
        oauth::{self, Asker, Metadata, Shows},
        options::{IssuedAt, shown},
    },
};

/// For how much of its life the same link is given again.
const GIVEN_AGAIN: Duration = Duration::from_secs(LINK_LIFE.as_secs() / 2);
/// How many users have a link that is given again; the others get a new one each time.
const MOST_LINKS: usize = 10_000;
/// How often it is looked whether a user has connected.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the platform is called at issuers.
pub(super) const CLIENT_NAME: &str = "Trunkline";

/// The users of one server.
pub(in crate::upstream) struct Users {
    pub(super) connections: Connections,
    pub(super) asker: Asker,
    options: UserOptions,
    url: Url,
    private: bool,
    /// What was found out of the issuer; as long as nothing was, it is asked again.
    found: OnceCell<Found>,
    /// What stands in links that were given, and until when they are given again. Held only to look or add.
    links: Mutex<HashMap<Whose, (String, Instant)>>,
}

/// An issuer, and who the platform is there.
struct Found {
    metadata: Metadata,
    authorization_endpoint: String,
    client: Known,
}

#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<String>,
    token_endpoint_auth_method: Option<String>,
}

impl Users {
    pub(in crate::upstream::remote) fn new(
        options: &UserOptions,
        url: &Url,
        dialer: Dialer,
        reach: Reach,
    ) -> Arc<Self> {
        Arc::new(Self {
            connections: options.connections.clone(),
            asker: Asker::new(dialer, reach),
            options: options.clone(),
            url: url.clone(),
            private: reach == Reach::Private,
            found: OnceCell::new(),
            links: Mutex::default(),
        })
    }

    /// Whether a user has a credential.
    ///
    /// # Errors
    /// When that cannot be read at the moment.
    pub(in crate::upstream) async fn knows(&self, whose: &Whose) -> Result<bool, String> {
        let kept = self.connections.0.store.credential(whose).await;
        let kept = kept.map_err(|error| format!("users' credentials cannot be read ({error})"))?;
        Ok(kept.is_some())
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
        let given = self.links().get(whose).cloned();
        if let Some((secret, _)) = given.filter(|(_, until)| Instant::now() < *until)
            && self.connections.look(&secret).await.is_ok()
        {
            return Ok(self.connections.at(&secret));
        }
        let found = self.found.get_or_try_init(|| self.find()).await?;
        let store = &self.connections.0.store;
        let secret = store.keys.draw();
        let link = Link {
            whose: whose.clone(),
            authorization_endpoint: found.authorization_endpoint.clone(),
            token_endpoint: found.metadata.token_endpoint.clone(),
            issuer: found.metadata.issuer.clone(),
            says_iss: found.metadata.authorization_response_iss_parameter_supported,
            client: found.client.clone(),
            resource: self.url.to_string(),
            scopes: self.options.scopes.clone(),
            verifier: store.keys.draw(),
            private: self.private,
            browser: None,
            login: None,
        };
        let kept = store.put_link(&secret, &link).await;
        kept.map_err(|error| format!("no link can be kept at the moment ({error})"))?;
        let url = self.connections.at(&secret);
        let mut links = self.links();
        let now = Instant::now();
        if links.len() >= MOST_LINKS {
            links.retain(|_, (_, until)| now < *until);
        }
        if links.len() < MOST_LINKS {
            links.insert(whose.clone(), (secret, now + GIVEN_AGAIN));
        }
        Ok(url)
    }

    /// A user's link is of no use any more, or was used.
    pub(in crate::upstream) fn used(&self, whose: &Whose) {
        self.links().remove(whose);
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Whose, (String, Instant)>> {
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
        let client = self.client(&metadata).await?;
        Ok(Found {
            authorization_endpoint: endpoint.to_string(),
            metadata,
            client,
        })
    }

    /// Who the platform is at an issuer: as its operator says, else by a document of its own, else by registering itself.
    async fn client(&self, metadata: &Metadata) -> Result<Known, String> {
        if let Some((id, secret)) = &self.options.client {
            let secret = match secret {
                Some(source) => {
                    let read = Held::new(source.clone()).get().await;
                    let read = read.map_err(|error| error.to_string())?;
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
            });
        }
        let document = self.connections.document_url();
        if let Some(id) = document.filter(|_| metadata.client_id_metadata_document_supported) {
            return Ok(Known {
                id,
                secret: None,
                shows: Shows::Nothing,
            });
        }
        match &metadata.registration_endpoint {
            Some(endpoint) => self.register(endpoint).await,
            None => Err(
                "its issuer neither registers clients by itself nor reads their documents; register the platform there, and write client_id"
                    .to_owned(),
            ),
        }
    }

    /// Registers the platform (RFC 7591).
    async fn register(&self, endpoint: &str) -> Result<Known, String> {
        let mut wish = self.connections.client_document();
        wish["scope"] = json!(self.options.scopes.join(" "));
        let answer = self.asker.post_json(endpoint, wish.to_string()).await?;
        if !answer.status.is_success() {
            return Err(format!(
                "its issuer does not register the platform ({})",
                answer.status
            ));
        }
        let registered: Registered = serde_json::from_slice(&answer.body)
            .map_err(|_| "its issuer's answer to a registration holds no client_id".to_owned())?;
        let shows = match (
            &registered.client_secret,
            registered.token_endpoint_auth_method.as_deref(),
        ) {
            (None, _) | (_, Some("none")) => Shows::Nothing,
            (Some(_), Some("client_secret_post")) => Shows::Post,
            (Some(_), _) => Shows::Basic,
        };
        Ok(Known {
            id: registered.client_id,
            secret: registered.client_secret,
            shows,
        })
    }
}
