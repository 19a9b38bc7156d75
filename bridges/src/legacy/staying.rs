//! In which versions servers serve a session of the HTTP door: it stands in the session's record, so that every bridge knows it.

use std::collections::BTreeMap;

use bus_schema::{Principal, ServerId};
use futures::future::BoxFuture;
use tracing::warn;

use super::{Room, Session};
use crate::front::{Stay, Staying};

struct Recorded {
    room: Room,
    key: String,
    principal: Principal,
    since_ms: u64,
    versions: BTreeMap<ServerId, String>,
}

/// What keeps a session with the versions that it has begun on.
pub(crate) fn staying(room: &Room, session: &Session) -> Staying {
    Staying::new(Recorded {
        room: room.clone(),
        key: session.key.clone(),
        principal: session.principal.clone(),
        since_ms: session.opened_ms,
        versions: session.versions.clone(),
    })
}

impl Stay for Recorded {
    fn since_ms(&self) -> u64 {
        self.since_ms
    }

    fn version(&self, server: &ServerId) -> Option<String> {
        self.versions.get(server).cloned()
    }

    fn note<'a>(&'a self, server: &'a ServerId, version: &'a str) -> BoxFuture<'a, String> {
        Box::pin(async move {
            let edit = |session: &mut Session| {
                session
                    .versions
                    .entry(server.clone())
                    .or_insert_with(|| version.to_owned());
            };
            match self
                .room
                .sessions
                .change_at(&self.key, &self.principal, edit)
                .await
            {
                Ok(session) => session.versions.get(server).cloned(),
                Err(error) => {
                    // It is served all the same; the next request tries again.
                    warn!(%error, server.id = %server, "cannot note in which version a session is served");
                    None
                }
            }
            .unwrap_or_else(|| version.to_owned())
        })
    }
}
