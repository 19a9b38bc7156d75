//! One process's connection to the bus: connecting, publishing, and what the broker tells about other processes.

mod connect;
mod ending;
mod grants;
mod heard;
mod outside;
mod presence;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Event, HeaderMap, ServerError, Subscriber};
use bus_schema::{
    Token,
    card::Place,
    subject::{self, CallerClass, Subject},
};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, broadcast, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{audit::Audit, inbox::Inbox, telemetry::Metrics, traffic::MAX_COPIES};

use connect::{OLDEST_SERVER, SMALLEST_MAX_PAYLOAD, check_server, connect_options, user_of};
pub(crate) use connect::{connection, is_new_enough, without_password};
use grants::{Refusals, inboxes_of, is_violation};
use heard::Heard;
pub(crate) use presence::{Presence, place};

/// For how long after a reconnect "no responders" may only mean that the responders are not back yet.
const RECONNECT_GRACE: Duration = Duration::from_secs(2);
/// What the ids of command-line processes begin with.
const CLI_PREFIX: &str = "cli-";
/// How many comings and goings may wait for a reader. One that falls behind further learns the rest from its next sweep.
const PRESENCE_AHEAD: usize = 1024;
/// How long the broker may take to hand a process its own message.
const ROUND_TRIP: Duration = Duration::from_secs(5);
/// How to reach the bus. Not `Debug`, as it holds secrets.
#[derive(Clone)]
pub struct BusOptions {
    /// `nats://[user:password@]host:port`, several separated by commas.
    pub url: String,
    /// The user and password when the URL has none.
    pub credentials: Option<(String, String)>,
    /// What this process does, and so which user it should be.
    pub class: CallerClass,
    /// Where it runs.
    pub place: Place,
}

/// Says why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody answers there, or not as NATS does.
    #[error("cannot connect to NATS at {url}; is it running, and is the address right?")]
    Unreachable {
        /// The address without its password.
        url: String,
        /// What the client library says.
        #[source]
        source: async_nats::ConnectError,
    },
    /// It refuses this user.
    #[error(
        "NATS at {url} refuses the credentials; put them into the URL (nats://user:password@host:port), or run with the \
         --data-dir of the `trunkline up` that started it"
    )]
    Refused {
        /// The address without its password.
        url: String,
    },
    /// The user is one of ours, and for other processes than this one.
    #[error(
        "this process does what the user `{needed}` may do, and connects to NATS at {url} as `{user}`, which may not; put the \
         credentials of `{needed}` or `node` into the URL, or run with the --data-dir of the `trunkline up` that started it"
    )]
    WrongRole {
        /// The address without its password.
        url: String,
        /// Who it connects as.
        user: &'static str,
        /// Who it should be.
        needed: &'static str,
    },
    /// The user may not do what this process has to do.
    #[error(
        "NATS at {url} refuses the credentials for what this process has to do ({refused}); use those of a user that has the \
         grants of nats.conf, put into the URL (nats://user:password@host:port), or run with the --data-dir of the `trunkline up` \
         that started it"
    )]
    Forbidden {
        /// The address without its password.
        url: String,
        /// What the broker said.
        refused: String,
    },
    /// It lacks what the platform needs.
    #[error(
        "NATS at {url} has version {found}, but {OLDEST_SERVER} or newer is needed; upgrade it, or leave out --nats to let trunkline start its own"
    )]
    TooOld {
        /// The address without its password.
        url: String,
        /// What it says it is.
        found: String,
    },
    /// Its messages are too small for the bus.
    #[error(
        "NATS at {url} takes at most {found} bytes a message; set max_payload to {SMALLEST_MAX_PAYLOAD} or more (2MB is right)"
    )]
    PayloadTooSmall {
        /// The address without its password.
        url: String,
        /// Its limit in bytes.
        found: usize,
    },
    /// A subscription was not taken.
    #[error("cannot subscribe on the bus")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// The connection has been closed.
    #[error("the connection to the bus is closed")]
    Closed,
    /// The broker does not hand on what this process sends itself.
    #[error("the broker does not answer")]
    Silent,
}

