//! Words among doors that somebody else would like to say.

use bus_schema::{mcp::method, subject::CallerClass};
use serde_json::json;
use tests::{forger::Forger, http::text, nats::Nats};

use super::{Opened, Stage, stream};

const CANCELS: &str = "mcp.gw.default.cancel";

#[tokio::test]
async fn nobody_but_a_door_cancels_a_clients_call() {
    let stage = Stage::set_on(Nats::start().await.expecting_refusals()).await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    let nats = &stage.nats;
    let mut door = Forger::enter(&nats.url_of(CallerClass::Bridge))
        .await
        .expect("it comes in");
    assert!(door.subscribe(CANCELS, None).await);
    // What a door says of this session, to be said by others of another call.
    let cancel = json!({ "jsonrpc": "2.0", "method": method::CANCELLED, "params": { "requestId": 99 } });
    assert_eq!(session.answer(session.post(&stage.b, &cancel)).await.0, 202);
    let heard = door.heard("\"request\":\"99\"").await;
    let word = heard.lines().find(|line| line.starts_with('{')).expect("a word");
    let forged = word.replace("\"99\"", "\"5\"");
    let mut events = stream(session.call(&stage.a, "hold", &json!({}))).await;
    stage.probe.held.begun.next("the call").await;
    let mut others = vec![
        ("a plain client", nats.url().to_owned()),
        ("the callout", nats.callout_url()),
        ("an observer", nats.observer_url()),
    ];
    for role in [CallerClass::Host, CallerClass::Registry, CallerClass::Cli] {
        others.push((role.as_str(), nats.url_of(role)));
    }
    for (who, url) in others {
        let mut forger = Forger::enter(&url).await.expect("it comes in");
        assert!(
            !forger.publish(CANCELS, None, forged.as_bytes()).await,
            "{who} cancels a call"
        );
        assert!(
            !forger.subscribe(CANCELS, None).await,
            "{who} hears what is cancelled"
        );
    }
    // A host may ask for an answer there; the broker knows that it is none.
    let mut host = Forger::enter(&nats.url_of(CallerClass::Host))
        .await
        .expect("it comes in");
    let wish = format!(r#"{{"stream_name":"KV_nodes","config":{{"deliver_subject":"{CANCELS}"}}}}"#);
    host.publish("$JS.API.CONSUMER.CREATE.KV_nodes", Some(CANCELS), wish.as_bytes())
        .await;
    stage.bus.round_trip().await.expect("the broker answers");
    assert!(
        stage.probe.held.dropped.0.try_acquire().is_err(),
        "the call goes on"
    );
    stage.probe.release.notify_waiters();
    let answer = events.message().await;
    assert_eq!((&answer["id"], text(&answer)), (&json!(5), "released"));
    // And the word is the right one: from a door it ends the call.
    let mut events = stream(session.call(&stage.a, "hold", &json!({}))).await;
    stage.probe.held.begun.next("the call").await;
    assert!(door.publish(CANCELS, None, forged.as_bytes()).await);
    stage.probe.held.dropped.next("the drop of the call").await;
    while let Some(event) = events.event().await {
        assert_eq!(
            event.data.as_deref(),
            Some(""),
            "a cancelled call is answered nothing"
        );
    }
    stage.end().await;
}
