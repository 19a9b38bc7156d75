//! Durable tasks on a real broker: what was accepted ends once, whoever dies on the way, and nobody does again what was committed.

mod commands;
mod crew;
mod doors;
pub(crate) mod engine;
mod killed;
mod rest;
