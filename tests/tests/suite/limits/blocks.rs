//! A block is a full stop: nothing new is taken at any door, what runs ends, and streams are closed.

use std::sync::Arc;

use bus_schema::{
    audit::{Kind, Outcome},
    mcp::method,
};
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    eventually,
    fixture::{self, Probe},
    http::{Client, modern_body},
    issuer::Issuer,
    platform::Platform,
    recorded::Recorded,
    session::Session,
    stream::Stream,
    within,
};

use super::{call, status};
use crate::processes::Cluster;

fn held(client: &Client) -> tokio::task::JoinHandle<(u16, Value)> {
    let request = client.modern(method::TOOLS_CALL, json!({ "name": "hold", "arguments": {} }));
    tokio::spawn(async move {
        let answer = within("an answer", request.send()).await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    })
}

async fn listening(client: &Client) -> Stream {
    let request = client.modern(
        method::LISTEN,
        json!({ "notifications": { "toolsListChanged": true } }),
    );
    let mut stream = Stream::of(within("a stream", request.send()).await.expect("an answer"));
    assert_eq!(stream.message().await["method"], method::ACKNOWLEDGED);
    stream
}

/// Everything up to the end of a stream.
async fn rest(mut stream: Stream) -> Vec<Value> {
    let mut rest = Vec::new();
    while let Some(event) = stream.event().await {
        rest.extend(event.data.and_then(|data| serde_json::from_str(&data).ok()));
    }
    rest
}

#[tokio::test]
async fn a_block_at_the_command_line_ends_what_a_caller_has_at_other_bridges() {
    let cluster = Cluster::start().await;
    let _registry = cluster.registry().await;
    let probe = Arc::<Probe>::default();
    let bus = cluster.nats.bus().await;
    let _host = fixture::serve(&bus, Arc::clone(&probe), |_| {}).await;
    let issuer = Issuer::start().await;
    // Tokens are for these bridges by a fixed audience, as each has an address of its own.
    let file = cluster.file("auth.toml", &issuer.section("audience = \"here\""));
    let words = ["--config", &file.display().to_string()];
    let (one, other) = tokio::join!(cluster.bridge_with(&words), cluster.bridge_with(&words));
    let token = |who: &str| issuer.token(who, "here", json!({}));
    let (ann, bob) = (token("ann"), token("bob"));
    for bridge in [&one, &other] {
        let client = bridge.client("fixture").with_token(&bob);
        eventually("the bridge knows the server", async || {
            client.list_tools().await["result"].is_object()
        })
        .await;
    }
    let (near, far) = (
        one.client("fixture").with_token(&ann),
        other.client("fixture").with_token(&ann),
    );
    let bobs = other.client("fixture").with_token(&bob);
    let running = [held(&near), held(&far)];
    let bobs_running = held(&bobs);
    probe.held.begun.many("calls have begun", 3).await;
    let (listens, bobs_listens) = (listening(&far).await, listening(&bobs).await);
    let session = Session::open(&far, "2025-11-25").await;
    let notices = Stream::of(
        within("a stream", session.listening(&far).send())
            .await
            .expect("an answer"),
    );
    let legacy = session.request(method::TOOLS_CALL, &json!({ "name": "hold", "arguments": {} }));
    let legacy = tokio::spawn(async move { tests::session::messages(legacy).await });
    probe.held.begun.many("calls have begun", 1).await;

    let (code, said, log) = cluster
        .run(&["block", "ann", "--for", "1h", "--reason", "a test"])
        .await;
    assert!(
        code == 0 && said.contains("ann is blocked for 3600 s"),
        "{said}{log}"
    );
    for running in running {
        let (status, answer) = running.await.expect("it ends");
        assert_eq!(
            (status, &answer["error"]["data"]["reason"]),
            (403, &json!("blocked")),
            "{answer}"
        );
    }
    // The server is told as well: three of ann's calls are dropped, and bob's goes on.
    probe.held.dropped.many("calls have ended", 3).await;
    let last = rest(listens).await.pop().expect("a last word");
    assert_eq!(last["error"]["data"]["reason"], "blocked", "{last}");
    rest(notices).await;
    let answer = legacy.await.expect("it ends").pop().expect("an answer");
    assert_eq!(answer["error"]["data"]["reason"], "blocked", "{answer}");
    for client in [&near, &far] {
        let refused = call(client, "count").await;
        assert_eq!(refused.status(), 403);
        let refused: Value = refused.json().await.expect("JSON");
        assert_eq!(refused["error"]["data"]["reason"], "blocked");
        assert!(!refused.to_string().contains("a test"), "why is for operators");
    }
    let again = within("an answer", session.listening(&far).send())
        .await
        .expect("an answer");
    assert_eq!(again.status(), 403);
    // Another issuer's ann would be blocked too, and bob is not.
    assert_eq!(status(&bobs, "count").await, 200);
    probe.release.notify_waiters();
    assert_eq!(bobs_running.await.expect("it ends").0, 200);
    drop(bobs_listens);

    let blocked = cluster.json(&["blocked", "--json"]).await;
    assert_eq!(
        (&blocked[0]["subject"], &blocked[0]["reason"]),
        (&json!("ann"), &json!("a test"))
    );
    let (code, said, _) = cluster.run(&["unblock", "ann"]).await;
    assert!(code == 0 && said.contains("ann may call again"), "{said}");
    for client in [&near, &far] {
        eventually("ann may call again", async || {
            status(client, "count").await == 200
        })
        .await;
    }
    let (code, _, log) = cluster.run(&["unblock", "ann"]).await;
    assert!(code == 1 && log.contains("`ann` is not blocked"), "{log}");
    let (code, _, log) = cluster.run(&["block", "ann", "--for", "soon"]).await;
    assert!(code == 1 && log.contains("such as 90s"), "{log}");
}

