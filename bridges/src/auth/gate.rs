//! The gate that every request to an endpoint passes: it takes a token or a key out of the head, and gives the principal or a refusal.

use std::{collections::BTreeSet, future::pending, net::SocketAddr, sync::Arc};

use axum::{
    http::{HeaderMap, HeaderValue, Uri, header},
    response::Response,
};
use bus_schema::{
    Principal,
    policy::{Decision, Scope},
};
use runtime::{blocks::Blocks, moment};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use url::form_urlencoded;

use super::{
    api_keys::{ApiKeys, Digest, sha256},
    certificates::{self, CertificateOptions},
    challenge::Refusal,
    claims, crypto,
    introspection::{Introspection, Standing},
    keys::Keys,
    options::{Auth, AuthError, AuthOptions, IssuerOptions, public_url},
    resource::{self, Resources},
    token::Signed,
    verified::{Genuine, Verified},
};
use crate::{
    tls::Peer,
    upstream::remote::fetch::{Expected, Fetcher},
};

/// The longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The keys of an issuer, and what it says of tokens.
const EXPECTED: Expected = Expected {
    max_bytes: 256 * 1024,
    accept: HeaderValue::from_static("application/json, application/jwk-set+json"),
};
/// The role of those who operate the platform, unless somebody says otherwise.
pub const OPERATOR: &str = "operator";
/// What carries a token in a URL, where it would be logged on its way.
const QUERY_KEYS: [&str; 4] = ["access_token", "token", "api_key", "apikey"];

/// The refusal of somebody whose tenant is not served here.
pub(crate) const NOT_HERE: Refusal = Refusal::Forbidden("the servers of this caller's tenant are not here");

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) principal: Principal,
    /// When what was shown counts no more.
    pub(crate) until: Option<Instant>,
    /// The same as it is written there, in seconds since 1970, without allowing for clocks that differ.
    pub(crate) expires_at: Option<u64>,
    /// Who is stopped, whatever they show; set where somebody is let in.
    pub(crate) blocks: Option<Blocks>,
    /// The certificate of the connection that it came by; set there, too.
    pub(crate) peer: Option<Arc<Peer>>,
    /// The token, where only its issuer can say whether it still counts.
    pub(crate) standing: Option<Standing>,
}

/// What a request shows of who sends it. What stands before the door may write into headers, but nothing that is believed: such as
/// `X-Forwarded-Client-Cert`.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'r> {
    pub(crate) headers: &'r HeaderMap,
    pub(crate) uri: &'r Uri,
    /// The certificate of its connection.
    pub(crate) peer: Option<&'r Peer>,
}

/// Why somebody may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What was shown counts no more.
    Expired,
    /// The caller is stopped.
    Blocked,
    /// The connection's certificate was taken back, or has ended.
    Distrusted,
}

/// What stands before the endpoints of a door.
pub(crate) struct Gate {
    /// Nobody is asked anything where this is absent.
    checks: Option<Checks>,
}

struct Checks {
    issuers: Vec<Issuer>,
    api_keys: ApiKeys,
    certificates: Vec<CertificateOptions>,
    resources: Resources,
    verified: Verified,
    /// What every caller needs.
    required: Vec<Scope>,
    /// What clients are told of beforehand.
    advertised: Vec<Scope>,
    /// The tenants whose servers are here.
    tenants: Vec<String>,
}

struct Issuer {
    options: IssuerOptions,
    keys: Arc<Keys>,
    introspection: Option<Arc<Introspection>>,
}

impl Admitted {
    /// Waits until the caller may not go on; for ever when that does not come.
    pub(crate) async fn ended(&self) -> Ended {
        tokio::select! {
            () = self.expired() => Ended::Expired,
            () = self.blocked() => Ended::Blocked,
            () = self.distrusted() => Ended::Distrusted,
            () = self.taken_back() => Ended::Expired,
        }
    }

