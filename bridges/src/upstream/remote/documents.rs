//! Reads documents that an operator names by URL, such as those of a registry of servers. The guard is that of remote servers, and so
//! is what is not done: no redirect is followed, and no credentials are sent.

use axum::http::HeaderValue;
use bytes::Bytes;

use super::{
    RemoteError,
    fetch::{Expected, Fetcher},
};

/// How long a document may be, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Reads documents.
pub struct Documents(Fetcher);

impl Documents {
    /// A reader of public documents, or of those at private addresses as well.
    ///
    /// # Errors
    /// [`RemoteError::NoTls`] when TLS cannot be set up.
    pub fn new(reach: Addresses) -> Result<Self, RemoteError> {
        let expected = Expected {
            max_bytes: MAX_BYTES,
            accept: HeaderValue::from_static("application/json"),
        };
        Fetcher::new(None, reach == Addresses::Private, expected).map(Self)
    }

    /// Reads one document to its end.
    ///
    /// # Errors
    /// [`RemoteError`] when the URL cannot be used, nobody answers in time, the answer is no success, or it is too long.
    pub async fn get(&self, url: &str) -> Result<Bytes, RemoteError> {
        self.0.get(url).await
    }
}

/// Which addresses documents are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Public ones, with encryption.
    Public,
    /// Private ones as well, and without encryption.
    Private,
}
