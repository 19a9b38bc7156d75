//! Tasks over REST: whose they are, what is told of them, and what can be done about them.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    Principal,
    task::{Approval, Order},
};
use reqwest::{Method, Response};
use runtime::tasks::Tasks;
use serde_json::{Value, json};
use tests::{eventually, http::Client, issuer::Issuer, platform::Platform, stream::Stream, within};

use super::{crew::Crew, engine};

/// A platform that asks who comes, for two tenants, and the tasks on it.
struct Stage {
    issuer: Issuer,
    platform: Platform,
    tasks: Tasks,
}

impl Stage {
    async fn start() -> Self {
        let issuer = Issuer::start().await;
        let own = issuer.section("tenant_claim = \"tenant\"");
        let file = format!("tenants = [\"acme\"]\nlimits = []\n{own}");
        let platform = Platform::start(&file, &["registry"]).await;
        let tasks = Tasks::new(platform.node.bus().clone());
        Self {
            issuer,
            platform,
            tasks,
        }
    }

    fn principal(&self, subject: &str, tenant: &str) -> Principal {
        Principal {
            issuer: Some(self.issuer.url().to_owned()),
            ..Principal::new(subject, tenant)
        }
    }

    async fn make(&self, tool: &str, subject: &str, tenant: &str) -> String {
        self.give(engine::order(tool, &self.principal(subject, tenant)))
            .await
    }

    async fn give(&self, order: Order) -> String {
        let id = order.id.to_string();
        self.tasks.create(order).await.expect("is made");
        id
    }

    fn client(&self, subject: &str, more: Value, path: &str) -> Client {
        let token = self.issuer.token(subject, &self.platform.url(""), more);
        Client::new(self.platform.url(path)).with_token(&token)
    }

    /// Somebody of `default`.
    fn at(&self, subject: &str, path: &str) -> Client {
        self.client(subject, json!({ "tenant": "default" }), path)
    }

    fn operator(&self, tenant: &str, path: &str) -> Client {
        self.client("olga", json!({ "tenant": tenant, "roles": ["operator"] }), path)
    }

