//! Opens connections to remote servers. Every one of them, whatever the transport, begins here, and so does the guard: a name is
//! resolved once, all its addresses are judged, and exactly those are then connected to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::Uri;
use futures::{FutureExt as _, future::BoxFuture};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use url::Host;

use super::{
    error::{ForbiddenKind, RemoteError},
    guard::Reach,
};

/// How long everything up to the first byte may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long one of several addresses may take.
const ADDRESS_LIMIT: Duration = Duration::from_secs(4);
/// How long a connection may be silent before the system asks whether the other side is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How long what was sent may stay unacknowledged.
const UNACKNOWLEDGED_MS: u32 = 30_000;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Dialer {
    reach: Reach,
    tls: TlsConnector,
}

impl Dialer {
    pub(super) fn new(reach: Reach, tls: TlsConnector) -> Self {
        Self { reach, tls }
    }

    /// Connects to the host of a URL.
    ///
    /// # Errors
    /// [`RemoteError`] when the name cannot be resolved, leads where it must not, or nobody answers there.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Stream, RemoteError> {
        timeout(CONNECT_LIMIT, self.open(uri))
            .await
            .unwrap_or(Err(RemoteError::Late(CONNECT_LIMIT)))
    }

    async fn open(&self, uri: &Uri) -> Result<Stream, RemoteError> {
        let encrypted = matches!(uri.scheme_str(), Some("https" | "wss"));
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let addresses = self.resolve(&host, port).await?;
        let tcp = reach_one(&host, &addresses).await?;
        if !encrypted {
            return Ok(Stream::Plain(tcp));
        }
        let failed = |source| RemoteError::Tls {
            host: host.clone(),
            source,
        };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| failed(io::Error::other(error)))?;
        let tls = self.tls.connect(name, tcp).await.map_err(failed)?;
        Ok(Stream::Tls(Box::new(tls)))
    }

    /// The addresses of a host, when all of them may be connected to: one that leads inside makes the others suspect.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, RemoteError> {
        let failed = |source| RemoteError::Resolve {
            host: host.to_owned(),
            source,
        };
        let addresses: Vec<SocketAddr> = match Host::parse(host) {
            Ok(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
            Ok(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
            _ => lookup_host((host, port)).await.map_err(failed)?.collect(),
        };
        if addresses.is_empty() {
            return Err(failed(io::Error::other("it has no address")));
        }
        for address in &addresses {
            check(self.reach, host, address.ip())?;
        }
        Ok(addresses)
    }
}

/// Judges one address of a host.
///
/// # Errors
/// [`RemoteError::Forbidden`].
pub(super) fn check(reach: Reach, host: &str, address: IpAddr) -> Result<(), RemoteError> {
    match reach.refuses(address) {
        None => Ok(()),
        Some(kind) => Err(RemoteError::Forbidden {
            host: host.to_owned(),
            address,
            kind: ForbiddenKind(kind),
        }),
    }
}

async fn reach_one(host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, RemoteError> {
    let mut last = io::Error::other("it has no address");
    for address in addresses {
        match timeout(ADDRESS_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tune(&tcp);
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(RemoteError::Connect {
        host: host.to_owned(),
        source: last,
    })
}

/// Small messages leave at once, and a peer that is gone without a word is noticed. A system that refuses loses only that.
fn tune(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(tcp, UNACKNOWLEDGED_MS);
}

/// A connection, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The dialer as hyper's client takes it.
impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = RemoteError;
    type Future = BoxFuture<'static, Result<Self::Response, RemoteError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), RemoteError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        async move { dialer.connect(&uri).await.map(TokioIo::new) }.boxed()
    }
}
