//! Foreign servers at a URL: real ones of both eras over every transport, and scripted ones that misbehave.

mod eras;
mod faults;
mod legacy;
mod modern;
mod real;
mod secure;

use runtime::supervise::Status;
use serde_json::{Value, json};
use tests::{eventually, http::Client, platform::Platform};

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
async fn failure(platform: &Platform, server: &str) -> String {
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

/// The tools that clients are shown.
async fn tools(client: &Client) -> Vec<String> {
    let answer: Value = client
        .modern("tools/list", json!({}))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let tools = answer["result"]["tools"].as_array().expect("a list");
    tools
        .iter()
        .map(|tool| tool["name"].as_str().expect("a name").to_owned())
        .collect()
}
