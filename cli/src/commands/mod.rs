//! One file for each command.

pub(crate) mod audit;
pub(crate) mod blocks;
mod bootstrap;
pub(crate) mod bridge;
pub(crate) mod call;
pub(crate) mod completions;
pub(crate) mod credentials;
mod documents;
pub(crate) mod guardrails;
mod import;
pub(crate) mod keys;
mod output;
pub(crate) mod policy;
mod reload;
pub(crate) mod serve;
pub(crate) mod servers;
mod stopping;
pub(crate) mod tail;
pub(crate) mod tasks;
pub(crate) mod tools;
pub(crate) mod traffic;
pub(crate) mod up;
pub(crate) mod virtual_servers;
