//! Guardrails: what is looked for in the arguments of calls and in their results, and what is done about it.
//!
//! A [`Document`] is a list of steps as people write them; [`Guardrails::compile`] says whether it means something, and
//! [`Guardrails::course_of`] which of its steps concern a call. A [`Course`] looks at texts and gives changed ones; it asks nobody, so
//! the questions to hooks are only worded here ([`hook`]). Texts are changed in place: what is not redacted keeps its bytes.

mod compile;
mod course;
mod document;
pub mod hook;
mod injection;
mod kept;
mod looked;
mod result;
pub mod schema;
mod sensitive;
#[cfg(test)]
mod tests;
mod texts;

pub use compile::{BadGuardrails, Guardrails, Hook, MAX_STEPS};
pub use course::{Course, Target};
pub use document::{Check, Document, OnFailure, Side, Step, Then};
pub use kept::{SET, Set, Version};
pub use looked::{Looked, Note, Refusal};

/// The `_meta` key of results that tells what guardrails have found in a call.
pub const META_KEY: &str = "io.trunkline/guardrails";
