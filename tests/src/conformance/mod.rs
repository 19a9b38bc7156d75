//! The official conformance suite, and servers for it to call through the platform.
//!
//! [`fixture`] is a server that offers whatever the suite's scenarios name. The suite itself is an npm package, which
//! `make test-deps` brings in.

pub mod fixture;
