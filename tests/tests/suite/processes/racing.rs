//! Two registries, and processes that come and go, race for one server: it has one owner at every moment, as the server itself counts.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bus_schema::header;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    eventually,
    http::text,
    scripted::{Asked, Scripted, status},
    within,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Cluster, HttpBridge, terminate};

/// How many wishes of each racer are answered between two losses.
const BETWEEN: usize = 8;

/// A server that takes requests of the newest owner only.
#[derive(Clone, Default)]
struct Fence(Arc<Mutex<Counted>>);

#[derive(Clone, Debug, Default)]
struct Counted {
    newest: u64,
    owners: usize,
    /// What came of an owner after a newer one had come.
    late: Vec<(u64, u64, String)>,
}

impl Fence {
    fn counted(&self) -> Counted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a request is of the newest owner.
    fn lets_in(&self, asked: &Asked) -> bool {
        let number: u64 = asked.header(header::EPOCH).parse().expect("the owner's number");
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if number < counted.newest {
            let late = (number, counted.newest, asked.called().to_owned());
            counted.late.push(late);
            return false;
        }
        if number > counted.newest {
            counted.newest = number;
            counted.owners += 1;
        }
        true
    }
}

/// What goes on all the time.
struct Race {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    answered: Arc<AtomicUsize>,
}

impl Race {
    fn between(bridges: [&HttpBridge; 2], url: &str) -> Self {
        let mut race = Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            answered: Arc::default(),
        };
        for (racer, bridge) in bridges.into_iter().enumerate() {
            let (answered, to) = (Arc::clone(&race.answered), format!("{}/servers", bridge.base));
            let wish = |owner: usize| json!({ "id": "s", "url": url, "allowPrivate": true, "owner": format!("{racer} {owner}") });
            let wishes = [
                (Method::POST, to.clone(), wish(0)),
                (Method::PUT, format!("{to}/s"), wish(1)),
                (Method::PUT, format!("{to}/s"), wish(2)),
                (Method::DELETE, format!("{to}/s"), Value::Null),
            ];
            race.goes_on(async move {
                let client = reqwest::Client::new();
                // They go through it in opposite directions, so that they meet everywhere.
                let turns = wishes.iter().cycle().skip(racer * 2);
                for (method, url, body) in turns {
                    let asked = client
                        .request(method.clone(), url)
                        .header("content-type", "application/json");
                    let asked = asked.body(body.to_string()).send();
                    let answer = within("an answer", asked).await.expect("the bridge is there");
                    let known = [200, 201, 204, 404, 409, 412, 503];
                    assert!(
                        known.contains(&answer.status().as_u16()),
                        "{method}: {}",
                        answer.status()
                    );
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
            let caller = bridge.client("s");
            race.goes_on(async move {
                loop {
                    within("an answer", caller.call("work", json!({}))).await;
                }
            });
        }
        race
    }

    fn goes_on(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    async fn runs(&self) {
        let enough = self.answered.load(Ordering::SeqCst) + 2 * BETWEEN;
        eventually("more wishes are answered", async || {
            self.answered.load(Ordering::SeqCst) >= enough
        })
        .await;
    }

    async fn end(self) {
        self.stop.cancel();
        within("the end of the race", self.tasks.join_all()).await;
    }
}

#[tokio::test]
async fn a_server_that_is_raced_for_has_one_owner_at_every_moment() {
    let fence = Fence::default();
    let guard = fence.clone();
    let server = Scripted::start(move |asked: Asked| {
        let may = guard.lets_in(&asked);
        async move {
            if may {
                asked.modern(&json!([{ "name": "work", "inputSchema": { "type": "object" } }]))
            } else {
                status(409)
            }
        }
    })
    .await;
    let cluster = Cluster::start().await;
    let quiet = ["--log", "info,actors=warn,runtime=warn"];
    let registry: Vec<_> = ["registry"].iter().chain(&quiet).copied().collect();
    let upstreams: Vec<_> = ["upstreams"].iter().chain(&quiet).copied().collect();
    let (mut first, second) = tokio::join!(cluster.serve(&registry), cluster.serve(&registry));
    let (mut one, two) = tokio::join!(cluster.serve(&upstreams), cluster.serve(&upstreams));
    let (here, there) = tokio::join!(cluster.bridge(), cluster.bridge());
    let race = Race::between([&here, &there], &server.url());
    eventually("it has had owners", async || fence.counted().owners >= 3).await;
    race.runs().await;
    first.program.signal(Signal::KILL);
    within("its end", first.program.child.wait())
        .await
        .expect("it ends");
    race.runs().await;
    one.program.signal(Signal::KILL);
    within("its end", one.program.child.wait())
        .await
        .expect("it ends");
    let three = cluster.serve(&upstreams).await;
    race.runs().await;
    // This one leaves in order, and hands over at once.
    terminate(two.program).await;
    let had = fence.counted().owners;
    eventually("it has had more owners", async || fence.counted().owners > had).await;
    race.runs().await;
    race.end().await;
    // What was wished last holds, and is served.
    let wish = json!({ "url": server.url(), "allowPrivate": true, "owner": "the last" });
    let last = reqwest::Client::new()
        .put(format!("{}/servers/s", here.base))
        .header("content-type", "application/json")
        .body(wish.to_string())
        .send();
    let answer = within("an answer", last).await.expect("an answer");
    assert!(matches!(answer.status(), StatusCode::OK | StatusCode::CREATED));
    for bridge in [&here, &there] {
        eventually("it is served", async || {
            text(&bridge.client("s").call("work", json!({ "a": 1 })).await) == r#"{"a":1}"#
        })
        .await;
    }
    let counted = fence.counted();
    assert!(counted.late.is_empty(), "{counted:?}");
    for program in [three.program, second.program, here.program, there.program] {
        terminate(program).await;
    }
}
