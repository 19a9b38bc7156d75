//! The streams of notices that this process holds: one for each session, at one door.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::Principal;
use tokio::{sync::Mutex as AsyncMutex, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    notices::{Changed, Changing, changing},
    room::{Room, WORD_LIMIT},
    session::Session,
};

/// The streams of notices of one process, by the session's key.
#[derive(Default)]
pub(crate) struct Listeners {
    /// Held only to look up, insert or remove.
    by_session: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    last: u64,
    streams: HashMap<String, Listener>,
}

#[derive(Clone)]
struct Listener {
    number: u64,
    changing: Changing,
    /// Held from reading the session to telling the stream, so that what was read later is told later.
    following: Arc<AsyncMutex<()>>,
    ended: CancellationToken,
}

/// A session's stream of notices. It is forgotten when this is dropped.
pub(crate) struct Listening {
    by_session: Arc<Mutex<Open>>,
    session: String,
    number: u64,
    /// Cancelled when another stream takes its place, or the session ends.
    pub(crate) ended: CancellationToken,
}

impl Listeners {
    /// Begins to hold a session's stream; one that is held already ends.
    pub(crate) fn begin(&self, session: &str, parent: &CancellationToken) -> (Listening, Changed) {
        let (changing, changed) = changing();
        let ended = parent.child_token();
        let mut open = lock(&self.by_session);
        open.last += 1;
        let number = open.last;
        let listener = Listener {
            number,
            changing,
            following: Arc::default(),
            ended: ended.clone(),
        };
        if let Some(older) = open.streams.insert(session.to_owned(), listener) {
            older.ended.cancel();
        }
        let listening = Listening {
            by_session: Arc::clone(&self.by_session),
            session: session.to_owned(),
            number,
            ended,
        };
        (listening, changed)
    }

    /// Ends a session's stream.
    pub(crate) fn end(&self, session: &str) {
        if let Some(listener) = lock(&self.by_session).streams.get(session) {
            listener.ended.cancel();
        }
    }

    /// Has a session's stream follow what the session says by now.
    pub(super) async fn follow_at(&self, room: &Room, session: &str, principal: &Principal) {
        let listener = lock(&self.by_session).streams.get(session).cloned();
        let Some(listener) = listener else { return };
        let following = async {
            let _following = listener.following.lock().await;
            match room.sessions.at(session, principal).await {
                Ok(session) => listener.changing.change(session.subscribed).await,
                Err(error) => debug!(%error, "a stream could not follow its session"),
            }
        };
        if timeout(WORD_LIMIT, following).await.is_err() {
            debug!("a stream did not follow its session in time");
        }
    }

    /// The same for a session that is at hand.
    pub(super) async fn follow(&self, room: &Room, session: &Session) {
        self.follow_at(room, &session.key, &session.principal).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut open = lock(&self.by_session);
        if open
            .streams
            .get(&self.session)
            .is_some_and(|listener| listener.number == self.number)
        {
            open.streams.remove(&self.session);
        }
    }
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
