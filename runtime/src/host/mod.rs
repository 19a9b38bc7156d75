//! Serves one MCP server on the bus.
//!
//! A host takes calls from its queue group, runs a bounded number of them at once, and answers "busy" beyond. Each call gets its
//! notifications and its one answer in order, a deadline, heartbeats, and a handler that is dropped when nobody waits any more. A server
//! whose calls keep failing is left alone for a while.
//! The host reads eagerly and never waits inside its loop, so that it can say "busy" at any time.

mod admission;
mod authorize;
mod breaker;
mod deprecated;
mod describe;
mod forgery;
mod frames;
mod guard;
mod health;
mod hooks;
mod listed;
mod listen;
mod rails;
mod run;
mod server;
mod services;
mod subscriptions;
mod tool_list;
mod work;

use std::time::Duration;

pub use breaker::Breaker;
pub(crate) use deprecated::{KEY as DEPRECATED_KEY, is_marked};
pub use health::{HostHealth, Source};
pub use run::Host;
pub use server::{HostOptions, McpServer, Outcome, Parts, Verdict, Visibility};
pub(crate) use services::CARD_KEY;
#[cfg(feature = "testing")]
pub(crate) use tool_list::edit as edit_tool_list;

/// How long a call works in silence before its host tells the caller that it does.
pub(crate) const ACCEPT_AFTER: Duration = Duration::from_millis(100);
/// How often a host tells a waiting caller that it still works.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How many bytes of frames may be on their way to a caller without credit.
pub(crate) const WINDOW_BYTES: usize = 1024 * 1024;
/// After how many bytes a caller grants new credit.
pub(crate) const CREDIT_BYTES: usize = WINDOW_BYTES / 4;
/// How many bytes of large request bodies one host holds at once, over all calls.
pub(crate) const LARGE_BODIES_BYTES: u32 = 256 * 1024 * 1024;

/// Says why a server could not be put on the bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The bus refused.
    #[error("the bus refused a subscription")]
    Bus(#[from] crate::bus::BusError),
    /// The server did not describe itself.
    #[error("the server's answer to `{method}` cannot be used: {why}")]
    Description {
        /// What was asked.
        method: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
}
