//! The official conformance suite, and servers for it to call through the platform.
//!
//! A [`cell::Cell`] is a way to offer the scenarios' tools, prompts and resources to the platform, and a revision of the protocol
//! that the suite speaks to it. What the [`suite`] finds there is held against a [`baseline`] of known faults: a fault that is not
//! in it is news, and so is one of it that is gone. [`fixture`] is our own server for that; those on the other SDKs are in
//! `tests/npm/fixtures` and `tests/python/conformance.py`.
//!
//! The suite can also be the server, and the platform its [`client`].
//!
//! The suite itself is an npm package, which `make test-deps` brings in.

pub mod baseline;
pub mod cell;
pub mod client;
pub mod fixture;
pub mod report;
pub mod suite;
pub mod upstream;
