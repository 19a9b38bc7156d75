//! The tests of the whole: one program, a file for each promise.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "JSON is built where it is used, and tables of cases are long"
)]

mod asking;
mod audit;
mod calls;
mod catalogue;
mod channels;
mod clients;
mod confirming;
mod databases;
mod discovery;
mod doors;
mod exports;
mod finding;
mod guardrails;
mod hostile;
mod identity;
mod importing;
mod in_process;
mod integrity;
mod isolation;
mod legacy_tasks;
mod limits;
mod listening;
mod matrix;
mod nats_door;
mod negative;
mod objects;
mod operators;
mod placement;
mod policy;
mod processes;
mod registry;
mod remotes;
mod rest;
mod results;
mod second_wall;
mod secrets;
mod services;
mod sessions;
mod slow_readers;
mod statements;
mod statuses;
mod store;
mod tasks;
mod tenants;
mod tidy;
mod tls;
mod tool_lists;
mod traffic;
mod upstream_tasks;
mod upstreams;
mod versions;
mod virtual_servers;
