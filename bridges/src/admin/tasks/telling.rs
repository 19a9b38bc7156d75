//! Tasks as operators and their callers are told of them: all but what they were asked with.

use std::collections::BTreeMap;

use bus_schema::{
    Body,
    task::{Priority, State, Task},
};
use runtime::moment;
use serde::Serialize;
use serde_json::value::RawValue;

/// A task as it is told.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskTold<'t> {
    /// Its id.
    pub id: &'t str,
    /// How it stands, as the protocol has it.
    pub status: &'static str,
    /// How it stands, as operators have it.
    pub standing: &'static str,
    /// The server that it calls.
    pub server: &'t str,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<&'t str>,
    /// Whose it is: the subject.
    pub user: &'t str,
    /// Who vouches for the subject, if somebody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'t str>,
    /// Which is taken first.
    pub priority: Priority,
    /// When it was made, as RFC 3339.
    pub created_at: String,
    /// When something last happened to it.
    pub updated_at: String,
    /// When it is forgotten.
    pub expires_at: String,
    /// Until when it sleeps, or waits for answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How often a worker has taken it.
    pub attempt: u32,
    /// The worker that took it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<&'t str>,
    /// What it is about at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'t str>,
    /// How far it is, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Why it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'t str>,
    /// Who has decided over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<&'t str>,
    /// What it asks and nobody has answered, by keys: each a request to its client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<BTreeMap<&'t str, Box<RawValue>>>,
    /// What the call is answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// The JSON-RPC error that it is answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<RawValue>>,
}

impl<'t> TaskTold<'t> {
    /// As it is told in lists: without what it asks, and without what came of it.
    #[must_use]
    pub fn short(task: &'t Task) -> Self {
        let (order, request) = (&task.order, &task.order.request);
        let (until_ms, why) = match &task.state {
            State::Sleeping { until_ms, .. } | State::Waiting { until_ms, .. } => (Some(*until_ms), None),
            State::Held { why } => (None, Some(why.as_str())),
            _ => (None, None),
        };
        Self {
            id: order.id.as_str(),
            status: task.status(),
            standing: task.standing(),
            server: &request.server,
            tool: request.name.as_deref(),
            user: &request.principal.subject,
            issuer: request.principal.issuer.as_deref(),
            priority: order.priority,
            created_at: moment::of_ms(order.created_ms),
            updated_at: moment::of_ms(task.changed_ms),
            expires_at: moment::of_ms(task.expires_ms),
            until: until_ms.map(moment::of_ms),
            attempt: task.attempt,
            worker: Some(task.worker.as_str()).filter(|worker| !worker.is_empty()),
            note: task.note.as_deref(),
            fraction: task.fraction,
            why,
            decided_by: task.decided_by.as_deref(),
            questions: None,
            result: None,
            error: None,
        }
    }

    /// As it is told alone.
    #[must_use]
    pub fn whole(task: &'t Task) -> Self {
        let mut told = Self::short(task);
        match &task.state {
            State::Waiting { .. } => {
                let asked = task.outstanding();
                let asked = asked.filter_map(|(key, asked)| Some((key, raw(&asked.request)?)));
                told.questions = Some(asked.collect());
            }
            State::Completed { result } => told.result = raw(result),
            State::Failed { error } => told.error = raw(error),
            _ => {}
        }
        told
    }
}

/// JSON in its own spelling.
fn raw(body: &Body) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(&body.0).ok()?;
    RawValue::from_string(text.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use bus_schema::task::Asked;
    use serde_json::{Value, json};

    use super::{super::tests::task, *};

    fn told(task: &Task) -> Value {
        serde_json::to_value(TaskTold::whole(task)).expect("JSON")
    }

    #[test]
    fn a_task_is_told_with_what_it_comes_to_and_never_with_its_arguments() {
        let working = told(&task(State::Working));
        assert_eq!(
            working,
            json!({
                "id": "tlt-00000000000000000000000000000001", "status": "working", "standing": "working",
                "server": "shop", "tool": "buy", "user": "ann", "priority": "normal", "attempt": 0,
                "createdAt": "1970-01-01T00:00:01Z", "updatedAt": "1970-01-01T00:00:01Z",
                "expiresAt": "1970-01-02T00:00:01Z",
            })
        );
        let result = br#"{"n":1.00}"#.to_vec().into();
        let done = task(State::Completed { result });
        let text = serde_json::to_string(&TaskTold::whole(&done)).expect("JSON");
        assert!(text.contains(r#""result":{"n":1.00}"#), "{text}");
        assert!(told(&done).get("error").is_none());
        let short = serde_json::to_string(&TaskTold::short(&done)).expect("JSON");
        assert!(!short.contains("result"), "{short}");
        let held = task(State::Held {
            why: "it fails".to_owned(),
        });
        assert_eq!(told(&held)["why"], "it fails");
        assert_eq!(told(&held)["status"], "working");
        for state in [State::Working, done.state, held.state] {
            let text = told(&task(state)).to_string();
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_was_answered_is_not_told_as_a_question() {
        let mut asks = task(State::Waiting {
            until_ms: 2_000,
            round: 1,
        });
        for (key, answer) in [("open", None), ("done", Some(b"{}".to_vec().into()))] {
            let request = br#"{"method":"roots/list"}"#.to_vec().into();
            asks.asked.insert(key.to_owned(), Asked { request, answer });
        }
        let told = told(&asks);
        assert_eq!(told["questions"], json!({ "open": { "method": "roots/list" } }));
        assert_eq!(told["until"], "1970-01-01T00:00:02Z");
        assert_eq!(told["status"], "input_required");
    }
}
