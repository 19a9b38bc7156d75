//! Waits for what a modern task comes to, as `tasks/result` of the legacy era does in one request.

use std::{collections::HashSet, future::Future, pin::Pin, time::Duration};

use bus_schema::{
    RpcError,
    edit::Members,
    mcp::{error, method},
};
use serde_json::value::RawValue;

use super::{Told, client::params, unusable};
use crate::legacy::asking::InputRequest;

/// How often a task is asked for when its server says nothing of it.
const USUAL_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest and the longest that is waited between two questions, whatever the server says.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How many times in a row a server may fail to tell of the task.
const MAX_FAILURES: u32 = 5;

/// Both sides of a task: the server that works on it, and the client that waits.
pub trait TaskDoor: Sync {
    /// Asks the server. The parameters are JSON without metadata, which this adds, with the extension declared; the result is JSON.
    fn ask(&self, called: &str, params: String) -> impl Future<Output = Result<String, RpcError>> + Send;

    /// Asks the client what the task wants to know, on the stream that waits for the result. Gives `inputResponses` as JSON; an
    /// error ends the waiting, and the task goes on.
    fn input(&self, requests: Vec<InputRequest>) -> impl Future<Output = Result<String, RpcError>> + Send;

    /// Lets time pass.
    fn pause(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
}

/// What a task came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A result, as JSON.
    Result(String),
    /// An error, as JSON.
    Error(String),
}

type Input<'a> = Pin<Box<dyn Future<Output = Result<String, RpcError>> + Send + 'a>>;

/// Asks for a task until it has ended, and passes on what it wants to know. `task_id` is JSON.
///
/// This waits for as long as the task goes on; the caller bounds it by dropping it.
///
/// # Errors
/// The error that the waiting ends with: of the server, of the client, or that the task was cancelled.
pub async fn outcome<D: TaskDoor>(door: &D, task_id: &str) -> Result<Outcome, RpcError> {
    let mut input: Option<Input<'_>> = None;
    // A task shows a question until it is answered, and never uses its key again.
    let mut asked = HashSet::new();
    let mut failures = 0;
    let mut interval = USUAL_INTERVAL;
    loop {
        match door.ask(method::TASKS_GET, params(task_id)).await {
            Ok(told) => {
                failures = 0;
                let told: &RawValue = serde_json::from_str(&told).map_err(|_| unusable("it is no JSON"))?;
                interval = interval_of(told);
                match Told::read(told)? {
                    Told::Working => {}
                    Told::InputRequired(requests) if input.is_none() => {
                        let new: Vec<_> = requests
                            .into_iter()
                            .filter(|request| asked.insert(request.key.clone()))
                            .collect();
                        if !new.is_empty() {
                            input = Some(Box::pin(door.input(new)));
                        }
                    }
                    Told::InputRequired(_) => {}
                    Told::Completed(result) => return Ok(Outcome::Result(result)),
                    Told::Failed(error) => return Ok(Outcome::Error(error)),
                    Told::Cancelled => return Err(RpcError::internal("the task was cancelled")),
                }
            }
            Err(error) if error.code == error::INTERNAL && failures < MAX_FAILURES => failures += 1,
            Err(error) => return Err(error),
        }
        let Some(waiting) = &mut input else {
            door.pause(interval).await;
            continue;
        };
        // The task may end while its user still thinks.
        tokio::select! {
            biased;
            answers = waiting => {
                input = None;
                door.ask(method::TASKS_UPDATE, update(task_id, &answers?)).await?;
            }
            () = door.pause(interval) => {}
        }
    }
}

