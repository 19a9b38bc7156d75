//! A thousand clients at once, half of which never read their streams.

use futures::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tests::raw::{self, Raw};

use super::{MCP, MIB, Target};

const KIB: usize = 1024;
const READING: usize = 500;
/// Clients that never read what is soon said: 100 messages of some 400 bytes.
const DEAF: usize = 450;
/// Clients that never read much: 6 MiB each, of which the system's own buffers take some 3.
const DEAF_AND_LOUD: usize = 50;
/// What the door may hold: 64 MiB for the program itself; 64 KiB for each connection with its call and its tasks; 40 KiB for what the
/// deaf are told; and for each loud one 1 MiB in its outbox, one write of up to 128 KiB and the 128 KiB that hyper keeps. Without a
/// bound the loud ones alone would have 150 MiB waiting.
const BOUND: usize = 64 * MIB
    + (READING + DEAF + DEAF_AND_LOUD) * 64 * KIB
    + DEAF * 40 * KIB
    + DEAF_AND_LOUD * (MIB + 256 * KIB);

/// Both ends of a thousand connections are in reach of one process only on generous systems.
fn allow_many_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, wanted).expect("the limit of open files can be raised to what is allowed");
}

/// Makes calls whose answers nobody reads.
async fn deaf(target: &Target, clients: usize, messages: usize, bytes: usize) -> Vec<Raw> {
    let chatter = json!({
        "name": "chatter", "arguments": { "n": messages, "bytes": bytes }, "_meta": { "progressToken": 1 },
    });
    let request = raw::modern(MCP, "tools/call", "chatter", chatter);
    let mut deaf = Vec::new();
    for _ in 0..clients {
        let mut client = Raw::connect_narrow(target.door()).await;
        assert!(client.send(&request).await);
        deaf.push(client);
    }
    deaf
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_clients_those_that_read_are_served_and_memory_is_bounded() {
    allow_many_files();
    let target = Target::start().await;
    let quiet = deaf(&target, DEAF, 100, 256).await;
    let loud = deaf(&target, DEAF_AND_LOUD, 100, 64 * KIB).await;
    let progress = json!({ "name": "progress", "arguments": { "n": 20 }, "_meta": { "progressToken": 1 } });
    let request = raw::modern(MCP, "tools/call", "progress", progress);
    let request = request.replacen("host:", "connection: close\r\nhost:", 1);
    let reading = (0..READING).map(|_| async {
        let mut client = Raw::connect(target.door()).await;
        assert!(client.send(&request).await);
        let answer = client.read_to_end().await;
        // The notifications, and the answer after them.
        assert_eq!(answer.matches("event: message").count(), 21, "{answer}");
        assert!(answer.contains("\"done\""), "{answer}");
    });
    join_all(reading).await;
    for _ in 0..DEAF + DEAF_AND_LOUD {
        target.probe.chattered.next("the end of one more call").await;
    }
    let resident = target.resident();
    assert!(
        resident < BOUND,
        "the door holds {resident} bytes, and {BOUND} were justified"
    );
    assert!(target.serves().await);
    drop((quiet, loud));
    target.end().await;
}
