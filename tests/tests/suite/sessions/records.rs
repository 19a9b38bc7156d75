//! What a session is: opened at one bridge, served by all, ended once, and nobody else's.

use std::time::Duration;

use bus_schema::{ProtocolVersion, header, mcp::method};
use reqwest::header::RETRY_AFTER;
use runtime::store::{Bucket, BucketOptions};
use serde_json::{Value, json};
use tests::{
    eventually,
    http::{Client, text},
    nats::{self, Nats},
    program::Program,
    session::messages,
    wire::Cable,
    within,
};
use tokio::process::Command;

use super::{ANY_PORT, Bridge, Opened, Stage, sent};

#[tokio::test]
async fn a_session_that_one_bridge_has_opened_is_served_by_the_other_and_ends_at_both() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = Opened::at(a, "fixture", version).await;
        for bridge in [b, a] {
            let (status, answer) = session
                .answer(session.call(bridge, "echo", &json!({ "text": version })))
                .await;
            assert_eq!((status, text(&answer)), (200, version));
        }
        let (status, answer) = session.answer(session.call(b, "nonsense", &json!({}))).await;
        assert_eq!(
            (status, answer["error"]["code"].as_i64()),
            (200, Some(-32602)),
            "{answer}"
        );
        // Another endpoint, and no session at all.
        let elsewhere = Opened {
            server: "asking",
            ..session.clone()
        };
        assert_eq!(elsewhere.ask(b, "ping", json!({})).await.0, 404);
        let nameless = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
        assert_eq!(
            sent(b.client("fixture").raw(nameless.to_string())).await.status(),
            400
        );
        let guessed = Opened {
            id: "x".repeat(64),
            ..session.clone()
        };
        assert_eq!(guessed.ask(b, "ping", json!({})).await.0, 404);
        let wrong = session
            .request(b, "ping", &json!({}))
            .header(header::PROTOCOL_VERSION, "1999-01-01");
        assert_eq!(sent(wrong).await.status(), 400);
        assert_eq!(sent(session.delete(b)).await.status(), 204);
        for bridge in [a, b] {
            assert_eq!(session.ask(bridge, "ping", json!({})).await.0, 404);
            assert_eq!(sent(session.get(bridge, None)).await.status(), 404);
            assert_eq!(sent(session.delete(bridge)).await.status(), 404);
        }
    }
    stage.end().await;
}

#[tokio::test]
async fn a_log_level_that_is_set_at_one_bridge_holds_at_the_other_at_once() {
    let stage = Stage::set().await;
    let (a, b) = (&stage.a, &stage.b);
    let session = Opened::at(a, "asking", "2025-06-18").await;
    let log = async |bridge: &Bridge| {
        let said = messages(session.call(bridge, "log", &json!({}))).await;
        said.iter()
            .filter(|message| message["method"] == method::MESSAGE)
            .count()
    };
    assert_eq!(log(b).await, 0, "nobody has asked for log lines");
    for n in 0..5 {
        let (set, used) = if n % 2 == 0 { (a, b) } else { (b, a) };
        let (status, answer) = session
            .ask(set, method::SET_LEVEL, json!({ "level": "info" }))
            .await;
        assert_eq!((status, &answer["result"]), (200, &json!({})));
        assert_eq!(log(used).await, 1);
    }
    let (_, answer) = session
        .ask(b, method::SET_LEVEL, json!({ "level": "loud" }))
        .await;
    assert_eq!(answer["error"]["code"], -32602);
    stage.end().await;
}

#[tokio::test]
async fn while_the_bus_is_down_a_session_is_not_called_unknown() {
    let stage = Stage::set().await;
    let cable = Cable::to(stage.nats.url()).await;
    let far = Bridge::start(&stage.nats, &cable.url(&stage.nats.core_url())).await;
    far.knows("fixture").await;
    let session = Opened::at(&stage.a, "fixture", "2025-11-25").await;
    assert_eq!(session.ask(&far, "ping", json!({})).await.0, 200);
    cable.cut();
    let ping = || session.request(&far, "ping", &json!({}));
    eventually("the bridge notices", async || sent(ping()).await.status() == 503).await;
    let answer = sent(ping()).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key(RETRY_AFTER));
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (&answer["id"], answer["error"]["code"].as_i64()),
        (&json!(5), Some(-32603))
    );
    assert_eq!(sent(session.delete(&far)).await.status(), 503);
    assert_eq!(session.ask(&stage.a, "ping", json!({})).await.0, 200, "it lives");
    stage.end().await;
}

