//! Refusals as HTTP tells them: a status, a challenge that says where a token is to be had, and a body for people.
//!
//! Source: RFC 6750 (section 3), RFC 9728 (section 5.1), MCP authorization. Nothing of what a client has sent is repeated here.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

/// After how long a client may come again when an issuer cannot be reached, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why somebody is not let in, or not let do something. The texts are for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It shows nothing.
    #[error("show an access token in the header Authorization")]
    NoToken,
    /// What it shows cannot even be read.
    #[error("{0}")]
    BadRequest(&'static str),
    /// What it shows is worth nothing here.
    #[error("{0}")]
    BadToken(&'static str),
    /// The client certificate that it shows, or does not show, lets nobody in.
    #[error("{0}")]
    BadCertificate(&'static str),
    /// It needs all of these scopes.
    #[error("this needs the scopes that the challenge names")]
    Scopes(Vec<String>),
    /// It may not be here at all.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Nobody can tell at the moment.
    #[error("tokens cannot be checked at the moment, as their issuer cannot be reached; try again shortly")]
    Unavailable,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken(_) | Self::BadCertificate(_) => StatusCode::UNAUTHORIZED,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Scopes(_) | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Its name in records.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            _ => self.code(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoToken => "unauthorized",
            Self::BadRequest(_) => "invalid_request",
            Self::BadToken(_) => "invalid_token",
            Self::BadCertificate(_) => "invalid_certificate",
            Self::Scopes(_) => "insufficient_scope",
            Self::Forbidden(_) => "access_denied",
            Self::Unavailable => "temporarily_unavailable",
        }
    }

    /// The challenge that goes with it. `metadata` is the document about the resource, if there is an issuer at all; `usual` are the
    /// scopes that everybody needs.
    pub(super) fn challenge(&self, metadata: Option<&str>, usual: &str) -> Option<HeaderValue> {
        let mut parts = Vec::new();
        match self {
            Self::NoToken | Self::BadCertificate(_) => {}
            Self::BadRequest(_) | Self::BadToken(_) | Self::Scopes(_) => {
                parts.push(format!("error=\"{}\"", self.code()));
                parts.push(format!("error_description=\"{self}\""));
            }
            Self::Forbidden(_) | Self::Unavailable => return None,
        }
        match self {
            Self::Scopes(scopes) => parts.push(format!("scope=\"{}\"", scopes.join(" "))),
            _ if !usual.is_empty() => parts.push(format!("scope=\"{usual}\"")),
            _ => {}
        }
        match metadata {
            Some(url) => parts.push(format!("resource_metadata=\"{url}\"")),
            None => parts.push("realm=\"trunkline\"".to_owned()),
        }
        HeaderValue::try_from(format!("Bearer {}", parts.join(", "))).ok()
    }

    /// The answer to a request that goes no further.
    pub(super) fn respond(&self, challenge: Option<HeaderValue>) -> Response {
        let body = json!({ "error": self.code(), "error_description": self.to_string() });
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if *self == Self::Unavailable {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_what_is_wrong_and_where_a_token_is_to_be_had() {
        let url = "https://a.example/.well-known/oauth-protected-resource/mcp";
        let scopes = vec!["a".to_owned(), "b".to_owned()];
        let text = |refusal: Refusal, metadata, usual| {
            let challenge = refusal.challenge(metadata, usual);
            challenge.map(|value| value.to_str().expect("ASCII").to_owned())
        };
        let at = format!("resource_metadata=\"{url}\"");
        assert_eq!(
            text(Refusal::NoToken, Some(url), ""),
            Some(format!("Bearer {at}"))
        );
        assert_eq!(
            text(Refusal::NoToken, Some(url), "a"),
            Some(format!("Bearer scope=\"a\", {at}"))
        );
        assert_eq!(
            text(Refusal::BadToken("it is old"), Some(url), ""),
            Some(format!(
                "Bearer error=\"invalid_token\", error_description=\"it is old\", {at}"
            ))
        );
        let step_up = text(Refusal::Scopes(scopes), Some(url), "a").expect("a challenge");
        assert!(
            step_up.starts_with("Bearer error=\"insufficient_scope\", "),
            "{step_up}"
        );
        assert!(step_up.ends_with(&format!(", scope=\"a b\", {at}")), "{step_up}");
        assert_eq!(
            text(Refusal::NoToken, None, ""),
            Some("Bearer realm=\"trunkline\"".to_owned())
        );
        assert_eq!(text(Refusal::Unavailable, Some(url), ""), None);
    }
}
