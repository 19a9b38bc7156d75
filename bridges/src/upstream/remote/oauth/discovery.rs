//! Where tokens for a server are got: what the server says of itself (RFC 9728), and what its issuer says (RFC 8414).
//!
//! What is said here is said by strangers. A document counts only when it is about what was asked for, and every URL in it is judged
//! before it is used.

use axum::http::{HeaderMap, header as http};
use serde::Deserialize;
use url::Url;

use super::{asker::Asker, endpoint::Shows};
use crate::{auth::metadata_urls, upstream::remote::options::shown};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// How many issuers of a document are read.
const MOST_ISSUERS: usize = 16;

/// What a server says of itself.
#[derive(Deserialize)]
struct Resource {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
}

/// What an issuer says of itself, as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(in crate::upstream::remote) struct Metadata {
    pub(in crate::upstream::remote) issuer: String,
    pub(in crate::upstream::remote) token_endpoint: String,
    pub(in crate::upstream::remote) authorization_endpoint: Option<String>,
    pub(in crate::upstream::remote) registration_endpoint: Option<String>,
    pub(in crate::upstream::remote) revocation_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    pub(in crate::upstream::remote) client_id_metadata_document_supported: bool,
    #[serde(default)]
    pub(in crate::upstream::remote) authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Metadata {
    /// Whether it binds codes to who has asked for them (RFC 7636, S256).
    pub(in crate::upstream::remote) fn binds_codes(&self) -> bool {
        self.code_challenge_methods_supported
            .iter()
            .any(|method| method == "S256")
    }

    /// How a client with a secret shows it there.
    pub(in crate::upstream::remote) fn shows(&self) -> Shows {
        let methods = self.token_endpoint_auth_methods_supported.as_deref();
        // Without the member it is the header.
        let knows = |method: &str| methods.is_some_and(|methods| methods.iter().any(|known| known == method));
        match knows("client_secret_post") && !knows("client_secret_basic") {
            true => Shows::Post,
            false => Shows::Basic,
        }
    }
}

/// Finds the issuers that a server names, the first of them first.
///
/// # Errors
/// What is missing or wrong.
pub(in crate::upstream::remote) async fn issuers_of(
    asker: &Asker,
    server: &Url,
) -> Result<Vec<String>, String> {
    let challenged = match asker.get(server.as_str()).await {
        Ok(answer) => told_by(&answer.headers),
        // It may well answer the next question.
        Err(_) => None,
    };
    let mut asked = Vec::new();
    for url in challenged.into_iter().chain(well_known(server)) {
        match asker.get(&url).await {
            Ok(answer) if answer.status.is_success() => {
                let document: Resource = serde_json::from_slice(&answer.body)
                    .map_err(|_| format!("what `{}` gives is no metadata of a resource", shown(&url)))?;
                if !is_about(&document.resource, server) {
                    return Err(format!(
                        "the metadata at `{}` are of another resource, `{}`",
                        shown(&url),
                        shown(&document.resource)
                    ));
                }
                let mut issuers = document.authorization_servers;
                issuers.truncate(MOST_ISSUERS);
                return match issuers.is_empty() {
                    true => Err(format!("the metadata at `{}` name no issuer", shown(&url))),
                    false => Ok(issuers),
                };
            }
            Ok(answer) => asked.push(format!("`{}` answers {}", shown(&url), answer.status)),
            Err(why) => asked.push(why),
        }
    }
    Err(format!(
        "it does not say who gives tokens for it: {}",
        asked.join("; ")
    ))
}

/// Reads what an issuer says of itself.
///
/// # Errors
/// What is missing or wrong.
pub(in crate::upstream::remote) async fn metadata(asker: &Asker, issuer: &str) -> Result<Metadata, String> {
    let mut asked = Vec::new();
    for url in metadata_urls(issuer) {
        match asker.get(&url).await {
            Ok(answer) if answer.status.is_success() => {
                let document: Metadata = serde_json::from_slice(&answer.body)
                    .map_err(|_| format!("what `{}` gives is no metadata of an issuer", shown(&url)))?;
                // RFC 8414, section 3.3: to the letter, or one issuer could speak for another.
                if document.issuer != issuer {
                    return Err(format!(
                        "the metadata at `{}` are of another issuer, `{}`",
                        shown(&url),
                        shown(&document.issuer)
                    ));
                }
                return Ok(document);
            }
            Ok(answer) => asked.push(format!("`{}` answers {}", shown(&url), answer.status)),
            Err(why) => asked.push(why),
        }
    }
    Err(format!(
        "its issuer does not say where tokens are got: {}",
        asked.join("; ")
    ))
}

