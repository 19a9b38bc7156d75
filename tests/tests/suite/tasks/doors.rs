//! Tasks of a server that knows nothing of them, as clients of both eras use them at a door.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    Principal, ProtocolVersion as Version,
    mcp::{error, meta, method, task},
    task::{Mode, TaskId, TaskKnob},
};
use runtime::{
    Host,
    tasks::{Tasks, place_of},
};
use serde_json::{Value, json};
use tests::{
    dialogue::Dialogue,
    eventually,
    fixture::{self, Probe},
    http::text,
    platform::Platform,
    within,
};

fn knows_tasks() -> Value {
    json!({ "extensions": { meta::TASKS_EXTENSION: {} } })
}

/// A platform with a worker, and a server whose calls become tasks as said.
struct Stage {
    platform: Platform,
    probe: Arc<Probe>,
    _host: Host,
}

async fn stage(knob: TaskKnob) -> Stage {
    let platform = Box::pin(Platform::start("", &["registry", "workers"])).await;
    let probe = Arc::<Probe>::default();
    let host = fixture::serve(platform.node.bus(), probe.clone(), |options| options.tasks = knob).await;
    platform.knows("fixture").await;
    Stage {
        platform,
        probe,
        _host: host,
    }
}

fn mode(mode: Mode) -> TaskKnob {
    TaskKnob {
        mode,
        budget_ms: 50,
        ..TaskKnob::default()
    }
}

impl Stage {
    async fn modern(&self, capabilities: Value) -> Dialogue {
        Dialogue::open(self.platform.client("fixture"), Version::MODERN, capabilities).await
    }

    fn counted(&self) -> u32 {
        self.probe.counted.load(Ordering::SeqCst)
    }
}

async fn make(client: &Dialogue, tool: &str) -> String {
    let made = client.call(tool, json!({})).await.answer;
    assert_eq!(made["result"]["resultType"], "task", "{made}");
    made["result"]["taskId"].as_str().expect("an id").to_owned()
}

async fn look(client: &Dialogue, id: &str) -> Value {
    client
        .ask(method::TASKS_GET, json!({ "taskId": id }))
        .await
        .answer
}

/// Waits until a task has a status, and gives it.
async fn until(client: &Dialogue, id: &str, status: &str) -> Value {
    eventually(status, async || {
        look(client, id).await["result"]["status"] == status
    })
    .await;
    look(client, id).await["result"].clone()
}

