//! The one room that knows the legacy era: handshakes, sessions, and the translation of single messages.
//!
//! Everything behind it is modern. Without it a complete modern platform is left. `session` and `store` hold what a client has said,
//! `driving` takes its calls to their answers, `stream` and `streams` keep what they say, `notices` tell it of changes, and `room` is what
//! the legacy doors of one process share, with the way to those of the others (`desk`). The rest translates.

pub mod asking;
pub mod batch;
mod calls;
pub mod capabilities;
pub(crate) mod channels;
mod content;
pub(crate) mod desk;
mod dialect;
mod driving;
pub mod error;
mod form;
pub(crate) mod listeners;
mod listing;
pub(crate) mod notices;
pub(crate) mod questions;
pub mod request;
pub mod result;
mod room;
mod sampling;
mod session;
mod store;
pub(crate) mod stream;
pub(crate) mod streams;
pub mod task;
mod translate;

pub use dialect::{Dialect, Tasks};
pub(crate) use driving::{Driving, Said};
pub use room::Doors;
pub(crate) use room::Room;
pub(crate) use session::{Session, Subscription};
pub(crate) use store::{SessionError, key};
pub(crate) use translate::{Answered, Local, answer_locally, done, downgrade, upgrade};

#[cfg(test)]
mod tests;
