//! How plain NATS clients come in: the two files beside `nats.conf` that say so, one for the way and one for the tenants' accounts.

use std::fmt::Write as _;

use bus_schema::{Token, principal::DEFAULT_TENANT, subject};

use crate::callout::{ACCOUNT, CalloutKeys, USER, account_of};
use bus_schema::subject::CallerClass;

/// The way for whoever comes without credentials.
const OPEN: &str = include_str!("../../../nats.d/clients.conf");
/// What is said where nobody comes in without credentials, and nobody can ask who somebody is.
const CLOSED: &str = "# Plain NATS clients do not come in: configure [auth], and they come with what they show at the other doors.\n";
/// What a developer without credentials may do.
const DEVELOPER: &str = include_str!("../../../nats.d/tenants.conf");

/// Which plain NATS clients come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Everybody, as the developer of the tenant `default`; for a NATS that listens on this machine only.
    Anybody,
    /// Nobody.
    Nobody,
    /// Who shows a token or an API key that the auth callout takes.
    Callout,
}

impl Clients {
    /// What `nats.d/clients.conf` says.
    pub(super) fn way(self, keys: &CalloutKeys) -> String {
        match self {
            Self::Anybody => OPEN.to_owned(),
            Self::Nobody => CLOSED.to_owned(),
            Self::Callout => way_by_callout(keys),
        }
    }

    /// What `nats.d/tenants.conf` says.
    pub(super) fn accounts(self, tenants: &[String]) -> String {
        let mut text = match self {
            Self::Anybody => DEVELOPER.to_owned(),
            Self::Nobody | Self::Callout => account(DEFAULT_TENANT),
        };
        for tenant in tenants.iter().filter(|tenant| *tenant != DEFAULT_TENANT) {
            text.push_str(&account(tenant));
        }
        text
    }
}

/// Everybody but our own roles is asked about; theirs go on when nobody answers.
fn way_by_callout(keys: &CalloutKeys) -> String {
    let mut users: Vec<&str> = CallerClass::ALL.iter().map(|class| class.as_str()).collect();
    users.push(USER);
    let mut text = String::from("# Who a plain NATS client is, the auth callout says.\n");
    let _ = write!(
        text,
        "authorization {{\n  timeout: 5\n  auth_callout {{\n    issuer: {}\n    xkey: {}\n    account: {ACCOUNT}\n    auth_users: [{}]\n  }}\n}}\n",
        keys.issuer(),
        keys.sealed_to(),
        users.join(", ")
    );
    text
}

/// What `nats.d/core.conf` says: what the platform reaches in the accounts of tenants.
pub(super) fn core(tenants: &[String]) -> String {
    let mut text = String::from(
        "# The broker's word on which process has just died, and of each tenant the hooks.\nimports: [\n  { stream: { account: SYS, subject: \"$SYS.ACCOUNT.CORE.DISCONNECT\" } }\n",
    );
    let others = tenants
        .iter()
        .map(String::as_str)
        .filter(|tenant| *tenant != DEFAULT_TENANT);
    for tenant in std::iter::once(DEFAULT_TENANT).chain(others) {
        let hooks = subject::hooks_of(&Token::encode(tenant));
        let account = account_of(tenant);
        let _ = writeln!(
            text,
            "  {{ service: {{ account: {account}, subject: \"{hooks}\" }} }}"
        );
    }
    text.push_str("]\n");
    text
}

/// A tenant's account without users of its own.
fn account(tenant: &str) -> String {
    let calls = subject::public_calls_of(&Token::encode(tenant));
    let hooks = subject::hooks_of(&Token::encode(tenant));
    format!(
        "{} {{\n  imports: [\n    {{ service: {{ account: CORE, subject: \"{calls}\" }}, share: true }}\n  ]\n  exports: [\n    {{ service: \"{hooks}\", accounts: [CORE] }}\n  ]\n}}\n",
        account_of(tenant)
    )
}
