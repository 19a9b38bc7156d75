//! What a process hears of once somebody asks: what operators have said of tools, callers and calls.

use std::sync::OnceLock;

use super::Bus;
use crate::{guardrails::AllGuardrails, pins::Pinned, policies::Policies};

/// What is heard of.
#[derive(Default)]
pub(super) struct Heard {
    /// What was approved of tools.
    pinned: OnceLock<Pinned>,
    /// The policies in force.
    policies: OnceLock<Policies>,
    /// The guardrails in force.
    guardrails: OnceLock<AllGuardrails>,
}

impl Bus {
    pub(crate) fn policies_once(&self) -> &OnceLock<Policies> {
        &self.0.heard.policies
    }

    pub(crate) fn guardrails_once(&self) -> &OnceLock<AllGuardrails> {
        &self.0.heard.guardrails
    }

    pub(crate) fn pinned(&self) -> &OnceLock<Pinned> {
        &self.0.heard.pinned
    }
}
