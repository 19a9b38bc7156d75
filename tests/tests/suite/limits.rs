//! Limits and blocks: what a caller may have done is counted once for all processes and all doors, and a full stop is one.

mod blocks;
mod broker;
mod doors;
mod places;

use std::sync::Arc;

use bus_schema::mcp::method;
use futures::future::join_all;
use reqwest::Response;
use runtime::Host;
use serde_json::{Value, json};
use tests::{
    eventually,
    fixture::{self, Probe},
    http::Client,
    platform::Platform,
    program::Program,
    versioned::Versioned,
    whoami::WhoAmI,
    within,
};

use crate::processes::{Cluster, HttpBridge, meter};

/// As long as a window may be: no test is near its end.
const HOUR: &str = "window_secs = 3600";

async fn call(client: &Client, tool: &str) -> Response {
    let request = client.modern(method::TOOLS_CALL, json!({ "name": tool, "arguments": {} }));
    within("an answer", request.send()).await.expect("an answer")
}

async fn status(client: &Client, tool: &str) -> u16 {
    call(client, tool).await.status().as_u16()
}

fn number(response: &Response, header: &str) -> Option<u64> {
    response.headers().get(header)?.to_str().ok()?.parse().ok()
}

/// A platform with two servers on its bus, and the limits of a file.
async fn platform(limits: &str) -> (Platform, Vec<Host>) {
    let platform = Platform::start(limits, &[]).await;
    let bus = platform.node.bus();
    let hosts = vec![
        WhoAmI::serve(bus).await,
        Versioned::new("1.0.0").serve(bus, |_| {}).await,
    ];
    platform.knows("whoami").await;
    platform.knows("versioned").await;
    (platform, hosts)
}

/// Bridges of one cluster with the same limits, and a server behind them.
async fn bridges(cluster: &Cluster, limits: &str, count: usize) -> (Vec<HttpBridge>, Host) {
    let bus = cluster.nats.bus().await;
    let host = WhoAmI::serve(&bus).await;
    let file = cluster.file("limits.toml", limits).display().to_string();
    let words = ["--config", file.as_str()];
    let starting = (0..count).map(|_| cluster.bridge_with(&words));
    let bridges = join_all(starting).await;
    for bridge in &bridges {
        knows(bridge, "whoami").await;
    }
    (bridges, host)
}

async fn knows(bridge: &HttpBridge, server: &str) {
    let client = bridge.client(server);
    eventually("the bridge knows the server", async || {
        client.list_tools().await["result"].is_object()
    })
    .await;
}

#[tokio::test]
async fn three_bridges_together_allow_one_caller_its_limit_and_no_more() {
    const CALLS: u64 = 200;
    let cluster = Cluster::start().await;
    let limits = format!("[[limits]]\nname = \"caller\"\ncalls = {CALLS}\n{HOUR}");
    let (bridges, _host) = bridges(&cluster, &limits, 3).await;
    let clients: Vec<_> = bridges.iter().map(|bridge| bridge.client("whoami")).collect();
    // Three times the limit, a dozen at a time, spread over all bridges.
    let (mut allowed, mut refused) = (0, 0);
    for _ in 0..CALLS * 3 / 12 {
        let wave = (0..12).map(|at| call(&clients[at % 3], "whoami"));
        for answer in join_all(wave).await {
            match answer.status().as_u16() {
                200 => allowed += 1,
                429 => {
                    assert!(number(&answer, "retry-after").is_some_and(|secs| secs > 0));
                    refused += 1;
                }
                other => panic!("status {other}"),
            }
        }
    }
    println!("{allowed} of {CALLS} allowed, {refused} refused");
    assert_eq!(allowed + refused, CALLS * 3);
    assert!(
        (CALLS * 95 / 100..=CALLS).contains(&allowed),
        "{allowed} of {CALLS}"
    );
    // Every call is told of once, by the process that counted it.
    let (mut told_allowed, mut told_refused) = (0, 0);
    for bridge in &bridges {
        let metrics = format!("{}/metrics", bridge.base);
        told_allowed += meter(&metrics, "trunkline_limits_calls_total", "allowed").await;
        told_refused += meter(&metrics, "trunkline_limits_calls_total", "refused").await;
    }
    assert_eq!((told_allowed, told_refused), (allowed, refused));
}

