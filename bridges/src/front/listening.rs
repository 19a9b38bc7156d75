//! The answer to `subscriptions/listen`: an acknowledgement, then notices for as long as the client listens.
//!
//! Source: MCP 2026-07-28, subscriptions.

use std::collections::BTreeSet;

use bus_schema::{
    RpcError,
    mcp::{meta, method, task},
    rpc,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Final, Step,
    changes::{Lists, Notice, Wanted, Watching},
    tasks::{HeardTasks, needs_extension},
};
use crate::request::Incoming;

/// How many resources one client may listen for.
const MAX_URIS: usize = 1_000;
/// How many bytes their URIs may have together.
const MAX_URI_BYTES: usize = 256 * 1024;

/// A client that listens.
pub(super) struct Listening {
    watching: Watching,
    /// The id of the listen request as spelled.
    id: String,
    wanted: Wanted,
    tasks: Option<HeardTasks>,
    ending: CancellationToken,
    is_acknowledged: bool,
}

impl Listening {
    pub(super) fn new(
        watching: Watching,
        id: &str,
        wanted: Wanted,
        tasks: Option<HeardTasks>,
        ending: CancellationToken,
    ) -> Self {
        Self {
            watching,
            tasks,
            id: id.to_owned(),
            wanted,
            ending,
            is_acknowledged: false,
        }
    }

    pub(super) async fn next(&mut self) -> Step {
        if !self.is_acknowledged {
            let honoured = self.watching.honoured().await;
            self.is_acknowledged = true;
            let mut granted = granted(self.wanted.lists, &honoured);
            if let Some(tasks) = &self.tasks {
                granted.insert("taskIds".to_owned(), tasks.ids().collect());
            }
            let granted = json!({ "notifications": granted });
            return Step::Part(self.notification(method::ACKNOWLEDGED, &granted));
        }
        let telling = async {
            match &mut self.tasks {
                Some(tasks) => tasks.next().await,
                None => std::future::pending().await,
            }
        };
        let notice = tokio::select! {
            notice = self.watching.next_as_granted() => notice,
            task = telling => {
                return Step::Part(write(task::NOTIFICATION, &format!("{{{},{}", self.subscription(), &task[1..])));
            }
            () = self.ending.cancelled() => return self.result(),
        };
        // The client listens again, and is told in the acknowledgement what it may still hear of.
        let Some(notice) = notice else {
            return self.result();
        };
        Step::Part(match notice {
            Notice::Tools => self.notification(method::TOOLS_CHANGED, &json!({})),
            Notice::Prompts => self.notification(method::PROMPTS_CHANGED, &json!({})),
            Notice::Resources => self.notification(method::RESOURCES_CHANGED, &json!({})),
            Notice::Updated(uri) => self.notification(method::UPDATED, &json!({ "uri": uri })),
        })
    }

    /// What a channel that is shared with others says after the result.
    ///
    /// The protocol's pages differ: one has the server cancel the request, the other has it answer. Clients take whichever comes first, and
    /// only the answer tells them that the end is in order; what comes for a request that is done means nothing.
    pub(super) fn parting(&self) -> Bytes {
        let params = format!(r#"{{"requestId":{},{}}}"#, self.id, self.subscription());
        write(method::CANCELLED, &params)
    }

    fn result(&self) -> Step {
        let result = format!(r#"{{"resultType":"complete",{}}}"#, self.subscription());
        Step::Final(Final {
            code: None,
            body: rpc::result_response(&self.id, result.as_bytes()).into(),
            fault: None,
        })
    }

    fn notification(&self, method: &str, params: &Value) -> Bytes {
        let params = params.to_string();
        let comma = if params == "{}" { "" } else { "," };
        write(
            method,
            &format!("{{{}{comma}{}", self.subscription(), &params[1..]),
        )
    }

    /// The id keeps its spelling, as a client tells its subscriptions apart by it.
    fn subscription(&self) -> String {
        format!(r#""_meta":{{"{}":{}}}"#, meta::SUBSCRIPTION_ID, self.id)
    }
}

fn write(method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
        .into_bytes()
        .into()
}

fn granted(lists: Lists, honoured: &BTreeSet<String>) -> Map<String, Value> {
    let mut granted = Map::new();
    for (key, on) in [
        ("toolsListChanged", lists.tools),
        ("promptsListChanged", lists.prompts),
        ("resourcesListChanged", lists.resources),
    ] {
        if on {
            granted.insert(key.to_owned(), Value::Bool(true));
        }
    }
    if !honoured.is_empty() {
        granted.insert("resourceSubscriptions".to_owned(), json!(honoured));
    }
    granted
}

/// Reads what a client wants, as far as the endpoint's capabilities allow it.
pub(super) fn wanted(
    incoming: &Incoming,
    capabilities: &Map<String, Value>,
) -> Result<(Wanted, Vec<String>), RpcError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        notifications: Filter,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Filter {
        tools_list_changed: bool,
        prompts_list_changed: bool,
        resources_list_changed: bool,
        resource_subscriptions: BTreeSet<String>,
        task_ids: Option<Vec<String>>,
    }
    let params = incoming
        .params
        .clone()
        .map_or(&b"{}"[..], |place| &incoming.body[place]);
    let Params { notifications: filter } = serde_json::from_slice(params).map_err(|error| {
        RpcError::invalid_params(format!(
            "`params.notifications` must say what to listen for, such as {{\"toolsListChanged\":true}}: {error}"
        ))
    })?;
    if filter.task_ids.is_some() && !incoming.meta.declares_tasks {
        return Err(needs_extension("listening for tasks needs"));
    }
    let bytes: usize = filter.resource_subscriptions.iter().map(String::len).sum();
    if filter.resource_subscriptions.len() > MAX_URIS || bytes > MAX_URI_BYTES {
        return Err(RpcError::invalid_params(format!(
            "`resourceSubscriptions` may name at most {MAX_URIS} resources of {MAX_URI_BYTES} bytes together; listen in several requests"
        )));
    }
    let says = |capability: &str, key: &str| {
        capabilities
            .get(capability)
            .and_then(|capability| capability.get(key))
            == Some(&Value::Bool(true))
    };
    let tasks = filter.task_ids.unwrap_or_default();
    let wanted = Wanted {
        lists: Lists {
            tools: filter.tools_list_changed && says("tools", "listChanged"),
            prompts: filter.prompts_list_changed && says("prompts", "listChanged"),
            resources: filter.resources_list_changed && says("resources", "listChanged"),
        },
        uris: if says("resources", "subscribe") {
            filter.resource_subscriptions
        } else {
            BTreeSet::new()
        },
    };
    Ok((wanted, tasks))
}
