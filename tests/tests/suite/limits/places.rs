//! How many calls run at once is one number for all processes, and one that dies gives back what it had.

use std::sync::Arc;

use futures::future::join_all;
use rustix::process::Signal;
use tests::{
    eventually,
    fixture::{self, Probe},
    http::Client,
    within,
};
use tokio::task::JoinHandle;

use super::{call, knows};
use crate::processes::{Cluster, HttpBridge};

const MOST: usize = 4;

/// A call that holds: the status that it ends with, if it is answered at all.
type Held = JoinHandle<Option<u16>>;

fn hold(client: &Client) -> Held {
    let request = client.modern(
        bus_schema::mcp::method::TOOLS_CALL,
        serde_json::json!({ "name": "hold", "arguments": {} }),
    );
    tokio::spawn(async move { Some(request.send().await.ok()?.status().as_u16()) })
}

async fn three_bridges(cluster: &Cluster) -> Vec<HttpBridge> {
    let limits = format!("[[limits]]\nname = \"busy\"\nconcurrent = {MOST}");
    let file = cluster.file("limits.toml", &limits).display().to_string();
    let words = ["--config", file.as_str()];
    let bridges = join_all((0..3).map(|_| cluster.bridge_with(&words))).await;
    for bridge in &bridges {
        knows(bridge, "fixture").await;
    }
    bridges
}

#[tokio::test]
async fn three_bridges_together_run_so_many_calls_and_one_that_dies_gives_its_places_back() {
    let cluster = Cluster::start().await;
    let probe = Arc::<Probe>::default();
    let bus = cluster.nats.bus().await;
    let _host = fixture::serve(&bus, Arc::clone(&probe), |_| {}).await;
    let bridges = three_bridges(&cluster).await;
    // Each bridge is asked for as many as there may be of all.
    let mut held: Vec<(usize, Held)> = Vec::new();
    for at in 0..3 * MOST {
        let client = bridges[at % 3].client("fixture");
        held.push((at % 3, hold(&client)));
    }
    probe
        .held
        .begun
        .many("calls have begun", u32::try_from(MOST).expect("few"))
        .await;
    eventually("the others are refused", async || {
        held.iter().filter(|(_, call)| call.is_finished()).count() == 2 * MOST
    })
    .await;
    let mut running = Vec::new();
    for (bridge, call) in held {
        if call.is_finished() {
            assert_eq!(call.await.expect("it ends"), Some(429));
        } else {
            running.push((bridge, call));
        }
    }
    for bridge in &bridges {
        assert_eq!(call(&bridge.client("fixture"), "count").await.status(), 429);
    }
    // The one dies that has the most of them.
    let of = |bridge: usize| running.iter().filter(|(at, _)| *at == bridge).count();
    let victim = (0..3).max_by_key(|bridge| of(*bridge)).expect("three");
    let lost = of(victim);
    bridges[victim].program.signal(Signal::KILL);
    let dropped = u32::try_from(lost).expect("few");
    probe.held.dropped.many("its calls are dropped", dropped).await;
    let others: Vec<Client> = (0..3)
        .filter(|bridge| *bridge != victim)
        .map(|bridge| bridges[bridge].client("fixture"))
        .collect();
    // As many as it had begin elsewhere, as soon as its places are free.
    let mut begun: Vec<Held> = Vec::new();
    eventually("the places are free", async || {
        begun.retain(|call| !call.is_finished());
        if begun.len() < lost {
            begun.push(hold(&others[begun.len() % 2]));
        }
        let is_there = probe.held.begun.0.available_permits() >= lost;
        is_there && begun.len() == lost
    })
    .await;
    for client in &others {
        assert_eq!(call(client, "count").await.status(), 429, "all places are taken");
    }
    probe.release.notify_waiters();
    for call in begun {
        assert_eq!(within("an answer", call).await.expect("it ends"), Some(200));
    }
    for (bridge, call) in running.into_iter().filter(|(bridge, _)| *bridge != victim) {
        let answered = within("an answer", call).await.expect("it ends");
        assert_eq!(answered, Some(200), "at bridge {bridge}");
    }
    eventually("everything is free again", async || {
        call(&others[0], "count").await.status() == 200
    })
    .await;
}
