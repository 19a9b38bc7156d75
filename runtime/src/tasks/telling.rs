//! Tasks as the protocol tells of them.

use bus_schema::{
    rpc::quote,
    task::{POLL_MS, State, Task},
};

use crate::moment;

/// A task as a JSON object with the members that the tasks extension gives it: what `tasks/get` answers, but for `resultType`.
#[must_use]
pub fn told(task: &Task) -> String {
    let mut out = head(task);
    match &task.state {
        State::Completed { result } => push(&mut out, "result", &String::from_utf8_lossy(&result.0)),
        State::Failed { error } => push(&mut out, "error", &String::from_utf8_lossy(&error.0)),
        State::Waiting { .. } => {
            let requests: Vec<String> = task
                .outstanding()
                .map(|(key, asked)| format!("{}:{}", quote(key), String::from_utf8_lossy(&asked.request.0)))
                .collect();
            push(&mut out, "inputRequests", &format!("{{{}}}", requests.join(",")));
        }
        _ => {}
    }
    out.push('}');
    out
}

/// What a call is answered with that has become a task: without what came of it, which `tasks/get` tells.
#[must_use]
pub fn created(task: &Task) -> String {
    let mut out = head(task);
    push(&mut out, "resultType", "\"task\"");
    out.push('}');
    out
}

fn head(task: &Task) -> String {
    let order = &task.order;
    let mut out = format!(
        r#"{{"taskId":{},"status":"{}","createdAt":"{}","lastUpdatedAt":"{}","ttlMs":{},"pollIntervalMs":{POLL_MS}"#,
        quote(order.id.as_str()),
        task.status(),
        moment::of_ms(order.created_ms),
        moment::of_ms(task.changed_ms),
        task.expires_ms.saturating_sub(order.created_ms),
    );
    if let Some(note) = note(task) {
        push(&mut out, "statusMessage", &quote(&note));
    }
    out
}

fn push(out: &mut String, name: &str, json: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(json);
}

fn note(task: &Task) -> Option<String> {
    match &task.state {
        State::Failed { error } => {
            let error: Option<bus_schema::RpcError> = serde_json::from_slice(&error.0).ok();
            error.map(|error| error.message)
        }
        State::Completed { .. } | State::Cancelled => None,
        State::Sleeping { until_ms, .. } => {
            let until = moment::of_ms(*until_ms);
            let why = task
                .note
                .as_ref()
                .map_or_else(String::new, |note| format!("{note}; "));
            Some(format!("{why}waits until {until}"))
        }
        _ => task.note.clone(),
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        Principal, Request,
        task::{HOSTED, KEPT_MS, Order, Priority, TaskId},
    };

    use super::*;

    fn order() -> Order {
        Order {
            id: TaskId::of(1),
            group: HOSTED.to_owned(),
            endpoint: String::new(),
            request: Request {
                caller: String::new(),
                call: 0,
                server: "shop".to_owned(),
                method: "tools/call".to_owned(),
                name: None,
                principal: Principal::developer(),
                protocol_version: "2026-07-28".to_owned(),
                door: "http".to_owned(),
                timeout_ms: 1,
                trace: None,
                chunked_bytes: 0,
                body: bus_schema::Body::default(),
            },
            priority: Priority::Normal,
            created_ms: 1_000,
            kept_ms: KEPT_MS,
            start_ms: None,
            approval: None,
            at_most_once: false,
        }
    }

    #[test]
    fn a_task_is_told_with_what_came_of_it_in_its_own_spelling() {
        let mut task = Task::new(order());
        let value: serde_json::Value = serde_json::from_str(&told(&task)).expect("JSON");
        assert_eq!(value["status"], "working");
        assert_eq!(value["createdAt"], "1970-01-01T00:00:01Z");
        assert_eq!(value["ttlMs"], KEPT_MS);
        assert!(value.get("resultType").is_none());
        assert!(created(&task).ends_with(r#","resultType":"task"}"#));
        let result = br#"{"content":[],"n":1.00}"#.to_vec();
        task.state = State::Completed {
            result: result.into(),
        };
        let text = told(&task);
        assert!(text.ends_with(r#","result":{"content":[],"n":1.00}}"#), "{text}");
    }
}
