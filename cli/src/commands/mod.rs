//! One file for each command.

pub(crate) mod bridge;
pub(crate) mod call;
pub(crate) mod completions;
mod output;
pub(crate) mod serve;
pub(crate) mod servers;
mod stopping;
pub(crate) mod tail;
pub(crate) mod tools;
pub(crate) mod up;
pub(crate) mod virtual_servers;
