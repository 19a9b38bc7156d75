//! The channels of HTTP+SSE clients that this process holds: what they POST, to whichever door, comes in here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::Principal;
use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

/// How many messages of one client may wait.
const MESSAGES_AHEAD: usize = 16;
/// How long a message waits for room.
const ROOM_LIMIT: Duration = Duration::from_secs(5);

/// A message as a client has sent it.
#[derive(Debug, PartialEq)]
pub(crate) struct Posted {
    /// Who it is from: the client of the channel, with what it may do by now.
    pub(crate) principal: Principal,
    pub(crate) message: Bytes,
}

/// The channels of one process, by the key of their client.
#[derive(Default)]
pub(crate) struct Channels {
    /// Held only to look up, insert or remove.
    open: Arc<Mutex<HashMap<String, mpsc::Sender<Posted>>>>,
}

/// A client's channel. It is closed when this is dropped.
pub(crate) struct Channel {
    open: Arc<Mutex<HashMap<String, mpsc::Sender<Posted>>>>,
    key: String,
    /// What the client sends.
    pub(crate) messages: mpsc::Receiver<Posted>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// It is where it belongs.
    Yes,
    /// The client sends more than it lets be answered.
    Full,
    /// There is no such channel here.
    Unknown,
    /// The process that holds the channel does not answer.
    Silent,
}

impl Channels {
    /// Opens a client's channel.
    pub(crate) fn open(&self, key: &str) -> Channel {
        let (sender, messages) = mpsc::channel(MESSAGES_AHEAD);
        lock(&self.open).insert(key.to_owned(), sender);
        Channel {
            open: Arc::clone(&self.open),
            key: key.to_owned(),
            messages,
        }
    }

    /// Hands a message to a client's channel.
    pub(crate) async fn hand(&self, key: &str, posted: Posted) -> Handed {
        let sender = lock(&self.open).get(key).cloned();
        let Some(sender) = sender else {
            return Handed::Unknown;
        };
        match timeout(ROOM_LIMIT, sender.send(posted)).await {
            Ok(Ok(())) => Handed::Yes,
            Ok(Err(_)) => Handed::Unknown,
            Err(_) => Handed::Full,
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        lock(&self.open).remove(&self.key);
    }
}

fn lock(
    open: &Mutex<HashMap<String, mpsc::Sender<Posted>>>,
) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<Posted>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_reach_the_channel_of_their_client() {
        let channels = Channels::default();
        let posted = || Posted {
            principal: Principal::developer(),
            message: "m".into(),
        };
        let mut mine = channels.open("mine");
        assert_eq!(channels.hand("foreign", posted()).await, Handed::Unknown);
        for _ in 0..MESSAGES_AHEAD {
            assert_eq!(channels.hand("mine", posted()).await, Handed::Yes);
        }
        assert_eq!(channels.hand("mine", posted()).await, Handed::Full);
        assert_eq!(mine.messages.recv().await, Some(posted()));
        drop(mine);
        assert_eq!(channels.hand("mine", posted()).await, Handed::Unknown);
    }
}
