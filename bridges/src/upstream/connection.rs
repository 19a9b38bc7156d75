//! An open conversation with a server, whatever carries it, and how one is made.
//!
//! A child process is one way to have a conversation. What runs the calls knows only what stands here.

use std::{
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use bus_schema::mcp::{Era, ProtocolVersion};
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::Value;

use super::{
    capabilities::Declared,
    error::UpstreamError,
    link::Link,
    options::EraKnob,
    remote::{Users, Whose},
};

/// An open conversation.
pub(super) struct Connection {
    pub(super) link: Arc<Link>,
    pub(super) session: Session,
    pub(super) carrier: Box<dyn Carrier>,
}

impl Connection {
    pub(super) fn new(link: Arc<Link>, session: Session, carrier: Box<dyn Carrier>) -> Self {
        if session.offers.logging && session.version.era() == Era::Legacy {
            link.levels.open();
        }
        Self {
            link,
            session,
            carrier,
        }
    }
}

/// How a server wants to be spoken with, as its handshake found out.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) version: ProtocolVersion,
    /// The answer to `server/discover`, for a server that does not know the question.
    pub(super) discovered: Option<String>,
    pub(super) offers: Offers,
}

/// What a server says that it can do, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    /// It writes log lines, from a level on.
    pub(super) logging: bool,
    /// It tells of changed resources.
    pub(super) subscribe: bool,
    /// It makes experimental tasks of tool calls (2025-11-25).
    pub(super) tasks: bool,
}

impl Offers {
    /// Reads a server's capabilities.
    pub(super) fn of(capabilities: &Value) -> Self {
        Self {
            logging: capabilities["logging"].is_object(),
            subscribe: capabilities["resources"]["subscribe"] == true,
            tasks: false,
        }
    }
}

/// How a conversation is begun.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) era: EraKnob,
    /// The version that a legacy handshake asks for.
    pub(super) version: ProtocolVersion,
    /// What a legacy handshake says that the client can be asked for.
    pub(super) declared: Declared,
    /// With whose credential, if not with the platform's.
    pub(super) user: Option<Whose>,
}

impl Opening {
    /// The conversation that everybody shares who can be asked nothing.
    pub(super) fn shared(era: EraKnob) -> Self {
        Self {
            era,
            version: ProtocolVersion::NEWEST_LEGACY,
            declared: Declared::default(),
            user: None,
        }
    }

    /// A further conversation with a legacy server whose version is known.
    pub(super) fn lane(version: ProtocolVersion, declared: Declared) -> Self {
        Self {
            era: EraKnob::Legacy,
            version,
            declared,
            user: None,
        }
    }

    /// The same with a credential of its user, with a server of either era.
    pub(super) fn for_user(self, user: Whose) -> Self {
        let era = match self.version.era() {
            Era::Legacy => EraKnob::Legacy,
            Era::Modern => EraKnob::Modern,
        };
        Self {
            era,
            user: Some(user),
            ..self
        }
    }
}

/// Makes conversations with one server.
pub(super) trait Connector: Send + Sync + 'static {
    /// Opens one.
    fn connect(&self, opening: Opening) -> BoxFuture<'_, Result<Connection, UpstreamError>>;

    /// Whether the transport tells which call a message of the server belongs to.
    fn association(&self) -> Association;

    /// The users who connect with credentials of their own, where they do.
    fn users(&self) -> Option<Arc<Users>> {
        None
    }

    /// What another conversation reaches.
    fn another(&self) -> Another {
        Another::Conversation
    }

    /// Ends when the server has to be started again, as it was given secrets that have changed since.
    fn outdated(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    /// How often it is to be asked whether the server is well, where something beside the conversation says so.
    fn health_every(&self) -> Option<Duration> {
        None
    }

    /// Asks that.
    fn ask_health(&self) -> BoxFuture<'_, Result<(), String>> {
        ready(Ok(())).boxed()
    }
}

/// What a transport tells of the messages that name no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Association {
    /// Nothing: all messages come the same way.
    None,
    /// They come on the stream of their call. [`super::inbound::take`] is told its number.
    Streams,
}

/// What another conversation with a server reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Another {
    /// The same server, which tells all its conversations of what changes.
    Conversation,
    /// A process of its own, and only that tells of what changes in it.
    Process,
}

/// What carries a conversation. Dropped, it ends, and its calls are answered with an error.
pub(super) trait Carrier: Send + 'static {
    /// Waits until the conversation cannot go on. Then its calls are answered.
    fn ended(&mut self) -> BoxFuture<'_, UpstreamError>;

    /// Ends it in order.
    fn shut_down(self: Box<Self>) -> BoxFuture<'static, ()>;
}
