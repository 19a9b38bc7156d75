//! What can go wrong with the tools, in words that tell a model what to do next.

use rmcp::ErrorData;
use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock};
use runtime::tasks::TaskError;

use crate::exports::ExportError;

/// Says why a tool has not done what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskToolError {
    /// There is no such task of the caller's.
    #[error("you have no task {0}: send a task_id that was given to you, or find it with list_my_tasks")]
    Unknown(String),
    /// A value has the right type, but cannot be used.
    #[error("{0}")]
    BadValue(&'static str),
    /// What was asked cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Tasks cannot be made or read.
    #[error("tasks cannot be reached at the moment, try again later")]
    Tasks(#[from] TaskError),
}

impl IntoCallToolResult for TaskToolError {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        if let Self::Tasks(error) = &self {
            tracing::warn!(%error, "a tool has not reached the tasks");
        }
        Ok(CallToolResult::error(vec![ContentBlock::text(self.to_string())]).into())
    }
}
