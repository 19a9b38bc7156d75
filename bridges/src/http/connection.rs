//! One HTTP connection: what it is doing, and for how long it may.
//!
//! hyper's own limit for heads begins when a connection falls idle, so it would cut idle connections as soon as slow ones. Here the
//! connection is watched instead: its bytes as they pass, and its requests from their head to the end of their answer.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::Response,
};
use bus_schema::audit::{Kind, Record};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use runtime::audit::{Audit, source};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{DOOR, serve::Limits};
use crate::tls::Peer;

/// How many bytes hyper reads and writes ahead on one connection.
const BUFFER_BYTES: usize = 128 * 1024;

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Remote {
    /// From where; that of a proxy, if one stands between.
    pub(super) address: IpAddr,
    /// The certificate that was shown.
    pub(super) peer: Option<Arc<Peer>>,
    /// Where it is put on record what it was refused.
    pub(super) audit: Option<Audit>,
}

impl Remote {
    /// Puts on record what this one was refused.
    pub(super) fn put(&self, refused: Record) {
        if let Some(audit) = &self.audit {
            audit.put(refused.through(DOOR).from(&source(self.address)));
        }
    }
}

/// Serves one connection until either side closes it, a limit ends it, or `stop` finds it idle.
pub(super) async fn serve<S>(
    stream: S,
    remote: Remote,
    slot: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::new(Watch::new());
    let io = TokioIo::new(Watched {
        stream,
        watch: Arc::clone(&watch),
        _slot: slot,
    });
    let service = Requests {
        router: TowerToHyperService::new(router),
        watch: Arc::clone(&watch),
        remote: remote.clone(),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes)
        .max_buf_size(BUFFER_BYTES.max(limits.head_bytes))
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    let overdue = watch.overdue(limits);
    tokio::pin!(overdue);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%error, "a connection has failed");
                    if error.is_parse() {
                        let refused = Record::refused(Kind::Request, "http");
                        remote.put(refused.because("what came is no request of HTTP, or one that can be read in two ways"));
                    }
                }
                return;
            }
            why = &mut overdue => {
                debug!("closed a connection: {why}");
                return;
            }
            () = stop.cancelled(), if !stopping => {
                if watch.is_quiet() {
                    return;
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What a connection is doing.
struct Watch(Mutex<State>);

struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has taken no byte of those that wait for it.
    stalled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    Fresh,
    /// The head of a request is coming.
    Head,
    /// A request is read, handled or answered.
    Serving,
    /// Between two requests.
    Idle,
}

impl Watch {
    fn new() -> Self {
        Self(Mutex::new(State {
            phase: Phase::Fresh,
            since: Instant::now(),
            stalled: None,
        }))
    }

    fn is_quiet(&self) -> bool {
        matches!(self.state().phase, Phase::Fresh | Phase::Idle)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.since = Instant::now();
    }

    fn has_read(&self) {
        if self.is_quiet() {
            self.enter(Phase::Head);
        }
    }

    fn has_written<T>(&self, written: &Poll<T>) {
        let mut state = self.state();
        match written {
            Poll::Pending => {
                state.stalled.get_or_insert_with(Instant::now);
            }
            Poll::Ready(_) => {
                state.stalled = None;
                // The end of an answer may still be on its way out when the next request could come.
                if state.phase == Phase::Idle {
                    state.since = Instant::now();
                }
            }
        }
    }

    /// A flush that has nothing to do is no sign of the client: connections are flushed whenever they are looked at.
    fn has_flushed<T>(&self, flushed: &Poll<T>) {
        if flushed.is_pending() || self.state().stalled.is_some() {
            self.has_written(flushed);
        }
    }

    /// Waits until the connection has taken longer over something than it may, and says over what. It is to be polled whenever
    /// the connection is, as that is what changes its deadline.
    async fn overdue(&self, limits: Limits) -> &'static str {
        let mut waking = std::pin::pin!(sleep_until(Instant::now() + limits.head));
        std::future::poll_fn(|context| {
            loop {
                let Some((deadline, why)) = self.state().deadline(limits) else {
                    return Poll::Pending;
                };
                // A later deadline is looked at when the timer fires, which spares setting it for each request.
                if deadline < waking.deadline() {
                    waking.as_mut().reset(deadline);
                }
                if waking.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                if Instant::now() >= deadline {
                    return Poll::Ready(why);
                }
                waking.as_mut().reset(deadline);
            }
        })
        .await
    }

    /// Held only to read or change it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When the connection is to be closed if nothing changes, and why. Handlers have limits of their own.
    fn deadline(&self, limits: Limits) -> Option<(Instant, &'static str)> {
        let by_phase = match self.phase {
            Phase::Fresh | Phase::Head => Some((self.since + limits.head, "no request came in time")),
            Phase::Idle => Some((self.since + limits.idle, "it was idle")),
            Phase::Serving => None,
        };
        let by_stall = self
            .stalled
            .map(|since| (since + limits.stall, "the client took nothing"));
        by_phase
            .into_iter()
            .chain(by_stall)
            .min_by_key(|(deadline, _)| *deadline)
    }
}

/// Hands requests to the routes and watches them to the end of their answers.
struct Requests {
    router: TowerToHyperService<Router>,
    watch: Arc<Watch>,
    remote: Remote,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.remote.clone());
        self.watch.enter(Phase::Serving);
        let served = Served(Arc::clone(&self.watch));
        let answer = self.router.call(request.map(Body::new));
        Box::pin(async move {
            answer.await.map(|answer| {
                answer.map(|body| Answer {
                    body,
                    _served: served,
                })
            })
        })
    }
}

/// One request, from its head to the end of its answer.
struct Served(Arc<Watch>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// The body of an answer, which ends its request when it ends.
struct Answer {
    body: Body,
    _served: Served,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// The bytes of a connection, watched as they pass. It holds the connection's slot, whoever reads it in the end.
struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
    _slot: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watch.has_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch.has_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch.has_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Behind TLS a write may be taken and wait still; nothing is flushed before all of it was written.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch.has_flushed(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
