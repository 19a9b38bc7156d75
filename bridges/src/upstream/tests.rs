//! Children that are scripts, spoken with over real pipes, without a bus.

mod calls;
mod handshake;
mod processes;
mod scripted;
