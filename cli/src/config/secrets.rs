//! Where secrets come from, as a file says it; and those that declarations in the registry may name.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use bridges::secrets::{COMMAND_EVERY, Permitted, Program, Secret, Source};
use bus_schema::{principal::DEFAULT_TENANT, registry::is_secret_name};
use serde::Deserialize;

/// Nothing that is asked for more seldom than once a day is rotated.
const LONGEST_SECS: u64 = 24 * 60 * 60;
const WHAT_IS_RIGHT: &str =
    "write one of env = \"VARIABLE\", file = \"/run/secrets/name\" and command = [\"program\", \"argument\"]";

/// Where a secret comes from.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretTable {
    env: Option<String>,
    file: Option<PathBuf>,
    command: Option<Vec<String>>,
    every_secs: Option<u64>,
}

/// A text of the file, or a secret that comes from elsewhere.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, or where a secret comes from: { env = … }, { file = … } or { command = [ … ] }"
)]
pub enum Setting {
    /// The text itself.
    Plain(String),
    /// Where it comes from.
    Secret(SecretTable),
}

/// `[secrets]`: what declarations in the registry may name.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecretsSection {
    files: Option<PathBuf>,
    named: BTreeMap<String, NamedTable>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NamedTable {
    env: Option<String>,
    file: Option<PathBuf>,
    command: Option<Vec<String>>,
    every_secs: Option<u64>,
    hosts: Option<Vec<String>>,
    tenant: Option<String>,
}

impl SecretTable {
    pub(super) fn env(name: &str) -> Self {
        Self {
            env: Some(name.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn file(path: PathBuf) -> Self {
        Self {
            file: Some(path),
            ..Self::default()
        }
    }

    /// Finds what cannot be meant, without asking for the secret.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let said = [self.env.is_some(), self.file.is_some(), self.command.is_some()];
        match said.into_iter().filter(|is_said| *is_said).count() {
            0 => bail!("says not where the secret comes from; {WHAT_IS_RIGHT}"),
            1 => {}
            _ => bail!("says of several places that the secret comes from there; {WHAT_IS_RIGHT}"),
        }
        if self.command.as_ref().is_some_and(Vec::is_empty) {
            bail!("has an empty command; write command = [\"program\", \"argument\"]");
        }
        match self.every_secs {
            Some(_) if self.command.is_none() => {
                bail!("has every_secs, which is how often a command is run; leave it out")
            }
            Some(secs) if !(1..=LONGEST_SECS).contains(&secs) => {
                bail!("has every_secs = {secs}; use 1 to {LONGEST_SECS} (a day)")
            }
            _ => Ok(()),
        }
    }

    /// The source. A variable is read at once, as it does not change; the other two when they are used.
    ///
    /// # Errors
    /// When it cannot be meant, or there is no such variable.
    pub(super) fn to_source(&self) -> anyhow::Result<Source> {
        self.check()?;
        if let Some(name) = &self.env {
            let secret = super::variable(name).with_context(|| {
                format!("env = \"{name}\", but the environment has no such variable, or an empty one")
            })?;
            return Ok(fixed(name, secret));
        }
        if let Some(path) = &self.file {
            return Ok(Source::File(path.clone()));
        }
        Ok(Source::Command(Program {
            line: self.command.clone().unwrap_or_default(),
            every: self.every_secs.map_or(COMMAND_EVERY, Duration::from_secs),
        }))
    }
}

impl NamedTable {
    /// Whose it is.
    fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
    }

    fn table(&self) -> SecretTable {
        SecretTable {
            env: self.env.clone(),
            file: self.file.clone(),
            command: self.command.clone(),
            every_secs: self.every_secs,
        }
    }
}

impl SecretsSection {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (name, table) in &self.named {
            if !is_secret_name(name) {
                bail!(
                    "[secrets.named] has `{name}`; use letters, digits and `.`, `_`, `-`, with a letter or digit first"
                );
            }
            table
                .table()
                .check()
                .with_context(|| format!("the secret `{name}` under [secrets.named] cannot be used"))?;
        }
        Ok(())
    }

