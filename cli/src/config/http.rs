//! The section `[http]`: how the HTTP and WebSocket doors speak TLS.

use std::path::PathBuf;

use anyhow::bail;
use bridges::tls::{ClientOptions, Need, TlsOptions};
use serde::Deserialize;

/// What the section says.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpSection {
    tls: Option<TlsTable>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_crl: Option<PathBuf>,
    client_certificates: Option<Needed>,
}

/// Who needs a client certificate.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Needed {
    Optional,
    Required,
}

impl HttpSection {
    /// How TLS is spoken, if it is.
    pub(super) fn tls(&self) -> anyhow::Result<Option<TlsOptions>> {
        let Some(table) = &self.tls else { return Ok(None) };
        let about_clients = [
            ("client_crl", table.client_crl.is_some()),
            ("client_certificates", table.client_certificates.is_some()),
        ];
        let clients = match &table.client_ca {
            None => {
                if let Some((key, _)) = about_clients.iter().find(|(_, is_set)| *is_set) {
                    bail!(
                        "http.tls has `{key}` and no client_ca; name the authorities of your clients by client_ca, or leave it out"
                    );
                }
                None
            }
            Some(ca) => Some(ClientOptions {
                ca: ca.clone(),
                crl: table.client_crl.clone(),
                need: match table.client_certificates {
                    Some(Needed::Required) => Need::Required,
                    Some(Needed::Optional) | None => Need::Optional,
                },
            }),
        };
        Ok(Some(TlsOptions {
            cert: table.cert.clone(),
            key: table.key.clone(),
            clients,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect_refusal, load};

    const TLS: &str = "[http.tls]\ncert = \"a.crt\"\nkey = \"a.key\"\n";

    #[test]
    fn what_cannot_work_is_named_with_what_would() {
        let with = |more: &str| format!("{TLS}{more}");
        for (text, words) in [
            (
                with("client_crl = \"x\""),
                ["client_crl", "client_ca", "leave it out"],
            ),
            (
                with("client_certificates = \"maybe\""),
                ["maybe", "`optional`", "`required`"],
            ),
            (
                "[http.tls]\ncert = \"a.crt\"".to_owned(),
                ["http.tls", "key", "missing"],
            ),
            (
                "[auth]\nmode = \"certificates\"\n[[auth.certificates]]\nuri = \"spiffe://a/b\"".to_owned(),
                ["[[auth.certificates]]", "http.tls", "client_ca"],
            ),
        ] {
            expect_refusal(&text, words);
        }
        assert!(load(TLS).expect("loads").tls.is_some());
        assert!(load("").expect("loads").tls.is_none());
    }
}
