//! The host's loop: takes calls, words about calls and questions from the bus, and stops in order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Message, StatusCode};
use bus_schema::{
    ContentType, FrameKind, Request, ServerCard, Token,
    envelope::Control,
    header,
    mcp::method,
    subject::{self, EventKind, InstanceVerb, Subject},
};
use futures::{FutureExt as _, StreamExt as _};
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Breaker, HostError, HostOptions, LARGE_BODIES_BYTES, McpServer, Visibility,
    admission::{self, Via},
    authorize::Authorizer,
    deprecated,
    describe::{Description, describe},
    guard::{self, Guard},
    health::{HostHealth, Source, Troubles},
    listen::Listeners,
    services,
    subscriptions::{NewVersion, Subscriptions, Versions, subscribe},
    work::{CallKey, Work},
};
use crate::{bus::Bus, supervise::RunningPart, watch::WatchedUntil};

/// How many cancellations that came before their call are remembered.
const EARLY_CANCELS: usize = 64;
/// How long the broker may take to end the subscription for calls.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// One server on the bus, served by this process.
pub struct Host {
    shared: Arc<Shared>,
    stop: CancellationToken,
    finished: watch::Receiver<bool>,
}

/// What the loop and the running calls share.
pub(super) struct Shared {
    pub(super) bus: Bus,
    pub(super) server: Arc<dyn McpServer>,
    pub(super) options: HostOptions,
    pub(super) slots: Arc<Semaphore>,
    /// In KiB, as one permit a byte would be too many for a semaphore.
    pub(super) large_bodies: Arc<Semaphore>,
    /// Held only to look up, insert or remove.
    pub(super) calls: Mutex<HashMap<CallKey, Arc<Work>>>,
    pub(super) watched: WatchedUntil,
    pub(super) running: TaskTracker,
    /// What the server said of itself last. Held only to read or replace it.
    description: Mutex<Description>,
    /// Which versions calls are taken to. Held only to read or change it.
    pub(super) versions: Mutex<Versions>,
    /// The way of subscriptions to the loop that reads them.
    pub(super) new_versions: mpsc::Sender<NewVersion>,
    /// Why the server should not be used now. Held only to read or change it.
    pub(super) troubles: Mutex<Troubles>,
    /// Calls to deprecated tools, as the log tells of them.
    deprecated_calls: deprecated::Calls,
    /// Who wants to hear of changed resources.
    pub(super) listeners: Listeners,
    /// What may be shown and called; `None` for a server that only the platform finds.
    pub(super) guard: Option<Guard>,
    /// What callers may do; `None` for a server that only the platform finds.
    pub(super) authorizer: Option<Authorizer>,
    /// Cancelled when the host takes no more calls.
    pub(super) draining: CancellationToken,
    pub(super) started: OffsetDateTime,
}

