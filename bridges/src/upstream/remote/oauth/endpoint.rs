//! The token endpoint of an issuer (RFC 6749, section 5): one form, and a token or a refusal.

use std::time::Duration;

use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::form_urlencoded;

use super::asker::{Answer, Asker};
use crate::{secrets::Secret, upstream::remote::fetch::basic};

/// How long a token is used of which the issuer does not say when it ends.
const UNSAID: Duration = Duration::from_secs(300);

/// How a client shows at the endpoint who it is (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::upstream::remote) enum Shows {
    /// Not at all: it has no secret.
    Nothing,
    /// In a header.
    Basic,
    /// In the form.
    Post,
}

/// Who asks: a client, and how it shows that.
#[derive(Clone, Copy)]
pub(in crate::upstream::remote) struct Client<'a> {
    pub(in crate::upstream::remote) id: &'a str,
    pub(in crate::upstream::remote) secret: Option<&'a Secret>,
    pub(in crate::upstream::remote) shows: Shows,
}

/// A token.
#[derive(Debug)]
pub(in crate::upstream::remote) struct Token {
    pub(in crate::upstream::remote) access: Secret,
    /// What the next one can be got for.
    pub(in crate::upstream::remote) refresh: Option<Secret>,
    /// What says who has agreed to it, where that was asked for (`OpenID` Connect).
    pub(in crate::upstream::remote) id: Option<Secret>,
    /// When it ends, or is taken to end.
    pub(in crate::upstream::remote) ends: Instant,
}

/// Why there is no token.
#[derive(Debug)]
pub(in crate::upstream::remote) enum NoToken {
    /// What it was asked for by counts no more, such as a refresh token.
    Grant(String),
    /// The issuer does not know the client by what it shows.
    Client(String),
    /// Anything else.
    Other(String),
}

impl NoToken {
    pub(in crate::upstream::remote) fn into_text(self) -> String {
        match self {
            Self::Grant(why) | Self::Client(why) | Self::Other(why) => why,
        }
    }
}

/// What an issuer answers.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    refresh_token: Option<String>,
    id_token: Option<String>,
    token_type: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// Asks for a token.
///
/// # Errors
/// [`NoToken`] that names the endpoint; never what was shown there.
pub(in crate::upstream::remote) async fn ask(
    asker: &Asker,
    url: &str,
    client: Client<'_>,
    fields: &[(&str, &str)],
) -> Result<Token, NoToken> {
    let (authorization, form) = form(client, fields)?;
    let began = Instant::now();
    let answer = asker.post_form(url, authorization, form).await;
    read(&answer.map_err(NoToken::Other)?, began)
}

/// What a token is, for an issuer that takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream::remote) enum Hint {
    Refresh,
    Access,
}

/// Has a token taken back (RFC 7009).
///
/// # Errors
/// A text that says what the endpoint answers; never what was shown there.
pub(in crate::upstream::remote) async fn revoke(
    asker: &Asker,
    url: &str,
    client: Client<'_>,
    token: &Secret,
    hint: Hint,
) -> Result<(), String> {
    let hint = match hint {
        Hint::Refresh => "refresh_token",
        Hint::Access => "access_token",
    };
    let fields = [("token", token.expose()), ("token_type_hint", hint)];
    let (authorization, form) = form(client, &fields).map_err(NoToken::into_text)?;
    let answer = asker.post_form(url, authorization, form).await?;
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(refusal(&answer).1),
    }
}

/// The code of an error, if it has one, and what is said of it.
fn refusal(answer: &Answer) -> (Option<String>, String) {
    let status = answer.status;
    let said = serde_json::from_slice::<Refused>(&answer.body).ok();
    let code = said.map(|refused| refused.error).filter(|code| is_code(code));
    let why = match &code {
        Some(code) => format!("it answers {status} with `{code}`"),
        None => format!("it answers {status}"),
    };
    (code, why)
}

/// The form, and the header beside it, if the client shows itself there.
fn form(
    Client { id, secret, shows }: Client<'_>,
    fields: &[(&str, &str)],
) -> Result<(Option<HeaderValue>, String), NoToken> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    let authorization = match (shows, secret) {
        (Shows::Basic, Some(secret)) => {
            let header = basic(id, secret);
            Some(header.map_err(|_| NoToken::Other("its client id cannot be sent".to_owned()))?)
        }
        (Shows::Post, Some(secret)) => {
            form.append_pair("client_id", id);
            form.append_pair("client_secret", secret.expose());
            None
        }
        (Shows::Nothing, _) | (_, None) => {
            form.append_pair("client_id", id);
            None
        }
    };
    Ok((authorization, form.finish()))
}

fn read(answer: &Answer, began: Instant) -> Result<Token, NoToken> {
    if !answer.status.is_success() {
        let (code, why) = refusal(answer);
        return Err(match code.as_deref() {
            Some("invalid_client") => NoToken::Client(why),
            Some("invalid_grant") => NoToken::Grant(why),
            None if answer.status.as_u16() == 401 => NoToken::Client(why),
            _ => NoToken::Other(why),
        });
    }
    let granted: Granted = serde_json::from_slice(&answer.body)
        .map_err(|_| NoToken::Other("its answer holds no access_token".to_owned()))?;
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return Err(NoToken::Other(
            "it gives a token of another type than Bearer".to_owned(),
        ));
    }
    Ok(Token {
        access: Secret::new(granted.access_token),
        refresh: granted.refresh_token.map(Secret::new),
        id: granted.id_token.map(Secret::new),
        ends: began + granted.expires_in.map_or(UNSAID, Duration::from_secs),
    })
}

/// Whether it looks like a code of an error; what does not may be anything, and is not repeated.
fn is_code(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode};

    use super::*;

    fn answered(status: u16, body: &'static str) -> Result<Token, NoToken> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.into(),
        };
        read(&answer, Instant::now())
    }

    #[test]
    fn a_refusal_is_told_by_its_code_and_by_nothing_else_that_was_said() {
        for (status, body, is_client, words) in [
            (400, r#"{"error":"invalid_client"}"#, true, "`invalid_client`"),
            (401, "s3cret", true, "401"),
            (400, r#"{"error":"invalid_scope"}"#, false, "`invalid_scope`"),
            (400, r#"{"error":"S3CRET s3cret"}"#, false, "400"),
            (503, "", false, "503"),
            (200, "s3cret", false, "no access_token"),
            (
                200,
                r#"{"access_token":"s3cret","token_type":"mac"}"#,
                false,
                "another type",
            ),
        ] {
            let refused = answered(status, body).unwrap_err();
            assert_eq!(matches!(refused, NoToken::Client(_)), is_client, "{body}");
            let text = refused.into_text();
            assert!(
                text.contains(words) && !text.to_lowercase().contains("s3cret"),
                "{text}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_when_its_issuer_says_so() {
        let now = Instant::now();
        let token = answered(
            200,
            r#"{"access_token":"t","token_type":"bearer","expires_in":60}"#,
        )
        .unwrap();
        assert_eq!(
            (token.access.expose(), token.ends - now),
            ("t", Duration::from_secs(60))
        );
        let token = answered(200, r#"{"access_token":"t","token_type":"Bearer"}"#).unwrap();
        assert_eq!(token.ends - now, UNSAID);
    }
}
