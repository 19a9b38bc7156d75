//! Two hundred servers at one platform, of which twenty fail in different ways: the others do not notice, and nothing is left behind.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::mcp::method;
use futures::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{
    children::scripted,
    eventually,
    http::{Client, text},
    mark::Mark,
    scripted::{Asked, Scripted},
    within,
};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Fault, garbage, one_tool};
use crate::processes::{terminate, up::Up};

const HEALTHY: usize = 180;
/// How many calls are measured at a time, by how many callers.
const CALLS: usize = 1_000;
const CALLERS: usize = 8;
/// How many callers the failing ones have, all the time.
const FAILING_CALLERS: usize = 8;
/// What the slowest calls may cost more when others fail, on a machine that has much else to do: it is the order that counts here,
/// and the figures are printed.
const MOST_TIMES: u32 = 20;
const MOST_MORE: Duration = Duration::from_secs(1);
/// A list waits for a mute server for five seconds, and this is for all else.
const LIST_WITHIN: Duration = Duration::from_secs(15);
/// What a platform opens for other reasons.
const MORE_FILES: usize = 8;

struct Crowd {
    /// Where the platform's HTTP is, and its process.
    base: String,
    process: u32,
    http: reqwest::Client,
    well: Scripted,
    ill: Scripted,
    garbage: u16,
}

/// Which way a failing server fails, by the path that it is at.
fn fault_at(path: &str) -> Option<Fault> {
    let name = path.trim_start_matches('/').split('-').next()?;
    Fault::ALL
        .into_iter()
        .find(|fault| format!("{fault:?}").to_lowercase() == name)
}

/// It tells its tools once for each path, and never again.
async fn mute(asked: Asked, listed: Arc<Mutex<BTreeSet<String>>>) -> axum::response::Response {
    let again = || {
        let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
        !listed.insert(asked.path.clone())
    };
    if asked.called() == method::TOOLS_LIST && again() {
        return Fault::Hangs.answer(&asked).await;
    }
    asked.modern(&one_tool())
}

