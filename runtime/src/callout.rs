//! The auth callout: the broker asks who a plain client is before it lets it in, and is told by a signed statement what that one may do.
//!
//! What travels, how it is sealed and who may sign it is here; what a client has to show, and what it may do, is not. Source: NATS
//! auth callout (ADR-26), JWT version 2.

mod claims;

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{Client, Subscriber};
use bus_schema::{Token, header, principal::DEFAULT_TENANT, subject};
use bytes::Bytes;
use futures::StreamExt as _;
use nkeys::{KeyPair, KeyPairType, XKey};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::bus::{connection, without_password};
use claims::Asked;

/// The account that the broker asks in, as `nats.conf` names it.
pub const ACCOUNT: &str = "AUTH";
/// The user that answers there.
pub const USER: &str = "callout";
/// The account of a tenant, before its name.
const TENANT_ACCOUNT: &str = "TENANT_";
/// How long the connection may take to stand.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The account of a tenant's plain clients.
#[must_use]
pub fn account_of(tenant: &str) -> String {
    match tenant {
        DEFAULT_TENANT => "DEFAULT".to_owned(),
        other => format!("{TENANT_ACCOUNT}{}", Token::encode(other)),
    }
}

/// The keys of the callout: one that signs what the broker is told, one that what it asks is sealed to. Not `Debug`, as they are secret.
#[derive(Clone)]
pub struct CalloutKeys {
    signing: Arc<KeyPair>,
    sealing: Arc<XKey>,
}

/// Says why the callout cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalloutError {
    /// A seed is none, or of another kind.
    #[error(
        "the {kind} seed of the callout cannot be used; `SA…` is one that signs, `SX…` one that is sealed to"
    )]
    Seed {
        /// Which.
        kind: &'static str,
    },
    /// NATS is not there, or does not take the callout's password.
    #[error("the auth callout cannot connect to NATS at {url} as the user `callout`; is its password right?")]
    Connect {
        /// The address without its password.
        url: String,
        /// What the client library says.
        #[source]
        source: async_nats::ConnectError,
    },
    /// NATS does not answer.
    #[error("NATS at {0} does not answer the auth callout")]
    Silent(String),
    /// A subscription was not taken.
    #[error("the auth callout cannot subscribe")]
    Subscribe(#[source] async_nats::SubscribeError),
}

impl CalloutKeys {
    /// Reads them from their seeds.
    ///
    /// # Errors
    /// [`CalloutError::Seed`] when one cannot be used.
    pub fn from_seeds(signing: &str, sealing: &str) -> Result<Self, CalloutError> {
        let bad = |kind| move |_| CalloutError::Seed { kind };
        let signing = KeyPair::from_seed(signing).map_err(bad("signing"))?;
        if signing.key_pair_type() != KeyPairType::Account {
            return Err(CalloutError::Seed { kind: "signing" });
        }
        Ok(Self {
            signing: Arc::new(signing),
            sealing: Arc::new(XKey::from_seed(sealing).map_err(bad("sealing"))?),
        })
    }

    /// The public key that the broker knows the statements by, `issuer` in its configuration.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.signing.public_key()
    }

    /// The public key that the broker seals its questions to, `xkey` in its configuration.
    #[must_use]
    pub fn sealed_to(&self) -> String {
        self.sealing.public_key()
    }
}

/// How the callout reaches the broker. Not `Debug`, as it holds secrets.
#[derive(Clone)]
pub struct CalloutOptions {
    /// Where NATS is; credentials in it are not looked at.
    pub url: String,
    /// The password of the callout's own user.
    pub password: String,
    /// Its keys.
    pub keys: CalloutKeys,
}

/// The connection on which the broker asks.
pub struct Callout {
    client: Client,
    keys: CalloutKeys,
    questions: Subscriber,
    departures: Subscriber,
}

/// What the broker says.
pub enum Word {
    /// A client wants to come in.
    Asks(Box<Question>),
    /// A connection has ended, of whomever.
    Left(Connection),
}

/// One connection of one broker. Neither is used again for another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    broker: String,
    number: u64,
}

/// One client that the broker asks about.
pub struct Question {
    reply: String,
    asked: Asked,
    /// The key that the answer is sealed to.
    server: Option<XKey>,
}

/// What a client that comes in may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose account it comes into.
    pub tenant: String,
    /// What the broker tells of it to whoever serves it; nothing that the client says can change that.
    pub name: String,
    /// The subjects that it may publish on; none lets it publish nothing.
    pub publish: Vec<String>,
    /// The subjects that it may subscribe to.
    pub subscribe: Vec<String>,
    /// Whether it answers hooks: what it is asked on one of its subjects, once each.
    pub answers: bool,
    /// When it has to come again, in seconds since 1970.
    pub expires_at: u64,
}

impl Question {
    /// The token or key that the client shows: its token, or else its password.
    #[must_use]
    pub fn shown(&self) -> Option<&str> {
        self.asked.shown()
    }
}

/// Where a client is and what it calls itself; nothing that it shows.
impl Question {
    /// Which connection it has.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.asked.connection()
    }

    /// The address that the client comes from, as the broker says.
    #[must_use]
    pub fn address(&self) -> &str {
        self.asked.address()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.asked.client())
    }
}

