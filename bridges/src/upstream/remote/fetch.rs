//! Documents from elsewhere, such as the keys of an issuer or the list of a registry: one request, one JSON answer, within bounds.
//!
//! It goes the way of every connection to a remote server, so it meets the same guard.

use std::{path::Path, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header as http, header::InvalidHeaderValue};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{sync::Semaphore, time::timeout};
use url::form_urlencoded;

use crate::secrets::Secret;

use super::{
    RemoteError,
    client::Client,
    credentials::Credentials,
    dial::Dialer,
    error::chain,
    guard::Reach,
    options::{judged, to_uri},
    reply::refused,
    tls,
};

/// How long a document may take, from the name's lookup to its last byte.
const LIMIT: Duration = Duration::from_secs(10);
/// How many may be under way at once.
const MAX_UNDER_WAY: usize = 32;
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What a client shows of itself in a header (RFC 6749, section 2.3.1: both are encoded as in a form before they are put together).
/// It is not shown in logs.
///
/// # Errors
/// When no header can have it.
pub(crate) fn basic(id: &str, secret: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(id), encoded(secret.expose()));
    let mut shown = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))?;
    shown.set_sensitive(true);
    Ok(shown)
}

/// What documents are expected.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// How long one may be, in bytes.
    pub(crate) max_bytes: usize,
    /// Their types.
    pub(crate) accept: HeaderValue,
}

/// Fetches documents.
pub(crate) struct Fetcher {
    client: Client,
    reach: Reach,
    expected: Expected,
    turns: Semaphore,
}

impl Fetcher {
    /// A fetcher. `ca_file` stands instead of the system's certificates; with `allow_private` it goes to private addresses too, and
    /// without encryption.
    ///
    /// # Errors
    /// [`RemoteError`] when the certificates cannot be used.
    pub(crate) fn new(
        ca_file: Option<&Path>,
        allow_private: bool,
        expected: Expected,
    ) -> Result<Self, RemoteError> {
        let reach = Reach::of(allow_private);
        let dialer = Dialer::new(reach, tls::connector(ca_file)?);
        Ok(Self {
            client: Client::new(dialer, HeaderMap::new(), Credentials::none()),
            reach,
            expected,
            turns: Semaphore::new(MAX_UNDER_WAY),
        })
    }

    /// Finds what is wrong with a URL, as far as can be told without a resolver.
    ///
    /// # Errors
    /// [`RemoteError`] that says so.
    pub(crate) fn check(&self, url: &str) -> Result<(), RemoteError> {
        judged(url, self.reach).map(drop)
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    /// [`RemoteError`] when it does not come.
    pub(crate) async fn get(&self, url: &str) -> Result<Bytes, RemoteError> {
        self.ask(Method::GET, url, HeaderMap::new(), Bytes::new()).await
    }

    /// Posts a form, and reads the JSON document that answers it. `authorization` is never logged.
    ///
    /// # Errors
    /// [`RemoteError`] when no answer comes.
    pub(crate) async fn post(
        &self,
        url: &str,
        authorization: &HeaderValue,
        form: String,
    ) -> Result<Bytes, RemoteError> {
        let mut headers = HeaderMap::new();
        headers.insert(http::CONTENT_TYPE, FORM);
        headers.insert(http::AUTHORIZATION, authorization.clone());
        self.ask(Method::POST, url, headers, form.into()).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, RemoteError> {
        let uri = to_uri(&judged(url, self.reach)?)?;
        headers.insert(http::ACCEPT, self.expected.accept.clone());
        let asking = async {
            let _turn = self.turns.acquire().await;
            let answer = self.client.send(method, &uri, &headers, body).await?;
            let (head, body) = answer.into_parts();
            let document = Limited::new(body, self.expected.max_bytes).collect().await;
            let document = document
                .map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        return RemoteError::TooLong(self.expected.max_bytes as u64);
                    }
                    RemoteError::Lost(chain(&*error))
                })?
                .to_bytes();
            match head.status {
                // The type is not looked at: issuers give their keys several.
                StatusCode::OK => Ok(document),
                status => Err(refused(status, &document)),
            }
        };
        timeout(LIMIT, asking)
            .await
            .unwrap_or(Err(RemoteError::Late(LIMIT)))
    }
}