#[tokio::test]
async fn a_refusal_says_which_limit_it_is_and_when_to_come_again_and_an_answer_how_it_stands() {
    let (platform, _hosts) = platform(&format!(
        "[[limits]]\nname = \"few\"\ncalls = 3\n{HOUR}\n[[limits]]\nname = \"many\"\ncalls = 100\n{HOUR}"
    ))
    .await;
    let client = platform.client("whoami");
    for left in [2, 1, 0] {
        let answer = call(&client, "whoami").await;
        assert_eq!(answer.status(), 200);
        let told = ["limit", "remaining", "reset"].map(|what| number(&answer, &format!("ratelimit-{what}")));
        assert_eq!((told[0], told[1]), (Some(3), Some(left)), "the nearest one");
        assert!(
            told[2].is_some_and(|secs| (1..=3_600).contains(&secs)),
            "{told:?}"
        );
        assert!(number(&answer, "retry-after").is_none());
    }
    let answer = call(&client, "whoami").await;
    assert_eq!(answer.status(), 429);
    let retry = number(&answer, "retry-after").expect("when to come again");
    assert_eq!(
        (
            number(&answer, "ratelimit-limit"),
            number(&answer, "ratelimit-remaining")
        ),
        (Some(3), Some(0))
    );
    let answer: Value = answer.json().await.expect("JSON");
    let (error, data) = (&answer["error"], &answer["error"]["data"]);
    assert_eq!(
        (&answer["id"], &data["reason"], &data["limit"]),
        (&json!(1), &json!("rate_limited"), &json!("few"))
    );
    let told = data["retryAfterMs"].as_u64().expect("a time");
    assert_eq!(told.div_ceil(1_000), retry);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("`few` allows 3 calls in 3600 s")),
        "{error}"
    );
    // What is no work is not counted: lists, and what an endpoint says of itself.
    let list = within("a list", client.modern(method::TOOLS_LIST, json!({})).send())
        .await
        .expect("an answer");
    assert_eq!(list.status(), 200);
    assert!(number(&list, "ratelimit-limit").is_none());
    platform.stop().await;
}

#[tokio::test]
async fn what_is_counted_apart_is_limited_apart() {
    for (by, limited, free) in [
        (
            "tool",
            ("versioned", "which"),
            vec![("versioned", "same"), ("whoami", "whoami")],
        ),
        ("server", ("versioned", "which"), vec![("whoami", "whoami")]),
        ("tenant", ("versioned", "which"), vec![]),
    ] {
        let (platform, _hosts) = platform(&format!(
            "[[limits]]\nname = \"one\"\nby = \"{by}\"\ncalls = 1\n{HOUR}"
        ))
        .await;
        let ask = async |(server, tool): (&str, &str)| status(&platform.client(server), tool).await;
        assert_eq!((ask(limited).await, ask(limited).await), (200, 429), "{by}");
        for other in &free {
            assert_eq!(ask(*other).await, 200, "{by} {other:?}");
        }
        if by == "tenant" {
            assert_eq!(ask(("whoami", "whoami")).await, 429);
        }
        platform.stop().await;
    }
}

#[tokio::test]
async fn a_limit_is_for_the_tools_that_it_names_however_they_are_called() {
    let (platform, _hosts) = platform(&format!(
        "[[limits]]\nname = \"writes\"\nfor = [\"versioned__w*\"]\ncalls = 1\n{HOUR}"
    ))
    .await;
    let (own, all) = (platform.client("versioned"), platform.client_of_all());
    assert_eq!(status(&own, "write").await, 200);
    assert_eq!(status(&all, "versioned__write").await, 429);
    assert_eq!(status(&own, "which").await, 429);
    assert_eq!(status(&own, "same").await, 200);
    platform.stop().await;
}

#[tokio::test]
async fn a_days_quota_is_kept_by_all_bridges_and_outlives_them() {
    let mut cluster = Cluster::start().await;
    let limits = "[[limits]]\nname = \"day\"\ndaily = 10";
    let (running, host) = bridges(&cluster, limits, 2).await;
    let eight_calls = async |bridges: &[HttpBridge]| {
        let mut told = Vec::new();
        for at in 0..8 {
            told.push(status(&bridges[at % 2].client("whoami"), "whoami").await);
        }
        told
    };
    assert_eq!(eight_calls(&running).await, [200; 8]);
    host.stop().await;
    drop(running);
    // The broker is started anew, and so are the bridges: the day is the same.
    cluster.nats.restart().await;
    let (running, _host) = bridges(&cluster, limits, 2).await;
    let told = eight_calls(&running).await;
    assert_eq!(
        told,
        [200, 200, 429, 429, 429, 429, 429, 429],
        "or the day has ended meanwhile"
    );
}