    /// Waits until a task stands so, as its operator sees it.
    async fn stands(&self, id: &str, standing: &str) -> Value {
        let path = format!("/tasks/{id}");
        eventually(standing, async || {
            get(self.operator("default", &path)).await.1["standing"] == standing
        })
        .await;
        get(self.operator("default", &path)).await.1
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn send(client: Client, method: Method) -> Response {
    let sent = client.request(method).send();
    within("an answer", sent).await.expect("an answer")
}

async fn get(client: Client) -> (u16, Value) {
    read(send(client, Method::GET).await).await
}

async fn post(client: Client) -> (u16, Value) {
    read(send(client, Method::POST).await).await
}

async fn answer(client: Client, answers: &Value) -> (u16, Value) {
    let sent = client.raw(answers.to_string()).send();
    read(within("an answer", sent).await.expect("an answer")).await
}

fn ids(list: &Value) -> Vec<&str> {
    let tasks = list["tasks"].as_array().expect("a list");
    tasks
        .iter()
        .map(|task| task["id"].as_str().expect("an id"))
        .collect()
}

/// The answer with another id in its place, so that two can be compared.
fn without(id: &str, (status, answer): &(u16, Value)) -> String {
    format!("{status} {answer}").replace(id, "…")
}

#[tokio::test]
async fn callers_see_their_own_tasks_and_operators_those_of_their_tenant() {
    let stage = Stage::start().await;
    let first = stage.make("quick", "ann", "default").await;
    let mut order = engine::order("other", &stage.principal("ann", "default"));
    order.request.server = "elsewhere".to_owned();
    let second = stage.give(order).await;
    let bobs = stage.make("quick", "bob", "default").await;
    let abroad = stage.make("quick", "ann", "acme").await;

    let list = async |client: Client| {
        let (status, list) = get(client).await;
        assert_eq!(status, 200, "{list}");
        let mut ids: Vec<String> = ids(&list).into_iter().map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort_unstable();
        ids
    };
    let (all, own) = (sorted(&[&first, &second, &bobs]), sorted(&[&first, &second]));
    assert_eq!(list(stage.operator("default", "/tasks")).await, all);
    assert_eq!(list(stage.at("ann", "/tasks")).await, own);
    assert_eq!(list(stage.at("bob", "/tasks")).await, sorted(&[&bobs]));
    assert_eq!(list(stage.at("eve", "/tasks")).await, Vec::<String>::new());
    assert_eq!(list(stage.operator("acme", "/tasks")).await, sorted(&[&abroad]));
    for (query, expected) in [
        ("?user=bob", sorted(&[&bobs])),
        ("?user=nobody", vec![]),
        ("?server=elsewhere", sorted(&[&second])),
        ("?status=held,queued", all.clone()),
        ("?status=completed", vec![]),
    ] {
        let found = list(stage.operator("default", &format!("/tasks{query}"))).await;
        assert_eq!(found, expected, "{query}");
    }
    // Whatever is asked for, a caller is shown no other's.
    assert_eq!(
        list(stage.at("ann", "/tasks?user=bob")).await,
        Vec::<String>::new()
    );

    let mut paged = Vec::new();
    let mut path = "/tasks?limit=2".to_owned();
    loop {
        let (_, page) = get(stage.operator("default", &path)).await;
        assert!(ids(&page).len() <= 2, "{page}");
        paged.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/tasks?limit=2&cursor={next}");
    }
    paged.sort_unstable();
    assert_eq!(paged, all);
    for wrong in ["cursor=nonsense", "status=done", "limit=0", "state=held"] {
        let (status, told) = get(stage.at("ann", &format!("/tasks?{wrong}"))).await;
        assert_eq!(status, 400, "{wrong}: {told}");
    }
    assert_eq!(get(Client::new(stage.platform.url("/tasks"))).await.0, 401);

    let (_, told) = get(stage.at("ann", &format!("/tasks/{first}"))).await;
    assert_eq!(
        (&told["user"], &told["server"], &told["tool"], &told["standing"]),
        (&json!("ann"), &json!("shop"), &json!("quick"), &json!("queued"))
    );
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_task_of_somebody_else_is_to_callers_and_other_tenants_as_one_that_nobody_has() {
    let stage = Stage::start().await;
    let bobs = stage.make("quick", "bob", "default").await;
    let nobodys = runtime::tasks::new_id().to_string();
    let asks = [
        (Method::GET, ""),
        (Method::GET, "/events"),
        (Method::POST, "/cancel"),
        (Method::POST, "/answer"),
    ];
    for (method, end) in asks {
        for id in [&bobs, &nobodys, &"tlt-1".to_owned()] {
            let path = format!("/tasks/{id}{end}");
            for client in [stage.at("ann", &path), stage.operator("acme", &path)] {
                let told = read(send(client, method.clone()).await).await;
                let expected = r#"404 {"error":{"code":"not_found","message":"no task `…` is kept"}}"#;
                assert_eq!(without(id, &told), expected, "{method} {path}");
            }
        }
    }
    for end in ["/retry", "/discard"] {
        let path = format!("/tasks/{bobs}{end}");
        assert_eq!(
            post(stage.at("bob", &path)).await.0,
            403,
            "{end} is for operators"
        );
        assert_eq!(post(stage.operator("acme", &path)).await.0, 404);
    }
    assert_eq!(stage.stands(&bobs, "queued").await["user"], "bob");

    let path = format!("/tasks/{bobs}/cancel");
    let (status, told) = post(stage.at("bob", &path)).await;
    assert_eq!((status, &told["standing"]), (200, &json!("cancelled")));
    // Once more says the same, and what has ended otherwise stays.
    assert_eq!(post(stage.operator("default", &path)).await.0, 200);
    let crew = Arc::new(Crew::default());
    let worker = crew.start(stage.platform.node.bus()).await;
    let done = stage.make("quick", "bob", "default").await;
    let ended = stage.stands(&done, "completed").await;
    assert_eq!(ended["result"], json!({ "content": [], "n": 1 }));
    let (status, told) = post(stage.operator("default", &format!("/tasks/{done}/cancel"))).await;
    assert_eq!((status, &told["error"]["code"]), (409, &json!("ended")), "{told}");
    worker.stop().await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_task_is_followed_from_where_it_is_to_its_end() {
    let stage = Stage::start().await;
    let id = stage.make("stages", "ann", "default").await;
    let path = format!("/tasks/{id}/events");
    let mut stream = Stream::of(send(stage.at("ann", &path), Method::GET).await);
    let first = stream.message().await;
    assert_eq!((&first["id"], &first["standing"]), (&json!(id), &json!("queued")));

    let crew = Arc::new(Crew::default());
    let worker = crew.start(stage.platform.node.bus()).await;
    for (fraction, note) in [(0.5, "first half"), (0.75, "second half")] {
        loop {
            let told = stream.message().await;
            if told["fraction"] == fraction {
                assert_eq!(
                    (&told["standing"], &told["note"]),
                    (&json!("working"), &json!(note))
                );
                break;
            }
        }
        crew.go_on.notify_one();
    }
    let last = loop {
        let event = stream.event().await.expect("a further event");
        if event.id.is_some() {
            break event;
        }
    };
    assert_eq!(last.id.as_deref(), Some("end"));
    let told: Value = serde_json::from_str(&last.data.expect("data")).expect("JSON");
    assert_eq!(
        (&told["standing"], &told["result"]),
        (&json!("completed"), &json!({ "content": [] }))
    );
    assert_eq!(stream.event().await, None);

    // Whoever comes back is told how it has ended, and who knows that already, that this is all.
    let mut again = Stream::of(send(stage.at("ann", &path), Method::GET).await);
    assert_eq!(again.event().await.expect("the end").id.as_deref(), Some("end"));
    assert_eq!(again.event().await, None);
    let request = stage.at("ann", &path).request(Method::GET);
    let over = request.header("last-event-id", "end").send();
    let over = within("an answer", over).await.expect("an answer");
    assert_eq!(over.status(), 204);
    let request = stage.at("bob", &path).request(Method::GET);
    let foreign = request.header("last-event-id", "end").send();
    let foreign = within("an answer", foreign).await.expect("an answer");
    assert_eq!(foreign.status(), 404);
    worker.stop().await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn streams_of_tasks_end_with_the_process_and_with_whoever_may_not_go_on() {
    let stage = Stage::start().await;
    let id = stage.make("quick", "ann", "default").await;
    let path = format!("/tasks/{id}/events");
    let mut blocked = Stream::of(send(stage.at("ann", &path), Method::GET).await);
    let mut stopped = Stream::of(send(stage.operator("default", &path), Method::GET).await);
    for stream in [&mut blocked, &mut stopped] {
        assert_eq!(stream.message().await["standing"], "queued");
    }
    let block = json!({ "subject": "ann" }).to_string();
    let made = stage.operator("default", "/blocks").raw(block).send();
    let made = within("an answer", made).await.expect("an answer");
    assert_eq!(made.status(), 201);
    assert_eq!(blocked.event().await, None);
    within("the end of the platform", stage.platform.stop()).await;
    let event = stopped.event().await;
    assert_eq!(event, None);
}

#[tokio::test]
async fn what_is_held_is_tried_again_or_given_up_and_nothing_else_is() {
    let stage = Stage::start().await;
    let crew = Arc::new(Crew::default());
    let worker = crew.start(stage.platform.node.bus()).await;
    let (again, up) = (
        stage.make("fail", "ann", "default").await,
        stage.make("fail", "ann", "default").await,
    );
    for id in [&again, &up] {
        let held = stage.stands(id, "held").await;
        assert_eq!(
            (&held["status"], &held["why"]),
            (&json!("working"), &json!("it is not well"))
        );
    }
    let (_, list) = get(stage.operator("default", "/tasks?status=held")).await;
    assert_eq!(ids(&list).len(), 2, "{list}");

    let (status, told) = post(stage.operator("default", &format!("/tasks/{up}/discard"))).await;
    assert_eq!((status, &told["standing"]), (200, &json!("failed")), "{told}");
    assert_eq!(told["decidedBy"], "olga");
    let message = told["error"]["message"].as_str().expect("a message");
    assert!(message.contains("it is not well"), "{message}");

    crew.is_well.store(true, Ordering::SeqCst);
    let (status, _) = post(stage.operator("default", &format!("/tasks/{again}/retry"))).await;
    assert_eq!(status, 202);
    stage.stands(&again, "completed").await;
    for (id, standing) in [(&again, "completed"), (&up, "failed")] {
        for end in ["retry", "discard"] {
            let (status, told) = post(stage.operator("default", &format!("/tasks/{id}/{end}"))).await;
            assert_eq!((status, &told["error"]["code"]), (409, &json!("not_held")));
            let message = told["error"]["message"].as_str().expect("a message");
            assert!(message.contains(standing), "{message}");
        }
    }
    worker.stop().await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn what_a_task_asks_is_answered_by_whom_it_asks_and_nothing_else_is_taken() {
    let stage = Stage::start().await;
    let crew = Arc::new(Crew::default());
    let worker = crew.start(stage.platform.node.bus()).await;
    let id = stage.make("ask", "ann", "default").await;
    let waits = stage.stands(&id, "input_required").await;
    assert_eq!(waits["questions"]["sure"]["params"]["message"], "really?");
    let path = format!("/tasks/{id}/answer");
    let accept = json!({ "action": "accept", "content": { "to": "Oslo" } });
    for (answers, status, words) in [
        (json!({}), 422, "asks `sure`, `where`"),
        (
            json!({ "why": accept }),
            422,
            "does not ask `why`; it asks `sure`, `where`",
        ),
        (json!({ "sure": "yes" }), 422, "`sure` is no JSON object"),
        (json!([]), 400, "the body is no answers"),
    ] {
        let (is, told) = answer(stage.at("ann", &path), &answers).await;
        assert_eq!(is, status, "{told}");
        let message = told["error"]["message"].as_str().expect("a message");
        assert!(message.contains(words), "{message}");
    }
    let (status, told) = answer(stage.operator("default", &path), &json!({ "sure": accept })).await;
    assert_eq!(
        (status, &told["error"]["code"]),
        (403, &json!("not_asked")),
        "{told}"
    );
    let foreign = answer(stage.at("bob", &path), &json!({ "sure": accept })).await;
    assert_eq!(foreign.0, 404);
    let approval = answer(stage.operator("default", &path), &json!({ "approval": accept })).await;
    assert_eq!(approval.0, 403, "its call needs no yes: {approval:?}");

    let (status, told) = answer(stage.at("ann", &path), &json!({ "sure": accept })).await;
    assert_eq!((status, &told["outstanding"]), (202, &json!(["where"])), "{told}");
    eventually("it is answered", async || {
        let (_, task) = get(stage.at("ann", &format!("/tasks/{id}"))).await;
        task["questions"]["sure"].is_null() && !task["questions"]["where"].is_null()
    })
    .await;
    let (status, told) = answer(stage.at("ann", &path), &json!({ "where": accept })).await;
    assert_eq!((status, &told["outstanding"]), (202, &json!([])), "{told}");
    let ended = stage.stands(&id, "completed").await;
    assert_eq!(ended["result"], accept);
    let (status, told) = answer(stage.at("ann", &path), &json!({ "where": accept })).await;
    assert_eq!(
        (status, &told["error"]["code"]),
        (409, &json!("not_waiting")),
        "{told}"
    );
    worker.stop().await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn an_operator_says_yes_to_a_call_of_somebody_else_that_needs_it() {
    let stage = Stage::start().await;
    let crew = Arc::new(Crew::default());
    let worker = crew.start(stage.platform.node.bus()).await;
    let mut order = engine::order("quick", &stage.principal("ann", "default"));
    order.approval = Some(Approval {
        second_person: true,
        until_ms: runtime::moment::now_ms() + 600_000,
    });
    let id = stage.give(order).await;
    let path = format!("/tasks/{id}/answer");
    let yes = json!({ "approval": { "action": "accept", "content": { "approve": true } } });
    let waits = stage.stands(&id, "input_required").await;
    assert_eq!(waits["questions"]["approval"]["method"], "elicitation/create");
    let (status, told) = answer(stage.at("ann", &path), &yes).await;
    assert_eq!(
        (status, &told["error"]["code"]),
        (403, &json!("second_person")),
        "{told}"
    );
    assert_eq!(answer(stage.at("bob", &path), &yes).await.0, 404);
    let (status, told) = answer(stage.operator("default", &path), &yes).await;
    assert_eq!((status, &told["answered"]), (202, &json!(["approval"])), "{told}");
    let ended = stage.stands(&id, "completed").await;
    assert_eq!(ended["decidedBy"], "olga");
    worker.stop().await;
    stage.platform.stop().await;
}
