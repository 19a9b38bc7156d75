//! Watching calls live: hosts tell of every call that ends, but only while somebody watches, so that it costs nothing otherwise.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    Principal, Request, Token,
    rpc::Message,
    subject::{EventKind, Subject},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    bus::{Bus, BusError},
    events::{Event, Events},
    moment,
    telemetry::Ended,
};

/// For how long one request to watch holds.
const LEASE: Duration = Duration::from_secs(10);
/// How often a watcher renews it.
const RENEW: Duration = Duration::from_secs(3);

/// What a request to watch says that wants to see what calls are given. Without these words nobody is told of that.
const WITH_ARGUMENTS: &[u8] = b"arguments";
/// How many bytes of arguments are told.
const MAX_ARGUMENTS: usize = 64 * 1024;

/// Until when a host tells of its calls.
#[derive(Default)]
pub(crate) struct WatchedUntil(Mutex<Until>);

#[derive(Clone, Copy, Default)]
struct Until {
    calls: Option<Instant>,
    arguments: Option<Instant>,
}

impl WatchedUntil {
    /// Goes on for a while. `wish` is what somebody says who watches.
    pub(crate) fn extend(&self, wish: &[u8]) {
        let until = Some(Instant::now() + LEASE);
        let mut held = self.lock();
        held.calls = until;
        if wish == WITH_ARGUMENTS {
            held.arguments = until;
        }
    }

    pub(crate) fn now(&self) -> bool {
        let until = *self.lock();
        until.calls.is_some_and(|until| Instant::now() < until)
    }

    /// What is to be remembered of a request, so that it can be told of.
    pub(crate) fn describe(&self, request: &Request) -> Described {
        let until = *self.lock();
        let tells = until.arguments.is_some_and(|until| Instant::now() < until);
        Described {
            body: tells.then(|| request.body.0.clone()),
            ..Described::of(request)
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Until> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Who vouches for the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The program that the caller came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What the caller is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What the caller was granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// What the call was given, where somebody who watches wants to see that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Box<RawValue>>,
    /// When it ended, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
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
    principal: Principal,
    body: Option<Bytes>,
    door: String,
    trace_id: Option<String>,
}

impl Described {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            method: request.method.clone(),
            name: request.name.clone(),
            protocol_version: request.protocol_version.clone(),
            principal: request.principal.clone(),
            body: None,
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
        let arguments = self.body.as_deref().and_then(arguments);
        let Principal {
            subject,
            tenant,
            issuer,
            client,
            roles,
            scopes,
        } = self.principal;
        CallEvent {
            issuer,
            client,
            roles,
            scopes,
            arguments,
            at: Some(moment::now()),
            tenant,
            server: server.to_owned(),
            instance: bus.instance().to_owned(),
            method: self.method,
            name: self.name,
            subject,
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

fn arguments(body: &[u8]) -> Option<Box<RawValue>> {
    let arguments = Message::parse(body).ok()?.peek_params().ok()?.arguments?;
    (arguments.get().len() <= MAX_ARGUMENTS).then(|| arguments.to_owned())
}

impl CallEvent {
    /// Who called.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal {
            issuer: self.issuer.clone(),
            client: self.client.clone(),
            roles: self.roles.clone(),
            scopes: self.scopes.clone(),
            ..Principal::new(&self.subject, &self.tenant)
        }
    }
}

impl Event for CallEvent {
    const KIND: EventKind = EventKind::Call;

    fn server(&self) -> &str {
        &self.server
    }
}

/// The calls of one tenant, as they end.
pub struct CallWatch {
    events: Events<CallEvent>,
}

impl CallWatch {
    /// Asks all hosts of a tenant to tell of their calls for as long as the bus connection stands.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses the subscription.
    pub async fn start(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        Self::saying(bus, tenant, b"").await
    }

    /// The same, and to tell what calls are given. That may be secret; whoever asks for it has to see to it.
    ///
    /// # Errors
    /// [`BusError`] when the bus refuses the subscription.
    pub async fn with_arguments(bus: &Bus, tenant: &str) -> Result<Self, BusError> {
        Self::saying(bus, tenant, WITH_ARGUMENTS).await
    }

    async fn saying(bus: &Bus, tenant: &str, wish: &'static [u8]) -> Result<Self, BusError> {
        let events = Events::start(bus, tenant).await?;
        let tenant = Token::encode(tenant);
        let renewing = bus.clone();
        bus.spawn(async move {
            let mut renew = interval(RENEW);
            renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                renew.tick().await;
                let subject = Subject::Watch {
                    tenant: tenant.clone(),
                };
                if renewing
                    .publish(subject.to_string(), wish.to_vec())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { events })
    }

    /// Waits for the next call to end; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<CallEvent> {
        self.events.next().await
    }
}
