//! Who follows a link: a browser shows no token of this platform, so its user logs in at the issuer that vouches for the platform's users
//! (`OpenID` Connect, authorization code with PKCE), and has to be the one whom the link is for.
//!
//! The token that says so comes from the issuer's own endpoint, which is asked directly, and so needs no look at its signature (`OpenID`
//! Connect Core, section 3.1.3.7).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{ConnectError, LoginOptions, now_ms, seal::challenge_of, store::Whose};
use crate::{
    secrets::{Held, Secret},
    upstream::remote::{
        dial::Dialer,
        guard::Reach,
        oauth::{self, Asker, Client, Shows},
        tls,
    },
};

/// Where users log in.
pub(super) struct Login {
    asker: Asker,
    options: LoginOptions,
    secret: Option<Held>,
}

/// A login that has begun.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Begun {
    verifier: String,
    nonce: String,
    token_endpoint: String,
    shows: Shows,
}

impl Login {
    pub(super) fn new(options: &LoginOptions) -> Result<Self, ConnectError> {
        let reach = Reach::of(options.allow_private);
        let connector = tls::connector(options.ca_file.as_deref());
        let connector = connector.map_err(|error| ConnectError::Login(error.to_string()))?;
        Ok(Self {
            asker: Asker::new(Dialer::new(reach, connector), reach),
            secret: options.client_secret.clone().map(Held::new),
            options: options.clone(),
        })
    }

    /// Begins a login: where the browser is sent, and what is to be kept until it is back.
    ///
    /// # Errors
    /// What is wrong with the issuer.
    pub(super) async fn begin(
        &self,
        (verifier, nonce): (String, String),
        state: &str,
        callback: &str,
    ) -> Result<(String, Begun), String> {
        let metadata = oauth::metadata(&self.asker, &self.options.issuer).await?;
        let Some(endpoint) = &metadata.authorization_endpoint else {
            return Err("the issuer has no authorization_endpoint".to_owned());
        };
        let mut url: Url = self.asker.judge(endpoint)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.options.client_id)
            .append_pair("redirect_uri", callback)
            .append_pair("scope", "openid")
            .append_pair("state", state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge_of(&verifier))
            .append_pair("code_challenge_method", "S256");
        let begun = Begun {
            verifier,
            nonce,
            shows: metadata.shows(),
            token_endpoint: metadata.token_endpoint,
        };
        Ok((url.into(), begun))
    }

    /// The issuer that vouches.
    pub(super) fn issuer(&self) -> &str {
        &self.options.issuer
    }

    /// Whether whoever has logged in is the one whom a link is for.
    ///
    /// # Errors
    /// What is wrong with the answer of the issuer.
    pub(super) async fn proves(
        &self,
        begun: &Begun,
        code: &Secret,
        callback: &str,
        whose: &Whose,
    ) -> Result<bool, String> {
        let secret = match &self.secret {
            Some(held) => Some(held.get().await.map_err(|error| error.to_string())?.secret),
            None => None,
        };
        let client = Client {
            id: &self.options.client_id,
            secret: secret.as_deref(),
            shows: begun.shows,
        };
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", callback),
            ("code_verifier", begun.verifier.as_str()),
        ];
        let token = oauth::ask(&self.asker, &begun.token_endpoint, client, &fields).await;
        let token = token.map_err(oauth::NoToken::into_text)?;
        let says = token.id.ok_or("the issuer's answer holds no id_token")?;
        let claims = claims(&says).ok_or("the issuer's id_token cannot be read")?;
        check(&claims, &self.options, &begun.nonce)?;
        let subject = claims[self.options.subject_claim.as_str()].as_str();
        Ok(whose.issuer == self.options.issuer && subject == Some(whose.subject.as_str()))
    }
}

fn claims(token: &Secret) -> Option<Value> {
    let mut pieces = token.expose().split('.');
    let claims = URL_SAFE_NO_PAD.decode(pieces.nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

fn check(claims: &Value, options: &LoginOptions, nonce: &str) -> Result<(), &'static str> {
    let audience = &claims["aud"];
    let is_for_us = |audience: &Value| audience.as_str() == Some(&options.client_id);
    let alone = audience.as_array().is_none_or(|all| all.len() == 1);
    if claims["iss"].as_str() != Some(&options.issuer) {
        return Err("its id_token is another issuer's");
    }
    if !(is_for_us(audience) || alone && audience.get(0).is_some_and(is_for_us)) {
        return Err("its id_token is for another client");
    }
    if claims["nonce"].as_str() != Some(nonce) {
        return Err("its id_token answers another login");
    }
    match claims["exp"].as_u64() {
        Some(ends) if ends.saturating_mul(1_000) > now_ms() => Ok(()),
        _ => Err("its id_token has ended"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_says_who_has_just_logged_in_here_and_nothing_else() {
        let options = LoginOptions {
            issuer: "https://id.example".to_owned(),
            client_id: "me".to_owned(),
            client_secret: None,
            subject_claim: "sub".to_owned(),
            allow_private: false,
            ca_file: None,
        };
        let ends = now_ms() / 1_000 + 60;
        let right = json!({ "iss": "https://id.example", "aud": "me", "nonce": "n", "exp": ends });
        assert!(check(&right, &options, "n").is_ok());
        for (claim, value, fine) in [
            ("aud", json!(["me"]), true),
            ("aud", json!(["me", "other"]), false),
            ("aud", json!("other"), false),
            ("aud", json!(null), false),
            ("iss", json!("https://id.example/"), false),
            ("nonce", json!("other"), false),
            ("nonce", json!(null), false),
            ("exp", json!(1), false),
            ("exp", json!(null), false),
        ] {
            let mut claims = right.clone();
            claims[claim] = value;
            assert_eq!(check(&claims, &options, "n").is_ok(), fine, "{claims}");
        }
    }
}
