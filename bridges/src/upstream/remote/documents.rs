//! Reads documents that an operator names by URL, such as those of a registry of servers. The guard is that of remote servers, and so
//! is what is not done: no redirect is followed, and no credentials are sent.

use std::time::Duration;

use axum::http::{HeaderValue, Request, StatusCode, header as http};
use bus_schema::registry::Declaration;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::time::timeout;

use super::{
    client::{USER_AGENT, cause, judge},
    dial::Dialer,
    error::{RemoteError, chain},
    guard::Reach,
    options::{RemoteOptions, to_uri},
    reply::refused,
    tls,
};

/// How long a document may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may be, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Reads documents.
pub struct Documents {
    http: legacy::Client<Dialer, Empty<Bytes>>,
    allow_private: bool,
}

impl Documents {
    /// A reader of public documents, or of those at private addresses as well.
    ///
    /// # Errors
    /// [`RemoteError::NoTls`] when TLS cannot be set up.
    pub fn new(reach: Addresses) -> Result<Self, RemoteError> {
        let allow_private = reach == Addresses::Private;
        let dialer = Dialer::new(Reach::of(allow_private), tls::connector(None)?);
        Ok(Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(dialer),
            allow_private,
        })
    }

    /// Reads one document to its end.
    ///
    /// # Errors
    /// [`RemoteError`] when the URL cannot be used, nobody answers in time, the answer is no success, or it is too long.
    pub async fn get(&self, url: &str) -> Result<Bytes, RemoteError> {
        let uri = to_uri(&self.options(url)?.url()?)?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(http::USER_AGENT, USER_AGENT);
        headers.insert(http::ACCEPT, HeaderValue::from_static("application/json"));
        let all = async {
            let answer = self.http.request(request).await.map_err(|error| cause(&error))?;
            let (head, body) = judge(answer)?.into_parts();
            let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return RemoteError::TooLong(MAX_BYTES as u64);
                }
                RemoteError::Lost(chain(&*error))
            })?;
            let body = body.to_bytes();
            match head.status {
                StatusCode::OK => Ok(body),
                status => Err(refused(status, &body)),
            }
        };
        timeout(LIMIT, all).await.unwrap_or(Err(RemoteError::Late(LIMIT)))
    }

    /// A server at the URL, as whose URL it is judged.
    fn options(&self, url: &str) -> Result<RemoteOptions, RemoteError> {
        let mut as_server = Declaration::new(bus_schema::ServerId::registry(), url);
        as_server.allow_private = self.allow_private;
        RemoteOptions::declared(&as_server, |_| None)
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
