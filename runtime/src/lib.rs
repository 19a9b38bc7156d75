//! The bus at work: the only crate that talks to NATS.
//!
//! [`Bus`] is one process's connection. [`host`] serves an MCP server on it, [`call`] asks one, [`directory`] knows
//! who is there, [`catalogue`] what they offer, and [`discovery`] finds tools among it by [`search`] and calls them. [`rmcp_host`] turns a server written with rmcp's macros into one that
//! [`host`] can serve, and [`elicit`] asks the user behind its calls; [`store`] holds what outlives a process, and [`supervise`] keeps what may fail running. What is said on the bus stands in `bus-schema`.

pub mod audit;
pub mod blocks;
pub mod bus;
pub mod call;
pub mod callout;
pub mod catalogue;
pub mod directory;
pub mod discovery;
pub mod documents;
pub mod doors;
pub mod elicit;
pub mod events;
pub mod guardrails;
pub mod host;
mod inbox;
pub mod limits;
pub mod load;
pub mod moment;
pub mod nats_server;
mod own_request;
pub mod pins;
pub mod placement;
pub mod policies;
pub mod public;
pub mod registry;
pub mod rmcp_host;
pub mod search;
pub mod status;
pub mod store;
pub mod supervise;
pub mod tasks;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod traffic;
pub mod virtuals;
pub mod watch;

pub use bus::{Bus, BusError, BusOptions};
pub use call::{Answer, Call, CallError, Retry, Way};
pub use catalogue::Catalogue;
pub use directory::Directory;
pub use discovery::Discovery;
pub use host::{Breaker, Host, HostHealth, HostOptions, McpServer, Outcome, Parts, Verdict, Visibility};
