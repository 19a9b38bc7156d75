//! The platform as the client of the suite's server.

use anyhow::Context as _;
use serde_json::Value;
use tests::conformance::client;

/// The variable in which the suite says what it wants to be sent, as JSON.
const CONTEXT: &str = "MCP_CONFORMANCE_CONTEXT";

/// Does what a scenario expects of a client.
pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    let context = match std::env::var(CONTEXT) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{CONTEXT} is no JSON"))?,
        Err(_) => Value::Null,
    };
    client::play(url, &context).await;
    Ok(())
}
