//! The engine alone: workers of our own, without any door.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    Body, Principal, Request, RpcError, Token,
    subject::CallerClass,
    task::{self, HOSTED, KEPT_MS, Order, Priority, Task},
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, moment,
    tasks::{
        Ended, Later, Question, TaskContext, Tasks, Wanted, Work, Worker, WorkerOptions, new_id, place_of,
    },
};
use serde_json::{Value, json};
use tests::{eventually, nats::Nats, within};
use tokio::sync::Notify;

pub(crate) fn order(tool: &str, principal: &Principal) -> Order {
    Order {
        id: new_id(),
        group: HOSTED.to_owned(),
        endpoint: "shop".to_owned(),
        request: Request {
            caller: String::new(),
            call: 0,
            server: "shop".to_owned(),
            method: "tools/call".to_owned(),
            name: Some(tool.to_owned()),
            principal: principal.clone(),
            protocol_version: "2026-07-28".to_owned(),
            door: "http".to_owned(),
            timeout_ms: 1_000,
            trace: None,
            chunked_bytes: 0,
            body: b"{}".to_vec().into(),
        },
        priority: Priority::Normal,
        created_ms: moment::now_ms(),
        kept_ms: KEPT_MS,
        start_ms: None,
        approval: None,
        at_most_once: false,
    }
}

/// What the tools of these tests do, and how often they did it.
#[derive(Default)]
struct Tools {
    effects: AtomicU32,
    runs: AtomicU32,
    /// Lets `hang` go on.
    go_on: Notify,
}

impl Work for Tools {
    fn run(self: Arc<Self>, task: TaskContext) -> BoxFuture<'static, Ended> {
        async move {
            self.runs.fetch_add(1, Ordering::SeqCst);
            let tool = task.request().name.clone().unwrap_or_default();
            match self.work(&tool, &task).await {
                Ok(ended) => ended,
                Err(error) => Ended::error(&error),
            }
        }
        .boxed()
    }
}

impl Tools {
    async fn work(&self, tool: &str, task: &TaskContext) -> Result<Ended, RpcError> {
        let done = |value: Value| Ok(Ended::Completed(value.to_string().into_bytes().into()));
        let effect = |_: String| async { Ok(self.effects.fetch_add(1, Ordering::SeqCst) + 1) };
        match tool {
            "quick" => done(json!({ "done": true })),
            "twenty" => {
                for step in 0..20 {
                    let _: u32 = task.step(&format!("step {step}"), effect).await?;
                }
                done(json!({ "steps": 20 }))
            }
            "hang" => {
                let first: u32 = task.step("first", effect).await?;
                self.go_on.notified().await;
                done(json!({ "first": first }))
            }
            "ask" => {
                let _: u32 = task.step("before", effect).await?;
                let question = Question {
                    message: "really?".to_owned(),
                    schema: json!({ "type": "object", "properties": { "yes": { "type": "boolean" } } }),
                    until_ms: None,
                };
                done(task.elicit("sure", question).await?)
            }
            "sleep" => {
                let _: u32 = task.step("before", effect).await?;
                task.sleep_until("nap", moment::now_ms() + 300).await?;
                done(json!({ "slept": true }))
            }
            "panic" => panic!("as it is meant to"),
            "later" if task.attempt() < 3 => Ok(Ended::Later(Later {
                after: Duration::from_millis(10),
                why: "not yet".to_owned(),
                begun: true,
            })),
            "later" => done(json!({ "attempt": task.attempt() })),
            other => Err(RpcError::invalid_params(format!("unknown tool `{other}`"))),
        }
    }
}

async fn worker(bus: &Bus, tools: &Arc<Tools>) -> Worker {
    let tasks = Tasks::new(bus.clone());
    let options = WorkerOptions {
        drain_time: Duration::ZERO,
        ..WorkerOptions::new(HOSTED)
    };
    Worker::start(tasks, tools.clone(), options)
        .await
        .expect("starts")
}

/// Waits until a task stands so.
async fn stands(tasks: &Tasks, order: &Order, standing: &str) -> Task {
    let place = place_of(&order.request.principal, &order.id);
    let look = async || tasks.get(&place).await.ok().flatten().map(|kept| kept.task);
    eventually(standing, async || {
        look().await.is_some_and(|task| task.standing() == standing)
    })
    .await;
    look().await.expect("is there")
}

fn result(task: &Task) -> Value {
    let value: Value = serde_json::from_str(&runtime::tasks::told(task)).expect("JSON");
    value["result"].clone()
}

