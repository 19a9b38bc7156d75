//! Who may come in: the sections `[auth]` and `[policy]`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use bridges::{
    auth::{
        ApiKeyOptions, Auth, AuthOptions, CertificateName, CertificateOptions, IntrospectionOptions,
        IssuerOptions, Scheme,
    },
    secrets::Secret,
};
use bus_schema::{
    policy::{Document, Opens, Otherwise, Policy, Role, Rule, Scope},
    principal::DEFAULT_TENANT,
};
use serde::Deserialize;

/// No clock that can be trusted at all is further off.
const MOST_SKEW_SECS: u64 = 600;
/// Nothing of an issuer is kept for longer.
const LONGEST_SECS: u64 = 7 * 24 * 60 * 60;

/// What the section `[auth]` says. Not `Debug`, as it may hold secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuthSection {
    mode: Mode,
    public_url: Option<String>,
    required_scopes: Vec<String>,
    scopes_supported: Option<Vec<String>>,
    operator_role: Option<String>,
    issuers: Vec<IssuerLine>,
    api_keys: Vec<ApiKeyLine>,
    certificates: Vec<CertificateLine>,
}

/// What lets somebody in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Reaching the port.
    #[default]
    None,
    /// A token of an issuer, an API key, or a client certificate.
    Oauth,
    /// An API key, or a client certificate.
    ApiKeys,
    /// A client certificate.
    Certificates,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerLine {
    issuer: String,
    jwks_url: Option<String>,
    #[serde(default)]
    audience: OneOrMany,
    algorithms: Option<Vec<String>>,
    clock_skew_secs: Option<u64>,
    subject_claim: Option<String>,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    roles_claim: Option<String>,
    jwks_refresh_secs: Option<u64>,
    jwks_floor_secs: Option<u64>,
    jwks_keep_secs: Option<u64>,
    introspection_url: Option<String>,
    introspection_cache_secs: Option<u64>,
    client_id: Option<String>,
    client_secret_env: Option<String>,
    client_secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_private: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiKeyLine {
    sha256: String,
    subject: String,
    tenant: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateLine {
    dn: Option<String>,
    dns: Option<String>,
    uri: Option<String>,
    email: Option<String>,
    subject: Option<String>,
    tenant: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

/// One text, or a list of them.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// What the section `[policy]` says: a document, or only what scopes open. In that case what no scope names is open to all.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PolicySection {
    default: Option<Otherwise>,
    roles: BTreeMap<String, Role>,
    scopes: BTreeMap<String, Opens>,
    rules: Vec<Rule>,
}

impl PolicySection {
    /// The section as a document; `None` when it says nothing.
    pub(super) fn document(&self) -> anyhow::Result<Option<Document>> {
        let is_more = !self.roles.is_empty() || !self.rules.is_empty();
        if self.default.is_none() && !is_more && self.scopes.is_empty() {
            return Ok(None);
        }
        let default = match self.default {
            Some(default) => default,
            None if is_more => bail!(
                "policy has roles or rules and no default; write default = \"deny\" for what nothing names, or default = \"allow\""
            ),
            None => Otherwise::Allow,
        };
        let document = Document {
            default,
            roles: self.roles.clone(),
            scopes: self.scopes.clone(),
            rules: self.rules.clone(),
        };
        Policy::compile(&document).map_err(|bad| anyhow::anyhow!("policy.{bad}"))?;
        Ok(Some(document))
    }
}

impl super::Config {
    /// Where clients reach the platform, if the file says so.
    #[must_use]
    pub fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref().or(self.auth.public_url())
    }
}

impl AuthSection {
    /// Where clients reach the platform, if it says so.
    fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    /// Finds what cannot work, without asking for secrets.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.options(|line| Ok(line.client_secret_env.clone().unwrap_or_default()))
            .map(drop)
    }

    /// The tenants that it names, each with what names it.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let issuers = self.issuers.iter().map(|line| ("an issuer", &line.tenant));
        let keys = self.api_keys.iter().map(|line| ("an API key", &line.tenant));
        let all = issuers.chain(keys);
        all.filter_map(|(what, tenant)| Some((what, tenant.as_ref()?)))
    }

    /// The role of operators.
    pub(super) fn operator_role(&self) -> String {
        self.operator_role
            .clone()
            .unwrap_or_else(|| bridges::auth::OPERATOR.to_owned())
    }

    /// Whether anything has to be shown.
    pub(super) fn is_required(&self) -> bool {
        self.mode != Mode::None
    }

    /// Whether client certificates let anybody in.
    pub(super) fn knows_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The section as doors take it, with the secrets that it names.
    pub(super) fn to_options(&self) -> anyhow::Result<Auth> {
        self.options(IssuerLine::secret)
    }

    fn options(&self, secret: impl Fn(&IssuerLine) -> anyhow::Result<String>) -> anyhow::Result<Auth> {
        match self.mode {
            Mode::None
                if !self.issuers.is_empty() || !self.api_keys.is_empty() || self.knows_certificates() =>
            {
                bail!(
                    "auth has issuers, API keys or certificates, but mode = \"none\" asks nobody for them; write mode = \"oauth\", mode = \"api_keys\" or mode = \"certificates\""
                )
            }
            Mode::None => return Ok(Auth::None),
            Mode::Oauth if self.issuers.is_empty() => {
                bail!(
                    "auth has mode = \"oauth\" and no issuer; add [[auth.issuers]] with issuer = \"https://…\""
                )
            }
            Mode::ApiKeys if !self.issuers.is_empty() => {
                bail!("auth has mode = \"api_keys\" and issuers; write mode = \"oauth\", which takes both")
            }
            Mode::ApiKeys if self.api_keys.is_empty() => bail!(
                "auth has mode = \"api_keys\" and no key; `trunkline keys new` prints one, and the lines for it"
            ),
            Mode::Certificates if !self.issuers.is_empty() || !self.api_keys.is_empty() => bail!(
                "auth has mode = \"certificates\" and issuers or API keys; write mode = \"oauth\" or mode = \"api_keys\", which take certificates as well"
            ),
            Mode::Certificates if !self.knows_certificates() => bail!(
                "auth has mode = \"certificates\" and knows none; add [[auth.certificates]] with uri = \"spiffe://…\", dns, email or dn"
            ),
            Mode::Oauth | Mode::ApiKeys | Mode::Certificates => {}
        }
        let issuers = self.issuers.iter().map(|line| {
            let options = line.options(&secret);
            options.with_context(|| format!("issuer `{}` cannot be used", line.issuer))
        });
        Ok(Auth::Required(Box::new(AuthOptions {
            public_url: self.public_url.clone(),
            issuers: issuers.collect::<anyhow::Result<_>>()?,
            api_keys: self
                .api_keys
                .iter()
                .map(ApiKeyLine::options)
                .collect::<anyhow::Result<_>>()?,
            certificates: self
                .certificates
                .iter()
                .map(CertificateLine::options)
                .collect::<anyhow::Result<_>>()?,
            scheme: Scheme::default(),
            required_scopes: scopes(&self.required_scopes).context("auth.required_scopes")?,
            scopes_supported: match &self.scopes_supported {
                Some(all) => Some(scopes(all).context("auth.scopes_supported")?),
                None => None,
            },
        })))
    }
}