#[tokio::test]
async fn a_block_closes_channels_and_a_block_of_one_issuer_is_no_others() {
    let mut platform = Platform::start("", &[]).await;
    let _host = fixture::serve(platform.node.bus(), Arc::default(), |_| {}).await;
    platform.knows("fixture").await;
    let front = platform.node.front(&platform.config).await.expect("a front");
    let by = bus_schema::Principal::developer();
    let who = |issuer: Option<&str>| bus_schema::block::Blocked {
        tenant: "default".to_owned(),
        issuer: issuer.map(str::to_owned),
        subject: by.subject.clone(),
    };
    let blocks = front.blocks().clone();
    blocks
        .block(&by, who(Some("https://id.example")), None, None)
        .await
        .expect("blocked");
    let mut socket = Channel::socket(&platform, "/servers/fixture/ws").await;
    let mut events = Channel::events(&platform, "/servers/fixture/sse").await;
    let mut pipe = Channel::pipe(&mut platform, bridges::front::Endpoint::All).await;
    let list = modern_body(method::TOOLS_LIST, json!({}));
    for channel in [&mut socket, &mut pipe] {
        assert!(channel.ask(&list).await["result"].is_object());
    }
    blocks.block(&by, who(None), None, None).await.expect("blocked");
    assert!(socket.next().await.is_none(), "the socket is closed");
    assert!(events.next().await.is_none(), "the stream ends");
    eventually("nothing is answered", async || {
        pipe.ask(&list).await["error"]["data"]["reason"] == "blocked"
    })
    .await;
    for path in [
        "/servers/fixture/mcp",
        "/servers/fixture/sse",
        "/servers",
        "/blocks",
    ] {
        let answer = within("an answer", reqwest::get(platform.url(path)))
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 403, "{path}");
    }
    let health = within("an answer", reqwest::get(platform.url("/healthz")))
        .await
        .expect("an answer");
    assert_eq!(health.status(), 200);
    blocks.unblock(&by, &who(None)).await.expect("let go");
    eventually("the developer may call again", async || {
        pipe.ask(&list).await["result"].is_object()
    })
    .await;
    platform.stop().await;
}

#[tokio::test]
async fn a_call_that_a_block_ends_is_on_record_with_who_has_said_so() {
    let mut platform = Platform::start("", &["registry"]).await;
    let probe = Arc::<Probe>::default();
    let _host = fixture::serve(platform.node.bus(), Arc::clone(&probe), |_| {}).await;
    platform.knows("fixture").await;
    let recorded = Recorded::start(&platform).await;
    let hold = json!({ "name": "hold", "arguments": {} });
    let (client, all) = (platform.client("fixture"), platform.client_of_all());
    let named = json!({ "name": "fixture__hold", "arguments": {} });
    let mut socket = Channel::socket(&platform, "/servers/fixture/ws").await;
    let mut pipe = Channel::pipe(&mut platform, bridges::front::Endpoint::All).await;
    let running = held(&client);
    let aggregated = tokio::spawn(all.modern(method::TOOLS_CALL, named.clone()).send());
    socket.send(&modern_body(method::TOOLS_CALL, hold)).await;
    pipe.send(&modern_body(method::TOOLS_CALL, named)).await;
    probe.held.begun.many("calls have begun", 4).await;
    let op = bus_schema::Principal {
        issuer: Some("https://id.example".to_owned()),
        roles: vec!["operator".to_owned()],
        ..bus_schema::Principal::new("olga", "default")
    };
    let wish = bus_schema::block::Stop {
        subject: "developer".to_owned(),
        issuer: None,
        for_secs: Some(60),
        reason: None,
    };
    platform.node.bus().block(&op, &wish).await.expect("blocked");
    assert_eq!(running.await.expect("it ends").0, 403);
    let _ = aggregated.await.expect("it ends");
    probe.held.dropped.many("calls have ended", 4).await;
    let ended = || {
        let all = recorded.all();
        let ended = all.iter().filter(|record| record.outcome == Outcome::Ended);
        ended.cloned().collect::<Vec<_>>()
    };
    eventually("each is on record", async || ended().len() == 4).await;
    let mut doors = Vec::new();
    for record in ended() {
        assert_eq!((record.kind, record.rule.as_str()), (Kind::Block, "ended"));
        assert_eq!(record.server.as_deref(), Some("fixture"), "{record:?}");
        assert_eq!(record.name.as_deref(), Some("hold"), "{record:?}");
        assert_eq!(record.principal.expect("who").subject, "developer");
        assert!(record.reason.contains("`olga`"), "{}", record.reason);
        assert!(record.digest.is_some() && record.trace.is_some());
        doors.push(record.door);
    }
    doors.sort();
    assert_eq!(doors, ["http", "http", "stdio", "ws"]);
    recorded.stop().await;
    platform.stop().await;
}
