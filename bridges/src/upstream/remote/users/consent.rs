//! What happens behind a link: a user looks at what it is for, agrees, is sent to the issuer, and comes back with a code.
//!
//! A link can be followed once. Whoever has followed it has a cookie from then on, and only a browser with that cookie can come back.
//! So a link that was followed is no use to others, and neither is the issuer's answer.

use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};
use url::{Url, form_urlencoded};

use super::{
    Connections,
    asking::CLIENT_NAME,
    now_ms,
    seal::{challenge_of, digest_of},
    store::{Credential, Link, Whose},
};
use crate::{
    secrets::Secret,
    upstream::remote::oauth::{self, NoToken, Token},
};

/// Why nobody is connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConnected {
    /// The link was used, is too old, or was never given.
    #[error(
        "This link is not valid any more. Ask your client to make the call again; it will get a new one."
    )]
    Gone,
    /// Somebody else has followed it.
    #[error(
        "This link was opened in another browser. Ask your client to make the call again; it will get a new one."
    )]
    Elsewhere,
    /// Somebody else than whom it is for.
    #[error(
        "This link is for another user of this platform than the one who has logged in. Whoever has sent it to you would have worked with your account."
    )]
    SomebodyElse,
    /// The issuer, or the user there, said no.
    #[error("The connection was not granted.")]
    Refused,
    /// The issuer does not do as it should.
    #[error("The connection could not be made. The platform's log says why.")]
    Failed,
    /// Nothing can be read or written at the moment.
    #[error("The connection cannot be made at the moment. Try again.")]
    Unavailable,
}

/// Where a browser is sent, and what it has to show when it comes back.
pub(crate) struct Followed {
    pub(crate) location: String,
    pub(crate) cookie: String,
}

/// What an issuer sends a browser back with.
#[derive(Default)]
pub(crate) struct Answered {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

impl Answered {
    /// Reads the query of a URL.
    pub(crate) fn read(query: &str) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let member = match &*name {
                "state" => &mut read.state,
                "code" => &mut read.code,
                "iss" => &mut read.iss,
                "error" => &mut read.error,
                _ => continue,
            };
            *member = Some(value.into_owned());
        }
        read
    }
}

impl Connections {
    /// What the platform tells issuers of itself (client id metadata document, and RFC 7591).
    pub(crate) fn client_document(&self) -> Value {
        let mut document = json!({
            "client_name": CLIENT_NAME,
            "redirect_uris": [self.callback()],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "web",
        });
        if let Some(id) = self.document_url() {
            document["client_id"] = json!(id);
            document["client_uri"] = json!(self.0.public);
        }
        document
    }

    /// Whom a link is for, and for which server.
    ///
    /// # Errors
    /// [`NotConnected`] when it leads nowhere.
    pub(crate) async fn look(&self, secret: &str) -> Result<Whose, NotConnected> {
        let kept = self.0.store.link(secret).await.map_err(unavailable)?;
        let link = kept.filter(|kept| kept.value.browser.is_none());
        link.map(|kept| kept.value.whose).ok_or(NotConnected::Gone)
    }

    /// Follows a link, which uses it up.
    ///
    /// # Errors
    /// [`NotConnected`] when it leads nowhere.
    pub(crate) async fn follow(&self, secret: &str) -> Result<Followed, NotConnected> {
        let store = &self.0.store;
        let kept = store.link(secret).await.map_err(unavailable)?;
        let kept = kept.filter(|kept| kept.value.browser.is_none());
        let kept = kept.ok_or(NotConnected::Gone)?;
        // Of two who follow it at once one is late.
        let used = store.use_link(secret, kept.revision).await;
        used.map_err(|_| NotConnected::Gone)?;
        let cookie = store.keys.draw();
        let mut link = Link {
            browser: Some(digest_of(&[&cookie])),
            ..kept.value
        };
        let location = match &self.0.login {
            Some(login) => {
                let state = store.keys.draw();
                let drawn = (store.keys.draw(), store.keys.draw());
                let begun = login.begin(drawn, &state, &self.login_callback()).await;
                let (location, begun) = begun.map_err(|why| failed(&link, &why))?;
                link.login = Some(begun);
                store.put_link(&state, &link).await.map_err(unavailable)?;
                location
            }
            None => self.send_on(&link).await?,
        };
        Ok(Followed { location, cookie })
    }

    /// Sends a browser to the server's issuer.
    async fn send_on(&self, link: &Link) -> Result<String, NotConnected> {
        let state = self.0.store.keys.draw();
        let location = authorization(link, &state, &self.callback()).ok_or(NotConnected::Failed)?;
        let kept = self.0.store.put_link(&state, link).await;
        kept.map_err(unavailable)?;
        Ok(location)
    }

