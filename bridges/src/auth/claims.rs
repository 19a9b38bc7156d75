//! What a token that was found genuine says: for whom it was made, until when, and who its bearer is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus_schema::Principal;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Admitted, Refusal, options::IssuerOptions, resource};
use crate::tls::Peer;

/// The longest name that is taken, in bytes.
const MAX_NAME_BYTES: usize = 512;
/// How many roles, and how many scopes, travel with each request of a caller.
const MAX_GRANTS: usize = 256;

/// The claims of a token.
pub(super) type Claims = Map<String, Value>;

/// Makes a principal of genuine claims, if they were made for one of these resources.
///
/// # Errors
/// [`Refusal::BadToken`] that says what is wrong.
pub(super) fn admit(
    claims: &Claims,
    options: &IssuerOptions,
    resources: &[String],
    peer: Option<&Peer>,
) -> Result<Admitted, Refusal> {
    check_audience(claims, options, resources)?;
    if let Some(bound) = claims.get("cnf") {
        check_binding(bound, peer)?;
    }
    let tenant = match &options.tenant_claim {
        None => options.tenant.as_str(),
        Some(claim) => name(claims, claim).ok_or(Refusal::BadToken("the token names no tenant"))?,
    };
    let subject =
        name(claims, &options.subject_claim).ok_or(Refusal::BadToken("the token names no subject"))?;
    let client = ["client_id", "azp", "appid"]
        .iter()
        .find_map(|claim| name(claims, claim));
    let scopes = claims.get("scope").or_else(|| claims.get("scp"));
    Ok(Admitted {
        principal: Principal {
            issuer: Some(options.issuer.clone()),
            client: client.map(str::to_owned),
            roles: texts(find(claims, &options.roles_claim))?,
            scopes: words(scopes)?,
            ..Principal::new(subject, tenant)
        },
        until: seconds(claims, "exp").and_then(|exp| deadline(exp, options.clock_skew)),
        expires_at: seconds(claims, "exp"),
        blocks: None,
        peer: None,
        standing: None,
    })
}

/// Checks that a token which its issuer has bound to a certificate comes with that one (RFC 8705). Taken from whoever brings it, a token
/// that is bound would be worth less than it says; so one that is bound in any other way is refused.
fn check_binding(bound: &Value, peer: Option<&Peer>) -> Result<(), Refusal> {
    let only = bound.as_object().filter(|bound| bound.len() == 1);
    let Some(thumbprint) = only.and_then(|bound| bound.get("x5t#S256")?.as_str()) else {
        return Err(Refusal::BadToken(
            "the token is bound to a key, and such tokens are not taken here",
        ));
    };
    match peer {
        Some(peer) if peer.thumbprint() == thumbprint && peer.is_trusted() => Ok(()),
        _ => Err(Refusal::BadToken(
            "the token is bound to a client certificate, which this connection has not shown",
        )),
    }
}

/// Checks the times and the issuer of claims that no library has checked.
///
/// # Errors
/// [`Refusal::BadToken`] that says what is wrong.
pub(super) fn check_plain(claims: &Claims, options: &IssuerOptions, now: SystemTime) -> Result<(), Refusal> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let skew = options.clock_skew.as_secs();
    if seconds(claims, "exp").is_some_and(|exp| exp.saturating_add(skew) <= now) {
        return Err(Refusal::BadToken("the token has expired"));
    }
    if seconds(claims, "nbf").is_some_and(|nbf| nbf > now.saturating_add(skew)) {
        return Err(Refusal::BadToken("the token is not valid yet"));
    }
    match claims.get("iss") {
        Some(issuer) if issuer != options.issuer.as_str() => {
            Err(Refusal::BadToken("the token is of another issuer"))
        }
        _ => Ok(()),
    }
}

fn check_audience(claims: &Claims, options: &IssuerOptions, resources: &[String]) -> Result<(), Refusal> {
    let is_meant = |audience: &str| {
        if options.audiences.is_empty() {
            resources.contains(&resource::canonical(audience))
        } else {
            options.audiences.iter().any(|own| own == audience)
        }
    };
    let meant = match claims.get("aud") {
        Some(Value::String(one)) => is_meant(one),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).any(is_meant),
        _ => false,
    };
    if meant {
        Ok(())
    } else {
        Err(Refusal::BadToken("the token is for another audience"))
    }
}

/// A claim by its name, or by a path of names with dots between them.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    let mut value = claims.get(first)?;
    for step in rest.split('.') {
        value = value.get(step)?;
    }
    Some(value)
}

/// A claim that names somebody or something.
fn name<'a>(claims: &'a Claims, path: &str) -> Option<&'a str> {
    let text = find(claims, path)?.as_str()?;
    let fits = !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control);
    fits.then_some(text)
}

/// A list of texts, or one text with spaces between its words.
fn words(value: Option<&Value>) -> Result<Vec<String>, Refusal> {
    match value {
        Some(Value::String(text)) => bounded(text.split(' ').filter(|word| !word.is_empty())),
        other => texts(other),
    }
}

