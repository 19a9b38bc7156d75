//! What a host subscribes to.

use async_nats::Subscriber;
use bus_schema::{
    Token,
    subject::{self, Subject},
};
use futures::stream::SelectAll;
use tracing::warn;

use super::{
    HostError, HostOptions, Visibility,
    run::Shared,
    services::{self, Questions},
};
use crate::bus::Bus;

/// The subscriptions of one host.
pub(super) struct Subscriptions {
    /// Those to any version, and those to each that the server has had here.
    pub(super) calls: SelectAll<Subscriber>,
    pub(super) words: Subscriber,
    pub(super) cancels: Subscriber,
    pub(super) watch: Subscriber,
    pub(super) questions: Questions,
}

/// Subscribes, and waits until the broker has taken that.
pub(super) async fn subscribe(
    bus: &Bus,
    options: &HostOptions,
    version: &Token,
) -> Result<Subscriptions, HostError> {
    let tenant = Token::encode(&options.tenant);
    let server = Token::encode(options.id.as_str());
    let words = bus
        .subscribe(subject::all_instance_words(&server, bus.instance_token()))
        .await?;
    let cancel = Subject::Cancel {
        tenant: tenant.clone(),
        server: server.clone(),
    };
    let cancels = bus.subscribe(cancel.to_string()).await?;
    let watch = bus
        .subscribe(
            Subject::Watch {
                tenant: tenant.clone(),
            }
            .to_string(),
        )
        .await?;
    let questions = match options.visibility {
        Visibility::Announced => services::subscribe(bus, options).await?,
        Visibility::Hidden => Questions::new(),
    };
    // Calls last: whoever reaches this replica finds it whole.
    let mut calls = SelectAll::new();
    if options.visibility == Visibility::Announced {
        let of_version = subject::all_version_calls(&tenant, &server, version);
        calls.push(bus.queue_subscribe(of_version).await?);
    }
    calls.push(bus.queue_subscribe(subject::all_calls(&tenant, &server)).await?);
    // Announced is what the broker hands calls to, and not what it has yet to read.
    bus.round_trip().await?;
    Ok(Subscriptions {
        calls,
        words,
        cancels,
        watch,
        questions,
    })
}

impl Shared {
    /// Takes calls to the version that the server has now. Those to former ones still come, and go to replicas that have them.
    pub(super) async fn subscribe_version(&self, subs: &mut Subscriptions) {
        let version = self.version.borrow().clone();
        let tenant = Token::encode(&self.options.tenant);
        let server = Token::encode(self.options.id.as_str());
        let subject = subject::all_version_calls(&tenant, &server, &version);
        match self.bus.queue_subscribe(subject).await {
            Ok(calls) => subs.calls.push(calls),
            Err(error) => {
                warn!(%error, server.id = %self.options.id, "cannot take calls to the server's new version");
            }
        }
    }
}
