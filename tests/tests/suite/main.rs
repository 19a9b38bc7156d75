//! The tests of the whole: one program, a file for each promise.

mod calls;
mod channels;
mod clients;
mod databases;
mod discovery;
mod doors;
mod nats_door;
mod processes;
mod tidy;
mod upstreams;
