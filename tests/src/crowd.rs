//! Two hundred servers at one running platform, of which twenty fail in different ways, and how long calls to the others take.
//!
//! A test and a benchmark go through it; what is measured and what is expected is theirs to say.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::mcp::method;
use futures::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    children, eventually,
    fault::{Fault, garbage, one_tool},
    http::{Client, text},
    mark::Mark,
    scripted::{Asked, Scripted},
    within,
};

/// How many servers are well.
pub const HEALTHY: usize = 180;
/// How many callers those that fail have, all the time.
const FAILING_CALLERS: usize = 8;

/// The servers, and the platform that they are at.
pub struct Crowd {
    /// Where the platform's HTTP is, and its process.
    base: String,
    process: u32,
    http: reqwest::Client,
    well: Scripted,
    ill: Scripted,
    garbage: u16,
}

/// Calls that are made beside those that are measured.
pub struct Beside {
    stop: CancellationToken,
    callers: JoinSet<usize>,
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

/// The lines of the two children that fail: one dies at each call, one at each start.
#[must_use]
pub fn failing_lines(mark: &Mark) -> String {
    let more = format!(
        "env = {{ MARK = \"{}\" }}\nbreaker = {{ failures = 3, open_secs = 1 }}",
        mark.word()
    );
    children::scripted("dying", "none", &more) + &children::scripted("looping", "leaves", &more)
}

/// A share of sorted times from below.
#[must_use]
pub fn percentile(took: &[Duration], percent: usize) -> Duration {
    took[(took.len() * percent / 100).min(took.len() - 1)]
}

impl Crowd {
    /// Servers for the platform whose HTTP is there, and whose process has this id.
    ///
    /// # Panics
    /// When they cannot be started.
    pub async fn of(base: &str, process: u32) -> Self {
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
            base: base.to_owned(),
            process,
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

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
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

    /// The ids of those that are well.
    #[must_use]
    pub fn healthy() -> Vec<String> {
        (0..HEALTHY).map(|number| format!("well-{number}")).collect()
    }

    /// Those that are well, with where they are.
    #[must_use]
    pub fn all_healthy(&self) -> Vec<(String, String)> {
        self.at_well(&Self::healthy())
    }

    /// Others that are well, in the place of those that fail.
    #[must_use]
    pub fn stand_ins(&self) -> Vec<(String, String)> {
        let ids: Vec<_> = (0..self.failing().len())
            .map(|number| format!("other-{number}"))
            .collect();
        self.at_well(&ids)
    }

    fn at_well(&self, ids: &[String]) -> Vec<(String, String)> {
        let at = |id: &String| (id.clone(), format!("http://{}/{id}", self.well.addr));
        ids.iter().map(at).collect()
    }

    /// The registered ones that fail, with where they are.
    #[must_use]
    pub fn failing(&self) -> Vec<(String, String)> {
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

    /// Registers servers.
    ///
    /// # Panics
    /// When one is not taken.
    pub async fn register(&self, servers: Vec<(String, String)>) {
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

    /// Removes servers.
    ///
    /// # Panics
    /// When one is not there.
    pub async fn remove(&self, ids: impl IntoIterator<Item = String>) {
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

    /// Waits until these servers are well.
    ///
    /// # Panics
    /// When one does not become so.
    pub async fn are_well(&self, servers: &[(String, String)]) {
        let ids: BTreeSet<_> = servers.iter().map(|(id, _)| id.clone()).collect();
        eventually("all healthy ones are well", async || {
            self.statuses("healthy").await.is_superset(&ids)
        })
        .await;
    }

    /// Waits until those that cannot be reached are known to be down.
    ///
    /// # Panics
    /// When one is not.
    pub async fn are_down(&self) {
        let down: BTreeSet<_> = ["garbage-1", "garbage-2", "refusing-1", "refusing-2"]
            .map(str::to_owned)
            .into();
        eventually("those that cannot be reached are down", async || {
            self.statuses("down").await.is_superset(&down)
        })
        .await;
    }

    /// Calls all healthy servers, each caller one after the other; gives how long each call took, in order. All have to be answered.
    ///
    /// # Panics
    /// When one is not answered well.
    pub async fn measure(&self, calls: usize, callers: usize) -> Vec<Duration> {
        let mut running = JoinSet::new();
        let clients: Arc<Vec<_>> = Arc::new(Self::healthy().iter().map(|id| self.client(id)).collect());
        for caller in 0..callers {
            let clients = Arc::clone(&clients);
            running.spawn(async move {
                let mut took = Vec::new();
                for number in 0..calls / callers {
                    let client = &clients[(number * callers + caller) % HEALTHY];
                    let begun = Instant::now();
                    let answer = within("an answer", client.call("work", json!({ "n": number }))).await;
                    took.push(begun.elapsed());
                    assert_eq!(text(&answer), json!({ "n": number }).to_string(), "{answer}");
                }
                took
            });
        }
        let mut took: Vec<_> = running.join_all().await.concat();
        took.sort();
        took
    }

    /// Calls all that fail, the children among them, each caller as often as the pace says, or as soon as it can.
    #[must_use]
    pub fn call_failing(&self, pace: Option<Duration>) -> Beside {
        let failing = self.failing();
        let mut called: Vec<_> = failing.iter().map(|(id, _)| (self.client(id), "work")).collect();
        called.push((self.client("dying"), "crash"));
        called.push((self.client("looping"), "echo"));
        Beside::start(called, pace)
    }

    /// The same calls to servers that are well.
    #[must_use]
    pub fn call_stand_ins(&self, pace: Option<Duration>) -> Beside {
        let others = self.stand_ins();
        Beside::start(
            others.iter().map(|(id, _)| (self.client(id), "work")).collect(),
            pace,
        )
    }

    /// What the platform has open: files, pipes and connections.
    ///
    /// # Panics
    /// When there is no `/proc`.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.process))
            .expect("a system that shows open files in /proc");
        open.count()
    }
}

impl Beside {
    fn start(called: Vec<(Client, &'static str)>, pace: Option<Duration>) -> Self {
        let called = Arc::new(called);
        let stop = CancellationToken::new();
        let mut callers = JoinSet::new();
        for caller in 0..FAILING_CALLERS {
            let (called, stop) = (Arc::clone(&called), stop.clone());
            let mut ticks = pace.map(|pace| {
                let mut ticks = interval(pace);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
            callers.spawn(async move {
                let mut calls = 0;
                for (client, tool) in called.iter().cycle().skip(caller * 3) {
                    let call = async {
                        if let Some(ticks) = &mut ticks {
                            ticks.tick().await;
                        }
                        client.call(tool, json!({})).await
                    };
                    tokio::select! {
                        () = stop.cancelled() => break,
                        answer = call => {
                            // The mute ones answer calls.
                            assert!(answer["error"].is_object() || answer["result"].is_object(), "{answer}");
                        }
                    }
                    calls += 1;
                }
                calls
            });
        }
        Self { stop, callers }
    }

    /// Ends the calls; gives how many there were.
    pub async fn end(self) -> usize {
        self.stop.cancel();
        self.callers.join_all().await.iter().sum()
    }
}
