//! What a host subscribes to.

use std::sync::{MutexGuard, PoisonError};

use async_nats::Subscriber;
use bus_schema::{
    Token,
    subject::{self, Subject},
};
use futures::stream::{SelectAll, select_all};
use tokio_stream::StreamMap;
use tracing::warn;

use super::{
    HostError, HostOptions, Visibility,
    run::Shared,
    services::{self, Questions},
};
use crate::bus::{Bus, BusError};

/// How many versions of its server a host takes calls to: the present one, and those that it was before.
const MAX_VERSIONS: usize = 4;

/// The subscriptions of one host.
pub(super) struct Subscriptions {
    pub(super) calls: Calls,
    pub(super) words: SelectAll<Subscriber>,
    pub(super) cancels: Subscriber,
    pub(super) watch: Subscriber,
    pub(super) questions: Questions,
}

/// Those for calls: to any version, under no token, and to versions under theirs.
pub(super) type Calls = StreamMap<Option<Token>, Subscriber>;

/// A version that a host takes calls to from now on.
pub(super) struct NewVersion {
    version: Token,
    calls: Subscriber,
    /// The one in whose place it comes.
    given_up: Option<Token>,
}

impl NewVersion {
    /// Begins to read calls to it.
    pub(super) fn begin(self, all: &mut Calls) {
        if let Some(given_up) = self.given_up {
            all.remove(&Some(given_up));
        }
        all.insert(Some(self.version), self.calls);
    }
}

/// The versions that a host takes calls to, the one that it was longest ago first.
pub(super) struct Versions(Vec<Token>);

impl Versions {
    pub(super) fn new(version: Token) -> Self {
        Self(vec![version])
    }

    /// Whether calls to a version are taken; it is the present one from now on.
    fn has(&mut self, version: &Token) -> bool {
        let Some(at) = self.0.iter().position(|known| known == version) else {
            return false;
        };
        let version = self.0.remove(at);
        self.0.push(version);
        true
    }

    /// Notes one, and gives the one that is given up for it when there are too many.
    fn add(&mut self, version: Token) -> Option<Token> {
        self.0.push(version);
        (self.0.len() > MAX_VERSIONS).then(|| self.0.remove(0))
    }
}

/// Subscribes, and waits until the broker has taken that.
pub(super) async fn subscribe(
    bus: &Bus,
    options: &HostOptions,
    version: &Token,
) -> Result<Subscriptions, HostError> {
    let tenant = Token::encode(&options.tenant);
    let server = Token::encode(options.id.as_str());
    let instance = bus.instance_token();
    let words = [
        // In the group as well, of which it is the only member: so the broker need let nobody listen in on words to others.
        bus.queue_subscribe(subject::all_instance_words(&tenant, &server, instance))
            .await?,
        // The broker tells of callers that are gone only to those who are in no group.
        bus.subscribe(subject::all_gone(&tenant, &server, instance))
            .await?,
    ];
    let cancel = Subject::Cancel {
        tenant: tenant.clone(),
        server: server.clone(),
    };
    let cancels = bus.subscribe(cancel.to_string()).await?;
    let watched = Subject::Watch {
        tenant: tenant.clone(),
    };
    let watch = bus.subscribe(watched.to_string()).await?;
    let questions = match options.visibility {
        Visibility::Announced => services::subscribe(bus, options).await?,
        Visibility::Hidden => Questions::new(),
    };
    // Calls last: whoever reaches this replica finds it whole.
    let mut calls = Calls::new();
    if options.visibility == Visibility::Announced {
        let of_version = subscribe_version(bus, options, version).await?;
        calls.insert(Some(version.clone()), of_version);
    }
    let of_any = bus.queue_subscribe(subject::all_calls(&tenant, &server)).await?;
    calls.insert(None, of_any);
    // Announced is what the broker hands calls to, and not what it has yet to read.
    bus.round_trip().await?;
    Ok(Subscriptions {
        calls,
        words: select_all(words),
        cancels,
        watch,
        questions,
    })
}

async fn subscribe_version(
    bus: &Bus,
    options: &HostOptions,
    version: &Token,
) -> Result<Subscriber, BusError> {
    let tenant = Token::encode(&options.tenant);
    let server = Token::encode(options.id.as_str());
    let subject = subject::all_version_calls(&tenant, &server, version);
    bus.queue_subscribe(subject).await
}

impl Shared {
    /// Sees to it that calls to the version that the server has now are taken, before anybody hears of it. Calls to former versions still
    /// come, and go to replicas that have them.
    pub(super) async fn take_version(&self, version: &str) {
        let version = Token::encode(version);
        if self.versions().has(&version) {
            return;
        }
        let subscribing = async {
            let calls = subscribe_version(&self.bus, &self.options, &version).await?;
            self.bus.round_trip().await?;
            Ok::<_, BusError>(calls)
        };
        match subscribing.await {
            Ok(calls) => {
                let given_up = self.versions().add(version.clone());
                let new = NewVersion {
                    version,
                    calls,
                    given_up,
                };
                // The loop that reads them ends only with the host.
                drop(self.new_versions.send(new).await);
            }
            Err(error) => {
                warn!(%error, server.id = %self.options.id, "cannot take calls to the server's new version yet");
            }
        }
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