    async fn taken_back(&self) {
        match &self.standing {
            Some(standing) => standing.taken_back().await,
            None => pending().await,
        }
    }

    async fn distrusted(&self) {
        match &self.peer {
            Some(peer) => peer.distrusted().await,
            None => pending().await,
        }
    }

    async fn expired(&self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => pending().await,
        }
    }

    async fn blocked(&self) {
        match &self.blocks {
            Some(blocks) => blocks.stopped(&self.principal).await,
            None => pending().await,
        }
    }
}

impl Gate {
    /// The gate of a door that listens at `local` and leads to these tenants.
    ///
    /// # Errors
    /// [`AuthError`] that names the setting that cannot be used.
    pub(crate) fn new(auth: &Auth, local: SocketAddr, tenants: &[String]) -> Result<Self, AuthError> {
        let checks = match auth {
            Auth::None => None,
            Auth::Required(options) => Some(Checks::new(options, local, tenants)?),
        };
        Ok(Self { checks })
    }

    /// Lets somebody in by a token or key for the whole platform, which has not come in the head of a request. A refusal says who it was, if
    /// what was shown is genuine.
    pub(crate) async fn admit_token(
        &self,
        token: Option<&str>,
    ) -> Result<Admitted, (Refusal, Option<Box<Principal>>)> {
        let unknown = |refusal| (refusal, None);
        let (Some(checks), Some(token)) = (&self.checks, token) else {
            return Err(unknown(Refusal::NoToken));
        };
        let token = well_formed(token).map_err(unknown)?;
        let admitted = checks.identify("", token, None).await.map_err(unknown)?;
        let principal = admitted.principal.clone();
        let let_in = checks.let_in(admitted);
        let_in.map_err(|refusal| (refusal, Some(Box::new(principal))))
    }

    /// Lets a request in, or says why not. `endpoint` is the path of what it goes to.
    pub(crate) async fn admit(&self, endpoint: &str, shown: &Shown<'_>) -> Result<Admitted, Refusal> {
        let Some(checks) = &self.checks else {
            return Ok(Admitted {
                principal: Principal::developer(),
                until: None,
                expires_at: None,
                blocks: None,
                peer: None,
                standing: None,
            });
        };
        let admitted = checks.admit(endpoint, shown).await;
        if let Err(refusal) = &admitted {
            debug!(endpoint, %refusal, "refused a request by what it shows");
        }
        admitted
    }

    /// Whether somebody who was let in for the whole platform may operate it, as the policy has decided.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn operate(&self, decision: Decision) -> Result<(), Refusal> {
        match decision {
            _ if self.checks.is_none() => Ok(()),
            Decision::Allow => Ok(()),
            Decision::NeedsScopes(scopes) => Err(self.step_up(scopes)),
            Decision::Denied { .. } | Decision::Hidden => Err(Refusal::Forbidden(
                "this is for operators, whose role the caller does not have",
            )),
        }
    }

    /// Whether anybody is asked anything.
    pub(crate) fn asks(&self) -> bool {
        self.checks.is_some()
    }

    /// The answer to a request that is not let in.
    pub(crate) fn refuse(&self, endpoint: &str, refusal: &Refusal) -> Response {
        refusal.respond(self.challenge(endpoint, refusal))
    }

    /// The challenge that goes with a refusal.
    pub(crate) fn challenge(&self, endpoint: &str, refusal: &Refusal) -> Option<HeaderValue> {
        let checks = self.checks.as_ref()?;
        let metadata = (!checks.issuers.is_empty()).then(|| checks.resources.metadata_url(endpoint));
        refusal.challenge(metadata.as_deref(), &listed(&checks.required))
    }

    /// The refusal of somebody who needs these scopes beside those that everybody needs.
    pub(crate) fn step_up(&self, scopes: Vec<String>) -> Refusal {
        let usual = self.checks.iter().flat_map(|checks| &checks.required);
        let all: BTreeSet<String> = usual
            .map(|scope| scope.as_str().to_owned())
            .chain(scopes)
            .collect();
        Refusal::Scopes(all.into_iter().collect())
    }

    /// The document about a resource, by what follows the well-known path; `None` where there is none.
    pub(crate) fn document(&self, asked: &str) -> Option<Value> {
        let checks = self.checks.as_ref().filter(|checks| !checks.issuers.is_empty())?;
        let path = checks.resources.described(asked)?;
        let issuers: Vec<&str> = checks
            .issuers
            .iter()
            .map(|issuer| issuer.options.issuer.as_str())
            .collect();
        let resource = checks.resources.uri(&path);
        Some(resource::document(&resource, &issuers, &checks.advertised))
    }
}

