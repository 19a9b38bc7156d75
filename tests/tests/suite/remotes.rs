//! Foreign servers at a URL: real ones of both eras over every transport, and scripted ones that misbehave.

mod eras;
mod faults;
mod legacy;
mod modern;
mod real;
mod secure;

use runtime::supervise::Status;
use tests::{eventually, platform::Platform};

/// Servers that are still being connected to come when they are ready.
async fn platform_that_knows(file: &str, servers: &[&str]) -> Platform {
    let platform = Platform::start(file, servers).await;
    for server in servers {
        platform.knows(server).await;
    }
    platform
}

/// How the keeper of a server says that it is doing.
fn status(platform: &Platform, server: &str) -> Status {
    let found = platform.node.servers().find(|(id, _)| *id == server);
    found.expect("a server of this platform").1
}

/// Waits until a server has failed, and gives the reason.
pub(crate) async fn failure(platform: &Platform, server: &str) -> String {
    let mut found = String::new();
    eventually("the server fails", async || match status(platform, server) {
        Status::Failed(why) => {
            found = why;
            true
        }
        _ => false,
    })
    .await;
    found
}
