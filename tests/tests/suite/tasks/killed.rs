//! Processes that die with `kill -9` while they have tasks.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    ProtocolVersion as Version,
    mcp::{meta, method},
    task::{Mode, TaskKnob},
};
use serde_json::{Value, json};
use tests::{
    dialogue::Dialogue,
    eventually,
    fixture::{self, Probe},
    within,
};

use crate::processes::{Cluster, HttpBridge};

async fn client(cluster: &Cluster) -> (HttpBridge, Dialogue) {
    let bridge = cluster.bridge().await;
    let plain = bridge.client("fixture");
    eventually("the bridge knows the server", async || {
        plain.list_tools().await["result"].is_object()
    })
    .await;
    let knows_tasks = json!({ "extensions": { meta::TASKS_EXTENSION: {} } });
    let client = Dialogue::open(plain, Version::MODERN, knows_tasks).await;
    (bridge, client)
}

async fn look(client: &Dialogue, id: &str) -> Value {
    client
        .ask(method::TASKS_GET, json!({ "taskId": id }))
        .await
        .answer["result"]
        .clone()
}

#[tokio::test]
async fn a_task_outlives_its_worker_its_bridge_and_its_broker() {
    let mut cluster = Cluster::start().await;
    let probe = Arc::<Probe>::default();
    let host = fixture::serve(&cluster.nats.bus().await, probe.clone(), |options| {
        options.tasks = TaskKnob {
            mode: Mode::Always,
            ..TaskKnob::default()
        };
    })
    .await;
    let (mut bridge, first) = client(&cluster).await;
    let mut worker = cluster.serve(&["workers"]).await;
    let mut ids = Vec::new();
    for tool in ["hold", "hold", "count"] {
        let made = first.call(tool, json!({})).await.answer;
        ids.push(made["result"]["taskId"].as_str().expect("a task").to_owned());
    }
    probe.held.begun.many("the calls", 2).await;
    worker.program.child.kill().await.expect("killed");
    bridge.program.child.kill().await.expect("killed");
    // Nobody waits for the calls any more, so their server need not go on.
    probe.held.dropped.many("the end of the calls", 2).await;
    cluster.nats.restart().await;
    let _worker = cluster.serve(&["workers"]).await;
    let (_bridge, second) = client(&cluster).await;
    for id in &ids {
        assert_ne!(look(&second, id).await["status"], "failed", "{id}");
    }
    // The words come again when the dead worker has been silent for long enough.
    probe.held.begun.many("the calls again", 2).await;
    probe.release.notify_waiters();
    for id in &ids {
        eventually("its end", async || {
            look(&second, id).await["status"] == "completed"
        })
        .await;
    }
    assert!(probe.counted.load(Ordering::SeqCst) >= 1);
    within("the host", host.stop()).await;
}
