//! The stream of notices of a session, which GET opens: changes of lists, and of resources that the session subscribed to.
//!
//! Its event ids say what the client knows of the lists. Whichever bridge it comes back to compares that with the present, and tells
//! what may have changed while nobody listened; so no bridge has to remember what it told.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use bus_schema::ProtocolVersion;
use bytes::{Bytes, BytesMut};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::debug;

use super::refused;
use crate::{
    auth::Admitted,
    http::{Door, events},
    legacy::{
        Room, Session, SessionError,
        listeners::Listening,
        notices::{Batch, Notices},
    },
};

/// How many pieces may wait for a client that reads slowly; beyond, notices of one thing become one.
const PIECES_AHEAD: usize = 4;
/// How often an open stream is written down as a use of its session.
const RENEW_EVERY: Duration = Duration::from_secs(5 * 60);

/// What the ids of these streams' events begin with.
const PREFIX: &str = "g.";

/// What the client knew of the lists at an event; `None` for an id that is of no such stream.
pub(super) fn digests(id: &str) -> Option<&str> {
    let (digests, number) = id.strip_prefix(PREFIX)?.rsplit_once('.')?;
    let _: u64 = number.parse().ok()?;
    Some(digests)
}

fn event_id(digests: &str, number: u64) -> String {
    format!("{PREFIX}{digests}.{number}")
}

/// Opens the stream. `since` is what the client knew when it was last told, if it was.
pub(super) async fn listen(
    door: &Door,
    session: Arc<Session>,
    who: &Admitted,
    since: Option<&str>,
) -> Response {
    let room = &door.room;
    let (listening, changes) = room.listeners.begin(&session.key, &door.stop);
    let here = room.door().to_owned();
    let hold = |session: &mut Session| session.listener = Some(here.clone());
    // Whoever changes the session after this tells this door, which is listening already.
    let held = match room.sessions.change(&session, hold).await {
        Ok(held) => held,
        Err(error) => return refused(&error, None),
    };
    if let Some(before) = session.listener.as_deref().filter(|before| *before != here) {
        let (room, session, before) = (room.clone(), held.clone(), before.to_owned());
        room.running
            .clone()
            .spawn(async move { room.take_over(&session, &before).await });
    }
    let notices = Notices::begin(
        room.front.clone(),
        (who.principal.clone(), held.endpoint.clone()),
        held.promised,
        held.subscribed.clone(),
        (since, changes),
    )
    .await;
    let first = match held.version {
        ProtocolVersion::V2025_11_25 => events::priming(&event_id(since.unwrap_or(&notices.digests()), 0)),
        _ => Bytes::new(),
    };
    let (out, pieces) = mpsc::channel(PIECES_AHEAD);
    let stop = listening.ended.clone();
    let telling = tell(room.clone(), held, listening, notices, out);
    let who = who.clone();
    room.running.spawn(async move {
        // The client comes back with another token, and is told what it has missed.
        tokio::select! { () = telling => {} _ = who.ended() => {} }
    });
    events::respond(first, pieces, stop)
}

/// Tells the client of changes until it goes, the session ends, or another stream takes this one's place.
async fn tell(
    room: Room,
    session: Session,
    listening: Listening,
    mut notices: Notices,
    out: mpsc::Sender<Bytes>,
) {
    let mut renew = interval(RENEW_EVERY);
    renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renew.reset();
    let mut number = 0;
    loop {
        let batch = tokio::select! {
            batch = notices.next() => batch,
            () = out.closed() => return,
            () = listening.ended.cancelled() => return,
            _ = renew.tick() => {
                if let Err(SessionError::Unknown) = room.sessions.change(&session, |_| {}).await {
                    debug!("a stream ends with its session");
                    return;
                }
                continue;
            }
        };
        number += 1;
        let sent = tokio::select! {
            sent = out.send(write(&batch, number)) => sent,
            () = listening.ended.cancelled() => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Notices that belong together bear one id, with the last of them: who has not got all of them is told all again.
fn write(batch: &Batch, number: u64) -> Bytes {
    let mut out = BytesMut::new();
    let id = event_id(&batch.digests, number);
    for (at, message) in batch.messages.iter().enumerate() {
        let is_last = at + 1 == batch.messages.len();
        events::write_message(&mut out, is_last.then_some(id.as_str()), message);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_says_what_the_client_knows() {
        assert_eq!(digests(&event_id("a.b.", 7)), Some("a.b."));
        for other in ["", "g.", "g.a.b.c.x", "c.a.b.c.7"] {
            assert_eq!(digests(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_notice_of_a_batch_bears_its_id() {
        let batch = Batch {
            messages: vec!["{}".into(), "[]".into()],
            digests: "a.b.c".to_owned(),
        };
        assert_eq!(
            write(&batch, 7),
            "event: message\ndata: {}\n\nid: g.a.b.c.7\nevent: message\ndata: []\n\n"
        );
    }
}
