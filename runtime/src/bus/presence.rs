//! What is heard from other processes: their answers, that they come and go, and that their connection has ended.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_nats::{Message, Subscriber};
use bus_schema::{
    ContentType, ServerCard, Token,
    subject::{self, EventKind, Subject},
};
use futures::StreamExt as _;
use serde::Deserialize;
use tracing::debug;

use super::{Bus, CLI_PREFIX};

/// A replica's coming or going.
#[derive(Clone, Debug)]
pub(crate) enum Presence {
    /// It is ready, or describes itself anew.
    Up(Arc<ServerCard>),
    /// It takes no more calls.
    Down(Arc<ServerCard>),
    /// The connection of an instance has ended, as the broker tells.
    Lost(Arc<str>),
}

/// Which servers an instance has left in order, each as its [`place`]; the end of its connection tells their calls nothing new.
type LeftServers = HashMap<Arc<str>, HashSet<Arc<str>>>;

impl Bus {
    /// Sorts answers to their calls, and tells calls of hosts that are gone. Answers first: what a host has sent before its end
    /// is read before its end is told. Likewise what a replica says of itself comes before what the broker says of it.
    pub(super) async fn listen(
        self,
        mut answers: Subscriber,
        mut replicas: Subscriber,
        mut disconnects: Subscriber,
    ) {
        let mut left = LeftServers::new();
        loop {
            tokio::select! {
                biased;
                Some(message) = answers.next() => self.0.inbox.deliver(message),
                Some(message) = replicas.next() => self.replica_says(&message, &mut left),
                Some(message) = disconnects.next() => {
                    if subject::is_disconnect(&message.subject) {
                        self.instance_lost(&message.payload, &mut left);
                    }
                }
                else => return,
            }
        }
    }

    fn replica_says(&self, message: &Message, left: &mut LeftServers) {
        let Ok(Subject::Event { kind, .. }) = Subject::parse(&message.subject) else {
            return;
        };
        let card: ServerCard = match ContentType::Json.decode(&message.payload) {
            Ok(card) => card,
            Err(error) => return debug!(%error, "ignored a card that cannot be read"),
        };
        let presence = match kind {
            EventKind::Up => {
                if let Some(servers) = left.get_mut(card.instance.as_str()) {
                    servers.remove(&*place(&card.tenant, card.id.as_str()));
                }
                Presence::Up(card.into())
            }
            EventKind::Down => Presence::Down(card.into()),
            EventKind::Left => {
                let server = Arc::from(place(&card.tenant, card.id.as_str()));
                let instance = Arc::from(card.instance);
                self.0.inbox.instance_left(&server, &instance);
                left.entry(instance).or_default().insert(server);
                return;
            }
            EventKind::Call | EventKind::Tool | EventKind::Status | EventKind::Task | EventKind::TaskStop => {
                return;
            }
        };
        // Nobody may be listening.
        let _ = self.0.presence.send(presence);
    }

    fn instance_lost(&self, event: &[u8], left: &mut LeftServers) {
        let Ok(event) = serde_json::from_slice::<DisconnectEvent>(event) else {
            return;
        };
        let name = event.client.name;
        // Only what may serve is worth a word: the command line and desktop clients come and go, and host nothing.
        if name.is_empty() || name.starts_with(CLI_PREFIX) || name == self.0.instance {
            return;
        }
        debug!(instance = %name, "a connection to the bus has ended");
        let name: Arc<str> = name.into();
        let left = left.remove(&name).unwrap_or_default();
        self.0.inbox.instance_lost(&name, &Arc::new(left));
        let _ = self.0.presence.send(Presence::Lost(name));
    }
}

/// What tells a server from all others of the bus: those of several tenants may have the same id.
pub(crate) fn place(tenant: &str, server: &str) -> String {
    format!("{}.{server}", Token::encode(tenant))
}

#[derive(Deserialize)]
struct DisconnectEvent {
    client: DisconnectedClient,
}

#[derive(Deserialize)]
struct DisconnectedClient {
    #[serde(default)]
    name: String,
}
