//! The host's loop: takes calls, words about calls and questions from the bus, and stops in order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Message, StatusCode, Subscriber};
use bus_schema::{
    ContentType, ServerCard, Token,
    envelope::Control,
    header,
    subject::{self, EventKind, InstanceVerb, Subject},
};
use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    HostError, HostOptions, LARGE_BODIES_BYTES, McpServer,
    describe::describe,
    services::{self, Questions},
    work::{CallKey, Work},
};
use crate::{bus::Bus, watch::WatchedUntil};

/// How many cancellations that came before their call are remembered.
const EARLY_CANCELS: usize = 64;

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
    /// The card as last announced. Held only to read or replace it.
    pub(super) card: Mutex<ServerCard>,
    draining: AtomicBool,
    pub(super) started: OffsetDateTime,
}

struct Subscriptions {
    calls: Subscriber,
    words: Subscriber,
    cancels: Subscriber,
    watch: Subscriber,
    questions: Questions,
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
        let card = describe(&bus, &server, &options).await?;
        let subscriptions = subscribe(&bus, &options).await?;
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(options.max_in_flight as usize)),
            large_bodies: Arc::new(Semaphore::new((LARGE_BODIES_BYTES / 1024) as usize)),
            calls: Mutex::default(),
            watched: WatchedUntil::default(),
            running: TaskTracker::new(),
            card: Mutex::new(card),
            draining: AtomicBool::new(false),
            started: OffsetDateTime::now_utc(),
            bus,
            server,
            options,
        });
        shared.announce(EventKind::Up).await;
        info!(server.id = %shared.options.id, tools = shared.card().tools, "server is on the bus");
        let (finished_in, finished) = watch::channel(false);
        let stop = CancellationToken::new();
        let (task, stop_task) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            task.run(subscriptions, stop_task).await;
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
        self.card.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<CallKey, Arc<Work>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn announce(&self, kind: EventKind) {
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

    async fn run(self: Arc<Self>, mut subs: Subscriptions, stop: CancellationToken) {
        let mut early_cancels = VecDeque::with_capacity(EARLY_CANCELS);
        let mut connects = self.bus.connects();
        let mut changes = self.server.list_changes();
        loop {
            tokio::select! {
                () = stop.cancelled(), if !self.draining.load(Ordering::Relaxed) => self.begin_drain(&mut subs).await,
                message = subs.calls.next() => match message {
                    Some(message) => self.take_call(message, &early_cancels),
                    None => break,
                },
                Some(message) = subs.words.next() => self.take_word(&message),
                Some(message) = subs.cancels.next() => self.take_cancel(&message, &mut early_cancels),
                Some(_) = subs.watch.next() => self.watched.extend(),
                Some(message) = subs.questions.next() => services::answer(&self, &message).await,
                Ok(()) = connects.changed() => self.announce(EventKind::Up).await,
                () = changed(&mut changes) => self.describe_again(),
                () = self.bus.closed().cancelled() => break,
            }
        }
        self.finish_running(subs).await;
    }

    async fn begin_drain(&self, subs: &mut Subscriptions) {
        self.draining.store(true, Ordering::Relaxed);
        self.announce(EventKind::Down).await;
        // What the broker has already handed to this replica still comes; then the subscription ends.
        if let Err(error) = subs.calls.drain().await {
            debug!(%error, "the subscription for calls had ended already");
        }
    }

    /// Waits for the running calls; words about them must still be heard.
    async fn finish_running(self: &Arc<Self>, mut subs: Subscriptions) {
        self.running.close();
        let hear = async {
            let mut none = VecDeque::new();
            loop {
                tokio::select! {
                    Some(message) = subs.words.next() => self.take_word(&message),
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

    fn take_call(self: &Arc<Self>, message: Message, early_cancels: &VecDeque<CallKey>) {
        // A responder publishes wherever the request says: only the inbox of a known class of caller will do.
        if !message.reply.as_deref().is_some_and(subject::is_inbox) {
            warn!(server.id = %self.options.id, reply = ?message.reply, "refused a request whose reply subject is no caller's inbox");
            self.bus.metrics().refused(self.options.id.as_str());
            return;
        };
        let content_type = message
            .headers
            .as_ref()
            .and_then(|h| h.get_last(header::CONTENT_TYPE));
        let codec = content_type.map_or(Ok(ContentType::MessagePack), |value| {
            ContentType::parse(value.as_str())
        });
        Work::begin(self, message, codec.unwrap_or_default(), early_cancels);
    }

    fn take_word(&self, message: &Message) {
        let verb = match Subject::parse(&message.subject) {
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

    fn describe_again(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        self.bus.spawn(async move {
            match describe(&shared.bus, &shared.server, &shared.options).await {
                Ok(card) => {
                    *shared.card.lock().unwrap_or_else(PoisonError::into_inner) = card;
                    shared.announce(EventKind::Up).await;
                }
                Err(error) => {
                    warn!(%error, server.id = %shared.options.id, "could not describe the server again")
                }
            }
        });
    }
}

async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    let gone = match changes {
        Some(receiver) => receiver.changed().await.is_err(),
        None => std::future::pending().await,
    };
    if gone {
        *changes = None;
    }
}

async fn subscribe(bus: &Bus, options: &HostOptions) -> Result<Subscriptions, HostError> {
    let tenant = Token::encode(&options.tenant);
    let server = Token::encode(options.id.as_str());
    let words = bus
        .subscribe(subject::all_instance_words(&server, bus.instance_token()))
        .await?;
    let cancel = Subject::Cancel {
        tenant: tenant.clone(),
        server: server.clone(),
    };
    let cancels = bus.subscribe(cancel.to_string()).await?;
    let watch = bus
        .subscribe(
            Subject::Watch {
                tenant: tenant.clone(),
            }
            .to_string(),
        )
        .await?;
    let questions = services::subscribe(bus, options).await?;
    // Calls last: whoever reaches this replica finds it whole.
    let calls = bus.queue_subscribe(subject::all_calls(&tenant, &server)).await?;
    // Announced is what the broker hands calls to, and not what it has yet to read.
    bus.round_trip().await?;
    Ok(Subscriptions {
        calls,
        words,
        cancels,
        watch,
        questions,
    })
}

impl Shared {
    pub(super) fn call_budget(&self, timeout_ms: u64) -> Duration {
        Duration::from_millis(timeout_ms).min(self.options.max_call_time)
    }
}
