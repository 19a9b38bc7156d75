//! One connection to a remote server: the conversation, the tasks that carry it, and its end.

use std::{sync::Arc, time::Duration};

use bus_schema::{RpcError, mcp::Era};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::Verdict;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::upstream::{
    child::pass_on_changes, connection::Carrier, error::UpstreamError, handshake::listen_to, link::Link,
};

use super::{
    connect::Found,
    error::RemoteError,
    health::{Health, Watched},
    session::Legacy,
};

/// How long what is on its way may take when the platform stops.
const LAST_LIMIT: Duration = Duration::from_secs(3);
/// The pauses between two streams of changes: short when the last one lasted.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// A server and the conversation with it. Dropped, its calls are answered with an error.
///
/// Several can be open to one server, each with capabilities of its own; to a legacy server each is a session.
pub(in crate::upstream) struct Remote {
    link: Arc<Link>,
    health: Arc<Health>,
    /// What it was found to speak, so that the next connection need not find out again.
    found: Found,
    /// The session to end in order, if there is one.
    session: Option<Arc<Legacy>>,
    /// Cancelled when the credential of its user counts no more, if it has one.
    forgotten: Option<CancellationToken>,
    /// What moves messages; ends by itself when the conversation is closed.
    carrying: JoinSet<()>,
    /// What goes on beside that, and ends with the connection.
    tasks: JoinSet<()>,
}

impl Remote {
    pub(super) fn new(link: Arc<Link>, health: Arc<Health>, found: Found) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(pass_on_changes(Arc::clone(&link)));
        Self {
            link,
            health,
            found,
            session: None,
            forgotten: None,
            carrying: JoinSet::new(),
            tasks,
        }
    }

    pub(super) fn in_session(mut self, session: Arc<Legacy>) -> Self {
        self.session = Some(session);
        self
    }

    /// The connection ends when this is cancelled, as the credential of its user was forgotten, or given anew.
    pub(super) fn until_forgotten(mut self, forgotten: CancellationToken) -> Self {
        self.forgotten = Some(forgotten.clone());
        let link = Arc::clone(&self.link);
        self.accompany(async move {
            forgotten.cancelled().await;
            link.break_off();
        });
        self
    }

    /// The conversation.
    pub(in crate::upstream) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What it was found to speak.
    pub(super) fn found(&self) -> Found {
        self.found
    }

    /// Remembers the era that it was found to speak.
    pub(super) fn settle(&mut self, era: Era) {
        self.found = self.found.in_era(era);
    }

    /// Runs what moves messages.
    pub(super) fn carry(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.carrying.spawn(task);
    }

    /// Runs something for as long as the connection lasts.
    pub(in crate::upstream) fn accompany(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends the connection when the server is gone.
    pub(super) fn watch(&mut self, health: Arc<Health>, server: Arc<impl Watched + 'static>) {
        let link = Arc::clone(&self.link);
        self.accompany(async move {
            let _broken = link.break_guard();
            health.watch(&*server).await;
        });
    }

    /// Asks a modern server to tell of changed lists, for as long as the connection lasts.
    pub(super) fn listen(&mut self, wanted: Value) {
        self.accompany(keep_listening(Arc::clone(&self.link), wanted));
    }

    /// Waits until the server cannot be spoken with any more. Then its calls are answered.
    pub(in crate::upstream) async fn ended(&mut self) -> UpstreamError {
        self.link.broken().await;
        if self
            .forgotten
            .as_ref()
            .is_some_and(CancellationToken::is_cancelled)
        {
            // That says nothing of the server.
            let verdict = Verdict::Unasked;
            self.close_saying(
                verdict,
                "worked on the call with your account there, which is not connected to this platform any more",
            );
            return RemoteError::Gone("the account of its user is not connected any more".to_owned()).into();
        }
        let why = self
            .health
            .gone()
            .unwrap_or("the connection has ended")
            .to_owned();
        self.close("was lost while it worked on the call; it will be connected to again");
        RemoteError::Gone(why).into()
    }

    /// Ends the connection in order: what is queued is sent, and then a session is ended.
    pub(in crate::upstream) async fn shut_down(mut self) {
        self.tasks.shutdown().await;
        self.link.close_input();
        let carried = async { while self.carrying.join_next().await.is_some() {} };
        if timeout(LAST_LIMIT, carried).await.is_err() {
            debug!(server.id = %self.link.server, "messages were still on their way when the connection ended");
        }
        if let Some(session) = &self.session {
            session.end().await;
        }
        self.close("was disconnected");
    }

    fn close(&self, what: &str) {
        self.close_saying(Verdict::Failed, what);
    }

    fn close_saying(&self, verdict: Verdict, what: &str) {
        let server = &self.link.server;
        self.link.pending.close_saying(
            verdict,
            &RpcError::internal(format!("server `{server}` {what}")),
            RpcError::internal(format!(
                "server `{server}` is not connected; the call was not begun"
            )),
        );
    }
}

impl Carrier for Remote {
    fn ended(&mut self) -> BoxFuture<'_, UpstreamError> {
        Self::ended(self).boxed()
    }

    fn shut_down(self: Box<Self>) -> BoxFuture<'static, ()> {
        Self::shut_down(*self).boxed()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.close("was disconnected");
    }
}

/// A stream of changes may be cut by whatever stands between. What changed while nobody listened is found by looking.
async fn keep_listening(link: Arc<Link>, wanted: Value) {
    let mut pause = SHORT_PAUSE;
    loop {
        let begun = Instant::now();
        listen_to(Arc::clone(&link), wanted.clone()).await;
        pause = if begun.elapsed() >= LONG_PAUSE {
            SHORT_PAUSE
        } else {
            (pause * 2).min(LONG_PAUSE)
        };
        sleep(pause).await;
        link.list_changed.notify_one();
    }
}
