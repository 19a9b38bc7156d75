//! What is said of a door that asks nobody who they are.

use anyhow::bail;
use bridges::{auth::Auth, http::HttpOptions};
use tracing::warn;

use crate::config::Config;

/// Says aloud that nobody is asked who they are, and refuses rules that nobody could meet then.
pub(super) fn warn(config: &Config, options: &HttpOptions) -> anyhow::Result<()> {
    if !matches!(options.auth, Auth::None) {
        return Ok(());
    }
    let document = config.policy()?.document;
    if document.is_some_and(|document| !document.scopes.is_empty()) {
        bail!(
            "policy.scopes says what scopes callers need, but with auth.mode = \"none\" nobody has any; configure [auth], or leave policy.scopes out"
        );
    }
    warn!(
        address = %options.listen,
        "AUTHENTICATION IS OFF: every program on this machine can call every tool; configure [auth] before anybody else can"
    );
    Ok(())
}
