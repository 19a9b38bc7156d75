//! The products server: a seeded catalogue with search, edits and stock, as an MCP server on SQLite or PostgreSQL.
//!
//! It is a plain rmcp [`ServerHandler`](rmcp::ServerHandler) and knows nothing of the bus. All state lives in the database,
//! so any number of replicas, in one process or in many, may serve the same catalogue.
//!
//! `find_products` shows how a tool goes: it is the form that `search` had before it took filters and pages. It stands beside `search`
//! until 0.3.0, marked with [`deprecated`](runtime::rmcp_host::deprecated); the host says so in its description and counts who still
//! calls it, so that nobody has to guess when it can be taken away.

mod arguments;
mod completion;
mod database;
mod datasets;
mod error;
mod index;
mod interrupt;
mod product;
mod prompts;
mod resources;
mod search;
mod seed;
mod server;
mod store;
mod timestamp;

#[cfg(test)]
mod tests;

pub use error::ProductsError;
pub use server::Products;