impl Crowd {
    async fn of(up: &Up) -> Self {
        let well = Scripted::start(|asked: Asked| async move { asked.modern(&one_tool()) }).await;
        let listed: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let ill = Scripted::start(move |asked: Asked| {
            let listed = Arc::clone(&listed);
            async move {
                match fault_at(&asked.path) {
                    Some(fault) if asked.called() == method::TOOLS_CALL => fault.answer(&asked).await,
                    Some(_) => asked.modern(&one_tool()),
                    None => mute(asked, listed).await,
                }
            }
        })
        .await;
        let (garbage, _serving) = garbage().await;
        Self {
            base: up.text("http").to_owned(),
            process: up.program.child.id().expect("it runs"),
            // Connections of the test itself are none that are left behind.
            http: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .build()
                .expect("a client"),
            well,
            ill,
            garbage,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.request(method, self.url(path));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = within("an answer", request.send()).await.expect("an answer");
        let status = answer.status();
        let text = within("a body", answer.text()).await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    fn client(&self, server: &str) -> Client {
        Client::new(self.url(&format!("/servers/{server}/mcp")))
    }

    fn healthy() -> Vec<String> {
        (0..HEALTHY).map(|number| format!("well-{number}")).collect()
    }

    /// The registered ones that fail, with where they are.
    fn failing(&self) -> Vec<(String, String)> {
        let kinds = Fault::ALL
            .into_iter()
            .map(|fault| format!("{fault:?}").to_lowercase())
            .map(|kind| (kind.clone(), format!("http://{}/{kind}", self.ill.addr)))
            .chain([
                ("mute".to_owned(), format!("http://{}/mute", self.ill.addr)),
                ("refusing".to_owned(), "http://127.0.0.1:1/".to_owned()),
                (
                    "garbage".to_owned(),
                    format!("https://127.0.0.1:{}/", self.garbage),
                ),
            ]);
        kinds
            .flat_map(|(kind, url)| (1..=2).map(move |n| (format!("{kind}-{n}"), format!("{url}-{n}"))))
            .collect()
    }

    async fn register(&self, servers: Vec<(String, String)>) {
        let all = servers.into_iter().map(|(id, url)| async move {
            let wish = json!({
                "id": id, "url": url, "allowPrivate": true, "callTimeoutMs": 1_000,
                "breaker": { "failures": 3, "openSecs": 1 }
            });
            let (status, told) = self.ask(Method::POST, "/servers", &wish).await;
            assert_eq!(status, StatusCode::CREATED, "{told}");
        });
        stream::iter(all).buffer_unordered(8).collect::<Vec<_>>().await;
    }

    async fn remove(&self, ids: impl IntoIterator<Item = String>) {
        let all = ids.into_iter().map(|id| async move {
            let path = format!("/servers/{id}");
            let (status, told) = self.ask(Method::DELETE, &path, &Value::Null).await;
            assert_eq!(status, StatusCode::NO_CONTENT, "{told}");
        });
        stream::iter(all).buffer_unordered(8).collect::<Vec<_>>().await;
    }

    async fn statuses(&self, wanted: &str) -> BTreeSet<String> {
        let path = format!("/servers?limit=1000&status={wanted}");
        let (_, list) = self.ask(Method::GET, &path, &Value::Null).await;
        let servers = list["servers"].as_array().expect("a list");
        servers
            .iter()
            .map(|server| server["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    async fn all_healthy_are_well(&self) {
        let ids: BTreeSet<_> = Self::healthy().into_iter().collect();
        eventually("all healthy ones are well", async || {
            self.statuses("healthy").await.is_superset(&ids)
        })
        .await;
    }

    /// Calls all healthy servers, each caller one after the other; gives how long each call took. All have to be answered.
    async fn measure(&self) -> Vec<Duration> {
        let mut callers = JoinSet::new();
        let clients: Arc<Vec<_>> = Arc::new(Self::healthy().iter().map(|id| self.client(id)).collect());
        for caller in 0..CALLERS {
            let clients = Arc::clone(&clients);
            callers.spawn(async move {
                let mut took = Vec::new();
                for number in 0..CALLS / CALLERS {
                    let client = &clients[(number * CALLERS + caller) % HEALTHY];
                    let begun = Instant::now();
                    let answer = within("an answer", client.call("work", json!({ "n": number }))).await;
                    took.push(begun.elapsed());
                    assert_eq!(text(&answer), json!({ "n": number }).to_string(), "{answer}");
                }
                took
            });
        }
        let mut took: Vec<_> = callers.join_all().await.concat();
        took.sort();
        took
    }

    /// Calls all failing servers until it is stopped; gives how many calls that were.
    fn load(&self, stop: &CancellationToken) -> JoinSet<usize> {
        let mut clients: Vec<_> = self
            .failing()
            .iter()
            .map(|(id, _)| (self.client(id), "work"))
            .collect();
        clients.push((self.client("dying"), "crash"));
        clients.push((self.client("looping"), "echo"));
        let clients = Arc::new(clients);
        let mut callers = JoinSet::new();
        for caller in 0..FAILING_CALLERS {
            let (clients, stop) = (Arc::clone(&clients), stop.clone());
            callers.spawn(async move {
                let mut calls = 0;
                for (client, tool) in clients.iter().cycle().skip(caller * 3) {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        answer = client.call(tool, json!({})) => {
                            // The mute ones answer calls.
                            assert!(answer["error"].is_object() || answer["result"].is_object(), "{answer}");
                        }
                    }
                    calls += 1;
                }
                calls
            });
        }
        callers
    }

    /// What the platform has open: files, pipes and connections.
    fn open_files(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.process))
            .expect("a system that shows open files in /proc");
        open.count()
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the figures are for who reads what the test prints"
)]
fn show(without: &[Duration], with: &[Duration], failed: usize, listed_within: Duration) {
    println!(
        "{HEALTHY} servers that are well, calls to them without ({} of them) and with ({}) 20 others that fail under {failed} calls:",
        without.len(),
        with.len()
    );
    for percent in [50, 90, 99] {
        let (without, with) = (percentile(without, percent), percentile(with, percent));
        let times = with.as_secs_f64() / without.as_secs_f64();
        println!("p{percent} {without:?} and {with:?}, {times:.2} times");
    }
    println!("the list of all came within {listed_within:?}");
}

fn percentile(took: &[Duration], percent: usize) -> Duration {
    took[(took.len() * percent / 100).min(took.len() - 1)]
}

async fn list_of_all(client: &Client) -> Value {
    let request = client.modern(method::TOOLS_LIST, json!({}));
    let answer = within("a list", request.send()).await.expect("an answer");
    answer.json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_servers_twenty_that_fail_in_different_ways_are_not_noticed_by_the_others() {
    let mark = Mark::new();
    let more = format!(
        "env = {{ MARK = \"{}\" }}\nbreaker = {{ failures = 3, open_secs = 1 }}",
        mark.word()
    );
    let lines = scripted("dying", "none", &more) + &scripted("looping", "leaves", &more);
    let mut up = Up::start(&lines).await;
    let crowd = Crowd::of(&up).await;
    // It says much, and somebody has to read it.
    let read = async {
        while let Ok(Some(_)) = up.program.log.next_line().await {}
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = read => {}
        () = goes_well(&crowd) => {}
    }
    terminate(up.program).await;
    mark.expect_gone().await;
}

async fn goes_well(crowd: &Crowd) {
    let before = crowd.open_files();
    let healthy = Crowd::healthy();
    let urls = healthy
        .iter()
        .map(|id| (id.clone(), format!("http://{}/{id}", crowd.well.addr)));
    crowd.register(urls.collect()).await;
    crowd.all_healthy_are_well().await;
    crowd.measure().await;
    let mut without = crowd.measure().await;
    crowd.register(crowd.failing()).await;
    let stop = CancellationToken::new();
    let load = crowd.load(&stop);
    let down: BTreeSet<_> = ["garbage-1", "garbage-2", "refusing-1", "refusing-2"]
        .map(str::to_owned)
        .into();
    eventually("those that cannot be reached are down", async || {
        crowd.statuses("down").await.is_superset(&down)
    })
    .await;
    let with = crowd.measure().await;
    // The list of all is there in its time, with all that are well, and says whom it misses.
    let begun = Instant::now();
    let list = list_of_all(&Client::new(crowd.url("/mcp"))).await;
    let listed_within = begun.elapsed();
    let tools = list["result"]["tools"].as_array().expect("tools");
    let names: BTreeSet<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    for id in &healthy {
        assert!(names.contains(format!("{id}__work").as_str()), "{id} is missing");
    }
    let missing = list["result"]["_meta"]["io.trunkline/missing"].to_string();
    for id in ["mute-1", "mute-2"] {
        assert!(missing.contains(id), "{missing}");
    }
    assert!(listed_within < LIST_WITHIN, "{listed_within:?}");
    stop.cancel();
    let failed: usize = load.join_all().await.iter().sum();
    // Nothing is left of them: no connection, no process.
    let failing = crowd.failing().into_iter().map(|(id, _)| id);
    crowd.remove(failing).await;
    // Before and after, as the machine has other things to do that come and go.
    without.extend(crowd.measure().await);
    without.sort();
    let p99 = [percentile(&without, 99), percentile(&with, 99)];
    show(&without, &with, failed, listed_within);
    assert!(p99[1] < p99[0] * MOST_TIMES + MOST_MORE, "{p99:?}");
    assert!(failed > 20, "{failed}");
    crowd.remove(healthy).await;
    eventually("all connections are closed", async || {
        crowd.open_files() <= before + MORE_FILES
    })
    .await;
}
