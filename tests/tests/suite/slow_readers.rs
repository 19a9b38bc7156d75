//! Clients that read slowly or not at all: they hold up neither their own calls nor anybody else's, and memory stays bounded.

use std::sync::Arc;

use bridges::front::Endpoint;
use serde_json::{Value, json};
use tests::{
    channel::Channel,
    fixture::{self, Probe},
    http::{events, modern_body, text},
    platform::Platform,
    raw::{self, Raw},
    session::Session,
    within,
};

const MIB: usize = 1024 * 1024;

/// A call that says more than ten times what may wait for it, and more than the system's own buffers take.
fn chatter() -> Value {
    json!({
        "name": "chatter", "arguments": { "n": 10_000, "bytes": 1024 }, "_meta": { "progressToken": "p" },
    })
}

async fn with_fixture() -> (Platform, runtime::Host, Arc<Probe>) {
    let probe = Arc::<Probe>::default();
    let platform = Platform::start("", &[]).await;
    let host = fixture::serve(platform.node.bus(), Arc::clone(&probe), |_| {}).await;
    platform.knows("fixture").await;
    (platform, host, probe)
}

/// Checks what a client finds that comes back to its stream late: less than all, in order, the newest progress, and the answer.
fn check_late(messages: &[Value]) {
    let bytes: usize = messages.iter().map(|message| message.to_string().len()).sum();
    assert!(bytes < 8 * MIB, "{bytes} bytes had waited for the client");
    let (answer, parts) = messages.split_last().expect("messages");
    assert_eq!(text(answer), "done");
    let progress: Vec<u64> = parts
        .iter()
        .filter_map(|part| part["params"]["progress"].as_f64())
        .map(|progress| progress as u64)
        .collect();
    assert!(progress.is_sorted_by(|a, b| a < b), "progress never goes back");
    assert_eq!((progress.first(), progress.last()), (Some(&1), Some(&10_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_holds_up_nobody_and_little_waits_for_it() {
    let (platform, _host, probe) = with_fixture().await;
    let door = platform.node.http().expect("HTTP is open");
    let mut deaf = Raw::connect_narrow(door).await;
    let request = raw::modern("/servers/fixture/mcp", "tools/call", "chatter", chatter());
    // The door closes after the answer, so that the end of the stream can be told.
    let request = request.replacen("host:", "connection: close\r\nhost:", 1);
    assert!(deaf.send(request).await);
    // A client beside it that reads gets everything.
    let reading = platform
        .client("fixture")
        .modern("tools/call", chatter())
        .send()
        .await
        .expect("an answer");
    let all = within("the stream of the client that reads", events(reading)).await;
    let (answer, parts) = all.split_last().expect("events");
    assert_eq!(text(answer), "done");
    assert!(
        parts
            .iter()
            .map(|part| part["params"]["progress"].as_f64())
            .eq((1..=10_000).map(|n| Some(f64::from(n)))),
        "a client that reads misses nothing"
    );
    probe.chattered.many("the end of both calls", 2).await;
    let late: Vec<Value> = deaf
        .read_to_end()
        .await
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    check_late(&late);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_channel_too_a_client_that_never_reads_holds_up_nobody_and_little_waits_for_it() {
    let (mut platform, _host, probe) = with_fixture().await;
    let endpoint = Endpoint::Server("fixture".parse().expect("an id"));
    let path = "/servers/fixture/ws";
    let deaf = [
        Channel::socket(&platform, path).await,
        Channel::pipe(&mut platform, endpoint).await,
    ];
    let mut reading = Channel::socket(&platform, path).await;
    let echo = modern_body(
        "tools/call",
        json!({ "name": "echo", "arguments": { "text": "hi" } }),
    );
    for mut deaf in deaf {
        deaf.send(&modern_body("tools/call", chatter())).await;
        probe.chattered.next("the end of the call").await;
        // Somebody else is served meanwhile.
        assert_eq!(text(&reading.ask(&echo).await), "hi");
        let mut late = Vec::new();
        while late
            .last()
            .is_none_or(|message: &Value| message.get("id").is_none())
        {
            late.push(deaf.receive().await);
        }
        check_late(&late);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_client_that_never_reads_is_answered_all_the_same() {
    let (platform, _host, probe) = with_fixture().await;
    let session = Session::open(&platform.client("fixture"), "2025-06-18").await;
    let response = within("the head", session.request("tools/call", &chatter()).send())
        .await
        .expect("an answer");
    probe.chattered.next("the end of the call").await;
    let stream = within("the stream", response.text()).await.expect("text");
    assert!(stream.contains(r#""progress":10000"#) && stream.contains(r#""text":"done""#));
}
