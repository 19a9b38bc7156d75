//! The tools. Each tells of the caller's own tasks only: others' are as unknown as those that are not there.

use std::sync::Arc;

use bus_schema::{
    Principal,
    task::{self, TaskId},
};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler, tool, tool_handler, tool_router};
use runtime::tasks::{Tasks, Wanted, place_of};

use super::arguments::{ExportArguments, ListArguments, Standing, TaskArguments};
use super::error::TaskToolError;
use super::exporting::{Exporting, TOOL};
use super::told::{Telling, Told, ToldPage};

const INSTRUCTIONS: &str = "\
Long work that goes on without you. Begin an export with `start_data_export`; ask how a task stands with `get_task_status`, every \
`poll_after_ms` milliseconds until `has_ended` is true, and find the tasks that you have with `list_my_tasks`. A task goes on when \
this conversation ends.";

/// The tasks server. Cloning it is cheap.
#[derive(Clone)]
pub struct TaskTools {
    tasks: Tasks,
    exporting: Exporting,
    tool_router: Arc<ToolRouter<Self>>,
}

impl TaskTools {
    /// The tools over the tasks of the bus, and over what can be exported.
    #[must_use]
    pub fn new(tasks: Tasks, exporting: Exporting) -> Self {
        let mut router = Self::tool_router();
        // A model has to know what there is before it asks.
        if let Some(route) = router.map.get_mut(TOOL) {
            let said = route.attr.description.clone().unwrap_or_default();
            let each = exporting.datasets().each();
            let datasets: Vec<String> = each
                .map(|dataset| format!("`{}`: {}", dataset.name(), dataset.description()))
                .collect();
            route.attr.description = Some(format!("{said} The datasets are {}", datasets.join(" ")).into());
        }
        Self {
            tasks,
            exporting,
            tool_router: Arc::new(router),
        }
    }
}

/// Who calls, as the host has established.
fn principal(context: &RequestContext<RoleServer>) -> Principal {
    let found = context.extensions.get::<Principal>();
    found.cloned().unwrap_or_else(Principal::developer)
}

fn read_id(text: &str) -> Result<TaskId, TaskToolError> {
    TaskId::parse(text.trim()).ok_or_else(|| TaskToolError::Unknown(text.to_owned()))
}

#[tool_router]
impl TaskTools {
    #[tool(
        title = "Start a data export",
        description = "Begins to write a whole dataset into a file and returns at once with a `task_id`. The export goes on by itself, \
            also when you or the server are restarted. Then call get_task_status with the `task_id` every few seconds until \
            `has_ended` is true; the `result` of a completed export has the URL of the file, its number of rows and its SHA-256. \
            The file is kept for a day, and only the same user can get it. Each call begins another export.",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn start_data_export(
        &self,
        Parameters(wanted): Parameters<ExportArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Told>, TaskToolError> {
        let order = self.exporting.order(&principal(&context), &wanted)?;
        let task = self.tasks.create(order).await?;
        Ok(Json(Told::of(&task, Telling::Whole)))
    }

    #[tool(
        title = "Get the status of a task",
        description = "Returns how one of your tasks stands: its status, how far it is, and its result once it is completed. As long as \
            `has_ended` is false, call this again after `poll_after_ms` milliseconds; do not start the work again.",
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn get_task_status(
        &self,
        Parameters(wanted): Parameters<TaskArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Told>, TaskToolError> {
        let id = read_id(&wanted.task_id)?;
        let found = self.tasks.get(&place_of(&principal(&context), &id)).await?;
        let kept = found.ok_or(TaskToolError::Unknown(wanted.task_id))?;
        Ok(Json(Told::of(&kept.task, Telling::Whole)))
    }

    #[tool(
        title = "Cancel a task",
        description = "Cancels one of your tasks for good and returns it. What an export has written so far is deleted. A task that has \
            ended stays as it is.",
        annotations(
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn cancel_task(
        &self,
        Parameters(wanted): Parameters<TaskArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Told>, TaskToolError> {
        let id = read_id(&wanted.task_id)?;
        let cancelled = self.tasks.cancel(&place_of(&principal(&context), &id)).await?;
        let task = cancelled.ok_or(TaskToolError::Unknown(wanted.task_id))?;
        Ok(Json(Told::of(&task, Telling::Whole)))
    }

    #[tool(
        title = "List my tasks",
        description = "Returns one page of your own tasks, on any server of this platform: all that have not ended, or those of the given \
            `status`. What came of a task is told by get_task_status. A page may be empty although there is a next one.",
        annotations(
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn list_my_tasks(
        &self,
        Parameters(wanted): Parameters<ListArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ToldPage>, TaskToolError> {
        if !(1..=100).contains(&wanted.limit) {
            return Err(TaskToolError::BadValue("limit must be between 1 and 100"));
        }
        let principal = principal(&context);
        let standings: Vec<String> = match wanted.status.as_slice() {
            [] => Standing::PENDING.map(Standing::as_str).map(str::to_owned).into(),
            chosen => chosen
                .iter()
                .map(|standing| standing.as_str().to_owned())
                .collect(),
        };
        let asked = Wanted {
            tenant: &principal.tenant,
            owner: Some(task::owner(principal.identity())),
            standings: &standings,
            server: wanted.server.as_deref(),
            limit: wanted.limit,
            cursor: wanted.cursor.as_deref(),
        };
        let page = self.tasks.list(&asked).await?;
        let page = page.ok_or(TaskToolError::BadValue(
            "cursor is none that was given out: send next_cursor unchanged, or none",
        ))?;
        Ok(Json(ToldPage {
            tasks: page
                .tasks
                .iter()
                .map(|task| Told::of(task, Telling::InAList))
                .collect(),
            next_cursor: page.next,
        }))
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for TaskTools {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new(super::SERVER, env!("CARGO_PKG_VERSION"))
            .with_title("Tasks")
            .with_description("Long work of one's own: exports, how they stand, and their results");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(INSTRUCTIONS)
    }
}
