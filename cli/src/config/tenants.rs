//! Whose everything is: the tenants that a configuration knows, and what of it is which tenant's.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use bridges::secrets::Permitted;
use bus_schema::{
    ServerId,
    principal::DEFAULT_TENANT,
    registry::{SECRET_PREFIX, SecretRef},
    virtual_server::VirtualServer,
};
use serde::Deserialize;

use super::{Config, variable};
use crate::node::{BUILT_IN, SERVICES};

/// No name is longer, so that each is its own token on the bus.
const MAX_NAME_BYTES: usize = 48;

/// A virtual server in the file: its definition, and whose it is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualLine {
    #[serde(default = "usual")]
    tenant: String,
    id: ServerId,
    title: Option<String>,
    description: Option<String>,
    items: Vec<bus_schema::virtual_server::Choice>,
}

impl VirtualLine {
    fn definition(&self) -> VirtualServer {
        VirtualServer {
            id: self.id.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            items: self.items.clone(),
        }
    }
}

/// The tenant of whatever does not say whose it is.
pub(super) fn usual() -> String {
    DEFAULT_TENANT.to_owned()
}

impl Config {
    /// All tenants that are served: `default`, and those that the file names.
    #[must_use]
    pub fn tenants(&self) -> Vec<String> {
        let named = self.tenants.iter().filter(|tenant| *tenant != DEFAULT_TENANT);
        std::iter::once(usual()).chain(named.cloned()).collect()
    }

    /// The virtual servers of a tenant that stand in the file.
    #[must_use]
    pub fn virtuals_of(&self, tenant: &str) -> Vec<VirtualServer> {
        let own = self.virtuals.iter().filter(|line| line.tenant == tenant);
        own.map(VirtualLine::definition).collect()
    }

    /// A secret that a declaration of a tenant names. Those of one tenant are no other's: variables begin with the tenant's name in capitals and
    /// two `_`, and those of `default` begin with the name of no tenant; what is configured says whose it is.
    #[must_use]
    pub fn registered_secret(&self, tenant: &str, named: SecretRef<'_>) -> Option<Permitted> {
        match named {
            SecretRef::Variable(name) if !self.is_secret_of(tenant, name) => None,
            SecretRef::Variable(name) => {
                let secret = variable(name)?;
                Some(Permitted::anywhere(super::secrets::fixed(name, secret)))
            }
            SecretRef::Named(name) => self.secrets.find(tenant, name),
        }
    }

    fn is_secret_of(&self, tenant: &str, name: &str) -> bool {
        let mut others = self.tenants.iter().filter(|other| *other != tenant);
        name.starts_with(&secrets_of(tenant))
            && (tenant != DEFAULT_TENANT || !others.any(|other| name.starts_with(&secrets_of(other))))
    }

    pub(super) fn check_tenants(&self) -> anyhow::Result<()> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let mut names = BTreeSet::new();
        for tenant in &self.tenants {
            if tenant.is_empty() || tenant.len() > MAX_NAME_BYTES || !tenant.bytes().all(is_letter) {
                bail!(
                    "`{tenant}` under tenants is no name of a tenant; use 1 to {MAX_NAME_BYTES} lower-case letters, digits and `-`"
                );
            }
            if !names.insert(tenant) {
                bail!("tenant `{tenant}` is named twice");
            }
        }
        let all = self.tenants();
        let known = |tenant: &String, what: &str| {
            if all.contains(tenant) {
                return Ok(());
            }
            bail!(
                "{what} has tenant = \"{tenant}\", which is none of this platform's; they are {} (`tenants` names them)",
                all.join(", ")
            )
        };
        for line in &self.servers {
            known(&line.tenant, &format!("server `{}`", line.id))?;
        }
        for line in &self.virtuals {
            known(&line.tenant, &format!("[[virtual]] server `{}`", line.id))?;
        }
        known(&self.products_tenant, "[products]")?;
        for tenant in self.secrets.tenants() {
            known(tenant, "[secrets.named]")?;
        }
        for (what, tenant) in self.auth.tenants() {
            known(tenant, what)?;
        }
        for tenant in self.limits.iter().filter_map(|limit| limit.tenant.as_ref()) {
            known(tenant, "a limit")?;
        }
        for tenant in self.integrity.iter().flat_map(|policies| policies.tenants.keys()) {
            known(tenant, "[integrity.tenants]")?;
        }
        Ok(())
    }

    /// Finds ids that are used twice in one tenant.
    pub(super) fn check_ids(&self) -> anyhow::Result<()> {
        let built_in = BUILT_IN.map(|id| (self.products_tenant.as_str(), id));
        let mut ids = BTreeSet::from(built_in);
        for tenant in [DEFAULT_TENANT]
            .into_iter()
            .chain(self.tenants.iter().map(String::as_str))
        {
            ids.extend(SERVICES.map(|service| (tenant, service)));
        }
        for server in &self.servers {
            if !ids.insert((&server.tenant, server.id.as_str())) {
                bail!(
                    "server id `{}` is used twice (the built-in `products`, `jobs`, `registry`, `upstreams` and `workers` count); give each its own",
                    server.id
                );
            }
            server.check()?;
        }
        for line in &self.virtuals {
            if !ids.insert((&line.tenant, line.id.as_str())) {
                bail!(
                    "id `{}` of a [[virtual]] server is used twice; give each server its own",
                    line.id
                );
            }
            line.definition()
                .check()
                .with_context(|| format!("[[virtual]] server `{}` cannot be used", line.id))?;
        }
        Ok(())
    }
}

