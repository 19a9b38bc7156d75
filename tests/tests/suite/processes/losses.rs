//! A fleet that loses its registries, its processes and its NATS: what was acknowledged stays, and calls know nothing of it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{eventually, http::text, scripted::Scripted, within};
use tokio::task::JoinSet;

use super::{Cluster, HttpBridge, terminate};

const WRITERS: usize = 4;
const CALLERS: usize = 4;
/// How many registrations are acknowledged between two losses.
const BETWEEN: usize = 12;

async fn server() -> Scripted {
    Scripted::start(|asked| async move {
        asked.modern(&json!([{ "name": "work", "inputSchema": { "type": "object" } }]))
    })
    .await
}

/// Registrations and calls that go on until they are told to stop.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    failed: Arc<Mutex<Vec<Value>>>,
    calls: Arc<AtomicUsize>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    fn on(bridge: &HttpBridge, url: &str) -> Self {
        let mut load = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
            failed: Arc::default(),
            calls: Arc::default(),
        };
        for writer in 0..WRITERS {
            let (stop, acknowledged) = (Arc::clone(&load.stop), Arc::clone(&load.acknowledged));
            let (to, url) = (format!("{}/servers", bridge.base), url.to_owned());
            load.tasks.spawn(async move {
                let client = reqwest::Client::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let id = format!("w{writer}-{number}");
                    let wish = json!({ "id": id, "url": url, "allowPrivate": true }).to_string();
                    let post = client
                        .post(&to)
                        .header("content-type", "application/json")
                        .body(wish);
                    let answer = within("an answer", post.send())
                        .await
                        .expect("the bridge is there");
                    match answer.status() {
                        StatusCode::CREATED | StatusCode::OK => {
                            lock(&acknowledged).insert(id);
                        }
                        // Not acknowledged; it may have been taken or not.
                        status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{id}"),
                    }
                }
            });
        }
        for _ in 0..CALLERS {
            let (stop, failed, calls) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.failed),
                Arc::clone(&load.calls),
            );
            let client = bridge.client("products");
            load.tasks.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let answer = within("an answer", client.call("list_categories", json!({}))).await;
                    calls.fetch_add(1, Ordering::SeqCst);
                    if !answer["result"].is_object() {
                        lock(&failed).push(answer);
                    }
                }
            });
        }
        load
    }

    fn count(&self) -> usize {
        lock(&self.acknowledged).len()
    }

    async fn goes_on(&self) {
        let (enough, calls) = (
            self.count() + BETWEEN,
            self.calls.load(Ordering::SeqCst) + BETWEEN,
        );
        eventually("more registrations and calls", async || {
            self.count() >= enough && self.calls.load(Ordering::SeqCst) >= calls
        })
        .await;
    }

    async fn end(self) -> (BTreeSet<String>, Vec<Value>) {
        self.stop.store(true, Ordering::SeqCst);
        within("the last answers", self.tasks.join_all()).await;
        let acknowledged = lock(&self.acknowledged).clone();
        let failed = lock(&self.failed).clone();
        (acknowledged, failed)
    }
}

async fn registered(bridge: &HttpBridge) -> BTreeSet<String> {
    let url = format!("{}/servers", bridge.base);
    let answer = within("a list", reqwest::get(url)).await.expect("an answer");
    let list: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
    let servers = list["servers"].as_array().expect("a list").iter();
    servers
        .map(|server| server["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn what_was_acknowledged_outlives_registries_and_the_broker_and_calls_know_nothing_of_it() {
    let upstream = server().await;
    let mut cluster = Cluster::start().await;
    let (mut first, second) = tokio::join!(cluster.serve(&["registry"]), cluster.serve(&["registry"]));
    let (products, bridge) = tokio::join!(cluster.serve(&["products"]), cluster.bridge());
    let load = Load::on(&bridge, &upstream.url());
    load.goes_on().await;
    first.program.signal(Signal::KILL);
    within("its end", first.program.child.wait())
        .await
        .expect("it ends");
    load.goes_on().await;
    // Without any registry nothing is acknowledged, and calls go on.
    terminate(second.program).await;
    let before = load.calls.load(Ordering::SeqCst);
    eventually("calls go on", async || {
        load.calls.load(Ordering::SeqCst) > before + BETWEEN
    })
    .await;
    let third = cluster.serve(&["registry"]).await;
    load.goes_on().await;
    let (mut acknowledged, failed) = load.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    let load = Load::on(&bridge, &upstream.url());
    cluster.nats.restart().await;
    load.goes_on().await;
    // Calls that were under way when the broker was restarted may have failed; those are not the registry's.
    acknowledged.extend(load.end().await.0);
    eventually("all are told of", async || {
        registered(&bridge).await.is_superset(&acknowledged)
    })
    .await;
    for program in [third.program, products.program, bridge.program] {
        terminate(program).await;
    }
}

#[tokio::test]
async fn servers_of_a_process_that_was_killed_are_served_by_another_within_seconds() {
    let upstream = server().await;
    let cluster = Cluster::start().await;
    let registry = cluster.serve(&["registry"]).await;
    let (mut first, second) = tokio::join!(cluster.serve(&["upstreams"]), cluster.serve(&["upstreams"]));
    let bridge = cluster.bridge().await;
    let ids: Vec<_> = (0..16).map(|number| format!("s{number}")).collect();
    for id in &ids {
        let url = upstream.url();
        let (code, _, err) = cluster
            .run(&["servers", "add", id, &url, "--allow-private"])
            .await;
        assert_eq!(code, 0, "{err}");
    }
    let all_answer = async || {
        for id in &ids {
            if text(&bridge.client(id).call("work", json!({ "a": 1 })).await) != r#"{"a":1}"# {
                return false;
            }
        }
        true
    };
    eventually("all answer", all_answer).await;
    let owner = async |id: &str| {
        let shown = cluster.json(&["servers", "show", id, "--json"]).await;
        shown["replicas"][0]["instance"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let mut owners = BTreeSet::new();
    for id in &ids {
        owners.insert(owner(id).await);
    }
    let both = BTreeSet::from([first.instance.clone(), second.instance.clone()]);
    assert_eq!(owners, both, "both have some");
    first.program.signal(Signal::KILL);
    within("its end", first.program.child.wait())
        .await
        .expect("it ends");
    eventually("all answer again", all_answer).await;
    for id in &ids {
        assert_eq!(owner(id).await, second.instance);
    }
    for program in [second.program, registry.program, bridge.program] {
        terminate(program).await;
    }
}
