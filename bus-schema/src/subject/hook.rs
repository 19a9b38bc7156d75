//! The subjects on which guardrails ask actors of their tenants.

use super::{HOOK, Subject};
use crate::token::Token;

/// All hooks of one tenant.
#[must_use]
pub fn hooks_of(tenant: &Token) -> String {
    format!("{HOOK}.{tenant}.>")
}

pub(super) fn parse(tenant: &str, name: &str) -> Option<Subject> {
    let (tenant, name) = (Token::parse(tenant).ok()?, Token::parse(name).ok()?);
    Some(Subject::Hook { tenant, name })
}