fn update(task_id: &str, answers: &str) -> String {
    format!(r#"{{"taskId":{task_id},"inputResponses":{answers}}}"#)
}

fn interval_of(told: &RawValue) -> Duration {
    let interval = Members::of(told).and_then(|members| members.get("pollIntervalMs"));
    let interval = interval.and_then(|raw| raw.get().parse::<u64>().ok());
    let (shortest, longest) = INTERVALS;
    interval.map_or(USUAL_INTERVAL, |ms| {
        Duration::from_millis(ms).clamp(shortest, longest)
    })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
    };

    use super::*;

    /// A server that answers by script, a user who needs some pauses to answer, and a log of what happened.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Result<&'static str, RpcError>>>,
        input: Option<Result<&'static str, RpcError>>,
        thinks: Duration,
        log: Mutex<Vec<String>>,
    }

    impl Script {
        fn note(&self, line: String) {
            self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }

        fn log(&self) -> Vec<String> {
            self.log.lock().unwrap().clone()
        }
    }

    impl TaskDoor for Script {
        async fn ask(&self, called: &str, params: String) -> Result<String, RpcError> {
            self.note(format!("{called} {params}"));
            if called == method::TASKS_UPDATE {
                return Ok("{}".to_owned());
            }
            let next = self.answers.lock().unwrap().pop_front();
            next.expect("the script goes on").map(str::to_owned)
        }

        async fn input(&self, requests: Vec<InputRequest>) -> Result<String, RpcError> {
            let keys: Vec<_> = requests.into_iter().map(|request| request.key).collect();
            self.note(format!("input {}", keys.join(",")));
            if !self.thinks.is_zero() {
                std::future::pending::<()>().await;
            }
            self.input.clone().expect("input is scripted").map(str::to_owned)
        }

        async fn pause(&self, time: Duration) {
            self.note(format!("pause {}", time.as_millis()));
            tokio::task::yield_now().await;
        }
    }

    fn script(answers: Vec<Result<&'static str, RpcError>>) -> Script {
        Script {
            answers: Mutex::new(answers.into()),
            ..Script::default()
        }
    }

    const WORKING: &str = r#"{"status":"working","pollIntervalMs":500}"#;
    const ASKING: &str = r#"{"status":"input_required","inputRequests":{"a":{"method":"roots/list"},"b":{"method":"roots/list"}}}"#;
    const ASKING_MORE: &str = r#"{"status":"input_required","inputRequests":{"b":{"method":"roots/list"},"c":{"method":"roots/list"}}}"#;
    const DONE: &str = r#"{"status":"completed","result":{"n":1e400}}"#;
    const GET: &str = r#"tasks/get {"taskId":"t"}"#;

    #[tokio::test]
    async fn a_task_is_asked_for_at_its_own_pace_until_it_ends() {
        let door = script(vec![
            Ok(WORKING),
            Ok(r#"{"status":"working","pollIntervalMs":1}"#),
            Ok(r#"{"status":"working"}"#),
            Ok(r#"{"status":"working","pollIntervalMs":3600000}"#),
            Ok(DONE),
        ]);
        assert_eq!(
            outcome(&door, "\"t\"").await,
            Ok(Outcome::Result(r#"{"n":1e400}"#.to_owned()))
        );
        let expected = [
            GET,
            "pause 500",
            GET,
            "pause 100",
            GET,
            "pause 1000",
            GET,
            "pause 30000",
            GET,
        ];
        assert_eq!(door.log(), expected);
    }

    #[tokio::test]
    async fn the_ways_a_task_ends_are_told_apart() {
        let failed = r#"{"status":"failed","error":{"code":1,"message":"m","x":1.0}}"#;
        let error = r#"{"code":1,"message":"m","x":1.0}"#.to_owned();
        assert_eq!(
            outcome(&script(vec![Ok(failed)]), "\"t\"").await,
            Ok(Outcome::Error(error))
        );
        for (answer, word) in [
            (Ok(r#"{"status":"cancelled"}"#), "cancelled"),
            (Ok(r#"{"status":"completed"}"#), "`result`"),
            (Ok(r#"{"status":"odd"}"#), "`status`"),
            (Ok("garbage"), "JSON"),
            (Err(RpcError::invalid_params("no such task")), "no such task"),
        ] {
            let ended = outcome(&script(vec![answer]), "\"t\"").await;
            assert!(ended.is_err_and(|error| error.message.contains(word)), "{word}");
        }
    }

    #[tokio::test]
    async fn a_question_is_asked_once_and_its_answer_handed_in() {
        let door = Script {
            input: Some(Ok(r#"{"a":{}}"#)),
            ..script(vec![Ok(ASKING), Ok(ASKING_MORE), Ok(WORKING), Ok(DONE)])
        };
        assert!(outcome(&door, "\"t\"").await.is_ok());
        let update = r#"tasks/update {"taskId":"t","inputResponses":{"a":{}}}"#;
        let expected = [
            GET,
            r#"input "a","b""#,
            update,
            GET,
            r#"input "c""#,
            update,
            GET,
            "pause 500",
            GET,
        ];
        assert_eq!(door.log(), expected);
    }

    #[tokio::test]
    async fn a_task_may_end_while_its_user_thinks() {
        let door = Script {
            thinks: Duration::from_secs(1),
            ..script(vec![Ok(ASKING), Ok(ASKING), Ok(DONE)])
        };
        assert!(outcome(&door, "\"t\"").await.is_ok());
        let expected = [GET, r#"input "a","b""#, "pause 1000", GET, "pause 1000", GET];
        assert_eq!(door.log(), expected);
    }

    #[tokio::test]
    async fn a_client_that_gives_no_answer_ends_the_waiting() {
        let door = Script {
            input: Some(Err(RpcError::internal("the user said no"))),
            ..script(vec![Ok(ASKING)])
        };
        let ended = outcome(&door, "\"t\"").await;
        assert!(ended.is_err_and(|error| error.message.contains("said no")));
    }

    #[tokio::test]
    async fn a_server_may_fail_a_few_times_in_a_row() {
        let fault = || Err(RpcError::internal("lost"));
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.extend((0..MAX_FAILURES).map(|_| fault()));
            answers.push(Ok(WORKING));
        }
        answers.push(Ok(DONE));
        assert!(outcome(&script(answers), "\"t\"").await.is_ok());
        let answers = (0..=MAX_FAILURES).map(|_| fault()).collect();
        let ended = outcome(&script(answers), "\"t\"").await;
        assert!(ended.is_err_and(|error| error.message == "lost"));
    }
}