#[tokio::test]
async fn every_call_of_a_tool_is_a_task_that_is_known_to_its_caller_and_endpoint_alone() {
    let stage = Box::pin(stage(mode(Mode::Always))).await;
    let client = stage.modern(knows_tasks()).await;
    let discovered = client.ask(method::DISCOVER, json!({})).await.answer;
    let extensions = &discovered["result"]["capabilities"]["extensions"];
    assert!(extensions[meta::TASKS_EXTENSION].is_object(), "{discovered}");
    let id = make(&client, "count").await;
    // It is known as soon as its client knows its id.
    let first = look(&client, &id).await;
    assert_eq!(first["result"]["resultType"], "complete", "{first}");
    let ended = until(&client, &id, "completed").await;
    assert_eq!(text(&json!({ "result": ended["result"] })), "1", "{ended}");
    assert!(
        ended["ttlMs"].is_u64() && ended["createdAt"].is_string(),
        "{ended}"
    );
    assert_eq!(stage.counted(), 1);

    let plain = stage.modern(json!({})).await;
    let refused = look(&plain, &id).await;
    assert_eq!(refused["error"]["code"], error::MISSING_CAPABILITY, "{refused}");
    // Whoever knows nothing of tasks waits, and gets what it asked for.
    let waited = plain.call("count", json!({})).await;
    assert_eq!(waited.text(), "2", "{:?}", waited.answer);

    let all = Dialogue::open(stage.platform.client_of_all(), Version::MODERN, knows_tasks()).await;
    let elsewhere = look(&all, &id).await;
    assert_eq!(elsewhere["error"]["code"], error::INVALID_PARAMS, "{elsewhere}");
    let there = make(&all, "fixture__count").await;
    until(&all, &there, "completed").await;
    let elsewhere = look(&client, &there).await;
    assert_eq!(elsewhere["error"]["code"], error::INVALID_PARAMS, "{elsewhere}");
    assert_eq!(stage.counted(), 3);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_call_that_takes_long_becomes_a_task_and_is_made_once() {
    let stage = Box::pin(stage(mode(Mode::Auto))).await;
    let client = stage.modern(knows_tasks()).await;
    // What is quick stays a call.
    assert_eq!(client.call("count", json!({})).await.text(), "1");
    let id = make(&client, "hold").await;
    stage.probe.held.begun.next("the call").await;
    let mut heard = client
        .listen_for_tasks(&[&id, "tlt-00000000000000000000000000000000"])
        .await;
    let told = within("how it is", heard.message()).await;
    assert_eq!(told["method"], task::NOTIFICATION, "{told}");
    assert_eq!(told["params"]["status"], "working", "{told}");
    assert_eq!(told["params"]["taskId"], id, "{told}");
    stage.probe.release.notify_waiters();
    let told = within("its end", heard.message()).await;
    assert_eq!(told["params"]["status"], "completed", "{told}");
    let ended = until(&client, &id, "completed").await;
    assert_eq!(text(&json!({ "result": ended["result"] })), "released");
    assert_eq!(
        stage.probe.held.begun.0.available_permits(),
        0,
        "it was begun once"
    );

    let id = make(&client, "hold").await;
    stage.probe.held.begun.next("the call").await;
    let cancelled = client
        .ask(method::TASKS_CANCEL, json!({ "taskId": id }))
        .await
        .answer;
    assert_eq!(cancelled["result"]["resultType"], "complete", "{cancelled}");
    stage.probe.held.dropped.next("the end of the call").await;
    until(&client, &id, "cancelled").await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_task_is_cancelled_where_its_worker_is() {
    let stage = Box::pin(stage(mode(Mode::Always))).await;
    let client = stage.modern(knows_tasks()).await;
    let id = make(&client, "hold").await;
    stage.probe.held.begun.next("the call").await;
    client.ask(method::TASKS_CANCEL, json!({ "taskId": id })).await;
    stage.probe.held.dropped.next("the end of the call").await;
    until(&client, &id, "cancelled").await;
    // Again is as well.
    let again = client
        .ask(method::TASKS_CANCEL, json!({ "taskId": id }))
        .await
        .answer;
    assert_eq!(again["result"]["resultType"], "complete", "{again}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_call_waits_for_a_persons_yes() {
    let stage = Box::pin(stage(TaskKnob {
        approve: vec!["count".to_owned()],
        ..TaskKnob::default()
    }))
    .await;
    let client = stage.modern(knows_tasks()).await;
    let answer = async |id: &str, approve: bool| {
        let content = json!({ "action": "accept", "content": { "approve": approve } });
        let params = json!({ "taskId": id, "inputResponses": { "approval": content, "other": {} } });
        client.ask(method::TASKS_UPDATE, params).await.answer
    };
    let id = make(&client, "count").await;
    let asked = until(&client, &id, "input_required").await;
    let question = &asked["inputRequests"]["approval"];
    assert_eq!(question["method"], method::ELICIT, "{asked}");
    assert_eq!(stage.counted(), 0);
    let taken = answer(&id, true).await;
    assert_eq!(taken["result"]["resultType"], "complete", "{taken}");
    until(&client, &id, "completed").await;
    assert_eq!(stage.counted(), 1);
    let id = make(&client, "count").await;
    until(&client, &id, "input_required").await;
    answer(&id, false).await;
    let failed = until(&client, &id, "failed").await;
    assert!(
        failed["error"]["message"]
            .as_str()
            .is_some_and(|why| why.contains("not approved")),
        "{failed}"
    );
    assert_eq!(stage.counted(), 1);
    stage.platform.stop().await;
}

#[tokio::test]
async fn nobody_approves_an_own_call_where_another_must() {
    let stage = Box::pin(stage(TaskKnob {
        approve: vec!["count".to_owned()],
        second_person: true,
        ..TaskKnob::default()
    }))
    .await;
    let client = stage.modern(knows_tasks()).await;
    let id = make(&client, "count").await;
    let content = json!({ "action": "accept", "content": { "approve": true } });
    let params = json!({ "taskId": id, "inputResponses": { "approval": content } });
    let refused = client.ask(method::TASKS_UPDATE, params).await.answer;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("another person"), "{refused}");
    until(&client, &id, "input_required").await;
    assert_eq!(stage.counted(), 0);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_legacy_client_makes_a_task_of_a_call_and_waits_for_its_result() {
    let stage = Box::pin(stage(mode(Mode::Auto))).await;
    let legacy = Dialogue::open(stage.platform.client("fixture"), Version::V2025_11_25, json!({})).await;
    let params = json!({ "name": "hold", "arguments": {}, "task": { "ttl": 60_000 } });
    let made = legacy.ask(method::TOOLS_CALL, params).await.answer;
    let id = made["result"]["task"]["taskId"]
        .as_str()
        .expect("a task")
        .to_owned();
    stage.probe.held.begun.next("the call").await;
    let told = legacy
        .ask(method::TASKS_GET, json!({ "taskId": id }))
        .await
        .answer;
    assert_eq!(told["result"]["status"], "working", "{told}");
    stage.probe.release.notify_waiters();
    let result = legacy.ask(task::RESULT, json!({ "taskId": id })).await.answer;
    assert_eq!(text(&result), "released", "{result}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_task_waits_for_a_server_that_is_away() {
    let knob = || TaskKnob {
        approve: vec!["count".to_owned()],
        ..TaskKnob::default()
    };
    let stage = Box::pin(stage(knob())).await;
    let client = stage.modern(knows_tasks()).await;
    let id = make(&client, "count").await;
    until(&client, &id, "input_required").await;
    let Stage {
        platform,
        probe,
        _host: host,
    } = stage;
    within("the host", host.stop()).await;
    let content = json!({ "action": "accept", "content": { "approve": true } });
    let params = json!({ "taskId": id, "inputResponses": { "approval": content } });
    client.ask(method::TASKS_UPDATE, params).await;
    eventually("a word on why it waits", async || {
        let told = look(&client, &id).await;
        let why = told["result"]["statusMessage"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        why.contains("no replica")
    })
    .await;
    let host = fixture::serve(platform.node.bus(), probe.clone(), |options| {
        options.tasks = knob()
    })
    .await;
    until(&client, &id, "completed").await;
    assert_eq!(probe.counted.load(Ordering::SeqCst), 1);
    host.stop().await;
    platform.stop().await;
}

#[tokio::test]
async fn a_task_outlives_the_door_that_has_made_it() {
    let stage = Box::pin(stage(mode(Mode::Always))).await;
    let client = stage.modern(knows_tasks()).await;
    let id = make(&client, "hold_safe").await;
    stage.probe.held.begun.next("the call").await;
    drop(client);
    let again = stage.modern(knows_tasks()).await;
    assert_eq!(look(&again, &id).await["result"]["status"], "working");
    stage.probe.release.notify_waiters();
    until(&again, &id, "completed").await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn the_work_of_a_caller_who_is_blocked_ends_wherever_it_is() {
    let knob = TaskKnob {
        tools: [("hold_safe".to_owned(), Mode::Always)].into(),
        ..mode(Mode::Auto)
    };
    let stage = Box::pin(stage(knob)).await;
    let client = stage.modern(knows_tasks()).await;
    // One is in the hands of its door, the other in those of a worker.
    let ids = [make(&client, "hold").await, make(&client, "hold_safe").await];
    stage.probe.held.begun.many("the calls", 2).await;
    let op = Principal {
        issuer: Some("https://id.example".to_owned()),
        roles: vec!["operator".to_owned()],
        ..Principal::new("olga", "default")
    };
    let wish = bus_schema::block::Stop {
        subject: "developer".to_owned(),
        issuer: None,
        for_secs: Some(60),
        reason: None,
    };
    let bus = stage.platform.node.bus();
    bus.block(&op, &wish).await.expect("blocked");
    stage.probe.held.dropped.many("the end of the calls", 2).await;
    let tasks = Tasks::new(bus.clone());
    for id in ids {
        let id = TaskId::parse(&id).expect("an id");
        let place = place_of(&Principal::developer(), &id);
        eventually("it has failed", async || {
            let kept = tasks.get(&place).await.ok().flatten();
            kept.is_some_and(|kept| kept.task.standing() == "failed")
        })
        .await;
    }
    stage.platform.stop().await;
}