#[tokio::test]
async fn a_nats_without_jetstream_serves_modern_clients_and_tells_legacy_ones_why_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ports = folder.path().display().to_string();
    let mut server = Command::new(nats::program())
        .args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", &ports])
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server starts");
    let file = async || {
        let entries = std::fs::read_dir(folder.path()).expect("a folder");
        let ports = entries
            .flatten()
            .find(|entry| entry.path().extension().is_some_and(|end| end == "ports"));
        let text = std::fs::read_to_string(ports?.path()).ok()?;
        let ports: Value = serde_json::from_str(&text).ok()?;
        ports["nats"][0].as_str().map(str::to_owned)
    };
    eventually("the address of nats-server", async || file().await.is_some()).await;
    let url = file().await.expect("an address");
    let words = [
        "bridge",
        "http",
        "--listen",
        ANY_PORT,
        "--log-json",
        "--nats",
        &url,
        "--data-dir",
        &ports,
    ];
    let mut program = Program::start(&words);
    let warning = program.logged("legacy clients cannot open sessions").await;
    assert!(warning.contains("JetStream"), "{warning}");
    let line: Value = serde_json::from_str(&program.logged("bridge is ready").await).expect("JSON");
    let mcp = line["fields"]["mcp"].as_str().expect("an address").to_owned();
    let client = Client::new(mcp);
    let modern = sent(client.modern(method::TOOLS_LIST, json!({}))).await;
    assert_eq!(modern.status(), 200);
    let params = json!({ "protocolVersion": ProtocolVersion::NEWEST_LEGACY.as_str(), "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
    let answer = sent(client.raw(body.to_string())).await;
    assert_eq!(answer.status(), 503);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["id"], 0);
    let text = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(text.contains("JetStream"), "{answer}");
    server.start_kill().expect("it runs");
    within("the end of nats-server", server.wait())
        .await
        .expect("it ends");
}

#[tokio::test]
async fn when_no_more_sessions_can_be_kept_a_client_hears_so_and_the_others_go_on() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    // The bucket as an operator with little room has made it.
    let options = BucketOptions {
        name: "sessions",
        max_age: Duration::from_secs(3600),
        max_bytes: 8 * 1024,
        max_record_bytes: 4 * 1024,
    };
    Bucket::open(&bus, options).await.expect("opens");
    let bridge = Bridge::start(&nats, nats.url()).await;
    let info = json!({ "name": "t", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
    let client = Client::new(format!("{}/mcp", bridge.base));
    let mut opened = Vec::new();
    let full = loop {
        let answer = sent(client.raw(body.to_string())).await;
        if answer.status() != 200 {
            break answer;
        }
        opened.push(answer.headers()[header::SESSION_ID].clone());
        assert!(opened.len() < 1000, "it is never full");
    };
    assert_eq!(full.status(), 503);
    assert!(full.headers().contains_key(RETRY_AFTER));
    let error: Value = full.json().await.expect("JSON");
    assert!(
        error["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("no more sessions")),
        "{error}"
    );
    assert!(!opened.is_empty());
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for session in opened {
        let ping = client.raw(ping.to_string()).header(header::SESSION_ID, session);
        assert_eq!(sent(ping).await.status(), 200);
    }
    bus.close().await;
}

/// Asks for a session at a bridge; gives the status and the answer's id of it, or its error.
async fn opened(bridge: &Bridge) -> (u16, String) {
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" },
    });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method::INITIALIZE, "params": params });
    let answer = sent(bridge.client("fixture").raw(body.to_string())).await;
    let status = answer.status().as_u16();
    if let Some(id) = answer.headers().get(header::SESSION_ID) {
        return (status, id.to_str().expect("visible ASCII").to_owned());
    }
    assert!(answer.headers().contains_key(RETRY_AFTER), "{status}");
    let refused: Value = answer.json().await.expect("JSON");
    assert_eq!(refused["error"]["code"], -32000, "{refused}");
    let words = refused["error"]["message"].as_str().expect("words");
    assert!(
        words.contains("DELETE") && words.contains("2026-07-28"),
        "{words}"
    );
    (status, words.to_owned())
}

