//! What this platform shows a remote server to be let in. It comes from the operator, never from a client, and is never logged.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header as http};
use tokio::{sync::Mutex, time::Instant};

use super::{
    dial::Dialer,
    error::RemoteError,
    guard::Reach,
    oauth::Platform,
    options::{Bearer, RemoteOptions},
    users::UserToken,
};
use crate::secrets::{Held, Read, Secret};

/// When something is asked again that does not change.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The headers that let the platform in.
pub(super) struct Credentials {
    parts: Vec<Part>,
    current: ArcSwapOption<Shown>,
    /// Held while they are read, so that they are read once for all who wait.
    turn: Mutex<()>,
}

/// A header, and where what is in it comes from.
struct Part {
    header: HeaderName,
    origin: Origin,
}

enum Origin {
    /// The header as it is to be sent.
    Whole(Held),
    /// A token.
    Token(Held),
    /// A token that is got from an issuer.
    Issued(Box<Platform>),
    /// A token that a user has given.
    User(Box<UserToken>),
}

/// What is shown.
pub(super) struct Shown {
    pub(super) headers: HeaderMap,
    until: Instant,
}

impl Credentials {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self::of(Vec::new())
    }

    /// What the operator has configured for a server. Nothing is read, and no issuer asked, before its first use.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting that cannot be used.
    pub(super) fn new(options: &RemoteOptions, dialer: &Dialer) -> Result<Self, RemoteError> {
        let mut parts = secret_headers(options)?;
        let token = match &options.bearer {
            Bearer::None => None,
            Bearer::From(source) => Some(Origin::Token(Held::new(source.clone()))),
            Bearer::Client(credentials) => {
                let reach = Reach::of(options.allow_private);
                let platform = Platform::new(credentials, &options.url()?, dialer.clone(), reach);
                Some(Origin::Issued(Box::new(platform)))
            }
        };
        parts.extend(token.map(|origin| Part {
            header: http::AUTHORIZATION,
            origin,
        }));
        Ok(Self::of(parts))
    }

    /// What a user has given for a server, beside the headers that the operator has configured.
    ///
    /// # Errors
    /// [`RemoteError`] that names the setting that cannot be used.
    pub(super) fn of_user(options: &RemoteOptions, token: UserToken) -> Result<Self, RemoteError> {
        let mut parts = secret_headers(options)?;
        parts.push(Part {
            header: http::AUTHORIZATION,
            origin: Origin::User(Box::new(token)),
        });
        Ok(Self::of(parts))
    }

    fn of(parts: Vec<Part>) -> Self {
        Self {
            parts,
            current: ArcSwapOption::empty(),
            turn: Mutex::default(),
        }
    }

    /// The headers to send.
    ///
    /// # Errors
    /// [`RemoteError`] when a secret or a token is not to be had.
    pub(super) async fn get(&self) -> Result<Arc<Shown>, RemoteError> {
        let fresh = || {
            self.current
                .load_full()
                .filter(|shown| Instant::now() < shown.until)
        };
        if let Some(shown) = fresh() {
            return Ok(shown);
        }
        let _turn = self.turn.lock().await;
        match fresh() {
            Some(shown) => Ok(shown),
            None => self.read(Asked::Usually).await,
        }
    }

    /// Other headers than those that were refused, if there are some by now.
    ///
    /// # Errors
    /// [`RemoteError`] when a secret or a token is not to be had.
    pub(super) async fn renewed(&self, refused: &Shown) -> Result<Option<Arc<Shown>>, RemoteError> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        let others = |shown: &Arc<Shown>| shown.headers != refused.headers;
        // Whoever was refused at the same time has got new ones already.
        if let Some(shown) = self.current.load_full().filter(others) {
            return Ok(Some(shown));
        }
        Ok(Some(self.read(Asked::AfterRefusal).await?).filter(others))
    }

    async fn read(&self, asked: Asked) -> Result<Arc<Shown>, RemoteError> {
        let mut shown = Shown {
            headers: HeaderMap::with_capacity(self.parts.len()),
            until: Instant::now() + NEVER,
        };
        for part in &self.parts {
            let read = part.origin.read(asked).await?;
            let value = value(&part.origin, &read.secret)?;
            shown.headers.insert(part.header.clone(), value);
            shown.until = shown.until.min(read.until);
        }
        let shown = Arc::new(shown);
        self.current.store(Some(Arc::clone(&shown)));
        Ok(shown)
    }
}

