//! Tasks of a legacy server that several processes run: each task is found through every bridge, and goes with its own process.

use std::collections::BTreeSet;

use bus_schema::{
    ProtocolVersion, RoutedState,
    mcp::{error, meta, method},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{children::tasks, dialogue::Dialogue, eventually};

use super::Cluster;

/// More tasks than all go to one replica.
const TASKS: usize = 16;

#[tokio::test]
async fn a_task_is_found_through_any_bridge_and_goes_with_the_process_that_made_it() {
    let cluster = Cluster::start().await;
    let file = cluster.file("trunkline.toml", &tasks("tasks"));
    let file = file.display().to_string();
    let words = ["tasks", "--config", &file];
    let (mut lost, kept) = tokio::join!(cluster.serve(&words), cluster.serve(&words));
    let (a, b) = tokio::join!(cluster.bridge(), cluster.bridge());
    let open = async |client| {
        let knows = json!({ "extensions": { meta::TASKS_EXTENSION: {} } });
        Dialogue::open(client, ProtocolVersion::MODERN, knows).await
    };
    for bridge in [&a, &b] {
        eventually("the bridge knows the server", async || {
            let known = bridge
                .client("tasks")
                .modern(method::DISCOVER, json!({}))
                .send()
                .await;
            known.expect("an answer").status() == 200
        })
        .await;
    }
    let (a, b) = (open(a.client("tasks")).await, open(b.client("tasks")).await);
    let get = async |client: &Dialogue, id: &str| {
        client
            .ask(method::TASKS_GET, json!({ "taskId": id }))
            .await
            .answer
    };
    let mut made = Vec::new();
    for _ in 0..TASKS {
        let task = a.call("hold", json!({})).await.answer;
        let id = task["result"]["taskId"].as_str().expect("a task").to_owned();
        let told = get(&b, &id).await;
        assert_eq!(told["result"]["status"], "working", "at once: {told}");
        made.push(id);
    }
    let instance = |id: &str| RoutedState::parse(id).expect("routed").instance.to_owned();
    let instances: BTreeSet<String> = made.iter().map(|id| instance(id)).collect();
    assert_eq!(
        instances,
        BTreeSet::from([lost.instance.clone(), kept.instance.clone()]),
        "both replicas make tasks"
    );
    lost.program.signal(Signal::KILL);
    lost.program.child.wait().await.expect("it ends");
    for id in &made {
        let told: Value = get(&b, id).await;
        if instance(id) == kept.instance {
            assert_eq!(told["result"]["status"], "working", "{told}");
        } else {
            assert_eq!(told["error"]["code"], error::INVALID_PARAMS, "{told}");
        }
    }
}
