//! MCP methods by name, and what follows from a method alone.

/// Describes a server (modern).
pub const DISCOVER: &str = "server/discover";
/// Lists tools.
pub const TOOLS_LIST: &str = "tools/list";
/// Calls a tool.
pub const TOOLS_CALL: &str = "tools/call";
/// Lists prompts.
pub const PROMPTS_LIST: &str = "prompts/list";
/// Renders a prompt.
pub const PROMPTS_GET: &str = "prompts/get";
/// Lists resources.
pub const RESOURCES_LIST: &str = "resources/list";
/// Lists resource templates.
pub const TEMPLATES_LIST: &str = "resources/templates/list";
/// Reads a resource.
pub const RESOURCES_READ: &str = "resources/read";
/// Completes an argument.
pub const COMPLETE: &str = "completion/complete";
/// Opens a legacy session.
pub const INITIALIZE: &str = "initialize";
/// Is the other side alive (legacy)?
pub const PING: &str = "ping";
/// Sets a session's log level (legacy).
pub const SET_LEVEL: &str = "logging/setLevel";
/// Ends a legacy handshake.
pub const INITIALIZED: &str = "notifications/initialized";
/// Cancels a request.
pub const CANCELLED: &str = "notifications/cancelled";
/// Tells how far a request is.
pub const PROGRESS: &str = "notifications/progress";
/// A log line.
pub const MESSAGE: &str = "notifications/message";
/// The tools have changed.
pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
/// The prompts have changed.
pub const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
/// The resources have changed.
pub const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";

/// Asks to be told of changes (modern).
pub const LISTEN: &str = "subscriptions/listen";
/// Says which of them will be told.
pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// A resource has changed.
pub const UPDATED: &str = "notifications/resources/updated";
/// Asks to be told when a resource changes (legacy).
pub const SUBSCRIBE: &str = "resources/subscribe";
/// Takes that back (legacy).
pub const UNSUBSCRIBE: &str = "resources/unsubscribe";
/// The client's folders have changed (legacy).
pub const ROOTS_CHANGED: &str = "notifications/roots/list_changed";
/// The user has done what a URL was for (legacy).
pub const ELICITED: &str = "notifications/elicitation/complete";
/// How a task is doing (legacy).
pub const TASK_STATUS: &str = "notifications/tasks/status";
/// What the methods of tasks begin with, in both eras.
pub const TASKS_PREFIX: &str = "tasks/";
/// Asks the user (server to client).
pub const ELICIT: &str = "elicitation/create";
/// Asks the client's model (server to client).
pub const SAMPLE: &str = "sampling/createMessage";
/// Asks for the client's folders (server to client).
pub const ROOTS_LIST: &str = "roots/list";

/// Tells how a task is doing (tasks extension).
pub const TASKS_GET: &str = "tasks/get";
/// Gives a task the input that it waits for (tasks extension).
pub const TASKS_UPDATE: &str = "tasks/update";
/// Cancels a task (tasks extension).
pub const TASKS_CANCEL: &str = "tasks/cancel";

/// What every notification's method begins with.
pub const NOTIFICATION_PREFIX: &str = "notifications/";
/// The methods of the tasks extension.
pub const TASKS: [&str; 3] = [TASKS_GET, TASKS_UPDATE, TASKS_CANCEL];
/// Methods that MCP defines in some revision, and that no modern client calls.
const NOT_MODERN: [&str; 10] = [
    INITIALIZE,
    PING,
    SET_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ELICIT,
    SAMPLE,
    ROOTS_LIST,
    "tasks/list",
    "tasks/result",
];

/// Whether a method is none of MCP's own, such as `com.example/anything`. It passes to whoever may know it.
#[must_use]
pub fn is_custom(method: &str) -> bool {
    !SERVED.contains(&method) && !NOT_MODERN.contains(&method) && !TASKS.contains(&method)
}

/// The notifications that some revision of the protocol defines, of either side. Any other is between a client and its server.
pub const NOTIFICATIONS: [&str; 12] = [
    INITIALIZED,
    CANCELLED,
    PROGRESS,
    MESSAGE,
    TOOLS_CHANGED,
    PROMPTS_CHANGED,
    RESOURCES_CHANGED,
    ACKNOWLEDGED,
    UPDATED,
    ROOTS_CHANGED,
    ELICITED,
    TASK_STATUS,
];

/// The methods whose answer may ask the client for input.
pub const ASKING: [&str; 3] = [TOOLS_CALL, PROMPTS_GET, RESOURCES_READ];

/// The methods whose request names one tool, prompt or resource.
pub const NAMED: [&str; 3] = [TOOLS_CALL, PROMPTS_GET, RESOURCES_READ];

/// The methods that Trunkline serves to modern clients.
pub const SERVED: [&str; 10] = [
    DISCOVER,
    LISTEN,
    TOOLS_LIST,
    TOOLS_CALL,
    PROMPTS_LIST,
    PROMPTS_GET,
    RESOURCES_LIST,
    TEMPLATES_LIST,
    RESOURCES_READ,
    COMPLETE,
];

/// Whether a modern result of this method must carry `ttlMs` and `cacheScope`.
#[must_use]
pub fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        DISCOVER | TOOLS_LIST | PROMPTS_LIST | RESOURCES_LIST | TEMPLATES_LIST | RESOURCES_READ
    )
}

/// Whether asking twice does what asking once does, for the methods whose meaning alone says so.
#[must_use]
pub fn is_read_only(method: &str) -> bool {
    is_cacheable(method) || matches!(method, PROMPTS_GET | COMPLETE)
}

/// The key of `params` that holds the name, for the methods that name something.
#[must_use]
pub fn name_key(method: &str) -> Option<&'static str> {
    match method {
        TOOLS_CALL | PROMPTS_GET => Some("name"),
        RESOURCES_READ => Some("uri"),
        TASKS_GET | TASKS_UPDATE | TASKS_CANCEL => Some("taskId"),
        _ => None,
    }
}

/// The server capability without which a method does not exist.
#[must_use]
pub fn capability(method: &str) -> Option<&'static str> {
    match method {
        TOOLS_LIST | TOOLS_CALL => Some("tools"),
        PROMPTS_LIST | PROMPTS_GET => Some("prompts"),
        RESOURCES_LIST | TEMPLATES_LIST | RESOURCES_READ => Some("resources"),
        COMPLETE => Some("completions"),
        _ => None,
    }
}
