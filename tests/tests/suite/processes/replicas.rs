//! Replicas of one server: they share the load, and what becomes of calls when one is stopped or killed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus_schema::{Principal, Request, mcp::method};
use futures::future::join_all;
use runtime::Retry;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    children::scripted,
    eventually,
    fixture::{self, Probe},
    http::{Client, modern_body, text},
    mark::Mark,
    nats::Nats,
    within,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Cluster, HttpBridge, Replica, ends_well, logged, terminate};

const CALLERS: usize = 16;
/// How many calls are made before a replica goes, and at least as many afterwards.
const CALLS: usize = 160;
const SKU: &str = "OFF-0001";
/// The longest that a caller may be left in the dark.
const AT_ONCE: Duration = Duration::from_secs(1);

/// One call and what became of it.
struct Called {
    tool: &'static str,
    began: Instant,
    ended: Instant,
    answer: Value,
}

impl Called {
    fn succeeded(&self) -> bool {
        self.answer["result"].is_object() && self.answer["result"]["isError"] != true
    }
}

/// Callers that call without a pause until they are told to stop: one half reads, the other half writes what must not be
/// done twice.
struct Load {
    callers: JoinSet<Vec<Called>>,
    made: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Load {
    fn on(client: &Client) -> Self {
        let mut load = Self {
            callers: JoinSet::new(),
            made: Arc::default(),
            stop: CancellationToken::new(),
        };
        for caller in 0..CALLERS {
            let (client, made, stop) = (client.clone(), Arc::clone(&load.made), load.stop.clone());
            load.callers.spawn(async move {
                let mut calls = Vec::new();
                while !stop.is_cancelled() {
                    calls.push(call(&client, caller).await);
                    made.fetch_add(1, Ordering::Relaxed);
                }
                calls
            });
        }
        load
    }

    /// Waits until many more calls have been made.
    async fn goes_on(&self) {
        let enough = self.made.load(Ordering::Relaxed) + CALLS;
        eventually("many calls", async || self.made.load(Ordering::Relaxed) >= enough).await;
    }

    async fn end(self) -> Vec<Called> {
        self.stop.cancel();
        within("the last answers", self.callers.join_all())
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

async fn call(client: &Client, caller: usize) -> Called {
    let (tool, arguments) = if caller.is_multiple_of(2) {
        ("search", json!({ "query": "desk", "limit": 1 }))
    } else {
        (
            "adjust_stock",
            json!({ "sku": SKU, "delta": 1, "reason": "a test" }),
        )
    };
    let began = Instant::now();
    let answer = within("an answer", client.call(tool, arguments)).await;
    Called {
        tool,
        began,
        ended: Instant::now(),
        answer,
    }
}

async fn stock(client: &Client) -> usize {
    let answer = client.call("get", json!({ "sku": SKU })).await;
    let stock = answer["result"]["structuredContent"]["stock"].as_u64();
    usize::try_from(stock.unwrap_or_else(|| panic!("no stock: {answer}"))).expect("a small number")
}

/// Two replicas of the products server, and a bridge to them.
async fn two_replicas(cluster: &Cluster) -> (Replica, Replica, HttpBridge) {
    let (first, bridge) = tokio::join!(cluster.serve(&["products"]), cluster.bridge());
    let second = cluster.serve(&["products"]).await;
    (first, second, bridge)
}

#[tokio::test]
async fn a_killed_replica_costs_only_calls_that_are_unsafe_to_repeat_and_those_hear_of_it_at_once() {
    let cluster = Cluster::start().await;
    let (mut lost, _kept, bridge) = two_replicas(&cluster).await;
    let client = bridge.client("products");
    let before = stock(&client).await;
    let load = Load::on(&client);
    load.goes_on().await;
    let killed = Instant::now();
    lost.program.signal(Signal::KILL);
    load.goes_on().await;
    let calls = load.end().await;
    let mut failed = 0;
    for call in calls.iter().filter(|call| !call.succeeded()) {
        let (answer, error) = (&call.answer, &call.answer["error"]);
        assert_eq!(
            call.tool, "adjust_stock",
            "a safe call goes to the other replica: {answer}"
        );
        assert_eq!(
            error["data"],
            json!({ "reason": "host_lost", "server": "products", "replica": lost.instance }),
            "{answer}"
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains(&lost.instance)),
            "{answer}"
        );
        let took = call.ended.duration_since(killed.max(call.began));
        assert!(took < AT_ONCE, "the error took {took:?}");
        failed += 1;
    }
    // What was lost may have been done, and nothing was done twice.
    let adjusted = calls.iter().filter(|call| call.tool == "adjust_stock").count() - failed;
    let done = stock(&client).await - before;
    assert!(
        (adjusted..=adjusted + failed).contains(&done),
        "{adjusted} succeeded, {failed} failed, {done} done"
    );
    within("its end", lost.program.child.wait())
        .await
        .expect("it ends");
}

#[tokio::test]
async fn a_replica_that_is_stopped_costs_not_one_call() {
    let cluster = Cluster::start().await;
    let (leaving, _kept, bridge) = two_replicas(&cluster).await;
    let client = bridge.client("products");
    let before = stock(&client).await;
    let load = Load::on(&client);
    load.goes_on().await;
    terminate(leaving.program).await;
    let left = Instant::now();
    load.goes_on().await;
    let calls = load.end().await;
    let done = stock(&client).await - before;
    let adjusted = calls.iter().filter(|call| call.tool == "adjust_stock").count();
    let failed: Vec<_> = calls
        .iter()
        .filter(|call| !call.succeeded())
        .map(|call| (call.tool, left.duration_since(call.began), &call.answer))
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed, with how long before the replica's end each had begun: {failed:?}; {adjusted} adjustments were \
         asked for, {done} done",
        failed.len()
    );
    assert_eq!(done, adjusted);
}

#[tokio::test]
async fn calls_in_flight_at_a_killed_replica_fail_by_its_name_and_the_others_are_answered() {
    let cluster = Cluster::start().await;
    let mark = Mark::new();
    let env = format!("env = {{ MARK = \"{}\" }}", mark.word());
    let marked = cluster.file("marked.toml", &scripted("holder", "none", &env));
    let plain = cluster.file("plain.toml", &scripted("holder", "none", ""));
    let serve = async |file: &std::path::Path| {
        cluster
            .serve(&["holder", "--config", &file.to_string_lossy()])
            .await
    };
    let (mut lost, kept, bridge) = tokio::join!(serve(&marked), serve(&plain), cluster.bridge());
    let client = bridge.client("holder");
    let held: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { (client.call("hold", json!({})).await, Instant::now()) })
        })
        .collect();
    eventually("all calls are in flight", async || {
        lost.in_flight().await + kept.in_flight().await == CALLERS as u64
    })
    .await;
    let at_lost = usize::try_from(lost.in_flight().await).expect("a small number");
    let killed = Instant::now();
    lost.program.signal(Signal::KILL);
    eventually("its calls are over", async || {
        held.iter().filter(|call| call.is_finished()).count() >= at_lost
    })
    .await;
    // Only now, so that whoever was at the other replica is still there.
    client.call("release", json!({})).await;
    let mut failed = 0;
    for (answer, ended) in within("all answers", join_all(held))
        .await
        .into_iter()
        .map(|held| held.expect("no panic"))
    {
        if answer["error"].is_object() {
            assert_eq!(
                answer["error"]["data"]["replica"],
                lost.instance.as_str(),
                "{answer}"
            );
            let took = ended.duration_since(killed);
            assert!(took < AT_ONCE, "the error took {took:?}");
            failed += 1;
        } else {
            assert_eq!(text(&answer), "released", "{answer}");
        }
    }
    assert_eq!(failed, at_lost);
    within("its end", lost.program.child.wait())
        .await
        .expect("it ends");
    if cfg!(target_os = "linux") {
        // Nobody kills it: it ends as its pipe is closed.
        eventually("the end of its child", async || mark.processes().is_empty()).await;
    }
}