#[tokio::test]
async fn so_many_calls_run_at_once_and_one_more_when_one_has_ended() {
    let probe = Arc::<Probe>::default();
    let platform = Platform::start("[[limits]]\nname = \"busy\"\nconcurrent = 2", &[]).await;
    let _host = fixture::serve(platform.node.bus(), Arc::clone(&probe), |_| {}).await;
    platform.knows("fixture").await;
    let client = platform.client("fixture");
    let mut held: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { status(&client, "hold").await })
        })
        .collect();
    probe.held.begun.many("calls have begun", 2).await;
    let refused = call(&client, "count").await;
    assert_eq!(refused.status(), 429);
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["data"]["limit"], "busy");
    // A client that goes away gives its place back.
    held.remove(0).abort();
    eventually("a place is free", async || status(&client, "count").await == 200).await;
    probe.release.notify_waiters();
    assert_eq!(held.remove(0).await.expect("it ends"), 200);
    platform.stop().await;
}

#[tokio::test]
async fn without_jetstream_each_process_keeps_the_limit_by_itself_and_says_so_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut server, url) = tests::nats::plain(folder.path()).await;
    let file = folder.path().join("limits.toml");
    std::fs::write(&file, format!("[[limits]]\nname = \"few\"\ncalls = 5\n{HOUR}")).expect("written");
    let (file, data) = (file.display().to_string(), folder.path().display().to_string());
    let words = [
        "bridge",
        "http",
        "--listen",
        "127.0.0.1:0",
        "--log-json",
        "--nats",
        &url,
        "--data-dir",
        &data,
        "--config",
        &file,
    ];
    let mut program = Program::start(&words);
    let line: Value = serde_json::from_str(&program.logged("bridge is ready").await).expect("JSON");
    let mcp = line["fields"]["mcp"].as_str().expect("an address");
    let base = mcp
        .strip_suffix("/mcp")
        .expect("the endpoint of all servers")
        .to_owned();
    let bus = tests::nats::bus_of(&url).await;
    let _host = WhoAmI::serve(&bus).await;
    let client = Client::new(format!("{base}/servers/whoami/mcp"));
    eventually("the bridge knows the server", async || {
        client.list_tools().await["result"].is_object()
    })
    .await;
    let mut told = Vec::new();
    for _ in 0..8 {
        told.push(status(&client, "whoami").await);
    }
    assert_eq!(told, [200, 200, 200, 200, 200, 429, 429, 429]);
    program.logged("each process keeps limits by itself").await;
    program.logged("a limit is reached").await;
    program.signal(rustix::process::Signal::TERM);
    while let Some(line) = within("the log", program.log.next_line())
        .await
        .expect("readable")
    {
        assert!(
            !line.contains("keeps limits by itself") && !line.contains("a limit is reached"),
            "{line}"
        );
    }
    server.start_kill().expect("it runs");
    within("the end of nats-server", server.wait())
        .await
        .expect("it ends");
}

#[tokio::test]
async fn a_changed_file_changes_the_limits_of_a_running_bridge() {
    let cluster = Cluster::start().await;
    let limits = |calls: u64| format!("[[limits]]\nname = \"few\"\ncalls = {calls}\n{HOUR}");
    let (mut running, _host) = bridges(&cluster, &limits(2), 1).await;
    let client = running[0].client("whoami");
    let ask = async || status(&client, "whoami").await;
    assert_eq!((ask().await, ask().await, ask().await), (200, 200, 429));
    cluster.file("limits.toml", &limits(3));
    running[0]
        .program
        .logged("took the changed configuration file")
        .await;
    assert_eq!(
        (ask().await, ask().await),
        (200, 429),
        "what was counted stays counted"
    );
    cluster.file("limits.toml", "[[limits]]\nname = \"few\"\ncalls = 0");
    let refused = running[0].program.logged("cannot be used").await;
    assert!(refused.contains("calls = 0; use 1 to"), "{refused}");
    assert_eq!(ask().await, 429, "and the old limits hold");
}
