//! What the tests share: a NATS on a free port, a platform in process, servers to call, and clients to call them with.

pub mod accounts;
pub mod actor;
pub mod asking;
pub mod bad_tokens;
pub mod caller;
pub mod certificates;
pub mod changing;
pub mod channel;
pub mod children;
pub mod clerk;
pub mod conformance;
pub mod crowd;
pub mod dialogue;
pub mod fault;
pub mod fixture;
pub mod forger;
pub mod http;
pub mod issuer;
pub mod keeper;
pub mod mark;
pub mod nats;
pub mod notes;
pub mod parts;
pub mod platform;
pub mod postgres;
pub mod program;
pub mod provider;
pub mod raw;
pub mod recorded;
pub mod remote;
pub mod scripted;
pub mod session;
pub mod stream;
pub mod vault;
pub mod versioned;
pub mod whoami;
pub mod wire;

use std::{future::Future, path::PathBuf, time::Duration};

/// The longest that anything in a test may take which is expected to happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands in the workspace")
        .to_owned()
}

/// Waits for something that is expected to happen, and fails the test when it does not.
///
/// # Panics
/// When it has not happened within [`LIMIT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

/// Asks again until something holds that no event tells of, such as the state of another process.
///
/// # Panics
/// When it does not hold within [`LIMIT`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(10));
    within(what, async {
        while !holds().await {
            again.tick().await;
        }
    })
    .await;
}