fn secret_headers(options: &RemoteOptions) -> Result<Vec<Part>, RemoteError> {
    let names = options.secret_header_names()?.into_iter();
    let sources = options.secret_headers.values().cloned();
    let parts = names.zip(sources).map(|(header, source)| Part {
        header,
        origin: Origin::Whole(Held::new(source)),
    });
    Ok(parts.collect())
}

/// Why secrets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Usually,
    AfterRefusal,
}

impl Origin {
    async fn read(&self, asked: Asked) -> Result<Read, RemoteError> {
        Ok(match (self, asked) {
            (Self::Whole(held) | Self::Token(held), Asked::Usually) => held.get().await?,
            (Self::Whole(held) | Self::Token(held), Asked::AfterRefusal) => held.again().await?,
            (Self::Issued(platform), Asked::Usually) => platform.get().await?,
            (Self::Issued(platform), Asked::AfterRefusal) => platform.again().await?,
            (Self::User(token), Asked::Usually) => token.get().await?,
            (Self::User(token), Asked::AfterRefusal) => token.again().await?,
        })
    }

    /// What it is called in messages.
    fn name(&self) -> String {
        match self {
            Self::Whole(held) | Self::Token(held) => held.source().to_string(),
            Self::Issued(_) | Self::User(_) => "the answer of its issuer".to_owned(),
        }
    }
}

fn value(origin: &Origin, secret: &Secret) -> Result<HeaderValue, RemoteError> {
    let text = secret.expose();
    let header = match origin {
        Origin::Whole(_) => HeaderValue::from_str(text).ok(),
        Origin::Token(_) | Origin::Issued(_) | Origin::User(_) => {
            let usable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            let header = HeaderValue::from_str(&format!("Bearer {text}")).ok();
            header.filter(|_| usable)
        }
    };
    let mut header = header.ok_or_else(|| RemoteError::BadSecret(origin.name()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Source;

    fn bearer(path: &std::path::Path) -> Credentials {
        Credentials::of(vec![Part {
            header: http::AUTHORIZATION,
            origin: Origin::Token(Held::new(Source::File(path.to_owned()))),
        }])
    }

    #[tokio::test]
    async fn a_token_that_was_refused_is_read_again_and_shown_if_it_is_another() {
        let path = std::env::temp_dir().join(format!("trunkline-bearer-{}", std::process::id()));
        std::fs::write(&path, "one\n").unwrap();
        let credentials = bearer(&path);
        let one = credentials.get().await.unwrap();
        assert_eq!(one.headers[http::AUTHORIZATION], "Bearer one");
        assert!(one.headers[http::AUTHORIZATION].is_sensitive());
        assert!(credentials.renewed(&one).await.unwrap().is_none());
        std::fs::write(&path, "other").unwrap();
        let two = credentials.renewed(&one).await.unwrap().unwrap();
        assert_eq!(two.headers[http::AUTHORIZATION], "Bearer other");
        let again = credentials.get().await.unwrap();
        assert_eq!(again.headers[http::AUTHORIZATION], "Bearer other");
        std::fs::write(&path, "two words").unwrap();
        let error = credentials.renewed(&two).await.err().unwrap().to_string();
        assert!(
            error.contains("trunkline-bearer") && !error.contains("words"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(credentials.renewed(&two).await.is_err());
    }

    #[tokio::test]
    async fn who_shows_nothing_has_nothing_else_to_show() {
        let nothing = Credentials::none();
        let shown = nothing.get().await.unwrap();
        assert!(shown.headers.is_empty());
        assert!(nothing.renewed(&shown).await.unwrap().is_none());
    }
}