impl IssuerLine {
    fn options(&self, secret: impl Fn(&Self) -> anyhow::Result<String>) -> anyhow::Result<IssuerOptions> {
        let usual = IssuerOptions::new(&self.issuer);
        let algorithms = match &self.algorithms {
            Some(names) => names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            None => usual.algorithms,
        };
        let audiences = match &self.audience {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        };
        let span = |key: &str, secs: Option<u64>, most: u64, usual: Duration| match secs {
            Some(secs) if secs > most => bail!("{key} = {secs}; use {most} at most"),
            Some(secs) => Ok(Duration::from_secs(secs)),
            None => Ok(usual),
        };
        if self.jwks_floor_secs == Some(0) {
            bail!("jwks_floor_secs = 0 lets everybody make it fetch keys all the time; use 1 or more");
        }
        Ok(IssuerOptions {
            jwks_url: self.jwks_url.clone(),
            audiences,
            algorithms,
            clock_skew: span(
                "clock_skew_secs",
                self.clock_skew_secs,
                MOST_SKEW_SECS,
                usual.clock_skew,
            )?,
            subject_claim: self.subject_claim.clone().unwrap_or(usual.subject_claim),
            tenant: self.tenant.clone().unwrap_or(usual.tenant),
            tenant_claim: self.tenant_claim.clone(),
            roles_claim: self.roles_claim.clone().unwrap_or(usual.roles_claim),
            refresh_after: span(
                "jwks_refresh_secs",
                self.jwks_refresh_secs,
                LONGEST_SECS,
                usual.refresh_after,
            )?,
            floor: span("jwks_floor_secs", self.jwks_floor_secs, LONGEST_SECS, usual.floor)?,
            keep_for: span(
                "jwks_keep_secs",
                self.jwks_keep_secs,
                LONGEST_SECS,
                usual.keep_for,
            )?,
            introspection: self.introspection(secret)?,
            ca_file: self.ca_file.clone(),
            allow_private: self.allow_private,
            issuer: usual.issuer,
        })
    }

