//! The accept loop of every HTTP listener: how many connections there are, and how they end.
//!
//! What one connection may do, and for how long, is in `connection`. On top of the limits here, hyper takes at most 100 headers a
//! request, and answers 431 beyond.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use bus_schema::audit::{Kind, Record};
use runtime::audit::Audit;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::connection::{self, Remote};
use crate::tls::{HandshakeError, Tls};

/// How many connections a listener holds, unless its operator says otherwise.
pub const MAX_CONNECTIONS: usize = 10_000;
/// How long accepting rests when the system has no more to give, such as file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);
/// What a connection beyond the limit hears.
const REFUSAL: &str = "this door holds as many connections as it may; try again shortly\n";
/// How many refused connections are told so at once; more are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long a refused client may take to hear it.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

/// What clients of a listener may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many connections there may be; one more is refused with 503.
    pub(crate) connections: usize,
    /// How long the head of a request may take, from its first byte; or from the beginning, on a new connection.
    pub(crate) head: Duration,
    /// How large it may be, in bytes; larger ones are answered 431.
    pub(crate) head_bytes: usize,
    /// How long a connection may be idle between two requests.
    pub(crate) idle: Duration,
    /// How long a client may let bytes wait without taking any.
    pub(crate) stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            head: Duration::from_secs(10),
            head_bytes: 64 * 1024,
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(60),
        }
    }
}

/// Where connections come from.
pub(crate) struct Bound {
    tcp: TcpListener,
    tls: Option<Arc<Tls>>,
    /// Where it is put on record what was refused before there was a request.
    audit: Option<Audit>,
}

impl Bound {
    pub(super) fn new(tcp: TcpListener, tls: Option<Arc<Tls>>, audit: Audit) -> Self {
        Self {
            tcp,
            tls,
            audit: Some(audit),
        }
    }
}

impl From<TcpListener> for Bound {
    fn from(tcp: TcpListener) -> Self {
        Self {
            tcp,
            tls: None,
            audit: None,
        }
    }
}

