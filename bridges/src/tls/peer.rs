//! A client that has shown a certificate.

use std::{
    fmt,
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tracing::debug;

use super::{Names, Tls, Trust};

/// The longest that a certificate is not looked at which is to end some time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Who is at the other end of a connection, by its certificate.
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    names: Names,
    thumbprint: String,
    /// By what it was judged last.
    judged_by: ArcSwap<Trust>,
    tls: Arc<Tls>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.thumbprint).finish()
    }
}

impl Peer {
    /// `None` when the certificate says nothing that can be read.
    pub(super) fn new(chain: &[CertificateDer<'_>], trust: Arc<Trust>, tls: Arc<Tls>) -> Option<Self> {
        let own = chain.first()?;
        let thumbprint = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, own));
        let names = Names::of(own)?;
        Some(Self {
            chain: chain.iter().map(|each| each.clone().into_owned()).collect(),
            names,
            thumbprint,
            judged_by: ArcSwap::new(trust),
            tls,
        })
    }

    /// What the certificate says of its owner.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The SHA-256 of the certificate in base64url, as tokens name it that are bound to it (`x5t#S256`, RFC 8705).
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// When the certificate ends, in seconds since 1970.
    pub(crate) fn ends_at(&self) -> u64 {
        self.names.not_after
    }

    /// Waits until the certificate counts no more: it has ended, or was taken back.
    pub(crate) async fn distrusted(&self) {
        let mut changes = self.tls.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if !self.is_trusted() {
                return;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let left = Duration::from_secs(self.names.not_after).saturating_sub(now);
            // Clocks are set; so it is looked at now and then in any case.
            let looked = timeout(left.min(LOOK_AGAIN), changes.changed());
            if let Ok(Err(_)) = looked.await {
                // The door has closed, and with it everything that came by it.
                return pending().await;
            }
        }
    }

    /// Whether the certificate still counts: a connection may live longer than it does, or than the authorities that are trusted.
    pub(crate) fn is_trusted(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if now >= Duration::from_secs(self.names.not_after) {
            return false;
        }
        let current = self.tls.current.load();
        let Some(trust) = &current.trust else { return false };
        if Arc::ptr_eq(trust, &self.judged_by.load()) {
            return true;
        }
        let Some((own, between)) = self.chain.split_first() else {
            return false;
        };
        match trust
            .0
            .verify_client_cert(own, between, UnixTime::since_unix_epoch(now))
        {
            Ok(_) => {
                self.judged_by.store(Arc::clone(trust));
                true
            }
            Err(error) => {
                debug!(%error, "a client's certificate counts no more");
                false
            }
        }
    }
}
