//! What is needed to keep credentials of users: `[credentials]`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bridges::upstream::remote::{ConnectOptions, LoginOptions};
use serde::Deserialize;

use super::secrets::SecretTable;

/// `[credentials]` in a file.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CredentialsSection {
    key: Option<SecretTable>,
    old_keys: Vec<SecretTable>,
    public_url: Option<String>,
    unproven_links: bool,
    login: Option<LoginTable>,
}

/// `[credentials.login]`: who follows a link.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginTable {
    issuer: String,
    client_id: String,
    client_secret: Option<SecretTable>,
    subject_claim: Option<String>,
    #[serde(default)]
    allow_private: bool,
    ca_file: Option<PathBuf>,
}

impl LoginTable {
    fn options(&self) -> anyhow::Result<LoginOptions> {
        let secret = self.client_secret.as_ref().map(SecretTable::to_source);
        Ok(LoginOptions {
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            client_secret: secret
                .transpose()
                .context("client_secret under [credentials.login]")?,
            subject_claim: self.subject_claim.clone().unwrap_or_else(|| "sub".to_owned()),
            allow_private: self.allow_private,
            ca_file: self.ca_file.clone(),
        })
    }
}

/// Whether anybody has to show who they are to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// They do, so that they are not one another.
    Known,
    /// All are one.
    One,
}

impl CredentialsSection {
    pub(super) fn check(&self, callers: Callers) -> anyhow::Result<()> {
        let Some(key) = &self.key else {
            if !self.old_keys.is_empty()
                || self.public_url.is_some()
                || self.unproven_links
                || self.login.is_some()
            {
                bail!(
                    "[credentials] has no key; write key = {{ file = \"/run/secrets/name\" }} (`openssl rand -base64 32` makes one)"
                );
            }
            return Ok(());
        };
        for table in std::iter::once(key).chain(&self.old_keys) {
            table.check().context("a key under [credentials]")?;
        }
        let secret = self.login.as_ref().and_then(|login| login.client_secret.as_ref());
        secret
            .map_or(Ok(()), SecretTable::check)
            .context("client_secret under [credentials.login]")?;
        match (callers, &self.login, self.unproven_links) {
            (Callers::Known, None, false) => bail!(
                "[credentials] cannot tell who opens a link, as browsers show no token: who sends a link to somebody else may get to use that \
                 person's account. Add [credentials.login] with the issuer of your users; docs/secrets.md says what unproven_links = true means"
            ),
            (_, Some(_), true) => bail!("[credentials] has both login and unproven_links; keep one"),
            (Callers::One, Some(_), _) => bail!(
                "[credentials.login] means nothing without [auth], where all callers are one; leave it out"
            ),
            _ => Ok(()),
        }
    }

    /// What is configured, with its keys; `None` when nothing is.
    pub(super) fn options(&self, usual_url: &str) -> anyhow::Result<Option<ConnectOptions>> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let keys = std::iter::once(key).chain(&self.old_keys);
        let keys = keys.map(SecretTable::to_source).collect::<anyhow::Result<_>>();
        Ok(Some(ConnectOptions {
            keys: keys.context("a key under [credentials]")?,
            public_url: self.public_url.clone().unwrap_or_else(|| usual_url.to_owned()),
            login: self.login.as_ref().map(LoginTable::options).transpose()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect_refusal, load};

    #[test]
    fn users_credentials_need_a_key_and_a_word_on_links() {
        expect_refusal(
            "[credentials]\npublic_url = \"https://a.example\"",
            ["[credentials]", "no key", "openssl"],
        );
        let key = "[credentials]\nkey = { file = \"k\" }\n";
        let auth = "[auth]\nmode = \"oauth\"\n[[auth.issuers]]\nissuer = \"https://id.example\"\n";
        expect_refusal(
            &format!("{key}{auth}"),
            ["[credentials]", "who opens a link", "[credentials.login]"],
        );
        let login = "[credentials.login]\nissuer = \"https://id.example\"\nclient_id = \"me\"\n";
        expect_refusal(
            &format!("{key}{login}"),
            ["[credentials.login]", "without [auth]", "leave it out"],
        );
        expect_refusal(
            &format!("{key}unproven_links = true\n{login}{auth}"),
            ["both login", "unproven_links", "keep one"],
        );
        load(&format!("{key}{login}{auth}")).expect("loads");
        let sure = format!("{key}unproven_links = true\n{auth}");
        load(&sure).expect("loads");
        let config = load(key).expect("loads");
        let options = config
            .credentials
            .options("http://127.0.0.1:1")
            .expect("read")
            .expect("there");
        assert_eq!(options.public_url, "http://127.0.0.1:1");
    }
}
