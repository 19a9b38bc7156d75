//! The accounts that users connect, in one process: opened once for its doors and its servers.

use anyhow::{Context as _, bail};
use bridges::upstream::remote::{Connections, UserOptions};

use super::Node;
use crate::config::{Config, Credentials, ServerLine};

impl Node {
    /// Opens what is kept of users' credentials, if the settings have a key for it.
    ///
    /// # Errors
    /// When a key cannot be used, or the bus keeps nothing.
    pub(super) async fn open_connections(&mut self, config: &Config) -> anyhow::Result<Option<Connections>> {
        if self.connections.is_none()
            && let Some(options) = config.connections()?
        {
            let opened = Connections::open(&self.bus, &options).await;
            self.connections = Some(opened.context("[credentials] cannot be used")?);
        }
        Ok(self.connections.clone())
    }
}

/// How users connect to a server, if they do.
pub(super) fn users(
    line: &ServerLine,
    connections: Option<&Connections>,
) -> anyhow::Result<Option<UserOptions>> {
    match (line.credentials, connections) {
        (Credentials::Platform, _) => Ok(None),
        (Credentials::User, Some(connections)) => line.users(connections),
        (Credentials::User, None) => bail!(
            "server `{}` has credentials = \"user\", for which [credentials] needs a key: key = {{ file = \"/run/secrets/name\" }}; \
             see docs/secrets.md",
            line.id
        ),
    }
}
