//! Watching calls live: hosts tell of every call that ends, but only while somebody watches, so that it costs nothing otherwise.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::Subscriber;
use bus_schema::{
    ContentType, Request, Token,
    subject::{self, EventKind, Subject},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;

use crate::{
    bus::{Bus, BusError},
    telemetry::Ended,
};

/// For how long one request to watch holds.
const LEASE: Duration = Duration::from_secs(10);
/// How often a watcher renews it.
const RENEW: Duration = Duration::from_secs(3);

/// Until when a host tells of its calls.
#[derive(Default)]
pub(crate) struct WatchedUntil(Mutex<Option<Instant>>);

impl WatchedUntil {
    pub(crate) fn extend(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LEASE);
    }

    pub(crate) fn now(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }
}

/// A call that has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallEvent {
    /// Whose server.
    pub tenant: String,
    /// Which server.
    pub server: String,
    /// The replica that worked on it.
    pub instance: String,
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who called.
    pub subject: String,
    /// The door it came through.
    pub door: String,
    /// The protocol version of the client.
    pub protocol_version: String,
    /// How it ended.
    pub ended: Ended,
    /// The JSON-RPC error code of an answer that is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// How long it took at the host, in microseconds.
    pub duration_us: u64,
    /// The length of the request's body.
    pub request_bytes: usize,
    /// The length of the answer's body.
    pub answer_bytes: usize,
    /// The trace that it was part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// What a host remembers of a request after its handler has taken it.
pub(crate) struct Described {
    pub(crate) method: String,
    pub(crate) name: Option<String>,
    pub(crate) protocol_version: String,
    tenant: String,
    subject: String,
    door: String,
    trace_id: Option<String>,
}

impl Described {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            method: request.method.clone(),
            name: request.name.clone(),
            protocol_version: request.protocol_version.clone(),
            tenant: request.principal.tenant.clone(),
            subject: request.principal.subject.clone(),
            door: request.door.clone(),
            trace_id: request.trace.as_ref().map(|trace| trace.trace_id().to_owned()),
        }
    }

    pub(crate) fn into_event(
        self,
        bus: &Bus,
        server: &str,
        duration: Duration,
        ended: Ended,
        code: Option<i64>,
        (request_bytes, answer_bytes): (usize, usize),
    ) -> CallEvent {
        CallEvent {
            tenant: self.tenant,
            server: server.to_owned(),
            instance: bus.instance().to_owned(),
            method: self.method,
            name: self.name,
            subject: self.subject,
            door: self.door,
            protocol_version: self.protocol_version,
            ended,
            code,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            request_bytes,
            answer_bytes,
            trace_id: self.trace_id,
        }
    }
}

impl CallEvent {
    pub(crate) async fn publish(&self, bus: &Bus) {
        let subject = Subject::Event {
            tenant: Token::encode(&self.tenant),
            server: Token::encode(&self.server),
            kind: EventKind::Call,
        };
        let payload = ContentType::Json.encode(self).expect("an event is always JSON");
        if let Err(error) = bus.publish(subject.to_string(), payload).await {
            debug!(%error, "could not tell of a call");
        }
    }
}

/// The calls of one tenant, as they end.
pub struct CallWatch {
    events: Subscriber,
}

impl CallWatch {
    /// Asks all hosts of a tenant to tell of their calls for as long as the bus connection stands.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses the subscription.
    pub async fn start(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        let tenant = Token::encode(tenant);
        let events = bus.subscribe(subject::all_call_events(&tenant)).await?;
        bus.round_trip().await?;
        let renewing = bus.clone();
        bus.spawn(async move {
            let mut renew = interval(RENEW);
            renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                renew.tick().await;
                let subject = Subject::Watch {
                    tenant: tenant.clone(),
                };
                if renewing.publish(subject.to_string(), Vec::new()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { events })
    }

    /// Waits for the next call to end; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<CallEvent> {
        loop {
            let message = self.events.next().await?;
            match ContentType::Json.decode(&message.payload) {
                Ok(event) => return Some(event),
                Err(error) => debug!(%error, "ignored an event that cannot be read"),
            }
        }
    }
}
