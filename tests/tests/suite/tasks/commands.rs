//! `trunkline tasks` as an operator types it, over the bus as the command line may use it.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::Principal;
use runtime::tasks::{Tasks, Worker};
use serde_json::{Value, json};
use tests::{eventually, nats::Nats, program, program::Program, within};

use super::{crew::Crew, engine};

/// A bus with a worker of the test.
struct Stage {
    nats: Nats,
    tasks: Tasks,
    crew: Arc<Crew>,
    worker: Worker,
}

impl Stage {
    async fn start() -> Self {
        let nats = Nats::start().await;
        let bus = nats.bus().await;
        let crew = Arc::new(Crew::default());
        let worker = crew.start(&bus).await;
        Self {
            tasks: Tasks::new(bus),
            nats,
            crew,
            worker,
        }
    }

    async fn make(&self, tool: &str, subject: &str) -> String {
        self.make_in("default", tool, subject).await
    }

    async fn make_in(&self, tenant: &str, tool: &str, subject: &str) -> String {
        let order = engine::order(tool, &Principal::new(subject, tenant));
        let id = order.id.to_string();
        self.tasks.create(order).await.expect("is made");
        id
    }

    fn joining(&self, words: &[&str]) -> Vec<String> {
        let data = self.nats.data_dir().display().to_string();
        let joining = ["--nats", self.nats.url(), "--data-dir", &data];
        let words = ["tasks"].iter().chain(words).chain(&joining);
        words.map(|word| (*word).to_owned()).collect()
    }

    async fn run(&self, words: &[&str]) -> (i32, String, String) {
        let words = self.joining(words);
        program::run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    async fn json(&self, words: &[&str]) -> Value {
        let (code, out, err) = self.run(&[words, &["--json"]].concat()).await;
        assert_eq!(code, 0, "{words:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
    }

    /// A command that is refused, and in which words.
    async fn refused(&self, words: &[&str]) -> String {
        let (code, out, err) = self.run(words).await;
        assert!(code != 0 && out.is_empty(), "{words:?}: {out}");
        err
    }

    async fn stands(&self, id: &str, standing: &str) {
        let read = bus_schema::task::TaskId::parse(id).expect("an id");
        let place = self.tasks.find("default", &read).await.expect("asks");
        let place = place.expect("it is there");
        eventually(standing, async || {
            let kept = self.tasks.get(&place).await.ok().flatten();
            kept.is_some_and(|kept| kept.task.standing() == standing)
        })
        .await;
    }

    async fn stop(self) {
        self.worker.stop().await;
    }
}

#[tokio::test]
async fn tasks_are_listed_shown_and_cancelled() {
    let stage = Stage::start().await;
    let (done, waits) = (stage.make("quick", "ann").await, stage.make("ask", "bob").await);
    stage.stands(&done, "completed").await;
    stage.stands(&waits, "input_required").await;
    let abroad = stage.make_in("acme", "ask", "ann").await;

    let list = stage.json(&["list"]).await;
    let rows: Vec<_> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| (task["id"].as_str(), task["user"].as_str()))
        .collect();
    assert_eq!(rows.len(), 2, "{list}");
    assert!(rows.contains(&(Some(&done), Some("ann"))) && rows.contains(&(Some(&waits), Some("bob"))));
    for (words, expected) in [
        (&["--status", "completed,failed"][..], &done),
        (&["--status", "input_required"], &waits),
        (&["--user", "bob"], &waits),
        (&["--user", "ann", "--server", "shop"], &done),
    ] {
        let found = stage.json(&[&["list"], words].concat()).await;
        assert_eq!(found[0]["id"], **expected, "{words:?}");
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{words:?}");
    }
    let (code, out, err) = stage.run(&["list", "--limit", "1"]).await;
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("ID") && lines[1].starts_with("tlt-"),
        "{out}"
    );
    assert!(err.contains("--limit shows more"), "{err}");
    let err = stage.refused(&["list", "--status", "done"]).await;
    assert!(err.contains("possible values: queued"), "{err}");

    let shown = stage.json(&["show", &waits]).await;
    assert_eq!(shown["questions"]["where"]["method"], "elicitation/create");
    let (_, out, _) = stage.run(&["show", &done]).await;
    assert!(out.contains("\"standing\": \"completed\""), "{out}");
    for id in [abroad.as_str(), "tlt-1"] {
        let err = stage.refused(&["show", id]).await;
        assert!(err.contains(&format!("no task `{id}` is kept")), "{err}");
    }