    fn introspection(
        &self,
        secret: impl Fn(&Self) -> anyhow::Result<String>,
    ) -> anyhow::Result<Option<IntrospectionOptions>> {
        let Some(url) = &self.introspection_url else {
            let about = [
                ("client_id", self.client_id.is_some()),
                ("client_secret_env", self.client_secret_env.is_some()),
                ("client_secret_file", self.client_secret_file.is_some()),
                (
                    "introspection_cache_secs",
                    self.introspection_cache_secs.is_some(),
                ),
            ];
            return match about.iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => {
                    bail!("it has `{key}`, which means nothing without introspection_url; leave it out")
                }
                None => Ok(None),
            };
        };
        let Some(client_id) = self.client_id.clone() else {
            bail!(
                "it has an introspection_url and no client_id; add the one that its issuer knows this platform by"
            );
        };
        if self.client_secret_env.is_some() == self.client_secret_file.is_some() {
            bail!(
                "it has an introspection_url, for which one of client_secret_env and client_secret_file is needed"
            );
        }
        let cache = self.introspection_cache_secs.unwrap_or(30);
        if cache > 3600 {
            bail!(
                "introspection_cache_secs = {cache}; use 3600 at most, as a token that is taken back counts for so long"
            );
        }
        Ok(Some(IntrospectionOptions {
            url: url.clone(),
            client_id,
            client_secret: Secret::new(secret(self)?),
            cache_for: Duration::from_secs(cache),
        }))
    }

    fn secret(&self) -> anyhow::Result<String> {
        match (&self.client_secret_env, &self.client_secret_file) {
            (Some(name), _) => super::variable(name).with_context(|| {
                format!("client_secret_env = \"{name}\", but the environment has no such variable, or an empty one")
            }),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read client_secret_file {}", path.display()))?;
                let text = text.trim();
                if text.is_empty() {
                    bail!("client_secret_file {} is empty", path.display());
                }
                Ok(text.to_owned())
            }
            (None, None) => Ok(String::new()),
        }
    }
}

impl ApiKeyLine {
    fn options(&self) -> anyhow::Result<ApiKeyOptions> {
        if self.subject.is_empty() {
            bail!("an API key has an empty subject; say who comes with it");
        }
        Ok(ApiKeyOptions {
            sha256: self.sha256.clone(),
            subject: self.subject.clone(),
            tenant: self.tenant.clone().unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
            roles: self.roles.clone(),
            scopes: scopes(&self.scopes).with_context(|| format!("the API key of `{}`", self.subject))?,
        })
    }
}

impl CertificateLine {
    fn options(&self) -> anyhow::Result<CertificateOptions> {
        let names = [
            self.dn.clone().map(CertificateName::Dn),
            self.dns.clone().map(CertificateName::Dns),
            self.uri.clone().map(CertificateName::Uri),
            self.email.clone().map(CertificateName::Email),
        ];
        let mut names = names.into_iter().flatten();
        let (Some(name), None) = (names.next(), names.next()) else {
            bail!(
                "a line of [[auth.certificates]] needs one of dn, dns, uri and email, and has none or several; write one line for each name"
            );
        };
        if self.subject.as_ref().is_some_and(String::is_empty) {
            bail!(
                "a line of [[auth.certificates]] has an empty subject; say who comes with it, or leave it out"
            );
        }
        Ok(CertificateOptions {
            subject: self.subject.clone(),
            tenant: self.tenant.clone().unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
            roles: self.roles.clone(),
            scopes: scopes(&self.scopes).context("a line of [[auth.certificates]]")?,
            ..CertificateOptions::new(name)
        })
    }
}