#[tokio::test]
async fn a_task_waits_for_a_worker_and_is_found_at_any_process_until_it_has_ended() {
    let nats = Nats::start().await;
    let (here, there) = (nats.bus().await, nats.bus_as(CallerClass::Bridge).await);
    let (mine, theirs) = (Tasks::new(here.clone()), Tasks::new(there));
    let ann = Principal::new("ann", "default");
    let order = order("quick", &ann);
    mine.create(order.clone()).await.expect("is made");
    // The same order makes no second task.
    mine.create(order.clone()).await.expect("is the same");
    let place = place_of(&ann, &order.id);
    let kept = theirs.get(&place).await.expect("asks").expect("is there at once");
    assert_eq!((kept.task.standing(), kept.revision), ("queued", 0));
    let bob = place_of(&Principal::new("bob", "default"), &order.id);
    assert!(theirs.get(&bob).await.expect("asks").is_none());
    assert_eq!(
        theirs.find("default", &order.id).await.expect("asks"),
        Some(place)
    );
    assert_eq!(theirs.find("other", &order.id).await.expect("asks"), None);

    let mut watched = theirs.watch(vec![order.id.clone()]).await.expect("watches");
    let tools = Arc::new(Tools::default());
    let bus = nats.bus_as(CallerClass::Worker).await;
    let worker = worker(&bus, &tools).await;
    let ended = stands(&theirs, &order, "completed").await;
    let heard = within("the event", watched.next()).await;
    assert_eq!(
        heard.first().map(|heard| heard.standing.as_str()),
        Some("completed")
    );
    assert_eq!(result(&ended), json!({ "done": true }));
    assert_eq!(tools.runs.load(Ordering::SeqCst), 1);
    // What has ended is not changed by anybody.
    let place = place_of(&ann, &order.id);
    let cancelled = mine.cancel(&place).await.expect("asks").expect("is there");
    assert_eq!(cancelled.standing(), "completed");
    worker.stop().await;
}

#[tokio::test]
async fn what_was_committed_is_not_done_again_when_another_worker_goes_on() {
    let nats = Nats::start().await;
    let tasks = Tasks::new(nats.bus().await);
    let first = Arc::new(Tools::default());
    let one = worker(&nats.bus().await, &first).await;
    let ann = Principal::new("ann", "default");
    let hanging = order("hang", &ann);
    tasks.create(hanging.clone()).await.expect("is made");
    eventually("the first step", async || {
        first.effects.load(Ordering::SeqCst) == 1
    })
    .await;
    stands(&tasks, &hanging, "working").await;
    let second = Arc::new(Tools::default());
    // It gives back what it has.
    one.stop().await;
    let two = worker(&nats.bus().await, &second).await;
    second.go_on.notify_one();
    let ended = stands(&tasks, &hanging, "completed").await;
    assert_eq!(result(&ended), json!({ "first": 1 }));
    assert_eq!(second.effects.load(Ordering::SeqCst), 0);
    assert!(ended.attempt >= 2, "{}", ended.attempt);

    let long = order("twenty", &ann);
    tasks.create(long.clone()).await.expect("is made");
    stands(&tasks, &long, "completed").await;
    assert_eq!(second.effects.load(Ordering::SeqCst), 20);
    two.stop().await;
}

#[tokio::test]
async fn a_task_asks_sleeps_and_outlives_everybody_meanwhile() {
    let mut nats = Nats::start().await;
    let ann = Principal::new("ann", "default");
    let tools = Arc::new(Tools::default());
    let (asking, sleeping) = (order("ask", &ann), order("sleep", &ann));
    {
        let bus = nats.bus().await;
        let tasks = Tasks::new(bus.clone());
        let worker = worker(&bus, &tools).await;
        for order in [&asking, &sleeping] {
            tasks.create(order.clone()).await.expect("is made");
        }
        let waits = stands(&tasks, &asking, "input_required").await;
        let told: Value = serde_json::from_str(&runtime::tasks::told(&waits)).expect("JSON");
        assert_eq!(told["inputRequests"]["sure"]["method"], "elicitation/create");
        stands(&tasks, &sleeping, "completed").await;
        worker.stop().await;
    }
    assert_eq!(tools.effects.load(Ordering::SeqCst), 2);
    nats.restart().await;
    let bus = nats.bus().await;
    let tasks = Tasks::new(bus.clone());
    let waits = stands(&tasks, &asking, "input_required").await;
    let answer = |key: &str, json: &str| -> BTreeMap<String, Body> {
        BTreeMap::from([(key.to_owned(), Body::from(json.as_bytes().to_vec()))])
    };
    // Answers to nothing are passed over, also without a worker.
    tasks
        .answer(&waits, answer("other", "1"), &ann)
        .await
        .expect("is taken");
    let accepted = r#"{"action":"accept","content":{"yes":true}}"#;
    tasks
        .answer(&waits, answer("sure", accepted), &ann)
        .await
        .expect("is taken");
    let worker = worker(&bus, &tools).await;
    let ended = stands(&tasks, &asking, "completed").await;
    assert_eq!(result(&ended)["content"]["yes"], true);
    assert_eq!(tools.effects.load(Ordering::SeqCst), 2, "no step is done again");
    worker.stop().await;
}

