//! A worker of the tests, and the tools that it knows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus_schema::{RpcError, task::HOSTED};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus,
    tasks::{Ended, Later, TaskContext, Tasks, Work, Worker, WorkerOptions},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What its tools wait for.
#[derive(Default)]
pub(super) struct Crew {
    /// Whether `fail` succeeds.
    pub(super) is_well: AtomicBool,
    /// Lets `stages` go on.
    pub(super) go_on: Notify,
}

impl Crew {
    pub(super) async fn start(self: &Arc<Self>, bus: &Bus) -> Worker {
        let tasks = Tasks::new(bus.clone());
        let options = WorkerOptions {
            drain_time: Duration::ZERO,
            ..WorkerOptions::new(HOSTED)
        };
        Worker::start(tasks, self.clone(), options).await.expect("starts")
    }

    async fn work(&self, tool: &str, task: &TaskContext) -> Result<Ended, RpcError> {
        let done = |value: Value| Ok(Ended::Completed(value.to_string().into_bytes().into()));
        match tool {
            "quick" => done(json!({ "content": [], "n": 1 })),
            "broken" => done(json!({ "content": [], "isError": true })),
            "stages" => {
                for (fraction, stage) in [(0.5, "first half"), (0.75, "second half")] {
                    task.progress(stage, Some(fraction));
                    self.go_on.notified().await;
                }
                done(json!({ "content": [] }))
            }
            "ask" if task.answer("sure").is_none() || task.answer("where").is_none() => {
                let question = |message: &str| {
                    let params = json!({ "mode": "form", "message": message, "requestedSchema": { "type": "object", "properties": {} } });
                    let request = json!({ "method": "elicitation/create", "params": params });
                    request.to_string().into_bytes().into()
                };
                let questions = [("sure", question("really?")), ("where", question("where to?"))];
                let questions = questions.map(|(key, question)| (key.to_owned(), question));
                task.ask(BTreeMap::from(questions), None).await
            }
            "ask" => {
                let answer = task.answer("where").expect("it is answered");
                Ok(Ended::Completed(answer.0.clone()))
            }
            "fail" if self.is_well.load(Ordering::SeqCst) => done(json!({ "content": [] })),
            "fail" => Ok(Ended::Later(Later {
                after: Duration::from_millis(1),
                why: "it is not well".to_owned(),
                begun: true,
            })),
            other => Err(RpcError::invalid_params(format!("unknown tool `{other}`"))),
        }
    }
}

impl Work for Crew {
    fn run(self: Arc<Self>, task: TaskContext) -> BoxFuture<'static, Ended> {
        async move {
            let tool = task.request().name.clone().unwrap_or_default();
            let ended = self.work(&tool, &task).await;
            ended.unwrap_or_else(|error| Ended::error(&error))
        }
        .boxed()
    }
}
