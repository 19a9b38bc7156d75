//! TLS towards remote servers: rustls with ring, and the certificates that the operator's system trusts, or those of one file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{
            CertificateDer,
            pem::{self, PemObject as _},
        },
    },
};
use tracing::warn;

use super::error::RemoteError;

/// What TLS is spoken with. `ca_file` stands instead of the system's certificates, so that a server of one's own is checked
/// against one's own authority and no other.
///
/// # Errors
/// [`RemoteError::BadCa`] when the file holds no certificates, and [`RemoteError::NoTls`] when rustls cannot be set up.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, RemoteError> {
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => of_system(),
    };
    with(roots)
}

/// The same with what was read of such a file.
///
/// # Errors
/// As [`connector`].
pub(super) fn connector_of(pem: Option<&str>) -> Result<TlsConnector, RemoteError> {
    let Some(pem) = pem else {
        return connector(None);
    };
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    with(trusted(certificates).map_err(|why| RemoteError::BadCa {
        path: PathBuf::from("what is kept of a ca_file"),
        why,
    })?)
}

fn with(roots: RootCertStore) -> Result<TlsConnector, RemoteError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RemoteError::NoTls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn from_file(path: &Path) -> Result<RootCertStore, RemoteError> {
    let bad = |why: String| RemoteError::BadCa {
        path: path.to_owned(),
        why,
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    trusted(certificates).map_err(bad)
}

fn trusted(
    certificates: impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>>,
) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("there is no certificate in PEM form".to_owned()),
        false => Ok(roots),
    }
}

/// A system without certificates is no error yet: each server that is connected to will say so.
fn of_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "some of the system's certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        warn!(
            unusable,
            "this system trusts no certificates; remote servers need a ca_file"
        );
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let path = std::env::temp_dir().join(format!("trunkline-ca-{}", std::process::id()));
        std::fs::write(&path, "nothing").unwrap();
        let empty = connector(Some(&path)).err().unwrap().to_string();
        std::fs::remove_file(&path).unwrap();
        let missing = connector(Some(&path)).err().unwrap().to_string();
        for error in [empty, missing] {
            assert!(error.contains("trunkline-ca-"), "{error}");
        }
    }
}
