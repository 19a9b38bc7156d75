//! One run of a child: its process, the conversation with it, and the tasks that carry that.

use std::{
    future::pending,
    mem,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{RpcError, ServerId};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::AsyncRead,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::{
    lines::{Line, Lines, excerpt},
    secrets::{Held, Secret},
};

use super::{
    capabilities::Declared,
    connection::{Another, Association, Carrier, Connection, Connector, Opening},
    error::UpstreamError,
    handshake::connect,
    link::Link,
    options::{ChildOptions, Limits},
    process::Process,
};

/// How long a child that has closed a pipe has to end, so that its exit status can be told.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(1);
/// How long what a child has written before its end may take to be read.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// The longest line of stderr that is kept whole.
const MAX_STDERR_BYTES: usize = 16 * 1024;
const SHOWN_CHARS: usize = 2_000;
/// How many lines of stderr the log takes in a second. A child that writes more has to wait.
const STDERR_LINES_A_SECOND: u32 = 2_000;
/// How often the host may hear that lists have changed.
const CHANGES_EVERY: Duration = Duration::from_millis(250);

/// A child and the conversation with it. Dropped, it is killed and its calls are answered with an error.
pub(super) struct Child {
    process: Process,
    link: Arc<Link>,
    limits: Limits,
    /// The two tasks that read what the child writes; empty when all of it was read.
    reading: TaskTracker,
    /// Ended with the child.
    tasks: JoinSet<()>,
}

impl Child {
    /// Starts the program and listens to it. The handshake will declare what callers can be asked for.
    ///
    /// # Errors
    /// [`UpstreamError`] when it does not start.
    pub(super) fn spawn(
        options: &ChildOptions,
        declared: &Declared,
        limits: Limits,
    ) -> Result<Self, UpstreamError> {
        let (process, pipes) = Process::spawn(options)?;
        let (link, queue) = Link::new(options.id.clone(), declared.clone(), limits.unread);
        let reading = TaskTracker::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(reading.track_future(Arc::clone(&link).read(pipes.stdout)));
        tasks.spawn(reading.track_future(log_lines(options.id.clone(), pipes.stderr)));
        reading.close();
        tasks.spawn(Arc::clone(&link).write(queue, pipes.stdin));
        tasks.spawn(pass_on_changes(Arc::clone(&link)));
        Ok(Self {
            process,
            link,
            limits,
            reading,
            tasks,
        })
    }

    /// The conversation.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Runs something for as long as the child runs.
    pub(super) fn accompany(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until the child has ended or cannot be spoken with. Then all of it is gone, and its calls are answered.
    pub(super) async fn ended(&mut self) -> UpstreamError {
        let broken = tokio::select! {
            () = self.process.exited() => false,
            () = self.link.broken() => true,
        };
        let by_itself = match self.link.nonsense() {
            Some(_) => false,
            None => !broken || timeout(FOLLOWS_WITHIN, self.process.exited()).await.is_ok(),
        };
        let status = self.process.kill().await;
        // Its answers and last words may still be in the pipes. What left its group may hold them open, and is not waited for.
        let _ = timeout(READ_WITHIN, self.reading.wait()).await;
        let how = match (self.link.nonsense(), status) {
            (None, Some(status)) if by_itself => status.to_string(),
            (None, _) => "it closed a pipe, and was killed".to_owned(),
            (Some(nonsense), _) => format!("{nonsense}, and was killed"),
        };
        self.close(&format!(
            "ended while it worked on the call ({how}); it will be started again"
        ));
        match self.link.nonsense() {
            Some(nonsense) => UpstreamError::NoMcp(nonsense),
            None => UpstreamError::Ended(how),
        }
    }

    /// Ends the child in order: its stdin is closed, then it is asked, then killed.
    pub(super) async fn shut_down(mut self) -> Option<ExitStatus> {
        self.link.close_input();
        if timeout(self.limits.end, self.process.exited()).await.is_err() {
            self.process.terminate();
            if timeout(self.limits.terminate, self.process.exited())
                .await
                .is_err()
            {
                debug!(server.id = %self.link.server, "the server does not end when it is asked to, and is killed");
            }
        }
        let status = self.process.kill().await;
        self.close("was stopped");
        status
    }

    fn close(&self, what: &str) {
        let server = &self.link.server;
        self.link.pending.close(
            &RpcError::internal(format!("server `{server}` {what}")),
            RpcError::internal(format!("server `{server}` has ended; the call was not begun")),
        );
    }

    #[cfg(test)]
    pub(super) fn group(&self) -> rustix::process::Pid {
        self.process.group()
    }
}

impl Carrier for Child {
    fn ended(&mut self) -> BoxFuture<'_, UpstreamError> {
        Self::ended(self).boxed()
    }

    fn shut_down(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            Self::shut_down(*self).await;
        }
        .boxed()
    }
}

