//! Tokens that the platform gets for itself: OAuth 2.0 client credentials (RFC 6749, section 4.4), for one resource (RFC 8707).

use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, Uri, header as http};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use url::{Url, form_urlencoded};

use super::{
    client::{USER_AGENT, cause},
    dial::Dialer,
    error::{RemoteError, chain},
    fetch::basic,
    options::{ClientCredentials, Secret},
};

/// How long the issuer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A longer answer is no token.
const MAX_ANSWER: usize = 64 * 1024;
/// How much earlier than it ends a token is exchanged.
const EARLY: Duration = Duration::from_secs(30);
/// How long a token is used of which the issuer does not say when it ends.
const UNSAID: Duration = Duration::from_secs(300);

/// Gets tokens from one issuer for one server.
pub(super) struct Issuer {
    uri: Uri,
    authorization: HeaderValue,
    form: Bytes,
    http: legacy::Client<Dialer, Full<Bytes>>,
}

/// A token, and until when it is used.
pub(super) struct Issued {
    pub(super) token: Secret,
    pub(super) until: Instant,
}

impl Issuer {
    pub(super) fn new(
        credentials: &ClientCredentials,
        uri: Uri,
        resource: &Url,
        dialer: Dialer,
    ) -> Result<Self, RemoteError> {
        let authorization = basic(&credentials.client_id, &credentials.client_secret)
            .map_err(|_| RemoteError::NoToken("its client id cannot be sent".to_owned()))?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.append_pair("resource", resource.as_str());
        if !credentials.scopes.is_empty() {
            form.append_pair("scope", &credentials.scopes.join(" "));
        }
        Ok(Self {
            uri,
            authorization,
            form: form.finish().into(),
            http: legacy::Client::builder(TokioExecutor::new()).build(dialer),
        })
    }

    /// Gets a token.
    ///
    /// # Errors
    /// [`RemoteError::NoToken`] when the issuer gives none.
    pub(super) async fn issue(&self) -> Result<Issued, RemoteError> {
        let began = Instant::now();
        let body = timeout(LIMIT, self.ask())
            .await
            .unwrap_or_else(|_| Err(format!("it did not answer within {} s", LIMIT.as_secs())))
            .map_err(RemoteError::NoToken)?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| RemoteError::NoToken("its answer holds no access_token".to_owned()))?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(RemoteError::NoToken(format!(
                "it gives a token of type `{}`",
                answer.token_type
            )));
        }
        let life = answer
            .expires_in
            .map_or(UNSAID, |secs| Duration::from_secs(secs).saturating_sub(EARLY));
        Ok(Issued {
            token: Secret::new(answer.access_token),
            until: began + life,
        })
    }

    async fn ask(&self) -> Result<Bytes, String> {
        let mut request = Request::new(Full::new(self.form.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(http::AUTHORIZATION, self.authorization.clone());
        headers.insert(http::USER_AGENT, USER_AGENT);
        headers.insert(http::ACCEPT, HeaderValue::from_static("application/json"));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(http::CONTENT_TYPE, form);
        let answer = self
            .http
            .request(request)
            .await
            .map_err(|error| chain(&cause(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        Ok(body.to_bytes())
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}