/// A list of texts, or one text.
fn texts(value: Option<&Value>) -> Result<Vec<String>, Refusal> {
    match value {
        Some(Value::String(one)) => bounded([one.as_str()].into_iter()),
        Some(Value::Array(many)) => bounded(many.iter().filter_map(Value::as_str)),
        _ => Ok(Vec::new()),
    }
}

fn bounded<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Refusal> {
    let mut all = Vec::new();
    for text in texts {
        if all.len() == MAX_GRANTS || text.len() > MAX_NAME_BYTES {
            return Err(Refusal::BadToken(
                "the token has more roles or scopes than are taken",
            ));
        }
        all.push(text.to_owned());
    }
    Ok(all)
}

/// A time in seconds since 1970, which may be written with a fraction.
fn seconds(claims: &Claims, claim: &str) -> Option<u64> {
    let value = claims.get(claim)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cast to the nearest number that there is"
    )]
    value.as_u64().or_else(|| value.as_f64().map(|secs| secs as u64))
}

/// When a token ends by our clock; nothing for a time that this clock will not reach.
fn deadline(exp: u64, skew: Duration) -> Option<Instant> {
    let end = UNIX_EPOCH
        .checked_add(Duration::from_secs(exp))?
        .checked_add(skew)?;
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        value.as_object().expect("an object").clone()
    }

    fn admitted(value: &Value, options: &IssuerOptions) -> Result<Principal, Refusal> {
        let resources = ["https://a.example".to_owned(), "https://a.example/mcp".to_owned()];
        admit(&claims(value), options, &resources, None).map(|admitted| admitted.principal)
    }

    #[test]
    fn a_token_is_for_this_endpoint_or_the_whole_platform() {
        let options = IssuerOptions::new("https://id.example");
        for (aud, expected) in [
            (json!("https://a.example/mcp"), true),
            (json!("HTTPS://A.example:443/mcp/"), true),
            (json!("https://a.example/"), true),
            (json!(["account", "https://a.example/mcp"]), true),
            (json!("https://a.example/servers/x/mcp"), false),
            (json!("https://a.example.evil/mcp"), false),
            (json!("http://a.example/mcp"), false),
            (json!(["account"]), false),
            (json!(7), false),
            (json!(null), false),
        ] {
            let found = admitted(&json!({ "sub": "ann", "aud": aud }), &options);
            assert_eq!(found.is_ok(), expected, "{aud}: {found:?}");
        }
        let named = IssuerOptions {
            audiences: vec!["trunkline".to_owned()],
            ..options
        };
        assert!(admitted(&json!({ "sub": "ann", "aud": ["trunkline"] }), &named).is_ok());
        assert!(admitted(&json!({ "sub": "ann", "aud": "https://a.example/mcp" }), &named).is_err());
    }

    #[test]
    fn claims_become_a_principal_where_the_operator_says_they_are() {
        let options = IssuerOptions {
            tenant_claim: Some("org.id".to_owned()),
            roles_claim: "realm_access.roles".to_owned(),
            ..IssuerOptions::new("https://id.example")
        };
        let token = json!({
            "sub": "ann", "aud": "https://a.example", "org": { "id": "acme" }, "azp": "inspector", "scope": "a  b",
            "realm_access": { "roles": ["buyer", 7, "seller"] }
        });
        let ann = admitted(&token, &options).expect("a principal");
        let identity = ann.identity().pieces();
        assert_eq!(identity, ["acme", "https://id.example", "ann"]);
        assert_eq!(ann.client.as_deref(), Some("inspector"));
        assert_eq!(
            (ann.roles, ann.scopes),
            (
                vec!["buyer".to_owned(), "seller".to_owned()],
                vec!["a".to_owned(), "b".to_owned()]
            )
        );
        for (key, value) in [
            ("sub", json!("")),
            ("sub", json!("a\nb")),
            ("sub", json!(7)),
            ("sub", json!("x".repeat(1000))),
            ("org", json!({})),
            ("cnf", json!({ "jkt": "x" })),
            ("cnf", json!({ "x5t#S256": "x" })),
            ("cnf", json!(null)),
            ("scope", json!("a ".repeat(300))),
        ] {
            let mut other = token.clone();
            other[key] = value;
            assert!(admitted(&other, &options).is_err(), "{other}");
        }
    }

    #[test]
    fn times_count_with_the_skew_of_the_clocks() {
        let options = IssuerOptions::new("i");
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        for (token, expected) in [
            (json!({}), true),
            (json!({ "exp": 941 }), true),
            (json!({ "exp": 940 }), false),
            (json!({ "exp": 940.5 }), false),
            (json!({ "nbf": 1060 }), true),
            (json!({ "nbf": 1061 }), false),
            (json!({ "iss": "i" }), true),
            (json!({ "iss": "other" }), false),
        ] {
            assert_eq!(
                check_plain(&claims(&token), &options, now).is_ok(),
                expected,
                "{token}"
            );
        }
    }
}
