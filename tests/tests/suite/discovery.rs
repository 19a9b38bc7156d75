//! Who is on the bus, as every process sees it.

use std::sync::Arc;

use bus_schema::{ServerId, principal::DEFAULT_TENANT};
use runtime::{Bus, Directory};
use tests::{fixture, nats::Nats, wire::Cable, within};

fn id() -> ServerId {
    "fixture".parse().expect("an id")
}

/// Waits until a directory knows so many replicas of the fixture.
async fn replicas(directory: &Directory, expected: usize) {
    let mut changes = directory.changes();
    within(&format!("{expected} replicas"), async {
        while directory.snapshot().replicas(&id()).len() != expected {
            changes.changed().await.expect("the directory lives");
        }
    })
    .await;
}

async fn directory(bus: &Bus) -> Directory {
    Directory::start(bus, DEFAULT_TENANT).await.expect("starts")
}

#[tokio::test]
async fn replicas_are_known_as_they_come_and_go() {
    let nats = Nats::start().await;
    let (one, two) = (nats.bus().await, nats.bus().await);
    let first = fixture::serve(&one, Arc::default(), |_| {}).await;
    let watching = nats.bus().await;
    let directory = directory(&watching).await;
    assert_eq!(
        directory.snapshot().replicas(&id()).len(),
        1,
        "a newcomer knows who is there"
    );
    let card = directory.snapshot().server(&id()).cloned().expect("the card");
    assert_eq!(
        (card.title.as_str(), card.version.as_str(), card.tools),
        ("fixture", "1.0.0", 9)
    );
    let second = fixture::serve(&two, Arc::default(), |_| {}).await;
    replicas(&directory, 2).await;
    first.stop().await;
    replicas(&directory, 1).await;
    second.stop().await;
    replicas(&directory, 0).await;
}

#[tokio::test]
async fn a_replica_whose_connection_ends_is_gone_at_once() {
    let nats = Nats::start().await;
    let cable = Cable::to(nats.url()).await;
    let lost = nats.bus_at(cable.url(&nats.core_url())).await;
    let _host = fixture::serve(&lost, Arc::default(), |_| {}).await;
    let watching = nats.bus().await;
    let directory = directory(&watching).await;
    replicas(&directory, 1).await;
    cable.cut();
    replicas(&directory, 0).await;
}

#[tokio::test]
async fn everybody_is_back_after_the_broker_was_restarted() {
    let mut nats = Nats::start().await;
    let (serving, watching) = (nats.bus().await, nats.bus().await);
    let _host = fixture::serve(&serving, Arc::default(), |_| {}).await;
    let directory = directory(&watching).await;
    replicas(&directory, 1).await;
    nats.restart().await;
    let newcomer = nats.bus().await;
    let fresh = self::directory(&newcomer).await;
    replicas(&fresh, 1).await;
    replicas(&directory, 1).await;
}

#[tokio::test]
async fn a_wrong_password_and_a_plain_client_are_refused_with_what_to_do() {
    let nats = Nats::start().await;
    for url in [
        nats.url().to_owned(),
        nats.url().replacen("nats://", "nats://core:wrong@", 1),
    ] {
        let options = runtime::BusOptions {
            url,
            credentials: None,
            class: bus_schema::subject::CallerClass::Cli,
            place: bus_schema::card::Place::default(),
        };
        let refused = within("the refusal", Bus::connect(options))
            .await
            .err()
            .expect("refused")
            .to_string();
        assert!(
            refused.contains("credentials") && refused.contains("--data-dir"),
            "{refused}"
        );
        assert!(!refused.contains("wrong@"), "{refused}");
    }
}