/// What the variables of a tenant's secrets begin with. No tenant's name has a `_`, so none begins with another's.
#[must_use]
pub fn secrets_of(tenant: &str) -> String {
    match tenant {
        DEFAULT_TENANT => SECRET_PREFIX.to_owned(),
        tenant => format!("{SECRET_PREFIX}{}__", tenant.to_uppercase().replace('-', "_")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect_refusal, load};

    #[test]
    fn everything_may_be_a_tenants_and_the_same_id_is_free_in_each() {
        let text = "tenants = [\"acme\"]\n[[servers]]\nid = \"notes\"\ncommand = [\"a\"]\n[[servers]]\nid = \"notes\"\ntenant = \"acme\"\ncommand = [\"b\"]\n\
                    [[virtual]]\nid = \"v\"\ntenant = \"acme\"\nitems = [{ server = \"notes\", tools = [\"*\"] }]";
        let config = load(text).expect("loads");
        let names: Vec<_> = config.servers.iter().map(|line| line.name()).collect();
        assert_eq!(names, ["notes", "acme/notes"]);
        assert_eq!(config.tenants(), ["default", "acme"]);
        assert!(config.virtuals_of("default").is_empty());
        assert_eq!(config.virtuals_of("acme").len(), 1);
    }

    #[test]
    fn a_secret_is_one_tenants_and_nobody_elses() {
        let config = load("tenants = [\"acme\", \"acme-two\"]").expect("loads");
        for (name, its) in [
            ("TRUNKLINE_SECRET_WEATHER", Some("default")),
            ("TRUNKLINE_SECRET_ACME", Some("default")),
            ("TRUNKLINE_SECRET_ACME__WEATHER", Some("acme")),
            ("TRUNKLINE_SECRET_ACME_TWO__WEATHER", Some("acme-two")),
            ("TRUNKLINE_SECRET_ACME__TWO__WEATHER", Some("acme")),
            ("ACME__WEATHER", None),
        ] {
            for tenant in ["default", "acme", "acme-two"] {
                let expected = its == Some(tenant);
                assert_eq!(config.is_secret_of(tenant, name), expected, "{tenant}: {name}");
            }
        }
    }

    #[test]
    fn a_tenant_that_cannot_be_meant_is_named() {
        for (text, words) in [
            (
                "tenants = [\"Acme\"]",
                ["`Acme`", "no name of a tenant", "lower-case"],
            ),
            ("tenants = [\"a\", \"a\"]", ["`a`", "twice", ""]),
            (
                "[[servers]]\nid = \"a\"\ntenant = \"acme\"\ncommand = [\"x\"]",
                ["server `a`", "tenant = \"acme\"", "default"],
            ),
            (
                "tenants = [\"acme\"]\n[[servers]]\nid = \"a\"\ntenant = \"acme\"\ncommand = [\"x\"]\n[[virtual]]\nid = \"a\"\ntenant = \"acme\"\nitems = [{ server = \"b\", tools = [\"*\"] }]",
                ["`a`", "[[virtual]]", "twice"],
            ),
            (
                "[auth]\nmode = \"api_keys\"\n[[auth.api_keys]]\nsubject = \"a\"\nsha256 = \"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9\"\ntenant = \"acme\"",
                ["an API key", "tenant = \"acme\"", "default"],
            ),
            ("[products]\ntenant = \"acme\"", ["[products]", "acme", "default"]),
            (
                "[[limits]]\nname = \"a\"\ncalls = 1\ntenant = \"acme\"",
                ["a limit", "acme", "default"],
            ),
        ] {
            expect_refusal(text, words);
        }
    }
}
