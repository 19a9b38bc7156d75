//! A foreign MCP server at a URL becomes an actor on the bus, in either era and over any transport of the protocol.
//!
//! `connect` finds out how a server is spoken with, `connection` is one conversation, and
//! under it lie the ways that messages take: `modern` and `session` (Streamable HTTP of each era), `http_sse` (the first transport)
//! and `ws`, moved by `pump`. `exchange`, `reply` and `sse` are HTTP with bounds, `client` and `dial` open connections, and `guard`
//! judges where to. `credentials` is what the platform shows, `oauth` gets tokens, and `users` has those of single users. Numbers, translation and the calls themselves belong to the folder above, as for child processes.

mod client;
mod connect;
mod connection;
mod credentials;
mod declared;
mod dial;
mod documents;
mod error;
mod exchange;
pub(crate) mod fetch;
mod guard;
mod health;
mod http_sse;
mod modern;
mod oauth;
mod options;
mod page;
mod probe;
mod pump;
mod reply;
mod session;
mod sse;
mod tls;
mod tools;
mod users;
mod ws;

pub(super) use connect::RemoteConnector;
pub use declared::BadMember;
pub use documents::{Addresses, Documents};
pub use error::{ForbiddenKind, RemoteError};
pub use options::{Bearer, ClientCredentials, HEALTH_EVERY, IssuedAt, RemoteOptions, TransportKnob};
pub(super) use users::Users;
pub use users::{
    Account, Accounts, ConnectError, ConnectOptions, Connections, Forgotten, LoginOptions, MOST_ACCOUNTS,
    MOST_AT_ONCE, Own, Revocation, UserOptions, Which,
};
pub(crate) use users::{Answered, NotConnected, Whose};
