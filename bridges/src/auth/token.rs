//! Signed tokens: what is checked of one before a word of it is believed.
//!
//! The issuer is looked up first, among those that the operator has named; its keys and its algorithms are the only ones that count,
//! whatever the token's own header proposes. Source: RFC 8725 (JWT best current practices), RFC 9068.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Header, Validation, dangerous, errors::ErrorKind};
use serde_json::Value;

use super::{
    Refusal,
    claims::Claims,
    keys::{Found, Key, Keys},
    options::{IssuerOptions, SigningAlgorithm},
};

/// The types of tokens that are meant for a resource server.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A signed token, of which nothing is believed yet.
pub(super) struct Signed<'a> {
    text: &'a str,
    header: Header,
    /// Who claims to have made it.
    pub(super) issuer: String,
}

impl<'a> Signed<'a> {
    /// Takes a token apart; `None` for one that is no signed token at all, and so may be of another kind.
    pub(super) fn read(text: &'a str) -> Option<Result<Self, Refusal>> {
        let (head, rest) = text.split_once('.')?;
        let (_, signature) = rest.split_once('.')?;
        let is_object = URL_SAFE_NO_PAD
            .decode(head)
            .is_ok_and(|head| head.first() == Some(&b'{'));
        (is_object && !signature.contains('.')).then(|| Self::parse(text))
    }

    fn parse(text: &'a str) -> Result<Self, Refusal> {
        let bad = Refusal::BadToken("the token is damaged, or signed in a way that is not known");
        let header = jsonwebtoken::decode_header(text).map_err(|_| bad.clone())?;
        let claims: Claims = dangerous::insecure_decode_claims(text).map_err(|_| bad.clone())?;
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or(bad)?.to_owned();
        let kind = header.typ.as_deref().map(str::to_ascii_lowercase);
        if kind.is_some_and(|kind| !TYPES.contains(&kind.as_str())) {
            return Err(Refusal::BadToken(
                "the token is of another type than an access token",
            ));
        }
        if header.crit.is_some() || header.enc.is_some() {
            return Err(Refusal::BadToken(
                "the token asks for extensions that are not known",
            ));
        }
        Ok(Self { text, header, issuer })
    }

    /// Checks the signature, the issuer and the times, and gives the claims with the key that has signed them.
    ///
    /// # Errors
    /// [`Refusal`] that says what is wrong, or that nobody can tell.
    pub(super) async fn verify(
        &self,
        options: &IssuerOptions,
        keys: &Arc<Keys>,
    ) -> Result<(Claims, Arc<Key>), Refusal> {
        let algorithm = self.header.alg;
        if !options.algorithms.contains(&SigningAlgorithm(algorithm)) {
            return Err(Refusal::BadToken(
                "the token is signed with an algorithm that is not taken",
            ));
        }
        let found = match keys.find(self.header.kid.as_deref(), algorithm).await {
            Found::Keys(found) => found,
            Found::Unknown => {
                return Err(Refusal::BadToken(
                    "the token is signed with a key that its issuer does not have",
                ));
            }
            Found::Unreachable => return Err(Refusal::Unavailable),
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = options.clock_skew.as_secs();
        validation.validate_nbf = true;
        // It compares spellings; ours knows which of them mean the same.
        validation.validate_aud = false;
        validation.set_issuer(&[&options.issuer]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        let mut refused = Refusal::BadToken("the token's signature is wrong");
        for key in &found {
            match self.check(key, &validation) {
                Ok(claims) => return Ok((claims, Arc::clone(key))),
                Err(refusal) => refused = refusal,
            }
        }
        Err(refused)
    }

    fn check(&self, key: &Key, validation: &Validation) -> Result<Claims, Refusal> {
        jsonwebtoken::decode::<Claims>(self.text, &key.decoding, validation)
            .map(|token| token.claims)
            .map_err(|error| {
                Refusal::BadToken(match error.kind() {
                    ErrorKind::ExpiredSignature => "the token has expired",
                    ErrorKind::ImmatureSignature => "the token is not valid yet",
                    ErrorKind::InvalidIssuer => "the token is of another issuer",
                    ErrorKind::MissingRequiredClaim(_) => "the token has no end, or no issuer",
                    _ => "the token's signature is wrong",
                })
            })
    }
}