    /// Whose secrets there are.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &String> {
        self.named.values().filter_map(|table| table.tenant.as_ref())
    }

    /// What a declaration of a tenant may name: a secret of the section, or a file in its folder. There each tenant beside `default` has a
    /// folder of its own.
    pub(super) fn find(&self, tenant: &str, name: &str) -> Option<Permitted> {
        if let Some(table) = self.named.get(name).filter(|table| table.tenant() == tenant) {
            return Some(Permitted {
                source: table.table().to_source().ok()?,
                hosts: table.hosts.clone(),
            });
        }
        let mut path = self.files.clone().filter(|_| is_secret_name(name))?;
        if tenant != DEFAULT_TENANT {
            path.push(tenant);
        }
        path.push(name);
        path.is_file().then(|| Permitted::anywhere(Source::File(path)))
    }
}

pub(super) fn fixed(variable: &str, secret: String) -> Source {
    Source::Fixed {
        name: format!("the variable {variable}"),
        secret: Secret::new(secret),
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::registry::SecretRef;

    use super::{
        super::tests::{expect_refusal, load},
        *,
    };

    const SERVER: &str = "[[servers]]\nid = \"a\"\nurl = \"https://a.example\"\n";

    #[test]
    fn a_secret_comes_from_one_place() {
        for (secret, words) in [
            ("{}", ["server `a`", "bearer", "file = "]),
            (
                "{ file = \"a\", env = \"B\" }",
                ["server `a`", "several places", "one of"],
            ),
            ("{ command = [] }", ["server `a`", "empty command", "program"]),
            (
                "{ file = \"a\", every_secs = 3 }",
                ["server `a`", "every_secs", "leave it out"],
            ),
            (
                "{ command = [\"x\"], every_secs = 0 }",
                ["server `a`", "every_secs = 0", "1 to 86400"],
            ),
            ("{ fiel = \"a\" }", ["line 4", "fiel", "`file`"]),
        ] {
            expect_refusal(&format!("{SERVER}bearer = {secret}"), words);
        }
        expect_refusal(
            &format!("{SERVER}headers = {{ X-Key = 3 }}"),
            ["line 4", "expected a text", "file = "],
        );
        expect_refusal(
            "[secrets.named.\"../x\"]\nfile = \"a\"",
            ["[secrets.named]", "`../x`", "letter or digit first"],
        );
        expect_refusal(
            "[secrets.named.crm]\nhosts = [\"a\"]",
            ["`crm`", "[secrets.named]", "cannot be used"],
        );
    }

    #[test]
    fn a_declaration_names_what_the_operator_has_allowed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("weather"), "s3cret").expect("written");
        std::fs::write(folder.path().join(".hidden"), "s3cret").expect("written");
        let inside = folder.path().join("inside");
        std::fs::create_dir(&inside).expect("a folder");
        let config = load(&format!(
            "[secrets]\nfiles = {:?}\n[secrets.named.crm]\ncommand = [\"vault\", \"read\"]\nhosts = [\"crm.example\"]\n",
            folder.path()
        ))
        .expect("loads");
        let find = |name: &str| config.secrets.find("default", name);
        let crm = find("crm").expect("named");
        assert!(matches!(&crm.source, Source::Command(program) if program.every == COMMAND_EVERY));
        assert_eq!(crm.hosts.as_deref(), Some(&["crm.example".to_owned()][..]));
        let weather = find("weather").expect("a file");
        assert_eq!(weather.source, Source::File(folder.path().join("weather")));
        for name in [
            "nothing",
            ".hidden",
            "..",
            "inside/../weather",
            "../weather",
            "/etc/passwd",
        ] {
            assert!(find(name).is_none(), "{name}");
        }
        let variable = SecretRef::Variable("PATH");
        assert!(config.registered_secret("default", variable).is_none());
        std::fs::create_dir(folder.path().join("acme")).expect("a folder");
        std::fs::write(folder.path().join("acme/own"), "s3cret").expect("written");
        let of_acme = |name: &str| config.secrets.find("acme", name);
        let own = of_acme("own").expect("its own");
        assert_eq!(own.source, Source::File(folder.path().join("acme/own")));
        assert!(
            of_acme("weather").is_none() && of_acme("crm").is_none(),
            "those of others"
        );
        assert!(find("own").is_none() && find("acme").is_none());
    }
}