impl Checks {
    fn new(options: &AuthOptions, local: SocketAddr, tenants: &[String]) -> Result<Self, AuthError> {
        if options.issuers.is_empty() && options.api_keys.is_empty() && options.certificates.is_empty() {
            return Err(AuthError::Nobody);
        }
        let public = match &options.public_url {
            Some(url) => public_url(url)?,
            None if local.ip().is_loopback() || options.issuers.is_empty() => {
                public_url(&format!("{}://{local}", options.scheme.as_str()))?
            }
            None => return Err(AuthError::NoPublicUrl(local)),
        };
        crypto::install();
        let mut names = BTreeSet::new();
        let mut issuers = Vec::new();
        for issuer in &options.issuers {
            if !names.insert(issuer.issuer.as_str()) {
                return Err(AuthError::SameIssuer(issuer.issuer.clone()));
            }
            issuers.push(Issuer::new(issuer)?);
        }
        let advertised = options.scopes_supported.as_ref();
        Ok(Self {
            issuers,
            verified: Verified::default(),
            api_keys: ApiKeys::new(&options.api_keys)?,
            certificates: options.certificates.clone(),
            resources: Resources::new(&public),
            required: options.required_scopes.clone(),
            advertised: advertised.unwrap_or(&options.required_scopes).clone(),
            tenants: tenants.to_vec(),
        })
    }

