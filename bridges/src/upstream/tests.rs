//! Children that are scripts, spoken with over real pipes, without a bus.

mod asking;
mod calls;
mod handshake;
mod lanes;
mod notices;
mod processes;
mod scripted;
mod served;
mod tasks;
