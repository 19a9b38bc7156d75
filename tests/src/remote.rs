//! Servers at a URL: real ones, each on a free port, and the lines of `trunkline.toml` that name them.

use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    sync::Arc,
};

use axum::{Router, serve::Listener};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use serde_json::json;
use tokio::{net::TcpStream, process::Child};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};

use crate::{
    eventually,
    fixture::{Fixture, Probe},
    parts, root,
};

/// A `[[servers]]` entry. `more` is further lines of it.
#[must_use]
pub fn server(id: &str, url: &str, more: &str) -> String {
    format!("[[servers]]\nid = {}\nurl = {}\n{more}\n", json!(id), json!(url))
}

/// A server on this machine, which its line has to allow.
#[must_use]
pub fn local(id: &str, url: &str, more: &str) -> String {
    server(id, url, &format!("allow_private = true\n{more}"))
}

/// A server in a process of its own, which ends with the test.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Process {
    /// The reference server over HTTP: `streamableHttp` or `sse`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn everything(transport: &str) -> Self {
        Self::everything_at(free(), transport).await
    }

    /// The same, where another one was before.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn everything_at(addr: SocketAddr, transport: &str) -> Self {
        let program = parts::package("@modelcontextprotocol/server-everything/dist/index.js");
        let mut command = parts::node(&program);
        command.arg(transport).env("PORT", addr.port().to_string());
        Self::start(command, addr).await
    }

    /// A server of the Python SDK: `streamable-http` or `sse`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn python(transport: &str) -> Self {
        let addr = free();
        let mut command = parts::python(&parts::script("remote.py"));
        command.arg(transport).arg(addr.port().to_string());
        Self::start(command, addr).await
    }

    async fn start(mut command: tokio::process::Command, addr: SocketAddr) -> Self {
        let child = command
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the server starts");
        let mut server = Self { child, addr };
        eventually("the server listens", async || {
            let ended = server.child.try_wait().expect("it can be looked at");
            assert!(ended.is_none(), "the server has ended: {ended:?}");
            TcpStream::connect(addr).await.is_ok()
        })
        .await;
        server
    }

    /// The URL of a path on it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it does not go.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }
}

/// A port that nobody listens on just now, for programs that cannot pick one and say which.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

/// The fixture of the tests behind rmcp's own HTTP service.
///
/// # Panics
/// When no port is free.
pub async fn rmcp(probe: Arc<Probe>, config: StreamableHttpServerConfig) -> SocketAddr {
    serve(rmcp_router(probe, config)).await
}

/// The same, as something to be served in whatever way.
pub fn rmcp_router(probe: Arc<Probe>, config: StreamableHttpServerConfig) -> Router {
    let service = StreamableHttpService::new(
        move || Ok(Fixture::new(Arc::clone(&probe))),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    Router::new().fallback_service(service)
}

/// Serves on a free port until the test ends.
///
/// # Panics
/// When no port is free.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    addr
}

/// An authority of one's own, and a server that it vouches for.
pub struct Tls {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The authority's certificate, in PEM form.
    pub ca: String,
}

impl Tls {
    /// Serves with TLS under the name `localhost`.
    ///
    /// # Panics
    /// When the certificates cannot be made.
    pub async fn serve(router: Router) -> Self {
        let key = || rcgen::KeyPair::generate().expect("a key");
        let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer_key = key();
        let ca = authority.self_signed(&issuer_key).expect("a certificate");
        let issuer = rcgen::Issuer::new(authority, issuer_key);
        let own_key = key();
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
            .and_then(|params| params.signed_by(&own_key, &issuer))
            .expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let secret = rustls::pki_types::PrivateKeyDer::try_from(own_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], secret)
            .expect("the key fits the certificate");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let listener = TlsListener(listener, TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { addr, ca: ca.pem() }
    }
}

struct TlsListener(tokio::net::TcpListener, TlsAcceptor);

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A client that does not trust the certificate hangs up.
            if let Ok((tcp, addr)) = self.0.accept().await
                && let Ok(tls) = self.1.accept(tcp).await
            {
                return (tls, addr);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
