//! The one room that knows the legacy era: handshakes, sessions, and the translation of single messages.
//!
//! Everything behind it is modern. Without it a complete modern platform is left. `session` and `store` hold what a client has said,
//! `driving` takes its calls to their answers, `tasks` and `ledger` what it asks
//! about tasks, `stream` and `streams` keep what they say, `notices` tell it of changes, and `room` is what
//! the legacy doors of one process share, with the way to those of the others (`desk`). The rest translates.

pub mod asking;
pub mod batch;
pub(crate) mod calls;
pub mod capabilities;
pub(crate) mod channels;
mod content;
pub(crate) mod desk;
mod dialect;
mod driving;
pub mod error;
mod form;
pub(crate) mod ledger;
pub(crate) mod listeners;
mod listing;
pub(crate) mod notices;
pub(crate) mod questions;
pub mod request;
pub mod result;
mod room;
mod sampling;
mod session;
mod staying;
mod store;
pub(crate) mod stream;
pub(crate) mod streams;
pub mod task;
mod tasks;
mod translate;

pub use dialect::{Dialect, Tasks};
pub(crate) use driving::{Driving, Parties, Said};
pub(crate) use ledger::Ledger;
pub use room::Doors;
pub(crate) use room::Room;
pub(crate) use session::{Session, Subscription};
pub(crate) use staying::staying;
pub use store::MAX_PER_PRINCIPAL as MAX_SESSIONS_PER_PRINCIPAL;
pub(crate) use store::{SessionError, key};
pub(crate) use translate::{Local, answer_locally, done};

#[cfg(test)]
mod tests;
