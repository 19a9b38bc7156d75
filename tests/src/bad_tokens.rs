//! Every token that must not let anybody in.

use serde_json::{Value, json};

use crate::issuer::{Issuer, RSA, now, unsigned};

/// Such tokens with what is wrong with each, for a platform that knows no more than ten seconds of skew. `own` is the audience that would be
/// right, `other` that of another endpoint, and `elsewhere` an issuer that the platform does not know.
///
/// # Panics
/// When a token cannot be made.
#[must_use]
pub fn bad_tokens(
    issuer: &Issuer,
    elsewhere: &Issuer,
    own: &str,
    other: &str,
) -> Vec<(&'static str, String)> {
    let claims = issuer.claims("ann", own);
    let with = |key: &str, value: Value| {
        let mut claims = claims.clone();
        claims[key] = value;
        issuer.sign(json!({}), &claims)
    };
    let without = |key: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("an object").remove(key);
        issuer.sign(json!({}), &claims)
    };
    let signed = |header: Value| issuer.sign(header, &claims);
    let good = signed(json!({}));
    let (head, signature) = good.rsplit_once('.').expect("a signature");
    let (header, _) = head.split_once('.').expect("a header");
    let forged = unsigned(&json!({}), &issuer.claims("eve", own));
    let forged_claims = forged.split('.').nth(1).expect("claims");
    vec![
        (
            "another audience",
            issuer.token("ann", "https://other.example/mcp", json!({})),
        ),
        ("another endpoint", issuer.token("ann", other, json!({}))),
        ("no audience", without("aud")),
        ("another issuer", elsewhere.token("ann", own, json!({}))),
        (
            "another issuer's name",
            with("iss", json!("https://evil.example")),
        ),
        ("another issuer's key", elsewhere.sign(json!({}), &claims)),
        ("no issuer", without("iss")),
        ("no end", without("exp")),
        ("no subject", without("sub")),
        ("expired", with("exp", json!(now() - 60))),
        ("not yet", with("nbf", json!(now() + 60))),
        ("bound to a key", with("cnf", json!({ "jkt": "x" }))),
        ("bound to a certificate", with("cnf", json!({ "x5t#S256": "x" }))),
        ("an assertion", signed(json!({ "typ": "oauth-id-jag+jwt" }))),
        ("an extension", signed(json!({ "crit": ["b64"], "b64": false }))),
        ("an unknown key", signed(json!({ "kid": "nobody's" }))),
        ("a key by a path", signed(json!({ "kid": "../../keys" }))),
        (
            "a key for something else",
            signed(json!({ "kid": "for-encryption" })),
        ),
        ("no signature", unsigned(&json!({ "alg": "none" }), &claims)),
        (
            "no signature, in capitals",
            unsigned(&json!({ "alg": "NONE" }), &claims),
        ),
        (
            "no signature, under a name",
            unsigned(&json!({ "alg": "ES256", "kid": RSA }), &claims),
        ),
        ("the public key as a secret", issuer.sign_with_public_key(&claims)),
        ("other claims", format!("{header}.{forged_claims}.{signature}")),
        ("cut off", good[..good.len() - 4].to_owned()),
        ("opaque", "abc".to_owned()),
    ]
}