/// How often it is looked whether the secrets of a running child are still what it was started with.
const SECRETS_EVERY: Duration = Duration::from_secs(2);

/// Starts a child for each connection.
pub(super) struct ChildConnector {
    options: ChildOptions,
    limits: Limits,
    secrets: Vec<(String, Held)>,
    /// What the child that all share was started with. Held only to read or set it.
    given: Mutex<Vec<Arc<Secret>>>,
}

impl ChildConnector {
    pub(super) fn new(mut options: ChildOptions, limits: Limits) -> Self {
        let sources = mem::take(&mut options.secret_env).into_iter();
        Self {
            options,
            limits,
            secrets: sources.map(|(name, source)| (name, Held::new(source))).collect(),
            given: Mutex::default(),
        }
    }

    async fn read(&self) -> Result<Vec<Arc<Secret>>, UpstreamError> {
        let mut read = Vec::with_capacity(self.secrets.len());
        for (name, held) in &self.secrets {
            let secret = held.get().await.map_err(|source| UpstreamError::NoVariable {
                name: name.clone(),
                source,
            })?;
            read.push(secret.secret);
        }
        Ok(read)
    }

    fn given(&self) -> MutexGuard<'_, Vec<Arc<Secret>>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are other secrets than those that the shared child has. What cannot be read has not changed.
    async fn wait_for_others(&self) {
        let mut looks = pace(SECRETS_EVERY);
        loop {
            looks.tick().await;
            if self.read().await.is_ok_and(|read| read != *self.given()) {
                return;
            }
        }
    }
}

impl Connector for ChildConnector {
    fn connect(&self, opening: Opening) -> BoxFuture<'_, Result<Connection, UpstreamError>> {
        async move {
            let read = self.read().await?;
            let mut options = self.options.clone();
            let names = self.secrets.iter().map(|(name, _)| name.clone());
            options
                .env
                .extend(names.zip(read.iter().map(|secret| secret.expose().to_owned())));
            if opening.declared.is_plain() {
                *self.given() = read;
            }
            let (child, session) = connect(&options, &opening, self.limits).await?;
            let link = Arc::clone(child.link());
            Ok(Connection::new(link, session, Box::new(child)))
        }
        .boxed()
    }

    fn association(&self) -> Association {
        Association::None
    }

    fn outdated(&self) -> BoxFuture<'_, ()> {
        match self.secrets.is_empty() {
            true => pending().boxed(),
            false => self.wait_for_others().boxed(),
        }
    }

    fn another(&self) -> Another {
        Another::Process
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.close("was stopped");
    }
}

/// A child's stderr is for people: it goes to the log, line by line.
async fn log_lines(server: ServerId, stderr: impl AsyncRead + Unpin) {
    let mut lines = Lines::new(stderr, MAX_STDERR_BYTES);
    let mut second = pace(Duration::from_secs(1));
    let mut left = 0_u32;
    while let Ok(Some(line)) = lines.next().await {
        if left == 0 {
            second.tick().await;
            left = STDERR_LINES_A_SECOND;
        }
        left -= 1;
        let bytes = match line {
            Line::Whole(line) => line,
            Line::TooLong(skipped) => skipped.head,
        };
        let line = excerpt(&bytes, SHOWN_CHARS);
        if !line.is_empty() {
            info!(server.id = %server, "{line}");
        }
    }
}

/// Tells the host of changed lists: of the first at once, and of more that come in quick succession together.
pub(super) async fn pass_on_changes(link: Arc<Link>) {
    let mut every = pace(CHANGES_EVERY);
    loop {
        link.list_changed.notified().await;
        every.tick().await;
        link.list_changes.send_modify(|count| *count += 1);
    }
}

/// Ticks at once after a pause, and otherwise no more often than this.
fn pace(period: Duration) -> Interval {
    let mut pace = interval(period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
