//! The subjects of plain NATS clients.

use super::{INBOX, MethodPath, PUBLIC, Subject, path};
use crate::{mcp::method, token::Token};

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

pub(super) fn parse(tenant: &str, server: &str, rest: &[&str]) -> Option<Subject> {
    let (method, name) = split_public_name(rest);
    let name = name.map(Token::parse).transpose().ok()?;
    Some(Subject::Public {
        tenant: Token::parse(tenant).ok()?,
        server: Token::parse(server).ok()?,
        method: path(method)?,
        name,
    })
}

/// A method that names something has exactly one token more than its path; the name is that token.
fn split_public_name<'a, 'b>(rest: &'b [&'a str]) -> (&'b [&'a str], Option<&'a str>) {
    if let Some((name, method)) = rest.split_last() {
        let spelled = method.join("/");
        if method::NAMED.contains(&spelled.as_str()) {
            return (method, Some(name));
        }
    }
    (rest, None)
}
