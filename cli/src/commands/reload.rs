//! Reads the configuration file again when it changes, and starts, stops or restarts the servers whose lines have changed.
//!
//! A file that cannot be used changes nothing. What else than servers, virtual servers, the time limits of tools, the limits of callers, guardrails, the
//! policies for changed tools and the files of TLS has changed needs a restart, and is named in the log until there is one.

use std::{convert::Infallible, time::Duration};

use tokio::{
    fs,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    config::Config,
    node::{Adds, Node},
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Follows the file for as long as it is polled.
pub(super) async fn keep(node: &mut Node, mut config: Config, adds: Adds) -> Infallible {
    let began = config.clone();
    // Whatever was written since the start began is a change as well.
    let mut seen = config.text().map(|text| text.as_bytes().to_vec());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = fs::read(config.file()).await.ok();
        // A file that is not there is about to be replaced, or its servers are to stay as they are.
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        match config.again() {
            Ok(new) => {
                let changed = node.reload(&config, &new, adds).await;
                info!(file = %config.file().display(), servers = changed.join(", "), "took the changed configuration file");
                let held = began.held_back(&new);
                if !held.is_empty() {
                    warn!(
                        keys = held.join(", "),
                        "RESTART NEEDED: these keys of the configuration file have changed, and this process goes on with what they said when it was started"
                    );
                }
                config = new;
            }
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "the changed configuration file cannot be used; everything stays as it was"
                );
            }
        }
    }
}
