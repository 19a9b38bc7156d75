//! What is needed to keep credentials of users: `[credentials]`.

use anyhow::{Context as _, bail};
use bridges::upstream::remote::ConnectOptions;
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
            if !self.old_keys.is_empty() || self.public_url.is_some() || self.unproven_links {
                bail!(
                    "[credentials] has no key; write key = {{ file = \"/run/secrets/name\" }} (`openssl rand -base64 32` makes one)"
                );
            }
            return Ok(());
        };
        for table in std::iter::once(key).chain(&self.old_keys) {
            table.check().context("a key under [credentials]")?;
        }
        if callers == Callers::Known && !self.unproven_links {
            bail!(
                "[credentials] cannot tell who opens a link, as browsers show no token: who sends a link to somebody else may get to use that \
                 person's account. Read docs/secrets.md, and say unproven_links = true if your users know better than to follow links of others"
            );
        }
        Ok(())
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
            ["[credentials]", "who opens a link", "unproven_links = true"],
        );
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
