//! Answers to what a task asks, checked before they are taken: a task that has gone on with a wrong one cannot be asked again.

use std::collections::BTreeMap;

use bus_schema::{
    Body,
    mcp::method,
    task::{Asked, Task, TaskId},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// What a person can do about a form.
const ACTIONS: [&str; 3] = ["accept", "decline", "cancel"];

/// Why answers are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswers {
    /// It asks nothing now.
    #[error("task `{id}` is {standing}, and asks nothing")]
    NotWaiting {
        /// Which task.
        id: TaskId,
        /// How it stands.
        standing: &'static str,
    },
    /// There is none.
    #[error("nothing is answered; the task asks {}", list(.0))]
    Nothing(Vec<String>),
    /// It does not ask this, or not any more.
    #[error("the task does not ask `{key}`; it asks {}", list(.outstanding))]
    UnknownKey {
        /// What was answered.
        key: String,
        /// What it asks.
        outstanding: Vec<String>,
    },
    /// An answer is none to its question.
    #[error("the answer to `{key}` {wrong}")]
    Wrong {
        /// Which question.
        key: String,
        /// What is wrong, and what would be right.
        wrong: String,
    },
}

fn list(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    keys.join(", ")
}

/// The answers as the task takes them, in their own spelling.
pub(super) fn read_answers(
    task: &Task,
    answers: &BTreeMap<String, Box<RawValue>>,
) -> Result<BTreeMap<String, Body>, BadAnswers> {
    let outstanding: BTreeMap<&str, &Asked> = task.outstanding().collect();
    let keys = || outstanding.keys().map(|key| (*key).to_owned()).collect();
    if outstanding.is_empty() {
        let id = task.order.id.clone();
        let standing = task.standing();
        return Err(BadAnswers::NotWaiting { id, standing });
    }
    if answers.is_empty() {
        return Err(BadAnswers::Nothing(keys()));
    }
    let mut bodies = BTreeMap::new();
    for (key, answer) in answers {
        let asked = outstanding.get(key.as_str());
        let asked = asked.ok_or_else(|| BadAnswers::UnknownKey {
            key: key.clone(),
            outstanding: keys(),
        })?;
        check(asked, answer.get()).map_err(|wrong| BadAnswers::Wrong {
            key: key.clone(),
            wrong,
        })?;
        bodies.insert(key.clone(), answer.get().as_bytes().to_vec().into());
    }
    Ok(bodies)
}

fn check(asked: &Asked, answer: &str) -> Result<(), String> {
    let answer: Value = serde_json::from_str(answer).map_err(|error| format!("is no JSON: {error}"))?;
    if !answer.is_object() {
        return Err("is no JSON object; it is what a client would answer the request with".to_owned());
    }
    if called(asked).as_deref() != Some(method::ELICIT) {
        return Ok(());
    }
    let action = answer["action"].as_str().unwrap_or_default();
    if !ACTIONS.contains(&action) {
        return Err(
            r#"has no action that a form can have; send {"action": "accept", "content": {…}}, or "decline", or "cancel""#.to_owned(),
        );
    }
    if action == "accept" && !answer["content"].is_null() && !answer["content"].is_object() {
        return Err("has a `content` that is no JSON object".to_owned());
    }
    Ok(())
}

fn called(asked: &Asked) -> Option<String> {
    #[derive(Deserialize)]
    struct Asks {
        method: String,
    }
    let asks: Asks = serde_json::from_slice(&asked.request.0).ok()?;
    Some(asks.method)
}

#[cfg(test)]
mod tests {
    use bus_schema::task::State;
    use serde_json::json;

    use super::{super::tests::task, *};

    fn answers(all: &Value) -> BTreeMap<String, Box<RawValue>> {
        serde_json::from_str(&all.to_string()).expect("an object")
    }

    #[test]
    fn only_what_is_asked_is_answered_and_the_refusal_says_what_would_be_right() {
        let mut asks = task(State::Waiting {
            until_ms: 9,
            round: 1,
        });
        for (key, called) in [("sure", "elicitation/create"), ("roots", "roots/list")] {
            let request = json!({ "method": called }).to_string().into_bytes().into();
            let answer = None;
            asks.asked.insert(key.to_owned(), Asked { request, answer });
        }
        for (wrong, words) in [
            (json!({}), "asks `roots`, `sure`"),
            (
                json!({ "sure": { "action": "accept" }, "other": {} }),
                "does not ask `other`; it asks `roots`, `sure`",
            ),
            (json!({ "sure": true }), "`sure` is no JSON object"),
            (json!({ "sure": { "yes": true } }), "\"action\": \"accept\""),
            (
                json!({ "sure": { "action": "accept", "content": 1 } }),
                "`content` that is no JSON object",
            ),
        ] {
            let error = read_answers(&asks, &answers(&wrong))
                .expect_err(words)
                .to_string();
            assert!(error.contains(words), "{error}");
        }
        let spelled = r#"{"sure":{"action":"accept","content":{"n":1.00}},"roots":{"roots":[]}}"#;
        let taken = read_answers(&asks, &serde_json::from_str(spelled).expect("an object")).expect("right");
        assert_eq!(
            &taken["sure"].0[..],
            br#"{"action":"accept","content":{"n":1.00}}"#
        );
        // What has its answer is not asked any more.
        asks.asked.get_mut("roots").expect("asked").answer = Some(Body::default());
        assert!(read_answers(&asks, &answers(&json!({ "roots": {} }))).is_err());
    }

    #[test]
    fn a_task_that_asks_nothing_says_how_it_stands() {
        let error = read_answers(&task(State::Working), &answers(&json!({ "x": {} }))).expect_err("refused");
        assert!(
            error.to_string().contains("is working, and asks nothing"),
            "{error}"
        );
    }
}