impl Host {
    /// Puts a server on the bus: asks it to describe itself, subscribes, and announces it.
    ///
    /// # Errors
    /// [`HostError`] when the bus refuses or the server's description cannot be used.
    pub async fn start(
        bus: Bus,
        server: Arc<dyn McpServer>,
        options: HostOptions,
    ) -> Result<Self, HostError> {
        let (description, guard, authorizer) = match options.visibility {
            Visibility::Announced => {
                let (guard, authorizer, description) = tokio::join!(
                    Guard::new(&bus, &options),
                    Authorizer::new(&bus),
                    describe(&bus, &server, &options)
                );
                let mut description = description?;
                guard.show(&mut description);
                (description, Some(guard), Some(authorizer))
            }
            Visibility::Hidden => (Description::bare(&bus, &options), None, None),
        };
        let version = Token::encode(&description.card.version);
        let subscriptions = subscribe(&bus, &options, &version).await?;
        let (new_versions, versions) = mpsc::channel(1);
        let mut troubles = Troubles::default();
        // A host that has just started may be of a server that fails.
        troubles.set(Source::Calls, options.breaker.as_ref().and_then(Breaker::trouble));
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(options.max_in_flight as usize)),
            large_bodies: Arc::new(Semaphore::new((LARGE_BODIES_BYTES / 1024) as usize)),
            calls: Mutex::default(),
            watched: WatchedUntil::default(),
            running: TaskTracker::new(),
            description: Mutex::new(description),
            versions: Mutex::new(Versions::new(version)),
            new_versions,
            troubles: Mutex::new(troubles),
            deprecated_calls: deprecated::Calls::default(),
            listeners: Listeners::default(),
            guard,
            authorizer,
            draining: CancellationToken::new(),
            started: OffsetDateTime::now_utc(),
            bus,
            server,
            options,
        });
        shared.announce(EventKind::Up).await;
        info!(server.id = %shared.options.id, tools = shared.card().tools, "server is on the bus");
        let (finished_in, finished) = watch::channel(false);
        let stop = CancellationToken::new();
        shared
            .bus
            .spawn(guard::keep_described(Arc::clone(&shared), stop.clone()));
        shared.bus.spawn(Arc::clone(&shared).keep_breaker(stop.clone()));
        let (task, stop_task) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            task.run(subscriptions, versions, stop_task).await;
            let _ = finished_in.send(true);
        });
        Ok(Self {
            shared,
            stop,
            finished,
        })
    }

    /// The card as last announced.
    #[must_use]
    pub fn card(&self) -> ServerCard {
        self.shared.card()
    }

    /// Serves until it is told to stop, and then leaves in order.
    #[must_use]
    pub fn serve_until(self, stop: CancellationToken) -> RunningPart {
        async move {
            stop.cancelled().await;
            self.stop().await;
            Ok(())
        }
        .boxed()
    }

    /// By which the server's health is told while it is served.
    #[must_use]
    pub fn health(&self) -> HostHealth {
        HostHealth::of(&self.shared)
    }

    /// Takes the server off the bus: new calls go elsewhere at once, running ones get their time to finish.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = self.finished.wait_for(|finished| *finished).await;
        info!(server.id = %self.shared.options.id, "server has left the bus");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    pub(super) fn card(&self) -> ServerCard {
        let mut card = self.description().card.clone();
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        card.trouble = troubles.all();
        card
    }

    pub(super) fn description(&self) -> std::sync::MutexGuard<'_, Description> {
        self.description.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<CallKey, Arc<Work>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn announce(&self, kind: EventKind) {
        if self.options.visibility == Visibility::Hidden {
            return;
        }
        let card = self.card();
        let subject = Subject::Event {
            tenant: Token::encode(&card.tenant),
            server: Token::encode(card.id.as_str()),
            kind,
        };
        let payload = ContentType::Json.encode(&card).expect("a card is always JSON");
        if let Err(error) = self.bus.publish(subject.to_string(), payload).await {
            warn!(%error, server.id = %card.id, "could not announce the server");
        }
    }

    async fn run(
        self: Arc<Self>,
        mut subs: Subscriptions,
        mut versions: mpsc::Receiver<NewVersion>,
        stop: CancellationToken,
    ) {
        let mut early_cancels = VecDeque::with_capacity(EARLY_CANCELS);
        let mut connects = self.bus.connects();
        let mut drain_limit = None;
        loop {
            let draining = drain_limit.is_some();
            tokio::select! {
                () = stop.cancelled(), if !draining => drain_limit = Some(self.begin_drain(&mut subs).await),
                message = subs.calls.next() => match message {
                    Some((_, message)) => self.take_call(&message, &early_cancels, Via::Group),
                    None => break,
                },
                Some(new) = versions.recv(), if !draining => new.begin(&mut subs.calls),
                Some(message) = subs.words.next() => self.take_word(&message, &early_cancels),
                Some(message) = subs.cancels.next() => self.take_cancel(&message, &mut early_cancels),
                Some(wish) = subs.watch.next() => self.watched.extend(&wish.payload),
                Some(message) = subs.questions.next(), if !draining => services::answer(&self, &message).await,
                Ok(()) = connects.changed(), if !draining => self.announce(EventKind::Up).await,
                () = sleep_until(drain_limit.unwrap_or_else(Instant::now)), if draining => break,
                () = self.bus.closed().cancelled() => break,
            }
        }
        self.finish_running(subs).await;
    }

    /// Stops taking calls, and says until when the end of the subscription is waited for.
    async fn begin_drain(&self, subs: &mut Subscriptions) -> Instant {
        self.draining.cancel();
        if !self.bus.is_connected() {
            // Nothing comes any more, and nobody hears that this replica leaves.
            return Instant::now();
        }
        self.announce(EventKind::Down).await;
        // What the broker has already handed to this replica still comes; then the subscription ends.
        for calls in subs.calls.values_mut() {
            if let Err(error) = calls.drain().await {
                debug!(%error, "a subscription for calls had ended already");
            }
        }
        Instant::now() + DRAIN_LIMIT
    }

    /// Waits for the running calls; words about them must still be heard.
    async fn finish_running(self: &Arc<Self>, mut subs: Subscriptions) {
        self.running.close();
        if self.bus.is_connected() {
            self.say_what_was_taken().await;
        }
        let hear = async {
            let mut none = VecDeque::new();
            loop {
                tokio::select! {
                    Some(message) = subs.words.next() => self.take_word(&message, &none),
                    Some(message) = subs.cancels.next() => self.take_cancel(&message, &mut none),
                    else => std::future::pending::<()>().await,
                }
            }
        };
        tokio::select! {
            () = hear => {}
            waited = timeout(self.options.drain_time, self.running.wait()) => if waited.is_err() {
                warn!(server.id = %self.options.id, calls = self.calls().len(), "calls were still running at the end of the drain time");
                for work in self.calls().values() {
                    work.cancel.cancel();
                }
            },
        }
    }

    /// Tells the caller of every running call that it is here, and then everybody that this replica takes no more. The client library
    /// may drop what the broker hands over while a subscription is drained; a caller that hears the second and not the first
    /// knows that its call was never begun.
    async fn say_what_was_taken(&self) {
        let running: Vec<_> = self.calls().values().cloned().collect();
        for work in running {
            if let Err(error) = work.pulse.signal(FrameKind::Accept, 0).await {
                debug!(%error, "could not tell a caller that its call is here");
            }
        }
        self.announce(EventKind::Left).await;
    }

    fn take_call(self: &Arc<Self>, message: &Message, early_cancels: &VecDeque<CallKey>, via: Via) {
        // A responder publishes wherever the request says: only the inbox of a known class of caller will do.
        if !message.reply.as_deref().is_some_and(subject::is_inbox) {
            warn!(server.id = %self.options.id, reply = ?message.reply, "refused a request whose reply subject is no caller's inbox");
            self.bus.metrics().refused(self.options.metered());
            return;
        };
        if via == Via::Group && admission::goes_to_its_version(self, message) {
            return;
        }
        let content_type = message
            .headers
            .as_ref()
            .and_then(|h| h.get_last(header::CONTENT_TYPE));
        let codec = content_type.map_or(Ok(ContentType::MessagePack), |value| {
            ContentType::parse(value.as_str())
        });
        Work::begin(self, message, codec.unwrap_or_default(), early_cancels, via);
    }

    fn take_word(self: &Arc<Self>, message: &Message, early_cancels: &VecDeque<CallKey>) {
        let verb = match Subject::parse(&message.subject) {
            Ok(Subject::Instance {
                verb: InstanceVerb::Call,
                ..
            }) => return self.take_call(message, early_cancels, Via::Instance),
            Ok(Subject::Instance {
                verb: InstanceVerb::Near,
                ..
            }) => return self.take_call(message, early_cancels, Via::Group),
            Ok(Subject::Instance { verb, .. }) => verb,
            // Only the broker's own answer to a heartbeat counts; anybody may write to the subject.
            Ok(Subject::Gone { caller, call, .. }) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                return self.caller_is_gone(&CallKey {
                    caller: caller.as_str().to_owned(),
                    call,
                });
            }
            _ => return,
        };
        let Ok(control) = ContentType::MessagePack.decode::<Control>(&message.payload) else {
            debug!(subject = %message.subject, "ignored a word that cannot be read");
            return;
        };
        let key = CallKey {
            caller: control.caller.clone(),
            call: control.call,
        };
        let Some(work) = self.calls().get(&key).cloned() else {
            return;
        };
        match verb {
            InstanceVerb::Credit => work.credit.grant(control.seq),
            InstanceVerb::Cancel => work.cancel.cancel(),
            InstanceVerb::Body => work.take_chunk(control),
            InstanceVerb::Call | InstanceVerb::Near => {}
        }
    }

    fn caller_is_gone(&self, key: &CallKey) {
        if let Some(work) = self.calls().get(key) {
            debug!(server.id = %self.options.id, caller = %key.caller, "the caller of a running call is gone");
            work.cancel.cancel();
        }
    }

    fn take_cancel(&self, message: &Message, early_cancels: &mut VecDeque<CallKey>) {
        let Ok(control) = ContentType::MessagePack.decode::<Control>(&message.payload) else {
            return;
        };
        let key = CallKey {
            caller: control.caller,
            call: control.call,
        };
        match self.calls().get(&key) {
            Some(work) => work.cancel.cancel(),
            None => {
                if early_cancels.len() == EARLY_CANCELS {
                    early_cancels.pop_front();
                }
                early_cancels.push_back(key);
            }
        }
    }
}

