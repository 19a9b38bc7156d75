//! The tests of the whole: one program, a file for each promise.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "JSON is built where it is used, and tables of cases are long"
)]

mod calls;
mod channels;
mod clients;
mod databases;
mod discovery;
mod doors;
mod hostile;
mod listening;
mod nats_door;
mod processes;
mod remotes;
mod slow_readers;
mod statements;
mod store;
mod tidy;
mod tool_lists;
mod upstreams;
