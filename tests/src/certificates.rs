//! Authorities, the certificates that they give out, and connections that show them.

use std::{net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use ring::digest;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring as provider,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use crate::within;

/// Who gives out certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// In PEM form.
    pub pem: String,
    /// Its key in PEM form.
    pub key: String,
    der: CertificateDer<'static>,
    serial: SerialNumber,
}

/// What stands in a client's certificate.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The common name and the organisation.
    pub cn: &'static str,
    /// DNS names.
    pub dns: &'static [&'static str],
    /// URIs.
    pub uris: &'static [&'static str],
    /// Email addresses.
    pub emails: &'static [&'static str],
    /// Whether it has ended long ago.
    pub ended: bool,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate"),
        }
    }

    /// Its own certificate in PEM form.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a door at `localhost`.
    #[must_use]
    pub fn for_door(&self) -> Certificate {
        self.sign(CertificateParams::new(vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
        ]))
    }

    /// A certificate for a client.
    ///
    /// # Panics
    /// When a name cannot stand in a certificate.
    #[must_use]
    pub fn for_client(&self, named: &Named) -> Certificate {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, named.cn);
        let text = |name: &str| name.try_into().expect("ASCII");
        let dns = named.dns.iter().map(|name| SanType::DnsName(text(name)));
        let uris = named.uris.iter().map(|uri| SanType::URI(text(uri)));
        let emails = named.emails.iter().map(|email| SanType::Rfc822Name(text(email)));
        params.subject_alt_names = dns.chain(uris).chain(emails).collect();
        if named.ended {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        self.sign(Ok(params))
    }

    /// The list of what it has taken back, in PEM form.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn taken_back(&self, certificates: &[&Certificate]) -> String {
        let revoked = certificates.iter().map(|certificate| RevokedCertParams {
            serial_number: certificate.serial.clone(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.issuer)
            .expect("a list")
            .pem()
            .expect("PEM")
    }

    fn sign(&self, params: Result<CertificateParams, rcgen::Error>) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let mut params = params.expect("parameters");
        let serial = SerialNumber::from(u64::from(rand()));
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certificate {
            pem: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            serial,
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn rand() -> u32 {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 4];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("random");
    u32::from_be_bytes(bytes) | 1
}

impl Certificate {
    /// How tokens name it that are bound to it.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &self.der))
    }

    /// Writes it and its key into a folder.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("door.key"), &self.key).expect("the key is written");
        std::fs::write(folder.join("door.crt"), &self.pem).expect("the certificate is written");
    }
}

/// Connects to a door whose certificate is of `authority`, and shows a certificate if there is one. `alpn` are the protocols that are spoken.
///
/// # Errors
/// What the handshake has failed with.
///
/// # Panics
/// When there is nobody at all.
pub async fn connect(
    to: SocketAddr,
    authority: &str,
    shows: Option<&Certificate>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
    roots.add(ca).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shows {
        Some(certificate) => {
            let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
            builder
                .with_client_auth_cert(vec![certificate.der.clone()], key)
                .expect("they fit")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|each| each.as_bytes().to_vec()).collect();
    let stream = within("a connection", TcpStream::connect(to)).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    within(
        "the handshake",
        TlsConnector::from(Arc::new(config)).connect(name, stream),
    )
    .await
}