fn scopes(names: &[String]) -> anyhow::Result<Vec<Scope>> {
    Ok(names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{expect_refusal, load},
        *,
    };

    const ISSUER: &str = "[auth]\nmode = \"oauth\"\n[[auth.issuers]]\nissuer = \"https://id.example\"\n";

    #[test]
    fn what_cannot_work_is_named_with_what_would() {
        let with = |more: &str| format!("{ISSUER}{more}");
        for (text, words) in [
            ("[auth]\nmode = \"oauth\"".to_owned(), ["oauth", "no issuer", "[[auth.issuers]]"]),
            ("[auth]\nmode = \"api_keys\"".to_owned(), ["api_keys", "no key", "trunkline keys new"]),
            ("[auth]\nmode = \"open\"".to_owned(), ["open", "`none`", "`oauth`"]),
            (ISSUER.replace("oauth", "none"), ["issuers", "mode = \"none\"", "mode = \"oauth\""]),
            (ISSUER.replace("oauth", "api_keys"), ["api_keys", "issuers", "mode = \"oauth\""]),
            (with("algorithms = [\"HS256\"]"), ["https://id.example", "HS256", "RS256"]),
            (with("clock_skew_secs = 9999"), ["https://id.example", "clock_skew_secs = 9999", "600"]),
            (with("jwks_floor_secs = 0"), ["https://id.example", "jwks_floor_secs = 0", "1 or more"]),
            (with("client_id = \"x\""), ["client_id", "introspection_url", "leave it out"]),
            (with("introspection_url = \"https://id.example/i\""), ["introspection_url", "client_id", "add"]),
            (
                with("introspection_url = \"https://id.example/i\"\nclient_id = \"x\""),
                ["introspection_url", "client_secret_env", "client_secret_file"],
            ),
            (with("audience = 7"), ["audience", "a text, or a list of texts", ""]),
            (
                "[auth]\nmode = \"oauth\"\nrequired_scopes = [\"a b\"]\n[[auth.issuers]]\nissuer = \"https://i\"".to_owned(),
                ["auth.required_scopes", "a b", "products:read"],
            ),
            ("[policy.scopes]\n\"a b\" = [\"*\"]".to_owned(), ["policy.scopes", "a b", "products:read"]),
            ("[policy.scopes]\na = [\"get\"]".to_owned(), ["policy.scopes", "get", "<server>__<name>"]),
        ] {
            expect_refusal(&text, words);
        }
    }

    #[test]
    fn a_section_is_read_and_its_secret_is_asked_for_only_by_who_opens_a_door() {
        assert!(matches!(
            load("").expect("loads").auth().expect("options"),
            Auth::None
        ));
        let text = format!(
            "{ISSUER}audience = \"trunkline\"\nroles_claim = \"realm_access.roles\"\nclock_skew_secs = 5\n\
             introspection_url = \"https://id.example/i\"\nclient_id = \"x\"\n\
             client_secret_env = \"TRUNKLINE_TEST_NO_SUCH_VARIABLE\"\n"
        );
        let error = load(&text).expect("loads").auth().err().expect("no secret");
        let error = format!("{error:#}");
        assert!(
            error.contains("https://id.example") && error.contains("TRUNKLINE_TEST_NO_SUCH_VARIABLE"),
            "{error}"
        );
        let text = text.replace("TRUNKLINE_TEST_NO_SUCH_VARIABLE", "PATH");
        let Auth::Required(options) = load(&text).expect("loads").auth().expect("options") else {
            panic!("authentication is required");
        };
        let issuer = &options.issuers[0];
        assert_eq!(issuer.audiences, ["trunkline"]);
        assert_eq!(issuer.roles_claim, "realm_access.roles");
        assert_eq!(issuer.clock_skew, Duration::from_secs(5));
        assert_eq!(issuer.subject_claim, "sub");
        assert!(issuer.introspection.is_some());
    }
}
