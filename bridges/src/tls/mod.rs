//! TLS at the HTTP and WebSocket doors: certificates that are read again when their files change, and the certificates of clients.
//!
//! What a client's certificate lets it do is `auth`'s; here is only whether it is genuine, and what it says.

mod files;
mod handshakes;
mod names;
mod peer;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, server::danger::ClientCertVerifier},
    server::TlsStream,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use files::Files;
use handshakes::Handshakes;
pub(crate) use names::Names;
pub(crate) use peer::Peer;

/// How long a client may take over its handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How many handshakes may be under way; one more ends the oldest.
const MAX_HANDSHAKES: usize = 256;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long somebody may take to hear that this port speaks TLS.
const PLAIN_LIMIT: Duration = Duration::from_secs(1);
/// What who speaks plain HTTP hears.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 37\r\nconnection: close\r\n\r\n\
    this port speaks TLS; use an https URL";

/// How a door speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate of the door and those between it and its authority, in PEM form.
    pub cert: PathBuf,
    /// Its private key, in PEM form.
    pub key: PathBuf,
    /// Whose clients' certificates are taken; without it no client is asked for one.
    pub clients: Option<ClientOptions>,
}

/// Which clients' certificates are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The authorities that vouch for clients, in PEM form.
    pub ca: PathBuf,
    /// What those have taken back, in PEM form.
    pub crl: Option<PathBuf>,
    /// Who needs one.
    pub need: Need,
}

/// Who needs a certificate to come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// Whoever shows nothing else.
    #[default]
    Optional,
    /// Everybody, also who shows a token.
    Required,
}

/// Says what of the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("http.tls.{setting} names {path}, which cannot be read")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("http.tls.{setting} names {path}, which cannot be used: {why}")]
    Content {
        /// The setting that names it.
        setting: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What turns connections into encrypted ones.
pub(crate) struct Tls {
    /// What the settings say, which may change while it runs.
    options: watch::Receiver<TlsOptions>,
    current: ArcSwap<Current>,
    /// Told when other files are in use.
    changes: watch::Sender<u64>,
    handshakes: Handshakes,
}

/// What is used for new handshakes.
struct Current {
    options: TlsOptions,
    server: Arc<ServerConfig>,
    trust: Option<Arc<Trust>>,
    files: Files,
}

/// By what clients' certificates are judged.
struct Trust(Arc<dyn ClientCertVerifier>);

/// Why a connection is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the handshake took too long")]
    Slow,
    #[error("the handshake gave way to newer ones")]
    Crowded,
    #[error("the client does not speak TLS")]
    Plain,
    #[error("the client's certificate is not taken: {0}")]
    Certificate(rustls::Error),
    #[error("the handshake has failed: {0}")]
    Failed(io::Error),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] that names the setting and the file.
    pub(crate) async fn open(options: watch::Receiver<TlsOptions>) -> Result<Arc<Self>, TlsError> {
        let present = options.borrow().clone();
        let current = Current::new(Files::read(&present).await?, present)?;
        Ok(Arc::new(Self {
            options,
            current: ArcSwap::from_pointee(current),
            changes: watch::Sender::new(0),
            handshakes: Handshakes::new(MAX_HANDSHAKES),
        }))
    }

    /// Reads the files again when they change, or others are named, until `stop`. What cannot be used is told of, and what was read before
    /// stays in use.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bad: Option<String> = None;
        let mut options = self.options.clone();
        let mut may_change = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
                changed = options.changed(), if may_change => may_change = changed.is_ok(),
            }
            match self.look().await {
                Ok(Looked::Same) => bad = None,
                Ok(Looked::Changed) => {
                    bad = None;
                    let current = self.current.load();
                    info!(cert = %current.options.cert.display(), "the certificates of the HTTP door have changed; new connections use them");
                }
                Err(error) => {
                    let words = error.to_string();
                    if bad.as_ref() != Some(&words) {
                        warn!(%error, "changed certificates of the HTTP door cannot be used; it goes on with those that it has");
                    }
                    bad = Some(words);
                }
            }
        }
    }

    async fn look(&self) -> Result<Looked, TlsError> {
        let options = self.options.borrow().clone();
        let files = Files::read(&options).await?;
        let current = self.current.load();
        if files == current.files && options == current.options {
            return Ok(Looked::Same);
        }
        self.current.store(Arc::new(Current::new(files, options)?));
        self.changes.send_modify(|count| *count += 1);
        Ok(Looked::Changed)
    }

    /// Makes a connection an encrypted one, and says who is at its other end if that was shown.
    ///
    /// # Errors
    /// [`HandshakeError`], after which the connection is closed.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<Peer>>), HandshakeError> {
        let turn = self.handshakes.begin();
        let shaken = tokio::select! {
            () = turn.gives_way() => return Err(HandshakeError::Crowded),
            shaken = timeout(HANDSHAKE_LIMIT, self.shake(stream)) => shaken,
        };
        shaken.unwrap_or(Err(HandshakeError::Slow))
    }

    async fn shake(
        self: &Arc<Self>,
        mut stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<Peer>>), HandshakeError> {
        let mut first = [0];
        // No record of TLS begins with a letter, and every request of HTTP does.
        if stream.peek(&mut first).await.map_err(HandshakeError::Failed)? == 1
            && first[0].is_ascii_alphabetic()
        {
            let _ = timeout(PLAIN_LIMIT, stream.write_all(PLAIN)).await;
            let _ = timeout(PLAIN_LIMIT, stream.shutdown()).await;
            return Err(HandshakeError::Plain);
        }
        let current = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&current.server));
        let stream = acceptor.accept(stream).await.map_err(HandshakeError::of)?;
        let chain = stream.get_ref().1.peer_certificates();
        let peer = match (chain, &current.trust) {
            (Some(chain), Some(trust)) => Peer::new(chain, Arc::clone(trust), Arc::clone(self)).map(Arc::new),
            _ => None,
        };
        Ok((stream, peer))
    }
}

enum Looked {
    Same,
    Changed,
}

impl HandshakeError {
    fn of(error: io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(
                about @ (rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::InvalidCertRevocationList(_)),
            ) => Self::Certificate(about.clone()),
            _ => Self::Failed(error),
        }
    }
}