impl Callout {
    /// Connects as the callout's user, beside the process's own connection, and listens.
    ///
    /// # Errors
    /// [`CalloutError`] when NATS is not there or refuses.
    pub async fn open(options: CalloutOptions) -> Result<Self, CalloutError> {
        let shown = without_password(&options.url);
        let connect = connection("auth-callout")
            .custom_inbox_prefix(subject::CALLOUT_INBOX)
            .user_and_password(USER.to_owned(), options.password);
        let addresses = shown.split(',').map(str::trim).collect::<Vec<_>>();
        let client = match timeout(CONNECT_LIMIT, connect.connect(addresses)).await {
            Ok(connected) => connected.map_err(|source| CalloutError::Connect {
                url: shown.clone(),
                source,
            })?,
            Err(_) => return Err(CalloutError::Silent(shown)),
        };
        let questions = client
            .queue_subscribe(subject::CALLOUT, USER.to_owned())
            .await
            .map_err(CalloutError::Subscribe)?;
        let departures = client.subscribe(subject::DISCONNECTS).await;
        let departures = departures.map_err(CalloutError::Subscribe)?;
        match timeout(CONNECT_LIMIT, client.flush()).await {
            Ok(Ok(())) => {}
            _ => return Err(CalloutError::Silent(shown)),
        }
        Ok(Self {
            client,
            keys: options.keys,
            questions,
            departures,
        })
    }

    /// Waits for the next word; `None` once the connection is closed. What cannot be read is no word of our broker's.
    pub async fn next(&mut self) -> Option<Word> {
        loop {
            let message = tokio::select! {
                message = self.questions.next() => message?,
                Some(message) = self.departures.next() => match claims::ended(&message.payload) {
                    Some(connection) => return Some(Word::Left(connection)),
                    None => continue,
                },
            };
            let sealed_by = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get_last(header::NATS_SERVER_XKEY))
                .map(|key| key.as_str().to_owned());
            let Some(reply) = message.reply else { continue };
            match self.read(&message.payload, sealed_by.as_deref()) {
                Some((asked, server)) => {
                    let reply = reply.to_string();
                    return Some(Word::Asks(Box::new(Question { reply, asked, server })));
                }
                None => warn!(
                    "ignored a question about a client that cannot be read; does the broker have the xkey of this callout?"
                ),
            }
        }
    }

    fn read(&self, payload: &[u8], sealed_by: Option<&str>) -> Option<(Asked, Option<XKey>)> {
        match sealed_by {
            Some(key) => {
                let server = XKey::from_public_key(key).ok()?;
                let text = self.keys.sealing.open(payload, &server).ok()?;
                Some((Asked::read(&text)?, Some(server)))
            }
            // What clients show would cross the bus in the clear.
            None => None,
        }
    }

    /// What answers questions while others are waited for.
    #[must_use]
    pub fn answerer(&self) -> Answerer {
        Answerer {
            client: self.client.clone(),
            keys: self.keys.clone(),
        }
    }

    /// Ends the connection; clients that come later are refused by the broker when nobody else answers.
    pub async fn close(self) {
        if timeout(CONNECT_LIMIT, self.client.drain()).await.is_err() {
            debug!("the connection of the auth callout did not end in time");
        }
    }
}

/// Answers questions.
#[derive(Clone)]
pub struct Answerer {
    client: Client,
    keys: CalloutKeys,
}

impl Answerer {
    /// Lets a client in.
    pub async fn admit(&self, question: &Question, entry: &Entry) {
        let user = claims::user(&self.keys.signing, &question.asked, entry);
        self.answer(
            question,
            user.as_deref().ok_or("the statement could not be signed"),
        )
        .await;
    }

    /// Keeps a client out. The reason stands in the broker's log; the client hears that it is not authorized.
    pub async fn refuse(&self, question: &Question, reason: &str) {
        self.answer(question, Err(reason)).await;
    }

    /// Ends a client's connection, so that it has to come in again.
    ///
    /// # Errors
    /// What the broker says, or that it says nothing. The connection may have ended by itself.
    pub async fn send_away(&self, connection: &Connection) -> Result<(), String> {
        let subject = subject::end_connection(&Token::encode(&connection.broker));
        let wish = format!(r#"{{"cid":{}}}"#, connection.number);
        let asking = self.client.request(subject, Bytes::from(wish));
        match timeout(CONNECT_LIMIT, asking).await {
            Ok(Ok(answer)) => claims::done(&answer.payload),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the broker does not answer".to_owned()),
        }
    }

    async fn answer(&self, question: &Question, user: Result<&str, &str>) {
        let Some(text) = claims::response(&self.keys.signing, &question.asked, user) else {
            return warn!("an answer about a client could not be signed");
        };
        let sealed = match &question.server {
            Some(server) => self.keys.sealing.seal(text.as_bytes(), server).ok(),
            None => Some(text.into_bytes()),
        };
        let Some(sealed) = sealed else {
            return warn!("an answer about a client could not be sealed");
        };
        let published = self.client.publish(question.reply.clone(), Bytes::from(sealed));
        match timeout(CONNECT_LIMIT, published).await {
            Ok(Ok(())) => {}
            _ => debug!("the broker that has asked about a client is gone"),
        }
    }
}
