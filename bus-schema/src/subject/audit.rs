//! Where records of what was refused go: one subject for each tenant and kind, so that a flood of one kind drives out no other.

use crate::{audit::Kind, token::Token};

const AUDIT: &str = "mcp.audit";

/// Where records of a tenant go.
#[must_use]
pub fn audit_of(tenant: &str, kind: Kind) -> String {
    format!("{AUDIT}.{}.{}", Token::encode(tenant), kind.as_str())
}

/// All records.
#[must_use]
pub fn all_audit() -> String {
    format!("{AUDIT}.*.*")
}
