//! Everything that faces the outside: doors for clients, and upstream bridges that make foreign servers actors on the bus.
//!
//! A door reads a message into a [`request::Incoming`], the [`front`] finds out which server it is for and asks it over the bus. The
//! [`http`], [`stdio`], [`ws`] and [`nats`] doors differ only in how messages come and go; [`legacy`] is the one room that knows sessions. What
//! is behind a door is there once for each of the [`tenants`].
//! [`callout`] is no door: it tells the broker which plain NATS clients come in. [`secrets`] is where the platform's own come from.

pub mod admin;
mod askable;
pub mod auth;
pub mod callout;
mod conversation;
pub mod front;
pub mod http;
pub mod legacy;
mod lines;
pub mod nats;
mod outbox;
mod param_headers;
pub mod request;
pub mod secrets;
pub mod stdio;
pub mod tenants;
pub mod tls;
pub mod upstream;
pub mod ws;
