//! A foreign MCP server becomes an actor on the bus.
//!
//! [`ChildUpstream`] runs a command and speaks MCP with it over its stdin and stdout, in whichever era the command knows;
//! [`remote`] does the same for a server at a URL. Inside,
//! `process` owns the operating system's side, `link` the conversation, `handshake` finds out the era, and `request`, `answer`
//! and `legacy` translate. Restarting belongs to [`runtime::supervise`], and serving on the bus to [`runtime::host`].

mod answer;
mod child;
mod environment;
mod error;
mod handshake;
mod inbound;
mod legacy;
mod link;
mod options;
mod part;
mod pending;
mod process;
pub mod remote;
mod request;
mod server;

use crate::edit;

pub use error::UpstreamError;
pub use options::{ChildOptions, EraKnob};
pub use part::ChildUpstream;

#[cfg(test)]
mod tests;
