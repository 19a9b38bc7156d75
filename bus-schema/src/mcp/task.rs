//! The names of the experimental tasks of 2025-11-25, and of the notices of both eras.
//!
//! What the tasks extension of the modern era calls lives with the other methods. Source: MCP 2025-11-25, tasks.

/// The key of `_meta` that says which task a legacy message belongs to.
pub const RELATED: &str = "io.modelcontextprotocol/related-task";
/// Waits for what a task comes to (legacy).
pub const RESULT: &str = "tasks/result";
/// Lists tasks (legacy).
pub const LIST: &str = "tasks/list";
/// Tells how a task is doing (modern).
pub const NOTIFICATION: &str = "notifications/tasks";
/// Tells how a task is doing (legacy).
pub const STATUS: &str = "notifications/tasks/status";
