//! What is told on the bus of servers that become healthy, degraded or down: once each, however many registries look.

use std::sync::Arc;

use bus_schema::{
    Principal,
    registry::{Declaration, Over, Put, Remove, Status, StatusEvent},
};
use runtime::{Bus, events::Events, host::Source};
use tests::{changing::Changing, keeper::registry, nats::Nats, within};

async fn declare(bus: &Bus, id: &str) -> u64 {
    let declaration = Declaration::new(id.parse().expect("an id"), "https://nobody.example");
    let over = Over::Nothing;
    let put = Put { declaration, over };
    let written = bus.register(&Principal::developer(), &put).await;
    written.expect("registered").revision
}

/// The next event, without its reason and its moment.
async fn next(events: &mut Events<StatusEvent>) -> (String, Option<Status>, Status) {
    let event = within("an event", events.next()).await.expect("an event");
    assert!(event.now.since.ends_with('Z'), "{event:?}");
    assert_eq!(
        event.now.reason.is_none(),
        event.now.status == Status::Healthy,
        "{event:?}"
    );
    (event.server.to_string(), event.was, event.now.status)
}

#[tokio::test]
async fn each_change_of_a_server_is_told_once_by_any_number_of_registries() {
    let nats = Nats::start().await;
    let (listening, hosting) = (nats.bus().await, nats.bus().await);
    let (one, two) = (nats.bus().await, nats.bus().await);
    let mut events = Events::start(&listening, "default").await.expect("starts");
    let mut registries = Vec::from(<[_; 2]>::from(tokio::join!(
        registry(&one, None),
        registry(&two, None)
    )));
    let is = |was, now| ("a".to_owned(), was, now);
    for round in 0..3 {
        // In the end one of them does what both did.
        if round == 2 {
            registries.remove(0).stop().await;
        }
        let host = Arc::<Changing>::default().serve(&hosting, "a").await;
        assert_eq!(
            next(&mut events).await,
            is(None, Status::Healthy),
            "round {round}"
        );
        host.health()
            .set(Source::Page, Some("its page answers 500".to_owned()))
            .await;
        let (well, ill) = (Some(Status::Healthy), Some(Status::Degraded));
        assert_eq!(
            next(&mut events).await,
            is(well, Status::Degraded),
            "round {round}"
        );
        host.health().set(Source::Page, None).await;
        assert_eq!(next(&mut events).await, is(ill, Status::Healthy), "round {round}");
        host.stop().await;
        assert_eq!(next(&mut events).await, is(well, Status::Down), "round {round}");
    }
}

#[tokio::test]
async fn a_server_that_was_never_there_is_told_of_as_down_and_what_happened_while_nobody_looked_is_told_later()
 {
    let nats = Nats::start().await;
    let (listening, hosting) = (nats.bus().await, nats.bus().await);
    let looking = nats.bus().await;
    let mut events = Events::start(&listening, "default").await.expect("starts");
    let first = registry(&looking, None).await;
    let revision = declare(&listening, "nowhere").await;
    let event = within("an event", events.next()).await.expect("an event");
    let StatusEvent { server, was, now }: StatusEvent = event;
    assert_eq!(
        (server.as_str(), was, now.status),
        ("nowhere", None, Status::Down)
    );
    let reason = now.reason.unwrap_or_default();
    assert!(reason.contains("no process of the fleet runs it"), "{reason}");
    let host = Arc::<Changing>::default().serve(&hosting, "a").await;
    assert_eq!(next(&mut events).await.0, "a");
    let remove = Remove {
        id: server,
        revision: Some(revision),
    };
    listening
        .unregister(&Principal::developer(), &remove)
        .await
        .expect("removed");
    first.stop().await;
    host.stop().await;
    // Who looks next finds that one is gone; the other was down already, and its end is no news.
    let _second = registry(&looking, None).await;
    let gone = ("a".to_owned(), Some(Status::Healthy), Status::Down);
    assert_eq!(next(&mut events).await, gone);
    let _host = Arc::<Changing>::default().serve(&hosting, "b").await;
    assert_eq!(next(&mut events).await, ("b".to_owned(), None, Status::Healthy));
}