    /// Takes the answer to a login, from the browser that has followed the link, and gives where that is sent then.
    ///
    /// # Errors
    /// [`NotConnected`] when whoever has logged in is not the one whom the link is for.
    pub(crate) async fn logged_in(
        &self,
        answered: Answered,
        cookie: Option<&str>,
    ) -> Result<String, NotConnected> {
        let mut link = self.come_back(answered.state.as_deref(), cookie).await?;
        let (Some(login), Some(begun)) = (&self.0.login, link.login.take()) else {
            return Err(NotConnected::Gone);
        };
        if answered.iss.is_some_and(|iss| iss != login.issuer()) {
            return Err(failed(&link, "another issuer has answered a login"));
        }
        let (None, Some(code)) = (answered.error, answered.code.map(Secret::new)) else {
            return Err(NotConnected::Refused);
        };
        let callback = self.login_callback();
        let proves = login.proves(&begun, &code, &callback, &link.whose);
        match proves.await {
            Ok(true) => self.send_on(&link).await,
            Ok(false) => {
                warn!(server.id = %link.whose.server, "somebody else than its user has followed a link");
                Err(NotConnected::SomebodyElse)
            }
            Err(why) => Err(failed(&link, &why)),
        }
    }

    /// The link that a browser comes back to, which uses it up.
    async fn come_back(&self, state: Option<&str>, cookie: Option<&str>) -> Result<Link, NotConnected> {
        let store = &self.0.store;
        let state = state.ok_or(NotConnected::Gone)?;
        let kept = store.link(state).await.map_err(unavailable)?;
        let kept = kept.ok_or(NotConnected::Gone)?;
        let Some(browser) = &kept.value.browser else {
            return Err(NotConnected::Gone);
        };
        // Digests are compared, so how long that takes tells nothing.
        if cookie.is_none_or(|cookie| digest_of(&[cookie]) != *browser) {
            return Err(NotConnected::Elsewhere);
        }
        let used = store.use_link(state, kept.revision).await;
        used.map_err(|_| NotConnected::Gone)?;
        Ok(kept.value)
    }

    /// Takes an issuer's answer, from the browser that has followed the link.
    ///
    /// # Errors
    /// [`NotConnected`] when it is none that connects anybody.
    pub(crate) async fn finish(
        &self,
        answered: Answered,
        cookie: Option<&str>,
    ) -> Result<Whose, NotConnected> {
        let link = self.come_back(answered.state.as_deref(), cookie).await?;
        if link.login.is_some() {
            // Its user has not shown who that is.
            return Err(NotConnected::Gone);
        }
        // RFC 9207: an answer of another issuer is not even looked at.
        match &answered.iss {
            Some(iss) if *iss != link.issuer.name => {
                return Err(failed(&link, "another issuer has answered"));
            }
            None if link.says_iss => {
                return Err(failed(&link, "the answer does not say which issuer gives it"));
            }
            _ => {}
        }
        let code = match (answered.error, answered.code) {
            (None, Some(code)) => Secret::new(code),
            _ => return Err(NotConnected::Refused),
        };
        let token = match exchange(&link, &code, &self.callback()).await {
            Ok(token) => token,
            Err(why) => {
                if matches!(why, NoToken::Client(_)) {
                    self.unregister(&link.client).await;
                }
                return Err(failed(&link, &why.into_text()));
            }
        };
        let store = &self.0.store;
        let credential = Credential {
            access: token.access.expose().to_owned(),
            ends_ms: ends_ms(&token),
            refresh: token.refresh.map(|refresh| refresh.expose().to_owned()),
            issuer: link.issuer,
            client: link.client,
            resource: link.resource,
            grant: store.keys.draw(),
            whose: Some(link.whose.clone()),
            connected_ms: now_ms(),
            exchanging_ms: 0,
        };
        let kept = store
            .credentials
            .write(&link.whose.key(), &credential, None)
            .await;
        kept.map_err(unavailable)?;
        info!(server.id = %link.whose.server, "a user has connected to a server");
        Ok(link.whose)
    }
}

/// When a token ends, as all processes count time.
pub(super) fn ends_ms(token: &Token) -> u64 {
    let left = token.ends.saturating_duration_since(Instant::now());
    now_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

/// The page where the user agrees.
fn authorization(link: &Link, state: &str, callback: &str) -> Option<String> {
    let mut url = Url::parse(&link.authorization_endpoint).ok()?;
    let scopes = link.scopes.join(" ");
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &link.client.id)
        .append_pair("redirect_uri", callback)
        .append_pair("state", state)
        .append_pair("code_challenge", &challenge_of(&link.verifier))
        .append_pair("code_challenge_method", "S256")
        .append_pair("resource", &link.resource);
    if !scopes.is_empty() {
        query.append_pair("scope", &scopes);
    }
    drop(query);
    Some(url.into())
}

async fn exchange(link: &Link, code: &Secret, callback: &str) -> Result<Token, NoToken> {
    let asker = link.issuer.asker().map_err(NoToken::Other)?;
    let secret = link.client.secret();
    let client = link.client.showing(secret.as_ref());
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.expose()),
        ("redirect_uri", callback),
        ("code_verifier", &link.verifier),
        ("resource", &link.resource),
    ];
    oauth::ask(&asker, &link.issuer.token_endpoint, client, &fields).await
}

fn failed(link: &Link, why: &str) -> NotConnected {
    warn!(server.id = %link.whose.server, why, "a user could not be connected to a server");
    NotConnected::Failed
}

#[expect(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn unavailable(error: runtime::store::StoreError) -> NotConnected {
    warn!(%error, "a link cannot be read or written");
    NotConnected::Unavailable
}
