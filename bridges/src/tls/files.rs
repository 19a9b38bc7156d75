//! The files that TLS is made of, and what rustls makes of them.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{ClientOptions, Current, Need, TlsError, TlsOptions, Trust};

/// The only protocol of the door.
const ALPN: &[u8] = b"http/1.1";

/// What stands in the files. Compared as a whole, as secrets that are mounted change without their times being newer.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
    crl: Vec<u8>,
}

impl Files {
    pub(super) async fn read(options: &TlsOptions) -> Result<Self, TlsError> {
        let clients = options.clients.as_ref();
        Ok(Self {
            cert: read("cert", Some(&options.cert)).await?,
            key: read("key", Some(&options.key)).await?,
            ca: read("client_ca", clients.map(|clients| clients.ca.as_path())).await?,
            crl: read("client_crl", clients.and_then(|clients| clients.crl.as_deref())).await?,
        })
    }
}

async fn read(setting: &'static str, path: Option<&Path>) -> Result<Vec<u8>, TlsError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    tokio::fs::read(path).await.map_err(|source| TlsError::File {
        setting,
        path: path.to_owned(),
        source,
    })
}

impl Current {
    pub(super) fn new(files: Files, options: TlsOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain: Vec<CertificateDer<'static>> = all("cert", &options.cert, &files.cert)?;
        let bad_key = |why: String| content("key", &options.key, why);
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|error| bad_key(format!("it holds no private key in PEM form ({error})")))?;
        let trust = match &options.clients {
            Some(clients) => Some(Arc::new(Trust(verifier(&files, clients)?))),
            None => None,
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad_key(error.to_string()))?;
        let builder = match &trust {
            Some(trust) => builder.with_client_cert_verifier(Arc::clone(&trust.0)),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|error| {
            bad_key(format!(
                "it does not go with the certificate in {} ({error})",
                options.cert.display()
            ))
        })?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            options,
            server: Arc::new(server),
            trust,
            files,
        })
    }
}

fn verifier(files: &Files, clients: &ClientOptions) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let bad = |why: String| content("client_ca", &clients.ca, why);
    let mut roots = RootCertStore::empty();
    for certificate in all::<CertificateDer<'static>>("client_ca", &clients.ca, &files.ca)? {
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &clients.crl {
        builder = builder.with_crls(all::<CertificateRevocationListDer<'static>>(
            "client_crl",
            path,
            &files.crl,
        )?);
        // A list of one authority says nothing of what others have given out.
        builder = builder.allow_unknown_revocation_status();
    }
    if clients.need == Need::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| bad(error.to_string()))?;
    Ok(verifier)
}

/// Everything of one kind in a file, of which there has to be one at least.
fn all<T: PemObject>(setting: &'static str, path: &Path, text: &[u8]) -> Result<Vec<T>, TlsError> {
    let read: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    let all = read.map_err(|error| content(setting, path, error.to_string()))?;
    if all.is_empty() {
        return Err(content(
            setting,
            path,
            "there is nothing of this kind in PEM form in it".to_owned(),
        ));
    }
    Ok(all)
}

fn content(setting: &'static str, path: &Path, why: String) -> TlsError {
    TlsError::Content {
        setting,
        path: path.to_owned(),
        why,
    }
}
