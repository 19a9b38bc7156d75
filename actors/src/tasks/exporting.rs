//! Exports as tasks: how one is ordered, and how a worker carries it to its end.
//!
//! What was committed stands in the store of results, under the task's own id. A worker that takes over opens the delivery and goes on; what it notes
//! with the task is only that it has moved on.

use std::{sync::Arc, time::Duration};

use bus_schema::{
    Principal, Request, RpcError,
    mcp::method,
    task::{KEPT_MS, Order, Priority},
};
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    moment,
    store::objects::{ObjectError, ObjectKey, Objects},
    tasks::{Ended, Later, TaskContext, Work, new_id},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

use super::{SERVER, arguments::ExportArguments};
use crate::exports::{Datasets, DateRange, Delivered, Delivery, ExportError, Plan, Step};

/// The name of the tool whose calls are worked on here.
pub(super) const TOOL: &str = "start_data_export";
/// When an export that cannot go on is tried again: soon, or when there may be room.
const SOON: Duration = Duration::from_secs(5);
const WHEN_THERE_IS_ROOM: Duration = Duration::from_secs(5 * 60);

/// Works on exports.
#[derive(Clone, Debug)]
pub struct Exporting {
    datasets: Datasets,
    objects: Objects,
    /// Where results are reached by HTTP, without a slash at the end, if that is known.
    base_url: Option<String>,
}

/// An export as it is written down: the call of the tool.
#[derive(Deserialize)]
struct Call {
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    arguments: ExportArguments,
}

impl Exporting {
    /// Exports of these datasets into a store. `base_url` is where clients reach the HTTP door, if that is known.
    #[must_use]
    pub fn new(datasets: Datasets, objects: Objects, base_url: Option<String>) -> Self {
        Self {
            datasets,
            objects,
            base_url,
        }
    }

    /// What can be exported.
    pub(super) fn datasets(&self) -> &Datasets {
        &self.datasets
    }

    /// The order of an export.
    pub(super) fn order(
        &self,
        principal: &Principal,
        arguments: &ExportArguments,
    ) -> Result<Order, ExportError> {
        self.datasets.find(&arguments.dataset)?;
        range(arguments)?;
        let call = json!({
            "jsonrpc": "2.0", "id": 0, "method": method::TOOLS_CALL,
            "params": { "name": TOOL, "arguments": arguments },
        });
        Ok(Order {
            id: new_id(),
            group: SERVER.to_owned(),
            endpoint: SERVER.to_owned(),
            request: Request {
                caller: String::new(),
                call: 0,
                server: SERVER.to_owned(),
                method: method::TOOLS_CALL.to_owned(),
                name: Some(TOOL.to_owned()),
                principal: principal.clone(),
                protocol_version: bus_schema::ProtocolVersion::MODERN.as_str().to_owned(),
                door: SERVER.to_owned(),
                timeout_ms: 0,
                trace: None,
                chunked_bytes: 0,
                body: call.to_string().into_bytes().into(),
            },
            priority: Priority::Normal,
            created_ms: moment::now_ms(),
            kept_ms: KEPT_MS,
            start_ms: None,
            approval: None,
            at_most_once: false,
        })
    }

    async fn export(&self, task: &TaskContext) -> Result<Value, Stopped> {
        let call: Call = serde_json::from_slice(&task.request().body.0)
            .map_err(|error| Stopped::Unreadable(error.to_string()))?;
        let arguments = call.params.arguments;
        let dataset = self.datasets.find(&arguments.dataset)?;
        let now_ms = i64::try_from(moment::now_ms()).unwrap_or(i64::MAX);
        let plan = Plan::new(arguments.format, range(&arguments)?, now_ms);
        let total = dataset.count(plan.range()).await.map_err(ExportError::Dataset)?;
        let key = ObjectKey::new(task.principal(), task.id().as_str());
        let mut delivery = Delivery::open(&self.objects, &key, dataset, plan).await?;
        loop {
            let rows = delivery.rows();
            let fraction = if total == 0 {
                1.0
            } else {
                rows as f64 / total as f64
            };
            task.progress(format!("{rows} of {total} rows"), Some(fraction.min(1.0)));
            let (next, step) = delivery.step().await?;
            delivery = next;
            match step {
                // Who moves on is not held for being interrupted often.
                Step::Committed { rows } => task.checkpoint("rows", &rows).await.map_err(Stopped::Task)?,
                Step::Finished(delivered) => return Ok(self.told(task, &arguments, &delivered)),
            }
        }
    }

    fn told(&self, task: &TaskContext, arguments: &ExportArguments, delivered: &Delivered) -> Value {
        let path = format!("/results/{}", task.id());
        let url = match &self.base_url {
            Some(base) => format!("{base}{path}"),
            None => path,
        };
        let file = &delivered.file;
        let told = json!({
            "dataset": arguments.dataset, "format": arguments.format.name(), "url": url,
            "file_name": file.about.file_name, "media_type": file.about.media_type,
            "rows": delivered.rows, "bytes": file.bytes, "sha256": file.sha256,
            "expires_at": moment::of_ms(file.expires_ms),
        });
        json!({
            "content": [{ "type": "text", "text": told.to_string() }],
            "structuredContent": told, "isError": false,
        })
    }

    /// Forgets what was written for a task that somebody has cancelled.
    async fn forget(&self, task: &TaskContext) {
        let key = ObjectKey::new(task.principal(), task.id().as_str());
        if let Err(error) = self.objects.delete(&key).await {
            warn!(task.id = %task.id(), %error, "what a cancelled export has written stays until it expires");
        }
    }
}

fn range(arguments: &ExportArguments) -> Result<DateRange, ExportError> {
    DateRange::parse(arguments.from.as_deref(), arguments.until.as_deref())
}

/// Why an export goes no further, for now or for good.
enum Stopped {
    Unreadable(String),
    Task(RpcError),
    Export(ExportError),
}

impl From<ExportError> for Stopped {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

impl Stopped {
    fn ended(self) -> Ended {
        let error = match self {
            Self::Unreadable(why) => {
                return Ended::error(&RpcError::internal(format!(
                    "what was ordered cannot be read: {why}"
                )));
            }
            Self::Task(error) => return Ended::error(&error),
            Self::Export(error) => error,
        };
        let after = match &error {
            ExportError::Store(ObjectError::Full | ObjectError::Quota(_)) => WHEN_THERE_IS_ROOM,
            ExportError::Store(ObjectError::Store(_) | ObjectError::Taken) | ExportError::Dataset(_) => SOON,
            // It would come to the same again.
            _ => {
                let failed =
                    json!({ "content": [{ "type": "text", "text": error.to_string() }], "isError": true });
                return Ended::Completed(failed.to_string().into_bytes().into());
            }
        };
        Ended::Later(Later {
            after,
            why: error.to_string(),
            begun: true,
        })
    }
}

impl Work for Exporting {
    fn run(self: Arc<Self>, task: TaskContext) -> BoxFuture<'static, Ended> {
        async move {
            let exported = tokio::select! {
                biased;
                () = task.cancelled() => None,
                exported = self.export(&task) => Some(exported),
            };
            match exported {
                Some(Ok(result)) => Ended::Completed(result.to_string().into_bytes().into()),
                Some(Err(stopped)) => stopped.ended(),
                None => {
                    self.forget(&task).await;
                    Ended::error(&RpcError::internal("the export was cancelled"))
                }
            }
        }
        .boxed()
    }
}