#[tokio::test]
async fn a_second_replica_shares_the_load_at_once_and_both_are_shown() {
    let cluster = Cluster::start().await;
    let (first, bridge) = tokio::join!(cluster.serve(&["products"]), cluster.bridge());
    let client = bridge.client("products");
    assert!(client.call("list_categories", json!({})).await["result"].is_object());
    let second = cluster.serve(&["products"]).await;
    let before = first.calls().await;
    for _ in 0..40 {
        assert!(client.call("list_categories", json!({})).await["result"].is_object());
    }
    let (first_took, second_took) = (first.calls().await - before, second.calls().await);
    assert_eq!(first_took + second_took, 40);
    assert!(
        first_took > 0 && second_took > 0,
        "{first_took} and {second_took}"
    );

    let both = BTreeSet::from([first.instance.clone(), second.instance.clone()]);
    let servers = cluster.json(&["servers", "--json"]).await;
    let replicas = servers[0]["replicas"].as_array().expect("a list").iter();
    let replicas: BTreeSet<_> = replicas
        .map(|replica| replica["instance"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!((servers[0]["id"].as_str(), &replicas), (Some("products"), &both));

    let mut tail = cluster.begin(&["tail", "--json"]);
    let mut seen = BTreeSet::new();
    let calls = async {
        loop {
            client.call("list_categories", json!({})).await;
        }
    };
    let watching = async {
        while seen != both {
            let line = tail
                .output
                .next_line()
                .await
                .expect("output")
                .expect("it goes on");
            let event: Value = serde_json::from_str(&line).expect("a line of JSON");
            assert_eq!(
                (&event["server"], &event["ended"]),
                (&json!("products"), &json!("answered")),
                "{event}"
            );
            if event["method"] == method::TOOLS_CALL {
                assert_eq!(
                    (&event["name"], &event["door"]),
                    (&json!("list_categories"), &json!("http"))
                );
                seen.insert(event["instance"].as_str().expect("a name").to_owned());
            }
        }
    };
    within("calls of both replicas", async {
        tokio::select! { () = calls => {} () = watching => {} }
    })
    .await;
    terminate(tail).await;
}

#[tokio::test]
async fn a_call_in_flight_when_its_host_or_its_door_is_stopped_is_answered() {
    let cluster = Cluster::start().await;
    for stops in ["host", "door"] {
        let (replica, bridge) = tokio::join!(cluster.serve(&["products"]), cluster.bridge());
        let client = bridge.client("products");
        let slowly = json!({ "batch_size": 60, "pause_ms": 20 });
        let call = tokio::spawn(async move { client.call("reindex", slowly).await });
        eventually("the call is in flight", async || replica.in_flight().await == 1).await;
        let (mut stopping, staying) = match stops {
            "host" => (replica.program, bridge.program),
            _ => (bridge.program, replica.program),
        };
        stopping.signal(Signal::TERM);
        logged(&mut stopping, "stopping").await;
        let answer = within("the answer", call).await.expect("no panic");
        let products = &answer["result"]["structuredContent"]["products"];
        assert_eq!(*products, 420, "{stops}: {answer}");
        ends_well(stopping).await;
        terminate(staying).await;
    }
}

/// The same promise at the level of the bus, often enough that a gap of microseconds shows.
#[tokio::test]
async fn hosts_that_come_and_go_cost_not_one_call_and_do_none_twice() {
    let nats = Nats::start().await;
    let (calling, steady) = (nats.bus().await, nats.bus().await);
    let probe = Arc::<Probe>::default();
    let _steady = fixture::serve(&steady, Arc::clone(&probe), |_| {}).await;
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (bus, stop) = (calling.clone(), stop.clone());
        callers.spawn(async move {
            let mut answers = Vec::new();
            while !stop.is_cancelled() {
                answers.push(within("an answer", bus.ask(count(), Retry::Never)).await);
            }
            answers
        });
    }
    for _ in 0..20 {
        let bus = nats.bus().await;
        let host = fixture::serve(&bus, Arc::clone(&probe), |_| {}).await;
        within("the end of a host", host.stop()).await;
        bus.close().await;
    }
    stop.cancel();
    let answers = within("the last answers", callers.join_all()).await;
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let failed: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {failed:?}",
        failed.len(),
        answers.len()
    );
    let counted = probe.counted.load(Ordering::Relaxed) as usize;
    assert_eq!(counted, answers.len(), "calls done, and calls made");
    assert!(counted > CALLS, "only {counted} calls were made");
}

/// A call that must not be repeated.
fn count() -> Request {
    let params = json!({ "name": "count", "arguments": {} });
    Request {
        caller: String::new(),
        call: 0,
        server: "fixture".to_owned(),
        method: method::TOOLS_CALL.to_owned(),
        name: Some("count".to_owned()),
        principal: Principal::developer(),
        protocol_version: "2026-07-28".to_owned(),
        door: "test".to_owned(),
        timeout_ms: 60_000,
        trace: None,
        chunked_bytes: 0,
        body: modern_body(method::TOOLS_CALL, params)
            .to_string()
            .into_bytes()
            .into(),
    }
}
