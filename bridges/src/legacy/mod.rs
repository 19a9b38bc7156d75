//! The one room that knows the legacy era: handshakes, sessions, and the translation of single messages.
//!
//! Everything behind it is modern. Without it a complete modern platform is left.

pub mod asking;
pub mod batch;
pub mod capabilities;
mod content;
mod dialect;
pub mod error;
mod form;
mod listing;
pub mod request;
pub mod result;
mod sampling;
mod session;
pub mod task;
mod translate;

pub use dialect::{Dialect, Tasks};
pub(crate) use session::{CallGuard, Session, SessionError, Sessions};
pub(crate) use translate::{Local, answer_locally, downgrade, upgrade};

#[cfg(test)]
mod tests;
