//! A foreign MCP server becomes an actor on the bus.
//!
//! [`Upstream`] runs a command and speaks MCP with it over its stdin and stdout, in whichever era the command knows, or does the
//! same with a server at a URL ([`remote`]). Inside, `process` owns the operating system's side, `link` the conversation, `handshake` finds out the era, and `request`, `answer`
//! and `legacy` translate. `server` chooses the conversation of a call: callers that a legacy server may ask have `lanes` of their
//! own, `rounds`, `ask` and `park` carry what it asks, and `tasks` holds what it works on for longer. Restarting belongs to [`runtime::supervise`], and serving on the bus to
//! [`runtime::host`].

mod answer;
mod ask;
mod asks;
mod call;
mod canonical;
mod capabilities;
mod child;
mod connection;
mod environment;
mod error;
mod expiry;
mod handshake;
mod hearing;
mod inbound;
mod lane;
mod lanes;
mod legacy;
mod levels;
mod link;
mod options;
mod pace;
mod park;
mod part;
mod pending;
mod polling;
mod process;
pub mod remote;
mod request;
mod rounds;
mod seal;
mod server;
mod subscriptions;
mod tasks;
mod users;

use bus_schema::edit;

pub(crate) use environment::own_names;
pub use error::UpstreamError;
pub use options::{AskingOptions, BreakerKnob, ChildOptions, EraKnob, RetryKnob};
pub use part::Upstream;
pub(crate) use process::Group;

#[cfg(test)]
mod tests;