/// Two bridges that give a principal so many sessions, before a server.
async fn limited(nats: &Nats, most: u64) -> (runtime::Bus, runtime::Host, [Bridge; 2], tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trunkline.toml");
    std::fs::write(&file, format!("max_sessions_per_principal = {most}\n")).expect("writes");
    let file = file.display().to_string();
    let more = ["--config", file.as_str()];
    let bus = nats.bus().await;
    let host = tests::fixture::serve(&bus, std::sync::Arc::default(), |_| {}).await;
    let (a, b) = tokio::join!(
        Bridge::start_with(nats, nats.url(), &more),
        Bridge::start_with(nats, nats.url(), &more)
    );
    tokio::join!(a.knows("fixture"), b.knows("fixture"));
    (bus, host, [a, b], folder)
}

#[tokio::test]
async fn a_principal_has_so_many_sessions_at_all_bridges_together_and_those_that_are_ended_do_not_count() {
    const MOST: usize = 12;
    let nats = Nats::start().await;
    let (bus, host, [a, b], _folder) = limited(&nats, MOST as u64).await;
    // However many ask at the same time, there are never more; afterwards there is room for exactly the rest.
    let crowd = (0..40).map(|n| opened(if n % 2 == 0 { &a } else { &b }));
    let crowd = futures::future::join_all(crowd).await;
    let mut given: Vec<String> = Vec::new();
    for (status, id) in crowd {
        match status {
            200 => given.push(id),
            _ => assert_eq!(status, 429, "{id}"),
        }
    }
    assert!(given.len() <= MOST, "{}", given.len());
    while given.len() < MOST {
        let (status, id) = opened(&a).await;
        assert_eq!(status, 200, "{id}");
        given.push(id);
    }
    for bridge in [&a, &b] {
        assert_eq!(opened(bridge).await.0, 429);
    }
    for (ending, opening) in [(&a, &b), (&b, &b), (&b, &a)] {
        let session = Opened {
            id: given.pop().expect("a session"),
            server: "fixture",
            answer: Value::Null,
        };
        assert_eq!(sent(session.delete(ending)).await.status(), 204);
        assert_eq!(session.ask(opening, "ping", json!({})).await.0, 404);
        let (status, id) = opened(opening).await;
        assert_eq!(status, 200, "{id}");
        given.insert(0, id);
        assert_eq!(opened(opening).await.0, 429);
    }
    // Those that were given are as good as ever.
    for id in given {
        let session = Opened {
            id,
            server: "fixture",
            answer: Value::Null,
        };
        assert_eq!(session.ask(&b, "ping", json!({})).await.0, 200);
    }
    host.stop().await;
    bus.close().await;
}

#[tokio::test]
async fn a_session_that_has_expired_does_not_count() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    // A bucket that is there is taken as it is.
    let options = BucketOptions {
        name: "sessions",
        max_age: Duration::from_secs(2),
        max_bytes: 1024 * 1024,
        max_record_bytes: 64 * 1024,
    };
    Bucket::open(&bus, options).await.expect("opens");
    let (own, host, [a, b], _folder) = limited(&nats, 1).await;
    assert_eq!(opened(&a).await.0, 200);
    assert_eq!(opened(&b).await.0, 429);
    eventually("there is room again", async || opened(&b).await.0 == 200).await;
    assert_eq!(opened(&a).await.0, 429);
    host.stop().await;
    own.close().await;
    bus.close().await;
}
