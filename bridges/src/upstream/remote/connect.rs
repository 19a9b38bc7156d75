//! Finds out how a remote server is spoken with, and opens a connection in that way.
//!
//! At an `http` URL the modern question goes first. An answer of the modern era settles it; a refusal that says nothing of that era
//! leads to `initialize`, and a refusal of that to the stream of the first transport. What says nothing about eras, such as wrong
//! credentials or a server that is down, ends the attempt. Source: MCP 2026-07-28, Streamable HTTP, backward compatibility.

use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bus_schema::{ServerId, mcp::Era};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use url::Url;

use crate::upstream::{
    connection::{Association, Connection, Connector, Opening, Session},
    error::UpstreamError,
    handshake::{Opened, converse},
    link::{Link, Outgoing},
    options::{EraKnob, Limits},
};

use super::{
    client::Client,
    connection::Remote,
    credentials::Credentials,
    dial::Dialer,
    error::{RemoteError, chain},
    exchange::Exchange,
    guard::Reach,
    http_sse::HttpSse,
    modern::Modern,
    options::{RemoteOptions, TransportKnob, to_uri},
    page::Page,
    probe::{self, NotModern},
    pump::pump,
    session::{self, Legacy, NotOpened},
    tls,
    users::{UserToken, Users, Whose},
    ws::Socket,
};

/// How long everything up to the first call may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// A server as all connections to it share it: its address, its connection pool, its credentials.
pub(in crate::upstream) struct Server {
    id: ServerId,
    url: Url,
    transport: TransportKnob,
    era: EraKnob,
    client: Arc<Client>,
    page: Option<Page>,
    /// For connections of single users.
    users: Option<Arc<Users>>,
    dialer: Dialer,
    options: RemoteOptions,
}

/// What a server was found to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Found {
    transport: TransportKnob,
    era: EraKnob,
}

impl Found {
    /// Whether what belongs to a call comes on a stream of its own.
    pub(super) fn has_streams(self) -> bool {
        self.transport == TransportKnob::Http
    }

    /// The same, in an era that is known by now.
    pub(super) fn in_era(self, era: Era) -> Self {
        let era = match era {
            Era::Legacy => EraKnob::Legacy,
            Era::Modern => EraKnob::Modern,
        };
        Self { era, ..self }
    }
}

impl Server {
    /// Reads the settings of a server; nothing is connected yet.
    ///
    /// # Errors
    /// [`RemoteError`] that names what cannot be used.
    pub(super) fn new(options: &RemoteOptions) -> Result<Self, RemoteError> {
        let url = options.url()?;
        let transport = options.transport_of(&url)?;
        let dialer = Dialer::new(
            Reach::of(options.allow_private),
            tls::connector(options.ca_file.as_deref())?,
        );
        let page = match options.health_page()? {
            Some(page) => Some(Page::new(to_uri(&page)?, options.health_every, dialer.clone())),
            None => None,
        };
        options.check()?;
        let credentials = Credentials::new(options, &dialer)?;
        let client = Client::new(dialer.clone(), options.standing_headers()?, credentials);
        let users = options.users.as_ref();
        let users = users.map(|users| Users::new(users, options, &url, dialer.clone()));
        Ok(Self {
            id: options.id.clone(),
            users,
            dialer,
            options: options.clone(),
            url,
            transport,
            era: options.era,
            client: Arc::new(client.retrying(options.retry)),
            page,
        })
    }

    /// A client that shows what a user has given, and shares nothing with those of others.
    /// Beside it is what tells that this counts no more.
    fn client_of(
        &self,
        whose: &Whose,
        users: &Arc<Users>,
    ) -> Result<(Arc<Client>, CancellationToken), RemoteError> {
        let token = UserToken::new(Arc::clone(users), whose.clone());
        let gone = token.gone();
        let credentials = Credentials::of_user(&self.options, token)?;
        let standing = self.options.standing_headers()?;
        let client = Client::new(self.dialer.clone(), standing, credentials);
        Ok((Arc::new(client), gone))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`UpstreamError`] when the server is not there, or speaks in no way that is known here.
    pub(in crate::upstream) async fn connect(
        &self,
        known: Option<Found>,
        opening: &Opening,
        limits: Limits,
    ) -> Result<(Remote, Session), UpstreamError> {
        let (client, gone) = match (&opening.user, &self.users) {
            (Some(whose), Some(users)) => {
                let (client, gone) = self.client_of(whose, users)?;
                (client, Some(gone))
            }
            _ => (Arc::clone(&self.client), None),
        };
        let attempt = Attempt {
            server: self,
            client,
            opening,
            limits,
        };
        let known = known.unwrap_or(Found {
            transport: self.transport,
            era: self.era,
        });
        let known = match opening.era {
            EraKnob::Auto => known,
            era => Found { era, ..known },
        };
        let connected = timeout(CONNECT_LIMIT, attempt.open(known)).await;
        let (remote, session) = connected.unwrap_or(Err(RemoteError::Late(CONNECT_LIMIT).into()))?;
        Ok(match gone {
            Some(gone) => (remote.until_forgotten(gone), session),
            None => (remote, session),
        })
    }
}