    async fn admit(&self, endpoint: &str, shown: &Shown<'_>) -> Result<Admitted, Refusal> {
        let query = shown.uri.query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes()).any(|(key, _)| QUERY_KEYS.contains(&&*key)) {
            return Err(Refusal::BadRequest(
                "a token belongs into the header Authorization, and never into a URL",
            ));
        }
        let admitted = match (shown.peer, bearer(shown.headers)) {
            // Who shows a token means it: one that is bad is not made good by a certificate.
            (Some(peer), Err(Refusal::NoToken)) if !shown.headers.contains_key(header::AUTHORIZATION) => {
                certificates::admit(peer, &self.certificates)?
            }
            (None, Err(Refusal::NoToken)) if self.takes_certificates_only() => {
                return Err(Refusal::BadCertificate(
                    "connect with a client certificate, which is all that is taken here",
                ));
            }
            (peer, token) => {
                let admitted = self.identify(endpoint, token?, peer).await?;
                self.check_company(&admitted, peer)?;
                admitted
            }
        };
        self.let_in(admitted)
    }

    fn takes_certificates_only(&self) -> bool {
        self.issuers.is_empty() && self.api_keys.is_empty()
    }

    /// Whether a token may come with a certificate. It says who asks, as its issuer has said for whom it was made; the certificate says
    /// what carries it, which may be anybody's gateway, but not one of another tenant.
    fn check_company(&self, admitted: &Admitted, peer: Option<&Peer>) -> Result<(), Refusal> {
        let carrier = peer.and_then(|peer| certificates::principal(peer.names(), &self.certificates));
        match carrier {
            Some(carrier) if carrier.tenant != admitted.principal.tenant => Err(Refusal::Forbidden(
                "the token and the client certificate are of different tenants",
            )),
            _ => Ok(()),
        }
    }

    /// Lets in who has what everybody needs.
    fn let_in(&self, admitted: Admitted) -> Result<Admitted, Refusal> {
        if !self.tenants.contains(&admitted.principal.tenant) {
            return Err(NOT_HERE);
        }
        let missing = |scope: &Scope| {
            !admitted
                .principal
                .scopes
                .iter()
                .any(|granted| granted == scope.as_str())
        };
        if self.required.iter().any(missing) {
            let all = self.required.iter().map(|scope| scope.as_str().to_owned());
            return Err(Refusal::Scopes(all.collect()));
        }
        Ok(admitted)
    }

    /// A token that was found genuine before and still counts.
    fn known_genuine(&self, digest: &Digest) -> Option<Arc<Genuine>> {
        let genuine = self.verified.find(digest)?;
        let issuer = &self.issuers[genuine.issuer];
        let counts = genuine.counts_at(moment::now_secs(), &issuer.options);
        (counts && issuer.keys.has(&genuine.key)).then_some(genuine)
    }

    async fn identify(&self, endpoint: &str, token: &str, peer: Option<&Peer>) -> Result<Admitted, Refusal> {
        let digest = sha256(token);
        if let Some(principal) = self.api_keys.find(&digest) {
            return Ok(Admitted {
                principal: principal.clone(),
                until: None,
                expires_at: None,
                blocks: None,
                peer: None,
                standing: None,
            });
        }
        if ApiKeys::looks_like_one(token) {
            return Err(Refusal::BadToken("the API key is not known here"));
        }
        let resources = [
            resource::canonical(&self.resources.uri("")),
            self.resources.uri(endpoint),
        ];
        if let Some(genuine) = self.known_genuine(&digest) {
            let issuer = &self.issuers[genuine.issuer];
            return claims::admit(&genuine.claims, &issuer.options, &resources, peer);
        }
        if let Some(signed) = Signed::read(token) {
            let signed = signed?;
            let made_it = |known: &Issuer| known.options.issuer == signed.issuer;
            let at = self.issuers.iter().position(made_it);
            let at = at.ok_or(Refusal::BadToken("the token is of another issuer"))?;
            let issuer = &self.issuers[at];
            let (claims, key) = signed.verify(&issuer.options, &issuer.keys).await?;
            self.verified.remember(token, digest, at, key, &claims);
            return claims::admit(&claims, &issuer.options, &resources, peer);
        }
        let mut refused = Refusal::BadToken("the token is not known here");
        for issuer in &self.issuers {
            let Some(introspection) = &issuer.introspection else {
                continue;
            };
            match introspection.claims(token, &issuer.options).await {
                Ok(Some(claims)) => {
                    let admitted = claims::admit(&claims, &issuer.options, &resources, peer)?;
                    return Ok(Admitted {
                        standing: Some(Standing::new(introspection, token)),
                        ..admitted
                    });
                }
                Ok(None) => {}
                Err(refusal) => refused = refusal,
            }
        }
        Err(refused)
    }
}

impl Issuer {
    fn new(options: &IssuerOptions) -> Result<Self, AuthError> {
        let failed = |source| AuthError::Issuer {
            issuer: options.issuer.clone(),
            source,
        };
        if options.algorithms.is_empty() {
            return Err(AuthError::NoAlgorithms(options.issuer.clone()));
        }
        let fetcher =
            Fetcher::new(options.ca_file.as_deref(), options.allow_private, EXPECTED).map_err(failed)?;
        let fetched = [
            Some(options.jwks_url.as_ref().unwrap_or(&options.issuer)),
            options
                .introspection
                .as_ref()
                .map(|introspection| &introspection.url),
        ];
        for url in fetched.into_iter().flatten() {
            fetcher.check(url).map_err(failed)?;
        }
        let fetcher = Arc::new(fetcher);
        let introspection = match &options.introspection {
            Some(own) => {
                let asks = Introspection::new(&options.issuer, own, Arc::clone(&fetcher))?;
                Some(Arc::new(asks))
            }
            None => None,
        };
        Ok(Self {
            keys: Arc::new(Keys::new(options, fetcher)),
            introspection,
            options: options.clone(),
        })
    }
}

