//! What the broker asks and does for the auth callout, in the account that is the callout's own.

use crate::token::Token;

/// Where the broker asks who a plain client is.
pub const CALLOUT: &str = "$SYS.REQ.USER.AUTH";
/// What the callout's own inboxes begin with.
pub const CALLOUT_INBOX: &str = "_INBOX_callout";

/// Where a broker is told to end one of its connections.
#[must_use]
pub fn end_connection(broker: &Token) -> String {
    format!("$SYS.REQ.SERVER.{broker}.KICK")
}
