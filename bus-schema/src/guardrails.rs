//! Guardrails: what is looked for in the arguments of calls and in their results, and what is done about it.
//!
//! A [`Document`] is a list of steps as people write them; [`Guardrails::compile`] says whether it means something, and
//! [`Guardrails::course_of`] which of its steps concern a call. A [`Course`] looks at texts and gives changed ones; it asks nobody, so
//! the questions to hooks are only worded here ([`hook`]). Texts are changed in place: what is not redacted keeps its bytes.

#[cfg(test)]
mod bounded;
mod compile;
mod course;
mod document;
pub mod hook;
mod injection;
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
pub use looked::{Looked, Note, Refusal};

use crate::kept;

/// The method by which the registry is asked to take a document; its parameters are a [`Set`], its result is a [`Version`].
pub const SET: &str = "guardrails/set";
/// The method by which it is asked to take an earlier one again; its parameters are a [`Rollback`](kept::Rollback), its result is a [`Version`].
pub const ROLLBACK: &str = "guardrails/rollback";

/// One version of a tenant's guardrails.
pub type Version = kept::Version<Document>;
/// A wish to have guardrails kept.
pub type Set = kept::Set<Document>;

/// The `_meta` key of results that tells what guardrails have found in a call.
pub const META_KEY: &str = "io.trunkline/guardrails";
