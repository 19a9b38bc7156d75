//! What is told of servers on the bus to whoever listens; nobody has to, and what nobody heard is not told again.

use std::marker::PhantomData;

use async_nats::Subscriber;
use bus_schema::{
    ContentType, Token, integrity,
    registry::StatusEvent,
    subject::{self, EventKind, Subject},
};
use futures::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tracing::debug;

use crate::bus::{Bus, BusError};

/// Something that is told of a server, as JSON.
pub trait Event: Serialize + DeserializeOwned {
    /// Of which kind it is.
    const KIND: EventKind;

    /// Whom it is about.
    fn server(&self) -> &str;
}

impl Event for integrity::Event {
    const KIND: EventKind = EventKind::Tool;

    fn server(&self) -> &str {
        self.server.as_str()
    }
}

impl Event for StatusEvent {
    const KIND: EventKind = EventKind::Status;

    fn server(&self) -> &str {
        self.server.as_str()
    }
}

impl Bus {
    /// Tells whoever listens.
    pub async fn tell<E: Event>(&self, tenant: &str, event: &E) {
        let subject = Subject::Event {
            tenant: Token::encode(tenant),
            server: Token::encode(event.server()),
            kind: E::KIND,
        };
        let payload = ContentType::Json.encode(event).expect("an event is always JSON");
        if let Err(error) = self.publish(subject.to_string(), payload).await {
            debug!(%error, %subject, "could not tell of an event");
        }
    }
}

/// What is told of one tenant's servers, as it happens.
pub struct Events<E> {
    messages: Subscriber,
    kind: PhantomData<fn() -> E>,
}

impl<E: Event> Events<E> {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses the subscription.
    pub async fn start(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        let messages = bus
            .subscribe(subject::all_events(&Token::encode(tenant), E::KIND))
            .await?;
        bus.round_trip().await?;
        Ok(Self {
            messages,
            kind: PhantomData,
        })
    }

    /// The next event; `None` when the bus connection has ended.
    pub async fn next(&mut self) -> Option<E> {
        loop {
            let message = self.messages.next().await?;
            match ContentType::Json.decode(&message.payload) {
                Ok(event) => return Some(event),
                Err(error) => debug!(%error, "ignored an event that cannot be read"),
            }
        }
    }
}