    let (code, out, err) = stage.run(&["cancel", &waits]).await;
    assert_eq!(
        (code, out.trim()),
        (0, format!("task {waits} is cancelled").as_str()),
        "{err}"
    );
    stage.stands(&waits, "cancelled").await;
    let err = stage.refused(&["cancel", &done]).await;
    assert!(err.contains("has ended, and stays completed"), "{err}");
    stage.stop().await;
}

#[tokio::test]
async fn a_task_is_watched_to_its_end_and_its_failure_is_that_of_the_command() {
    let stage = Stage::start().await;
    let id = stage.make("stages", "ann").await;
    let words = stage.joining(&["watch", &id]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut program = Program::start(&words);
    for stage_of in ["50% working: first half", "75% working: second half"] {
        within(stage_of, async {
            loop {
                let line = program.output.next_line().await.expect("reads").expect("goes on");
                if line.contains(stage_of) {
                    break;
                }
            }
        })
        .await;
        stage.crew.go_on.notify_one();
    }
    let mut last = String::new();
    within("the end of what is printed", async {
        while let Some(line) = program.output.next_line().await.expect("reads") {
            last = line;
        }
    })
    .await;
    assert!(last.ends_with("completed"), "{last}");
    let code = within("its end", program.child.wait()).await.expect("ends");
    assert!(code.success(), "{code}");

    for (tool, words) in [
        ("nothing of the kind", "failed: unknown tool"),
        ("broken", "completed: the tool says that it has failed"),
    ] {
        let id = stage.make(tool, "ann").await;
        let (code, out, err) = stage.run(&["watch", &id]).await;
        assert_eq!(code, 1, "{err}");
        assert!(
            out.lines().last().is_some_and(|line| line.contains(words)),
            "{out}"
        );
    }
    let (code, out, _) = stage.run(&["watch", &id, "--json"]).await;
    let told: Value = serde_json::from_str(out.trim()).expect("one line of JSON");
    assert_eq!((code, &told["standing"]), (0, &json!("completed")));
    stage.stop().await;
}

#[tokio::test]
async fn what_is_held_and_what_is_asked_is_decided_from_the_command_line() {
    let stage = Stage::start().await;
    let (again, up) = (stage.make("fail", "ann").await, stage.make("fail", "ann").await);
    let asks = stage.make("ask", "ann").await;
    stage.stands(&again, "held").await;
    stage.stands(&up, "held").await;
    let told = stage.json(&["discard", &up]).await;
    assert_eq!(told["standing"], "failed");
    let by = told["decidedBy"].as_str().unwrap_or_default();
    assert!(by.starts_with("cli:"), "{told}");
    stage.crew.is_well.store(true, Ordering::SeqCst);
    let (code, out, err) = stage.run(&["retry", &again]).await;
    assert_eq!(
        (code, out.trim()),
        (0, format!("task {again} is tried again").as_str()),
        "{err}"
    );
    stage.stands(&again, "completed").await;
    for word in ["retry", "discard"] {
        let err = stage.refused(&[word, &again]).await;
        assert!(err.contains("is completed; only what is held"), "{err}");
    }

    stage.stands(&asks, "input_required").await;
    let accept = r#"{"action":"accept","content":{"n":1.00}}"#;
    let err = stage.refused(&["answer", &asks, "sure", "{nonsense"]).await;
    assert!(err.contains("the answer `{nonsense` is not JSON"), "{err}");
    let err = stage.refused(&["answer", &asks, "why", accept]).await;
    assert!(err.contains("it asks `sure`, `where`"), "{err}");
    let (_, out, err) = stage.run(&["answer", &asks, "sure", accept]).await;
    assert!(out.contains("still waits for where"), "{out}{err}");
    let told = stage.json(&["answer", &asks, "where", accept]).await;
    assert_eq!(told["answered"], json!(["where"]));
    stage.stands(&asks, "completed").await;
    let (_, out, _) = stage.run(&["show", &asks, "--json"]).await;
    assert!(out.contains(&format!("\"result\":{accept}")), "{out}");
    stage.stop().await;
}
