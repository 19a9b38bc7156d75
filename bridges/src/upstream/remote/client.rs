//! One HTTP client for each upstream server: its connections, its standing headers, its credentials.
//!
//! It follows no redirect, asks for no compression, keeps no cookies and knows no proxy. What an answer means is not decided here.

use std::{error::Error, io, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header as http};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Builder},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::sync::Semaphore;

use crate::upstream::RetryKnob;

use super::{
    credentials::{Credentials, Shown},
    dial::Dialer,
    error::{RemoteError, chain},
    options::shown,
};

/// Who asks.
pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));
/// Common servers close a connection that was idle for five seconds; a request that meets the end of one is lost.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How many connections may wait for more to do.
const MAX_IDLE: usize = 32;
/// How many KiB of answers may be read at once, beyond the first few of each.
const ROOM_KIB: usize = 256 * 1024;

/// A client of one server.
pub(super) struct Client {
    http: legacy::Client<Dialer, Full<Bytes>>,
    dialer: Dialer,
    standing: HeaderMap,
    credentials: Credentials,
    /// In KiB, as one permit a byte would be too many for a semaphore.
    pub(super) room: Arc<Semaphore>,
    /// How often calls are made that were lost.
    pub(super) retry: RetryKnob,
}

impl Client {
    pub(super) fn new(dialer: Dialer, mut standing: HeaderMap, credentials: Credentials) -> Self {
        standing.entry(http::USER_AGENT).or_insert(USER_AGENT);
        let mut builder: Builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(MAX_IDLE);
        Self {
            http: builder.build(dialer.clone()),
            dialer,
            standing,
            credentials,
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            retry: RetryKnob::default(),
        }
    }

    /// The same, which makes calls so often.
    pub(super) fn retrying(self, retry: RetryKnob) -> Self {
        Self { retry, ..self }
    }

    /// What opens connections for other transports.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends a request, and gives the answer as soon as its head is there. With new credentials it is sent once more, as a request
    /// that was refused for its credentials was not begun.
    ///
    /// # Errors
    /// [`RemoteError`] when there is no answer, or one that stands for none: wrong credentials and redirects.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, RemoteError> {
        let shown = self.credentials.get().await?;
        let mut answer = self.once(&method, uri, headers, body.clone(), &shown).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(other) = self.credentials.renewed(&shown).await?
        {
            answer = self.once(&method, uri, headers, body, &other).await?;
        }
        judge(answer)
    }

    /// The headers of every request but for those that are secret, for transports that write their own.
    pub(super) fn standing(&self) -> &HeaderMap {
        &self.standing
    }

    /// What is shown of the platform to be let in.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    async fn once(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
        shown: &Shown,
    ) -> Result<Response<Incoming>, RemoteError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        let all = request.headers_mut();
        all.clone_from(&self.standing);
        all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        for (name, value) in &shown.headers {
            all.insert(name, value.clone());
        }
        self.http.request(request).await.map_err(|error| cause(&error))
    }
}

pub(super) fn judge<B>(answer: Response<B>) -> Result<Response<B>, RemoteError> {
    match answer.status() {
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(RemoteError::Denied(status)),
        status if status.is_redirection() => {
            let target = answer.headers().get(http::LOCATION);
            let target = target.map_or_else(String::new, |value| {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            });
            Err(RemoteError::Redirected(shown(&target)))
        }
        _ => Ok(answer),
    }
}

/// What the dialer found is somewhere below hyper's own error.
pub(super) fn cause(error: &legacy::Error) -> RemoteError {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<RemoteError>() {
            return again(found);
        }
        next = error.source();
    }
    RemoteError::Lost(chain(error))
}

/// An error of the dialer once more, as hyper only lends it.
fn again(error: &RemoteError) -> RemoteError {
    let copy = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
    match error {
        RemoteError::Resolve { host, source } => RemoteError::Resolve {
            host: host.clone(),
            source: copy(source),
        },
        RemoteError::Forbidden { host, address, kind } => RemoteError::Forbidden {
            host: host.clone(),
            address: *address,
            kind: *kind,
        },
        RemoteError::Connect { host, source } => RemoteError::Connect {
            host: host.clone(),
            source: copy(source),
        },
        RemoteError::Tls { host, source } => RemoteError::Tls {
            host: host.clone(),
            source: copy(source),
        },
        RemoteError::Late(limit) => RemoteError::Late(*limit),
        other => RemoteError::Lost(chain(other)),
    }
}
