//! The server `jobs`: what a model does with long work that knows nothing of the protocol's tasks. It begins exports, looks at its tasks, lists and
//! cancels them, by plain tools.
//!
//! The tasks themselves are the runtime's; this room makes those of exports (`exporting`) and tells of all that are their caller's. Which
//! datasets there are it is told by whoever starts it, as rooms do not name each other.

mod arguments;
mod error;
mod exporting;
mod server;
mod told;

pub use error::TaskToolError;
pub use exporting::Exporting;
pub use server::TaskTools;

/// The id of the server, and the group of its workers.
pub const SERVER: &str = "jobs";
