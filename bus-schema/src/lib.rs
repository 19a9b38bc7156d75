//! The words of the bus: everything that two processes must agree on, and nothing that does I/O.
//!
//! Start with [`envelope`] (what crosses the bus) and [`subject`] (where it goes). [`rpc`] is the borrowed
//! look at a JSON-RPC message which lets the rest of it pass untouched; [`mcp`] holds the names that the
//! Model Context Protocol fixes. Time and ids are always arguments here, never taken from the environment.

pub mod audit;
pub mod block;
mod caller;
pub mod canonical;
pub mod card;
pub mod codec;
pub mod edit;
pub mod envelope;
pub mod guardrails;
pub mod header;
pub mod integrity;
pub mod kept;
pub mod limits;
pub mod mcp;
pub mod members;
pub mod policy;
pub mod principal;
pub mod registry;
pub mod rpc;
pub mod state;
pub mod subject;
pub mod task;
pub mod token;
pub mod trace;
pub mod traffic;
pub mod upstream;
pub mod virtual_server;

pub use card::{ServerCard, ServerId};
pub use codec::ContentType;
pub use envelope::{Body, Frame, FrameKind, Request};
pub use mcp::{ProtocolVersion, RpcError};
pub use principal::Principal;
pub use state::{RoutedState, VersionedState};
pub use token::Token;
pub use trace::TraceContext;
