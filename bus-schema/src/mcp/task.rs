//! The names of tasks, which both eras have in shapes of their own.
//!
//! Sources: MCP 2025-11-25, tasks (experimental); the extension `io.modelcontextprotocol/tasks` for 2026-07-28.

/// The extension of the modern era, as capabilities name it.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// The key of `_meta` that says which task a legacy message belongs to.
pub const RELATED: &str = "io.modelcontextprotocol/related-task";
/// Asks how a task is doing.
pub const GET: &str = "tasks/get";
/// Answers what a task asks (modern).
pub const UPDATE: &str = "tasks/update";
/// Stops a task.
pub const CANCEL: &str = "tasks/cancel";
/// Waits for what a task comes to (legacy).
pub const RESULT: &str = "tasks/result";
/// Lists tasks (legacy).
pub const LIST: &str = "tasks/list";
/// Tells how a task is doing (modern).
pub const NOTIFICATION: &str = "notifications/tasks";
/// Tells how a task is doing (legacy).
pub const STATUS: &str = "notifications/tasks/status";