impl Shared {
    /// How long a call may take: no longer than its caller waits, than any call may take, and than calls of its tool may.
    pub(super) fn call_budget(&self, request: &Request) -> Duration {
        let any = Duration::from_millis(request.timeout_ms).min(self.options.max_call_time);
        if request.method == method::LISTEN {
            return any;
        }
        let any = self.options.call_timeout.map_or(any, |timeout| timeout.min(any));
        self.tool_timeout(&request.method, request.name.as_deref())
            .map_or(any, |timeout| timeout.min(any))
    }

    pub(super) fn tool_timeout(&self, called: &str, name: Option<&str>) -> Option<Duration> {
        let name = name.filter(|_| called == method::TOOLS_CALL)?;
        self.description().tool_timeouts.get(name).copied()
    }

    /// Counts a call to a tool, if that is marked as deprecated.
    pub(super) fn count_deprecated(&self, tool: &str) {
        if !self.description().deprecated.contains(tool) {
            return;
        }
        let server = self.options.id.as_str();
        self.bus.metrics().deprecated(self.options.metered(), tool);
        if let Some(calls) = self.deprecated_calls.count(tool) {
            warn!(
                server.id = server,
                tool.name = tool,
                calls,
                "a deprecated tool is still called"
            );
        }
    }
}
