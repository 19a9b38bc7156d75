//! Legacy sessions of one process: what a client said in its handshake.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    Principal, ProtocolVersion, RpcError,
    mcp::{Era, error},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Dialect,
    capabilities::{self, Asks},
};
use crate::{
    front::{Endpoint, Front},
    request::Incoming,
};

/// How many sessions one process holds; the one that was idle for longest goes first.
const MAX_SESSIONS: usize = 10_000;
/// How much a client may say of itself, as it is kept for the session and repeated with every call.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// How long a session may be idle.
const IDLE_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What a legacy client said of itself.
#[derive(Debug)]
pub(crate) struct Session {
    /// The negotiated version.
    pub(crate) version: ProtocolVersion,
    /// Whose session it is.
    pub(crate) principal: Principal,
    /// Which endpoint it is on.
    pub(crate) endpoint: Endpoint,
    /// The client's capabilities in modern form, as JSON.
    pub(crate) capabilities: String,
    /// The client's name and version, as JSON.
    pub(crate) client_info: Option<String>,
    /// From which level on the client wants log lines, as JSON. Held only to read or set it.
    log_level: Mutex<Option<String>>,
    /// The calls that can be cancelled, by the id as spelled. Held only to look up, insert or remove.
    calls: Mutex<HashMap<String, CancellationToken>>,
    /// Held only to read or set it.
    used: Mutex<Instant>,
}

/// Why a session cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// The request names none.
    Missing,
    /// There is none of that name for this client, here.
    Unknown,
}

impl Session {
    /// Makes a session from an `initialize` request, and the result that answers it.
    pub(crate) fn open(
        front: &Front,
        endpoint: Endpoint,
        principal: Principal,
        incoming: &Incoming,
    ) -> Result<(Self, Value), RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Initialize<'a> {
            protocol_version: String,
            #[serde(borrow, default)]
            capabilities: Option<&'a RawValue>,
            #[serde(borrow, default)]
            client_info: Option<&'a RawValue>,
        }
        if let Endpoint::Server(id) = &endpoint
            && front.card(&endpoint).is_none()
        {
            return Err(RpcError::new(
                error::INVALID_PARAMS,
                format!("no server `{id}` is on the bus"),
            ));
        }
        if incoming.body.len() > MAX_HANDSHAKE_BYTES {
            return Err(RpcError::invalid_params(format!(
                "`initialize` is longer than {MAX_HANDSHAKE_BYTES} bytes"
            )));
        }
        let params = incoming
            .params
            .clone()
            .map(|place| &incoming.body[place])
            .unwrap_or(b"{}");
        let asked: Initialize<'_> = serde_json::from_slice(params).map_err(|error| {
            RpcError::invalid_params(format!("the parameters of `initialize` are wrong: {error}"))
        })?;
        let version = negotiate(&asked.protocol_version);
        let mut result = json!({
            "protocolVersion": version.as_str(),
            "capabilities": capabilities::of_server(Dialect::plain(version), front.capabilities(&endpoint)),
            "serverInfo": capabilities::server_info(version, front.server_info(&endpoint)),
        });
        if let Some(instructions) = front.instructions(&endpoint) {
            result["instructions"] = instructions.into();
        }
        let session = Self {
            version,
            principal,
            endpoint,
            // No door carries questions to legacy clients yet.
            capabilities: capabilities::of_client(version, asked.capabilities, Asks::Nothing),
            client_info: asked.client_info.map(|raw| raw.get().to_owned()),
            log_level: Mutex::default(),
            calls: Mutex::default(),
            used: Mutex::new(Instant::now()),
        };
        Ok((session, result))
    }

    /// How to speak with the client.
    pub(crate) fn dialect(&self) -> Dialect {
        Dialect::plain(self.version)
    }

    pub(crate) fn log_level(&self) -> Option<String> {
        self.log_level
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_log_level(&self, level: String) {
        *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }

    /// Registers a call for cancellation; it is forgotten when the guard is dropped.
    pub(crate) fn begin_call(self: &Arc<Self>, id: &str) -> CallGuard {
        let cancelled = CancellationToken::new();
        self.calls().insert(id.to_owned(), cancelled.clone());
        CallGuard {
            session: Arc::clone(self),
            id: id.to_owned(),
            cancelled,
        }
    }

    /// Cancels a call; an unknown one has ended already.
    pub(crate) fn cancel_call(&self, id: &str) {
        if let Some(call) = self.calls().get(id) {
            call.cancel();
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle_since(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running call of a session.
pub(crate) struct CallGuard {
    session: Arc<Session>,
    id: String,
    /// Cancelled when the client says so.
    pub(crate) cancelled: CancellationToken,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.session.calls().remove(&self.id);
    }
}

/// Settles on a version: the client's if it is a legacy one that is spoken here, else the newest legacy one.
fn negotiate(asked: &str) -> ProtocolVersion {
    match asked.parse::<ProtocolVersion>() {
        Ok(version) if version.era() == Era::Legacy => version,
        _ => ProtocolVersion::NEWEST_LEGACY,
    }
}

/// The sessions of one process.
#[derive(Default)]
pub(crate) struct Sessions {
    /// Held only to look up, insert or remove.
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Keeps a session under a fresh unguessable id.
    pub(crate) fn keep(&self, session: Session) -> String {
        // Version 7 carries 74 random bits; two of them leave nothing to guess.
        let id = format!("{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple());
        let mut sessions = self.lock();
        if sessions.len() >= MAX_SESSIONS {
            make_room(&mut sessions);
        }
        sessions.insert(id.clone(), Arc::new(session));
        id
    }

    /// The session of a request. A foreign one is as unknown as none.
    pub(crate) fn find(
        &self,
        id: Option<&str>,
        endpoint: &Endpoint,
        principal: &Principal,
    ) -> Result<Arc<Session>, SessionError> {
        let id = id.ok_or(SessionError::Missing)?;
        let mut sessions = self.lock();
        let session = sessions.get(id).cloned().ok_or(SessionError::Unknown)?;
        if session.endpoint != *endpoint || session.principal != *principal {
            return Err(SessionError::Unknown);
        }
        if session.idle_since().elapsed() > IDLE_LIMIT {
            sessions.remove(id);
            return Err(SessionError::Unknown);
        }
        session.touch();
        Ok(session)
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops what is idle for too long, and else the tenth that was idle for longest, so that this is done seldom.
fn make_room(sessions: &mut HashMap<String, Arc<Session>>) {
    sessions.retain(|_, session| session.idle_since().elapsed() <= IDLE_LIMIT);
    if sessions.len() < MAX_SESSIONS {
        return;
    }
    let mut by_age: Vec<_> = sessions
        .iter()
        .map(|(id, session)| (session.idle_since(), id.clone()))
        .collect();
    by_age.sort();
    for (_, id) in by_age.into_iter().take(MAX_SESSIONS / 10) {
        sessions.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_settles_on_a_legacy_version() {
        for (asked, settled) in [
            ("2024-11-05", "2024-11-05"),
            ("2025-03-26", "2025-03-26"),
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("1999-01-01", "2025-11-25"),
        ] {
            assert_eq!(negotiate(asked).as_str(), settled);
        }
    }
}
