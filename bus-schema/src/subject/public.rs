//! The subjects of plain NATS clients.

use super::{INBOX, MethodPath, PUBLIC};
use crate::token::Token;

/// All calls by plain NATS clients, of every tenant.
#[must_use]
pub fn all_public_calls() -> String {
    format!("{PUBLIC}.*.*.>")
}

/// All calls by plain NATS clients of one tenant.
#[must_use]
pub fn public_calls_of(tenant: &Token) -> String {
    format!("{PUBLIC}.{tenant}.>")
}

/// All calls of plain NATS clients by one method, whatever they name.
#[must_use]
pub fn every_name(tenant: &Token, server: &Token, method: &str) -> String {
    format!("{PUBLIC}.{tenant}.{server}.{}.*", MethodPath::encode(method))
}

/// The inboxes that only one plain NATS client may read.
#[must_use]
pub fn private_inboxes(name: &str) -> String {
    format!("{INBOX}{name}.>")
}