/// The token in a request's head.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next().ok_or(Refusal::NoToken)?;
    if all.next().is_some() {
        return Err(Refusal::BadRequest("the header Authorization is there twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| Refusal::BadRequest("the header Authorization is not visible ASCII"))?
        .trim();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::NoToken);
    }
    well_formed(token.trim_start())
}

fn well_formed(token: &str) -> Result<&str, Refusal> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.bytes().all(is_token) {
        return Err(Refusal::BadRequest("what is shown is no bearer token"));
    }
    Ok(token)
}

fn listed(scopes: &[Scope]) -> String {
    let scopes: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
    scopes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_in_one_header() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a value"));
            }
            bearer(&headers).map(str::to_owned)
        };
        for good in [
            "Bearer abc.d-e_f~+/==",
            "bearer abc.d-e_f~+/==",
            "BEARER  abc.d-e_f~+/== ",
        ] {
            assert_eq!(read(&[good]).as_deref(), Ok("abc.d-e_f~+/=="), "{good}");
        }
        assert_eq!(read(&[]), Err(Refusal::NoToken));
        assert_eq!(read(&["Basic abc"]), Err(Refusal::NoToken));
        for bad in [
            &["Bearer"][..],
            &["Bearer "],
            &["Bearer a b"],
            &["Bearer a,b"],
            &["Bearer a", "Bearer a"],
        ] {
            assert!(matches!(read(bad), Err(Refusal::BadRequest(_))), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn without_authentication_everybody_is_the_developer() {
        let gate = Gate::new(&Auth::None, ([127, 0, 0, 1], 1).into(), &[]).expect("a gate");
        let shown = Shown {
            headers: &HeaderMap::new(),
            uri: &Uri::from_static("/mcp?access_token=x"),
            peer: None,
        };
        let admitted = gate.admit("/mcp", &shown).await.expect("admitted");
        assert_eq!(
            (admitted.principal, admitted.until),
            (Principal::developer(), None)
        );
        assert_eq!(gate.document("/mcp"), None);
    }

    #[test]
    fn settings_that_let_nobody_in_or_name_no_audience_are_refused() {
        let gate = |options: AuthOptions, local: SocketAddr| {
            Gate::new(&Auth::Required(Box::new(options)), local, &[]).map(drop)
        };
        let here = ([127, 0, 0, 1], 80).into();
        assert!(matches!(
            gate(AuthOptions::default(), here),
            Err(AuthError::Nobody)
        ));
        let issuer = IssuerOptions::new("https://id.example");
        let one = AuthOptions {
            issuers: vec![issuer.clone()],
            ..AuthOptions::default()
        };
        assert!(gate(one.clone(), here).is_ok());
        let elsewhere = ([0, 0, 0, 0], 80).into();
        assert!(matches!(
            gate(one.clone(), elsewhere),
            Err(AuthError::NoPublicUrl(_))
        ));
        let public = AuthOptions {
            public_url: Some("https://mcp.example".to_owned()),
            ..one.clone()
        };
        assert!(gate(public, elsewhere).is_ok());
        let twice = AuthOptions {
            issuers: vec![issuer.clone(), issuer],
            ..one.clone()
        };
        assert!(matches!(gate(twice, here), Err(AuthError::SameIssuer(_))));
        let inside = AuthOptions {
            issuers: vec![IssuerOptions::new("http://127.0.0.1:9")],
            ..one
        };
        assert!(matches!(gate(inside, here), Err(AuthError::Issuer { .. })));
    }
}
