//! One request to an issuer or about one, and its answer, within bounds. It goes through the guarded dialer, follows no redirect, and
//! shows nothing that it is not given.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header as http};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::time::timeout;
use url::Url;

use crate::upstream::remote::{
    client::{USER_AGENT, cause},
    dial::Dialer,
    error::chain,
    guard::Reach,
    options::{judged, shown, to_uri},
};

/// How long one answer may take, from the name's lookup to its last byte.
const LIMIT: Duration = Duration::from_secs(10);
/// A longer answer is none that is expected here.
const MAX_ANSWER: usize = 256 * 1024;
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Asks issuers.
#[derive(Clone)]
pub(in crate::upstream::remote) struct Asker {
    http: legacy::Client<Dialer, Full<Bytes>>,
    reach: Reach,
}

/// An answer.
pub(in crate::upstream::remote) struct Answer {
    pub(in crate::upstream::remote) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(in crate::upstream::remote) body: Bytes,
}

impl Asker {
    pub(in crate::upstream::remote) fn new(dialer: Dialer, reach: Reach) -> Self {
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(dialer),
            reach,
        }
    }

    /// Reads a page.
    ///
    /// # Errors
    /// A text that names the page when there is no answer, or the page is none that may be asked.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, String> {
        self.ask(Method::GET, url, HeaderMap::new(), Bytes::new()).await
    }

    /// Posts a form, with what the platform shows of itself, if it does that in a header.
    ///
    /// # Errors
    /// As [`Asker::get`].
    pub(super) async fn post_form(
        &self,
        url: &str,
        authorization: Option<HeaderValue>,
        form: String,
    ) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        headers.insert(http::CONTENT_TYPE, FORM);
        if let Some(authorization) = authorization {
            headers.insert(http::AUTHORIZATION, authorization);
        }
        self.ask(Method::POST, url, headers, form.into()).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Asker::get`].
    pub(in crate::upstream::remote) async fn post_json(
        &self,
        url: &str,
        body: String,
    ) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        headers.insert(http::CONTENT_TYPE, JSON);
        self.ask(Method::POST, url, headers, body.into()).await
    }

    /// Finds what is wrong with a URL that somebody else names, as far as can be told without a resolver.
    ///
    /// # Errors
    /// A text that says so.
    pub(in crate::upstream::remote) fn judge(&self, url: &str) -> Result<Url, String> {
        judged(url, self.reach).map_err(|error| chain(&error))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, String> {
        let uri = judged(url, self.reach).and_then(|url| to_uri(&url));
        let uri = uri.map_err(|error| chain(&error))?;
        let failed = |why: String| format!("`{}` {why}", shown(url));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().insert(http::USER_AGENT, USER_AGENT);
        request.headers_mut().insert(http::ACCEPT, JSON);
        let asking = async {
            let answer = self.http.request(request).await;
            let answer = answer.map_err(|error| format!("cannot be asked: {}", chain(&cause(&error))))?;
            let (head, body) = answer.into_parts();
            let body = match body_is_stream(&head.headers) {
                // It may never end, and says nothing here.
                true => Bytes::new(),
                false => Limited::new(body, MAX_ANSWER)
                    .collect()
                    .await
                    .map_err(|error| format!("gives an answer that cannot be read: {error}"))?
                    .to_bytes(),
            };
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        match timeout(LIMIT, asking).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(format!("did not answer within {} s", LIMIT.as_secs()))),
        }
    }
}

fn body_is_stream(headers: &HeaderMap) -> bool {
    let stream = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
    headers.get(http::CONTENT_TYPE).is_some_and(stream)
}
