//! The platform as a client of OAuth issuers: it gets tokens for remote servers, and finds out where.
//!
//! `asker` is HTTP within bounds, `discovery` reads what servers and issuers tell of themselves, `endpoint` is the token endpoint, and
//! `platform` gets tokens for the platform itself. Those of users are in `users`, beside this.

mod asker;
mod discovery;
mod endpoint;
mod platform;

pub(super) use asker::Asker;
pub(super) use discovery::{Metadata, issuers_of, metadata};
pub(super) use endpoint::{Client, Hint, NoToken, Shows, Token, ask, revoke};
pub(super) use platform::Platform;
