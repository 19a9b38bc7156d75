//! What this platform shows a remote server to be let in. It comes from the operator, never from a client, and is never logged.

use std::path::{Path, PathBuf};

use arc_swap::ArcSwapOption;
use axum::http::HeaderValue;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;

use super::{
    error::RemoteError,
    options::{Bearer, Secret},
};

/// A longer file holds something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A bearer token, as the header that carries it.
pub(super) struct Credentials {
    file: Option<PathBuf>,
    current: ArcSwapOption<HeaderValue>,
}

impl Credentials {
    /// What the operator gave. A file is read on first use.
    ///
    /// # Errors
    /// [`RemoteError::BadBearer`] when a header cannot carry it.
    pub(super) fn new(bearer: &Bearer) -> Result<Self, RemoteError> {
        let (file, current) = match bearer {
            Bearer::None => (None, None),
            Bearer::Token(token) => (None, Some(Arc::new(value(token, "bearer_env")?))),
            Bearer::File(path) => (Some(path.clone()), None),
        };
        Ok(Self {
            file,
            current: ArcSwapOption::new(current),
        })
    }

    /// The header to send, if any.
    ///
    /// # Errors
    /// [`RemoteError`] when the file holds no token.
    pub(super) async fn get(&self) -> Result<Option<Arc<HeaderValue>>, RemoteError> {
        let current = self.current.load_full();
        match (current, &self.file) {
            (None, Some(path)) => self.read(path).await.map(Some),
            (current, _) => Ok(current),
        }
    }

    /// Another header than the one that was refused, if the file holds one by now.
    ///
    /// # Errors
    /// [`RemoteError`] when the file holds no token.
    pub(super) async fn renewed(
        &self,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<Arc<HeaderValue>>, RemoteError> {
        let Some(path) = &self.file else { return Ok(None) };
        let read = self.read(path).await?;
        Ok((Some(&*read) != refused).then_some(read))
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
        let credentials = Credentials::new(&Bearer::File(path.clone())).unwrap();
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