/// Connects to one server, and remembers how it is spoken with.
pub(in crate::upstream) struct RemoteConnector {
    server: Server,
    limits: Limits,
    /// What the last connection was found to speak, so that the next need not find out again. Held only to read or set it.
    found: Mutex<Option<Found>>,
}

impl RemoteConnector {
    /// Reads the settings of a server; nothing is connected yet.
    ///
    /// # Errors
    /// [`RemoteError`] that names what cannot be used.
    pub(in crate::upstream) fn new(options: &RemoteOptions, limits: Limits) -> Result<Self, RemoteError> {
        Ok(Self {
            server: Server::new(options)?,
            limits,
            found: Mutex::new(None),
        })
    }

    fn found(&self) -> MutexGuard<'_, Option<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for RemoteConnector {
    fn connect(&self, opening: Opening) -> BoxFuture<'_, Result<Connection, UpstreamError>> {
        async move {
            let known = *self.found();
            let connected = self.server.connect(known, &opening, self.limits).await;
            // A server that cannot be connected to may have become another one; that a user is not let in says nothing of it.
            if opening.user.is_none() {
                *self.found() = connected.as_ref().ok().map(|(remote, _)| remote.found());
            }
            let (remote, session) = connected?;
            let link = Arc::clone(remote.link());
            Ok(Connection::new(link, session, Box::new(remote)))
        }
        .boxed()
    }

    fn health_every(&self) -> Option<Duration> {
        self.server.page.as_ref().map(|page| page.every)
    }

    fn ask_health(&self) -> BoxFuture<'_, Result<(), String>> {
        match &self.server.page {
            Some(page) => page.ask().boxed(),
            None => ready(Ok(())).boxed(),
        }
    }

    fn users(&self) -> Option<Arc<Users>> {
        self.server.users.clone()
    }

    fn association(&self) -> Association {
        match *self.found() {
            Some(found) if found.has_streams() => Association::Streams,
            _ => Association::None,
        }
    }
}

/// One attempt to connect.
struct Attempt<'a> {
    server: &'a Server,
    client: Arc<Client>,
    opening: &'a Opening,
    limits: Limits,
}

type Connected = Result<(Remote, Session), UpstreamError>;

