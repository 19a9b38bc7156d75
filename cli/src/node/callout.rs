//! The auth callout of a process: where its secrets come from, and that it ends with the doors.

use anyhow::Context as _;
use bridges::callout::Callout;
use runtime::{callout::CalloutOptions, nats_server::Secrets};

use super::Node;
use crate::config::Config;

/// How the callout reaches a NATS whose secrets are in the data folder.
pub(super) fn options_of(url: &str, secrets: &Secrets) -> CalloutOptions {
    CalloutOptions {
        url: url.to_owned(),
        password: secrets.callout_password().to_owned(),
        keys: secrets.callout_keys().clone(),
    }
}

impl Node {
    /// Whether the secrets of the auth callout are known here.
    #[must_use]
    pub fn can_open_callout(&self) -> bool {
        self.callout.is_some()
    }

    /// Tells the broker from now on which plain NATS clients come in.
    ///
    /// # Errors
    /// When its secrets are not known, or the settings or NATS do not allow it.
    pub async fn open_callout(&mut self, config: &Config) -> anyhow::Result<()> {
        let options = self.callout.clone().with_context(|| {
            format!(
                "the auth callout needs its password and its seeds: run with the --data-dir of the `trunkline up` that started NATS, \
                 or set {}",
                Config::CALLOUT_VARIABLES.join(", ")
            )
        })?;
        let fronts = self.fronts(config).await?;
        let local = self.http.unwrap_or(config.listen);
        let callout = Callout::open(fronts, &config.auth()?, local, options).await?;
        let stop = self.doors_stop.clone();
        self.doors.push(tokio::spawn(callout.serve(stop)));
        Ok(())
    }
}
