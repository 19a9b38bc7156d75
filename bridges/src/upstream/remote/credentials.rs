//! What this platform shows a remote server to be let in. It comes from the operator, never from a client, and is never logged.

use std::path::{Path, PathBuf};

use arc_swap::ArcSwapOption;
use axum::http::HeaderValue;
use std::sync::Arc;
use tokio::{io::AsyncReadExt as _, sync::Mutex, time::Instant};

use super::{
    error::RemoteError,
    options::{Bearer, Secret},
    token::Issuer,
};

/// A longer file holds something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A bearer token, as the header that carries it.
pub(super) struct Credentials {
    source: Source,
    current: ArcSwapOption<HeaderValue>,
}

/// Where the token comes from.
enum Source {
    /// From nowhere, or from what the operator wrote.
    Fixed,
    File(PathBuf),
    /// With until when the present one is used. Held while a new one is got, so that only one is.
    Issuer(Box<Issuer>, Mutex<Option<Instant>>),
}

impl Credentials {
    /// What the operator gave. A file is read, and an issuer asked, on first use.
    ///
    /// # Errors
    /// [`RemoteError::BadBearer`] when a header cannot carry it.
    pub(super) fn new(bearer: &Bearer, issuer: Option<Issuer>) -> Result<Self, RemoteError> {
        let (source, current) = match (bearer, issuer) {
            (_, Some(issuer)) => (Source::Issuer(Box::new(issuer), Mutex::default()), None),
            (Bearer::Token(token), None) => (Source::Fixed, Some(Arc::new(value(token, "bearer_env")?))),
            (Bearer::File(path), None) => (Source::File(path.clone()), None),
            (Bearer::None | Bearer::Client(_), None) => (Source::Fixed, None),
        };
        Ok(Self {
            source,
            current: ArcSwapOption::new(current),
        })
    }

    /// The header to send, if any.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no token to be had.
    pub(super) async fn get(&self) -> Result<Option<Arc<HeaderValue>>, RemoteError> {
        match (&self.source, self.current.load_full()) {
            (Source::File(path), None) => self.read(path).await.map(Some),
            (Source::Issuer(issuer, until), current) => {
                let mut until = until.lock().await;
                match current.filter(|_| until.is_some_and(|until| Instant::now() < until)) {
                    Some(current) => Ok(Some(current)),
                    None => self.issue(issuer, &mut until).await.map(Some),
                }
            }
            (Source::Fixed | Source::File(_), current) => Ok(current),
        }
    }

    /// Another header than the one that was refused, if there is one by now.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no token to be had.
    pub(super) async fn renewed(
        &self,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<Arc<HeaderValue>>, RemoteError> {
        let other = match &self.source {
            Source::Fixed => return Ok(None),
            Source::File(path) => self.read(path).await?,
            Source::Issuer(issuer, until) => {
                let mut until = until.lock().await;
                // Whoever was refused at the same time has got a new one already.
                match self
                    .current
                    .load_full()
                    .filter(|current| Some(&**current) != refused)
                {
                    Some(current) => current,
                    None => self.issue(issuer, &mut until).await?,
                }
            }
        };
        Ok((Some(&*other) != refused).then_some(other))
    }

    async fn issue(
        &self,
        issuer: &Issuer,
        until: &mut Option<Instant>,
    ) -> Result<Arc<HeaderValue>, RemoteError> {
        let issued = issuer.issue().await?;
        let token = Arc::new(value(&issued.token, "the answer of its issuer")?);
        self.current.store(Some(Arc::clone(&token)));
        *until = Some(issued.until);
        Ok(token)
    }

    async fn read(&self, path: &Path) -> Result<Arc<HeaderValue>, RemoteError> {
        let failed = |source| RemoteError::BearerFile {
            path: path.to_owned(),
            source,
        };
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut text = String::new();
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .await
            .map_err(failed)?;
        let token = Secret::new(text.trim());
        let read = Arc::new(value(&token, &path.display().to_string())?);
        self.current.store(Some(Arc::clone(&read)));
        Ok(read)
    }
}

fn value(token: &Secret, source: &str) -> Result<HeaderValue, RemoteError> {
    let token = token.expose();
    let usable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::from_str(&format!("Bearer {token}")).ok();
    let mut header = header
        .filter(|_| usable)
        .ok_or_else(|| RemoteError::BadBearer(source.to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_read_again_only_when_it_was_refused() {
        let path = std::env::temp_dir().join(format!("trunkline-bearer-{}", std::process::id()));
        std::fs::write(&path, "one\n").unwrap();
        let credentials = Credentials::new(&Bearer::File(path.clone()), None).unwrap();
        let one = credentials.get().await.unwrap().unwrap();
        assert_eq!(*one, "Bearer one");
        assert!(one.is_sensitive());
        assert!(credentials.renewed(Some(&one)).await.unwrap().is_none());
        std::fs::write(&path, "two").unwrap();
        assert_eq!(*credentials.get().await.unwrap().unwrap(), "Bearer one");
        assert_eq!(
            *credentials.renewed(Some(&one)).await.unwrap().unwrap(),
            "Bearer two"
        );
        assert_eq!(*credentials.get().await.unwrap().unwrap(), "Bearer two");
        std::fs::write(&path, "two words").unwrap();
        let error = credentials.renewed(None).await.err().unwrap().to_string();
        assert!(
            error.contains("trunkline-bearer") && !error.contains("words"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(credentials.renewed(None).await.is_err());
    }
}
