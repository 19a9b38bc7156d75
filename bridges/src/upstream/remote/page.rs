//! The page of a remote server that says whether it is well. It is asked without credentials, as it may be somebody else's.

use std::time::Duration;

use axum::http::{Method, Request, StatusCode, Uri, header as http};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::time::timeout;

use super::{
    client::{USER_AGENT, cause},
    dial::Dialer,
    error::chain,
};

/// How long the page may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A health page.
pub(super) struct Page {
    /// How often it is to be asked.
    pub(super) every: Duration,
    uri: Uri,
    http: legacy::Client<Dialer, Empty<Bytes>>,
}

impl Page {
    pub(super) fn new(uri: Uri, every: Duration, dialer: Dialer) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        // It is asked so seldom that no connection is worth keeping.
        builder.pool_max_idle_per_host(0);
        Self {
            every,
            uri,
            http: builder.build(dialer),
        }
    }

    /// Asks; any status of success is well.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(http::USER_AGENT, USER_AGENT);
        match timeout(LIMIT, self.http.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(said(answer.status())),
            Ok(Err(error)) => Err(format!(
                "its health page cannot be asked: {}",
                chain(&cause(&error))
            )),
            Err(_) => Err(format!(
                "its health page did not answer within {} s",
                LIMIT.as_secs()
            )),
        }
    }
}

fn said(status: StatusCode) -> String {
    format!("its health page answers {status}")
}