impl Attempt<'_> {
    async fn open(&self, known: Found) -> Connected {
        match known.transport {
            TransportKnob::Ws => self.web_socket(known.era).await,
            TransportKnob::Sse => self.http_sse().await,
            TransportKnob::Auto | TransportKnob::Http => self.http(known).await,
        }
    }

    fn link(&self) -> (Arc<Link>, mpsc::Receiver<Outgoing>) {
        Link::new(
            self.server.id.clone(),
            self.opening.declared.clone(),
            self.limits.unread,
        )
    }

    async fn http(&self, known: Found) -> Connected {
        let (link, queue) = self.link();
        let exchange = Exchange::new(link, Arc::clone(&self.client), to_uri(&self.server.url)?);
        if known.era != EraKnob::Legacy {
            match probe::discover(&exchange).await {
                Ok(opened) => return Ok(modern(exchange, queue, opened)),
                Err(NotModern::Legacy(why)) if known.era == EraKnob::Auto => {
                    debug!(server.id = %self.server.id, why, "the server is not modern");
                }
                Err(NotModern::Legacy(why)) => return Err(UpstreamError::NotModern(why)),
                Err(NotModern::Failed(error)) => return Err(error),
            }
        }
        let refused = match session::initialize(&exchange, &self.opening.declared).await {
            Ok(opened) => return Ok(legacy(exchange, queue, self.opening, opened)),
            Err(refused) => refused,
        };
        if known.transport == TransportKnob::Http || !refused.leaves_a_choice() {
            return Err(refused.into());
        }
        let http = chain(&UpstreamError::from(refused));
        self.http_sse().await.map_err(|error| match error {
            error @ UpstreamError::Remote(RemoteError::Denied(_)) => error,
            error => {
                let sse = chain(&error);
                RemoteError::NoTransport { http, sse }.into()
            }
        })
    }

    async fn http_sse(&self) -> Connected {
        let (link, queue) = self.link();
        let client = Arc::clone(&self.client);
        let (sse, events) = HttpSse::open(Arc::clone(&link), client, &self.server.url).await?;
        let sse = Arc::new(sse);
        let health = Arc::clone(&sse.exchange.health);
        let found = Found {
            transport: TransportKnob::Sse,
            era: EraKnob::Legacy,
        };
        let mut remote = Remote::new(Arc::clone(&link), Arc::clone(&health), found);
        let reader = Arc::clone(&sse);
        remote.accompany(async move { reader.read(events).await });
        remote.carry(pump(link, Arc::clone(&sse), queue));
        let (session, _) = self.converse(&mut remote, EraKnob::Legacy).await?;
        remote.watch(health, sse);
        Ok((remote, session))
    }

    async fn web_socket(&self, era: EraKnob) -> Connected {
        match self.web_socket_in(era).await {
            // Some servers hang up on any request that comes before `initialize`.
            Err(UpstreamError::Remote(RemoteError::Gone(why))) if era == EraKnob::Auto => {
                debug!(server.id = %self.server.id, why, "the server hung up on a modern question; asking a legacy one");
                self.web_socket_in(EraKnob::Legacy).await
            }
            connected => connected,
        }
    }

    async fn web_socket_in(&self, era: EraKnob) -> Connected {
        let (link, queue) = self.link();
        let socket = Socket::open(&self.client, &to_uri(&self.server.url)?).await?;
        let health = Arc::default();
        let found = Found {
            transport: TransportKnob::Ws,
            era,
        };
        let mut remote = Remote::new(Arc::clone(&link), Arc::clone(&health), found);
        remote.carry(socket.talk(link, health, queue));
        let (session, changes) = self.converse(&mut remote, era).await?;
        remote.settle(session.version.era());
        if let Some(wanted) = changes {
            remote.listen(wanted);
        }
        Ok((remote, session))
    }

    /// Makes the handshake over the conversation itself. The end of the connection explains whatever else goes wrong.
    async fn converse(&self, remote: &mut Remote, era: EraKnob) -> Result<Opened, UpstreamError> {
        let link = Arc::clone(remote.link());
        let opening = Opening {
            era,
            ..self.opening.clone()
        };
        tokio::select! {
            biased;
            error = remote.ended() => Err(error),
            opened = converse(&link, &opening, self.limits) => opened,
        }
    }
}

fn modern(
    exchange: Exchange,
    queue: mpsc::Receiver<Outgoing>,
    (session, changes): Opened,
) -> (Remote, Session) {
    exchange.tools.speak(Era::Modern);
    let (link, health) = (Arc::clone(&exchange.link), Arc::clone(&exchange.health));
    let server = Arc::new(Modern {
        exchange,
        version: session.version,
    });
    let found = Found {
        transport: TransportKnob::Http,
        era: EraKnob::Modern,
    };
    let mut remote = Remote::new(Arc::clone(&link), Arc::clone(&health), found);
    remote.carry(pump(link, Arc::clone(&server), queue));
    remote.watch(health, server);
    if let Some(wanted) = changes {
        remote.listen(wanted);
    }
    (remote, session)
}

fn legacy(
    exchange: Exchange,
    queue: mpsc::Receiver<Outgoing>,
    opening: &Opening,
    opened: session::Opened,
) -> (Remote, Session) {
    exchange.tools.speak(Era::Legacy);
    let (link, health) = (Arc::clone(&exchange.link), Arc::clone(&exchange.health));
    let session = opened.session.clone();
    let server = Arc::new(Legacy::new(exchange, opening.declared.clone(), opened));
    let found = Found {
        transport: TransportKnob::Http,
        era: EraKnob::Legacy,
    };
    let mut remote =
        Remote::new(Arc::clone(&link), Arc::clone(&health), found).in_session(Arc::clone(&server));
    remote.carry(pump(link, Arc::clone(&server), queue));
    let listening = Arc::clone(&server);
    remote.accompany(async move { listening.listen().await });
    remote.watch(health, server);
    (remote, session)
}

impl NotOpened {
    /// Whether the server may still speak the first transport.
    fn leaves_a_choice(&self) -> bool {
        match self {
            Self::Remote(RemoteError::Status { status, .. }) | Self::Other { status, .. } => {
                probe::is_choice(*status)
            }
            Self::Remote(_) => false,
        }
    }
}

impl From<NotOpened> for UpstreamError {
    fn from(refused: NotOpened) -> Self {
        match refused {
            NotOpened::Remote(error) => error.into(),
            NotOpened::Other { error, .. } => error,
        }
    }
}