#[tokio::test]
async fn a_cancelled_task_stops_where_it_is_and_one_that_was_not_begun_never_begins() {
    let nats = Nats::start().await;
    let tasks = Tasks::new(nats.bus().await);
    let ann = Principal::new("ann", "default");
    let never = order("quick", &ann);
    tasks.create(never.clone()).await.expect("is made");
    let place = place_of(&ann, &never.id);
    let cancelled = tasks.cancel(&place).await.expect("asks").expect("is there");
    assert_eq!(cancelled.standing(), "cancelled");
    let tools = Arc::new(Tools::default());
    let worker = worker(&nats.bus().await, &tools).await;
    let running = order("hang", &ann);
    tasks.create(running.clone()).await.expect("is made");
    stands(&tasks, &running, "working").await;
    let place = place_of(&ann, &running.id);
    eventually("the first step", async || {
        tools.effects.load(Ordering::SeqCst) == 1
    })
    .await;
    tasks.cancel(&place).await.expect("asks");
    tools.go_on.notify_one();
    // Its word is done with: nobody takes it again.
    let quick = order("quick", &ann);
    tasks.create(quick.clone()).await.expect("is made");
    stands(&tasks, &quick, "completed").await;
    within("the worker", worker.stop()).await;
    assert_eq!(stands(&tasks, &running, "cancelled").await.status(), "cancelled");
    assert_eq!(stands(&tasks, &never, "cancelled").await.attempt, 0);
    assert_eq!(tools.runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_fails_is_tried_again_and_what_keeps_failing_is_held() {
    let nats = Nats::start().await;
    let tasks = Tasks::new(nats.bus().await);
    let ann = Principal::new("ann", "default");
    let tools = Arc::new(Tools::default());
    let worker = worker(&nats.bus().await, &tools).await;
    let late = order("later", &ann);
    let bad = order("nothing of the kind", &ann);
    for order in [&late, &bad] {
        tasks.create(order.clone()).await.expect("is made");
    }
    assert_eq!(
        result(&stands(&tasks, &late, "completed").await),
        json!({ "attempt": 3 })
    );
    let failed = stands(&tasks, &bad, "failed").await;
    let told: Value = serde_json::from_str(&runtime::tasks::told(&failed)).expect("JSON");
    assert_eq!(told["error"]["code"], -32602);
    let message = told["statusMessage"].as_str().expect("a message");
    assert!(message.contains("nothing of the kind"), "{message}");
    worker.stop().await;
}

#[tokio::test]
async fn tasks_are_listed_by_pages_to_their_owners() {
    let nats = Nats::start().await;
    let tasks = Tasks::new(nats.bus().await);
    let (ann, bob) = (Principal::new("ann", "default"), Principal::new("bob", "default"));
    let mut mine = Vec::new();
    for _ in 0..7 {
        let order = order("quick", &ann);
        tasks.create(order.clone()).await.expect("is made");
        mine.push(order);
    }
    tasks.create(order("quick", &bob)).await.expect("is made");
    for order in &mine[..3] {
        tasks.cancel(&place_of(&ann, &order.id)).await.expect("asks");
    }
    let mut found = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let wanted = Wanted {
            tenant: "default",
            owner: Some(task::owner(ann.identity())),
            standings: &[],
            server: None,
            limit: 2,
            cursor: cursor.as_deref(),
        };
        let page = tasks
            .list(&wanted)
            .await
            .expect("asks")
            .expect("a cursor of ours");
        assert!(page.tasks.len() <= 2);
        for task in page.tasks {
            let before = found.insert(task.order.id.clone(), task.standing());
            assert!(before.is_none(), "{} came twice", task.order.id);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 7);
    assert_eq!(
        found
            .values()
            .filter(|standing| **standing == "cancelled")
            .count(),
        3
    );
    let all = Wanted {
        tenant: "default",
        owner: None::<Token>,
        standings: &["queued".to_owned()],
        server: Some("shop"),
        limit: 100,
        cursor: None,
    };
    assert_eq!(
        tasks.list(&all).await.expect("asks").expect("a page").tasks.len(),
        5
    );
    let bad = Wanted {
        cursor: Some("nonsense"),
        ..all.clone()
    };
    assert!(tasks.list(&bad).await.expect("asks").is_none());
    let foreign = Wanted {
        tenant: "other",
        ..all
    };
    assert!(
        tasks
            .list(&foreign)
            .await
            .expect("asks")
            .expect("a page")
            .tasks
            .is_empty()
    );
}