/// A connection to the bus, shared by everything in one process.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    client: Client,
    url: String,
    /// Whose inboxes it reads, which is the class of its user.
    class: CallerClass,
    place: Place,
    /// The class of its user, if that is one of ours.
    role: Option<CallerClass>,
    refusals: Refusals,
    instance: String,
    instance_token: Token,
    inbox: Inbox,
    metrics: Metrics,
    audit: Audit,
    /// Counts the connections made; hosts announce themselves at each.
    connects: watch::Receiver<u64>,
    started: Instant,
    /// Milliseconds after `started` at which the last reconnect happened; 0 for never.
    reconnected_at_ms: AtomicU64,
    /// Which replicas come and go, in order.
    presence: broadcast::Sender<Presence>,
    heard: Heard,
    /// Room for copies of calls.
    copies: Arc<Semaphore>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Bus {
    /// Connects, checks that the broker will do, and opens the inbox for answers.
    ///
    /// # Errors
    /// [`BusError`], each naming what to change.
    pub async fn connect(options: BusOptions) -> Result<Self, BusError> {
        let instance = new_instance_id(options.class);
        let instance_token = Token::encode(&instance);
        let (events_in, events) = tokio::sync::mpsc::unbounded_channel();
        let shown = without_password(&options.url);
        let user = user_of(&options);
        let class = inboxes_of(user.as_deref(), options.class).map_err(|user| BusError::WrongRole {
            url: shown.clone(),
            user: user.as_str(),
            needed: options.class.as_str(),
        })?;
        let refusals = Refusals::default();
        let who = (class, instance.as_str(), &instance_token);
        let client = connect_options(&options, who, events_in, refusals.clone())
            .connect(options.url.split(',').map(str::trim).collect::<Vec<_>>())
            .await
            .map_err(|source| match source.kind() {
                async_nats::ConnectErrorKind::AuthorizationViolation
                | async_nats::ConnectErrorKind::Authentication => BusError::Refused { url: shown.clone() },
                _ => BusError::Unreachable {
                    url: shown.clone(),
                    source,
                },
            })?;
        check_server(&client, &shown)?;
        let replicas = subscribe(&client, subject::all_replica_events()).await?;
        let (connects_in, connects) = watch::channel(1);
        let answers = subscribe(&client, subject::all_answers(class, &instance_token)).await?;
        let disconnects = subscribe(&client, subject::DISCONNECTS.to_owned()).await?;
        let metrics = Metrics::new();
        let bus = Self(Arc::new(Inner {
            audit: Audit::new(&instance, &metrics),
            client,
            url: shown.clone(),
            class,
            place: options.place,
            role: user.as_deref().and_then(CallerClass::of_user),
            refusals,
            instance,
            instance_token,
            inbox: Inbox::default(),
            metrics,
            connects,
            started: Instant::now(),
            reconnected_at_ms: AtomicU64::new(0),
            presence: broadcast::channel(PRESENCE_AHEAD).0,
            heard: Heard::default(),
            copies: Arc::new(Semaphore::new(MAX_COPIES)),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        bus.spawn(bus.clone().listen(answers, replicas, disconnects));
        bus.spawn(bus.clone().watch_connection(events, connects_in));
        bus.spawn(bus.audit().clone().keep(bus.clone()));
        bus.check_grants(options.class, shown).await?;
        Ok(bus)
    }

    /// Finds out whether the broker takes what this process will publish. It drops what a user may not publish, and every call would run
    /// to its deadline.
    async fn check_grants(&self, does: CallerClass, url: String) -> Result<(), BusError> {
        for probe in subject::probes(does) {
            self.publish(probe, Bytes::new()).await?;
        }
        let heard = self.round_trip().await;
        match (self.0.refusals.first(), heard) {
            (Some(refused), _) => Err(BusError::Forbidden { url, refused }),
            (None, Err(_)) => Err(BusError::Refused { url }),
            (None, Ok(())) => Ok(()),
        }
    }

    /// The role of ours that it connects as; `None` on a NATS that knows us by other users.
    #[must_use]
    pub fn role(&self) -> Option<CallerClass> {
        self.0.role
    }

    /// What the broker has refused this process, in its words; nothing, if all is as it should be.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.0.refusals.all()
    }

    /// The id of this process, which is also the name of its connection.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// Where this process runs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// The process's meters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Where it is put on record what was refused.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// The version of the broker.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.0.client.server_info().version
    }

    /// Whether the connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The address of the broker, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.0.client.max_payload()
    }

    pub(crate) fn class(&self) -> CallerClass {
        self.0.class
    }

    pub(crate) fn instance_token(&self) -> &Token {
        &self.0.instance_token
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.0.inbox
    }

    pub(crate) fn connects(&self) -> watch::Receiver<u64> {
        self.0.connects.clone()
    }

    pub(crate) fn presence(&self) -> broadcast::Receiver<Presence> {
        self.0.presence.subscribe()
    }

    pub(crate) fn copies(&self) -> &Arc<Semaphore> {
        &self.0.copies
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.0.closed
    }

    /// Runs a task that ends with the connection.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let closed = self.0.closed.clone();
        self.0.tasks.spawn(async move {
            tokio::select! { () = closed.cancelled() => {} () = task => {} }
        });
    }

    /// Whether "no responders" may only mean that the responders have not reconnected yet.
    pub(crate) fn recently_reconnected(&self) -> bool {
        let at = self.0.reconnected_at_ms.load(Ordering::Relaxed);
        let down = !self.is_connected();
        down || (at > 0 && self.0.started.elapsed() < Duration::from_millis(at) + RECONNECT_GRACE)
    }

    pub(crate) async fn publish(&self, subject: String, payload: impl Into<Bytes>) -> Result<(), BusError> {
        self.0
            .client
            .publish(subject, payload.into())
            .await
            .map_err(|_| BusError::Closed)
    }

    pub(crate) async fn publish_with_reply(
        &self,
        subject: String,
        reply: String,
        payload: impl Into<Bytes>,
    ) -> Result<(), BusError> {
        self.0
            .client
            .publish_with_reply(subject, reply, payload.into())
            .await
            .map_err(|_| BusError::Closed)
    }

    /// Publishes what somebody else has published, as it came.
    pub(crate) async fn hand_on(
        &self,
        subject: String,
        reply: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), BusError> {
        let client = &self.0.client;
        let published = match headers {
            Some(headers) => {
                client
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await
            }
            None => client.publish_with_reply(subject, reply, payload).await,
        };
        published.map_err(|_| BusError::Closed)
    }

    pub(crate) async fn publish_with_headers(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: impl Into<Bytes>,
    ) -> Result<(), BusError> {
        self.0
            .client
            .publish_with_headers(subject, headers, payload.into())
            .await
            .map_err(|_| BusError::Closed)
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, BusError> {
        subscribe(&self.0.client, subject).await
    }

    pub(crate) async fn queue_subscribe(&self, subject: String) -> Result<Subscriber, BusError> {
        let group = subject::QUEUE_GROUP.to_owned();
        self.0
            .client
            .queue_subscribe(subject, group)
            .await
            .map_err(BusError::Subscribe)
    }

    pub(crate) fn new_library_inbox(&self) -> String {
        self.0.client.new_inbox()
    }

    /// Publishes to its own inbox and waits for it: then the broker has taken everything that was sent before.
    ///
    /// # Errors
    /// [`BusError::Forbidden`] when it has refused a subscription of this process, [`BusError::Silent`] when it does not answer.
    pub async fn round_trip(&self) -> Result<(), BusError> {
        let (call, mailbox) = self.0.inbox.open();
        let inbox = Subject::Inbox {
            class: self.0.class,
            instance: self.0.instance_token.clone(),
            call,
        };
        let published = self.publish(inbox.to_string(), Bytes::new()).await;
        let heard = timeout(ROUND_TRIP, mailbox.next()).await;
        self.0.inbox.close(call);
        published?;
        if let Some(refused) = self.0.refusals.subscription() {
            let url = self.0.url.clone();
            return Err(BusError::Forbidden { url, refused });
        }
        heard.map(|_| ()).map_err(|_| BusError::Silent)
    }

    async fn watch_connection(
        self,
        mut events: tokio::sync::mpsc::UnboundedReceiver<Event>,
        connects: watch::Sender<u64>,
    ) {
        let mut first = true;
        while let Some(event) = events.recv().await {
            match event {
                Event::Connected if first => first = false,
                Event::Connected => {
                    let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.0.reconnected_at_ms.store(now.max(1), Ordering::Relaxed);
                    connects.send_modify(|count| *count += 1);
                    info!("reconnected to the bus");
                }
                Event::Disconnected => warn!("lost the connection to the bus; reconnecting"),
                Event::SlowConsumer(_) => {
                    warn!("messages from the bus were dropped: this process reads too slowly")
                }
                // Told of where it was noted.
                Event::ServerError(ServerError::Other(words)) if is_violation(&words) => {}
                Event::ServerError(error) => warn!(%error, "the broker reports an error"),
                Event::ClientError(error) => debug!(%error, "the bus client reports an error"),
                other => debug!(event = %other, "bus connection event"),
            }
        }
    }
}

async fn subscribe(client: &Client, subject: String) -> Result<Subscriber, BusError> {
    client.subscribe(subject).await.map_err(BusError::Subscribe)
}

/// Sixteen hex digits of fresh randomness, with a mark for processes that never serve.
fn new_instance_id(class: CallerClass) -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    match class {
        CallerClass::Node
        | CallerClass::Bridge
        | CallerClass::Host
        | CallerClass::Registry
        | CallerClass::Worker => id[16..].to_owned(),
        CallerClass::Cli => format!("{CLI_PREFIX}{}", &id[16..]),
    }
}