/// The URL of the metadata in a challenge.
fn told_by(headers: &HeaderMap) -> Option<String> {
    let challenges = headers.get_all(http::WWW_AUTHENTICATE).into_iter();
    challenges
        .filter_map(|challenge| parameter(challenge.to_str().ok()?, "resource_metadata"))
        .next()
}

/// A parameter of a challenge, in quotes or without.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    loop {
        let at = rest.to_ascii_lowercase().find(name)?;
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        rest = after;
        let is_whole = before.is_empty() || before.ends_with([' ', ',', '\t']);
        let Some(value) = after.trim_start().strip_prefix('=').filter(|_| is_whole) else {
            continue;
        };
        let value = value.trim_start();
        return Some(match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?.to_owned(),
            None => value.split([',', ' ']).next()?.to_owned(),
        });
    }
}

/// Where the document about a server is by the book: between host and path, and at the root.
fn well_known(server: &Url) -> Vec<String> {
    let origin = server.origin().ascii_serialization();
    let path = server.path().trim_end_matches('/');
    let mut urls = vec![format!("{origin}{WELL_KNOWN}{path}")];
    if !path.is_empty() {
        urls.push(format!("{origin}{WELL_KNOWN}"));
    }
    urls
}

/// Whether a document is about this server: it, or what it is a part of.
fn is_about(resource: &str, server: &Url) -> bool {
    let Ok(resource) = Url::parse(resource) else {
        return false;
    };
    let (whole, part) = (resource.path().trim_end_matches('/'), server.path());
    let rest = part.strip_prefix(whole);
    resource.origin() == server.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_in_a_challenge_are_found() {
        for (challenge, expected) in [
            (
                r#"Bearer resource_metadata="https://a.example/m""#,
                Some("https://a.example/m"),
            ),
            (
                r#"Bearer error="x", Resource_Metadata = "u", scope="s""#,
                Some("u"),
            ),
            ("Bearer resource_metadata=u, scope=s", Some("u")),
            (r#"Bearer x_resource_metadata="no""#, None),
            ("Basic", None),
        ] {
            assert_eq!(
                parameter(challenge, "resource_metadata").as_deref(),
                expected,
                "{challenge}"
            );
        }
    }

    #[test]
    fn a_document_is_about_a_server_or_what_it_is_part_of() {
        let server = Url::parse("https://a.example/mcp/x").unwrap();
        for (resource, is) in [
            ("https://a.example/mcp/x", true),
            ("https://A.example:443/mcp/x/", true),
            ("https://a.example/mcp", true),
            ("https://a.example", true),
            ("https://a.example/mc", false),
            ("https://a.example/mcp/x/y", false),
            ("http://a.example/mcp/x", false),
            ("https://b.example/mcp/x", false),
            ("x", false),
        ] {
            assert_eq!(is_about(resource, &server), is, "{resource}");
        }
        assert_eq!(
            well_known(&server),
            [
                "https://a.example/.well-known/oauth-protected-resource/mcp/x",
                "https://a.example/.well-known/oauth-protected-resource"
            ]
        );
    }

    #[test]
    fn how_a_secret_is_shown_is_the_issuers_choice() {
        for (methods, shows) in [
            (None, Shows::Basic),
            (Some(vec!["client_secret_post"]), Shows::Post),
            (
                Some(vec!["client_secret_post", "client_secret_basic"]),
                Shows::Basic,
            ),
            (Some(vec!["private_key_jwt"]), Shows::Basic),
        ] {
            let methods = methods.map(|methods| methods.into_iter().map(str::to_owned).collect());
            let methods: Option<Vec<String>> = methods;
            let document = serde_json::json!({
                "issuer": "", "token_endpoint": "", "token_endpoint_auth_methods_supported": methods
            });
            let metadata: Metadata = serde_json::from_value(document).unwrap();
            assert_eq!(metadata.shows(), shows);
        }
    }
}