/// Serves until `stop`: then nothing more is accepted, idle connections are closed, and requests that have begun are finished.
/// Streams without an end of their own have to hear of the stop by themselves.
pub(crate) async fn serve(
    listener: impl Into<Bound>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let Bound {
        tcp: listener,
        tls,
        audit,
    } = listener.into();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                warn!(%error, "cannot accept connections; trying again");
                tokio::select! { () = stop.cancelled() => break, () = sleep(EXHAUSTED_PAUSE) => continue }
            }
        };
        // Without this every event of a stream waits for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "could not set TCP_NODELAY");
        }
        match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => {
                let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                let audit = audit.clone();
                connections.spawn(async move {
                    let remote = Remote {
                        address,
                        peer: None,
                        audit,
                    };
                    match tls {
                        None => connection::serve(stream, remote, slot, router, limits, stop).await,
                        Some(tls) => encrypted(&tls, stream, remote, slot, router, limits, stop).await,
                    }
                });
            }
            Err(_) => {
                debug!("refused a connection beyond the limit");
                // What waits for a handshake would not read the answer as one.
                if tls.is_none()
                    && let Ok(turn) = Arc::clone(&refusals).try_acquire_owned()
                {
                    connections.spawn(async move {
                        let _turn = turn;
                        // A client that does not listen is none to wait for.
                        let _ = timeout(REFUSAL_LIMIT, refuse(stream)).await;
                    });
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection behind a handshake.
async fn encrypted(
    tls: &Arc<Tls>,
    stream: TcpStream,
    remote: Remote,
    slot: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tls.accept(stream) => shaken,
    };
    match shaken {
        Ok((stream, peer)) => {
            let remote = Remote { peer, ..remote };
            connection::serve(stream, remote, slot, router, limits, stop).await;
        }
        Err(error) => {
            debug!(%error, address = %remote.address, "a TLS handshake has failed");
            if matches!(error, HandshakeError::Certificate(_)) {
                let refused = Record::refused(Kind::Auth, "invalid_certificate");
                remote.put(refused.because("the handshake has failed over the client's certificate"));
            }
        }
    }
}

/// Whether an accept failed over a client that has gone already.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{REFUSAL}",
        REFUSAL.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing on what was not read would take the answer back.
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::SocketAddr};

    use axum::{
        body::{Body, Bytes},
        routing::{get, post},
    };
    use futures::StreamExt as _;
    use tokio::{sync::Notify, task::JoinHandle};

    use super::*;

    const GUARD: Duration = Duration::from_secs(30);
    const SOON: Duration = Duration::from_millis(100);

    struct Served {
        at: SocketAddr,
        stop: CancellationToken,
        serving: JoinHandle<()>,
        /// Lets `/hold` go.
        release: Arc<Notify>,
        /// Rung when `/hold` has begun.
        held: Arc<Notify>,
    }

    impl Served {
        async fn start(limits: Limits) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let (release, held) = (Arc::<Notify>::default(), Arc::<Notify>::default());
            let (released, holding) = (Arc::clone(&release), Arc::clone(&held));
            let hold = move || {
                let (released, holding) = (Arc::clone(&released), Arc::clone(&holding));
                async move {
                    holding.notify_one();
                    released.notified().await;
                    "released"
                }
            };
            let flood = || async {
                let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
                Body::from_stream(futures::stream::repeat(Ok::<_, Infallible>(chunk)).take(1024))
            };
            let router = Router::new()
                .route("/", get(|| async { "hello" }))
                .route("/echo", post(|body: String| async { body }))
                .route("/flood", get(flood))
                .route("/hold", get(hold));
            let stop = CancellationToken::new();
            let serving = tokio::spawn(serve(listener, router, limits, stop.clone()));
            Self {
                at,
                stop,
                serving,
                release,
                held,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.at).await.unwrap()
        }

        async fn stopped(self) {
            self.stop.cancel();
            timeout(GUARD, self.serving).await.expect("it stops").unwrap();
        }
    }

    /// Sends, and reads until the other side closes.
    async fn told(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(stream).await
    }

    async fn read_all(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        let read = timeout(GUARD, stream.read_to_end(&mut all)).await;
        // A connection that is cut ends as well.
        let _ = read.expect("the connection is closed");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Sends one request on a connection that stays, and reads its answer.
    async fn ask(stream: &mut TcpStream) {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"hello") {
            let mut some = [0; 1024];
            let read = timeout(GUARD, stream.read(&mut some)).await.unwrap().unwrap();
            assert!(read > 0, "closed early");
            seen.extend_from_slice(&some[..read]);
        }
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_and_an_idle_connection_are_closed() {
        let limits = Limits {
            head: SOON,
            idle: SOON,
            ..Limits::default()
        };
        let served = Served::start(limits).await;
        let mut silent = served.connect().await;
        assert_eq!(read_all(&mut silent).await, "");
        let mut slow = served.connect().await;
        assert_eq!(told(&mut slow, "GET / HTTP/1.1\r\nhost: x\r\nx-a").await, "");
        let mut idle = served.connect().await;
        ask(&mut idle).await;
        assert_eq!(read_all(&mut idle).await, "");
        served.stopped().await;
    }

    #[tokio::test]
    async fn a_second_head_is_bounded_by_its_own_time_and_not_by_the_idle_one() {
        let limits = Limits {
            head: SOON,
            idle: GUARD * 2,
            ..Limits::default()
        };
        let served = Served::start(limits).await;
        let mut client = served.connect().await;
        ask(&mut client).await;
        assert_eq!(told(&mut client, "GET / HT").await, "");
        served.stopped().await;
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off_and_a_slow_handler_is_not() {
        let limits = Limits {
            head: SOON,
            idle: SOON,
            stall: SOON,
            ..Limits::default()
        };
        let served = Served::start(limits).await;
        let mut deaf = served.connect().await;
        deaf.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut waiting = served.connect().await;
        waiting
            .write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        served.held.notified().await;
        // Two connections that come and go for being idle are time enough for the handler to be cut off, if it were.
        for _ in 0..2 {
            let mut idle = served.connect().await;
            ask(&mut idle).await;
            assert_eq!(read_all(&mut idle).await, "");
        }
        served.release.notify_one();
        assert!(read_all(&mut waiting).await.ends_with("released"));
        // The stop would wait for the deaf one for ever.
        served.stopped().await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_answered_431() {
        let served = Served::start(Limits::default()).await;
        let large = format!("x-large: {}\r\n", "y".repeat(80 * 1024));
        let many = "x-a: b\r\n".repeat(101);
        for headers in [large, many] {
            let mut client = served.connect().await;
            let answer = told(
                &mut client,
                &format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n"),
            )
            .await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
        served.stopped().await;
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so_and_a_closed_one_makes_room() {
        let limits = Limits {
            connections: 2,
            ..Limits::default()
        };
        let served = Served::start(limits).await;
        let (mut first, mut second) = (served.connect().await, served.connect().await);
        ask(&mut first).await;
        ask(&mut second).await;
        let mut third = served.connect().await;
        let answer = told(&mut third, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"),
            "{answer}"
        );
        drop(first);
        // The slot is free once the door has seen the end.
        let free = async {
            loop {
                let mut client = served.connect().await;
                let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                if told(&mut client, request).await.ends_with("hello") {
                    return;
                }
            }
        };
        timeout(GUARD, free).await.expect("there is room again");
        ask(&mut second).await;
        served.stopped().await;
    }

    #[tokio::test]
    async fn a_stop_finishes_what_has_begun_and_waits_for_nobody_else() {
        let served = Served::start(Limits {
            head: GUARD * 2,
            idle: GUARD * 2,
            ..Limits::default()
        })
        .await;
        let mut fresh = served.connect().await;
        let mut idle = served.connect().await;
        ask(&mut idle).await;
        let mut busy = served.connect().await;
        busy.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        served.held.notified().await;
        let mut half = served.connect().await;
        half.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe")
            .await
            .unwrap();
        // Both are accepted in order: when this one is served, the one before it is.
        ask(&mut served.connect().await).await;
        served.stop.cancel();
        assert_eq!(read_all(&mut fresh).await, "");
        assert_eq!(read_all(&mut idle).await, "");
        half.write_all(b"llo").await.unwrap();
        assert!(read_all(&mut half).await.ends_with("hello"));
        served.release.notify_one();
        assert!(read_all(&mut busy).await.ends_with("released"));
        served.stopped().await;
    }
}
