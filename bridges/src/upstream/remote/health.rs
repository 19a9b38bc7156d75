//! Whether a remote server is still there, as far as its own connections do not say.
//!
//! A call that fails is that call's own trouble. But it raises an alarm, and then the server is asked whether it is there; so it is
//! when nothing was heard for a while. Only when it stays silent is it given up, and whoever keeps it connects again.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::debug;

use super::error::{RemoteError, chain};

/// How long nothing may be heard before the server is asked whether it is there.
const QUIET_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to say so.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// The pauses before each time that it is asked; a restart behind a balancer takes moments.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_millis(1500),
];

/// A server that can be asked whether it is there.
pub(super) trait Watched: Send + Sync {
    /// Asks. Any answer says so, an error as well.
    ///
    /// # Errors
    /// [`RemoteError`] when there is none.
    fn check(&self) -> impl Future<Output = Result<(), RemoteError>> + Send;
}

/// What is known of a server's health.
#[derive(Default)]
pub(super) struct Health {
    /// How often it was heard.
    heard: AtomicU64,
    alarm: Notify,
    /// Why it was given up.
    gone: OnceLock<String>,
}

impl Health {
    /// The server has said something.
    pub(super) fn heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Something went wrong that may mean that it is gone.
    pub(super) fn alarm(&self) {
        self.alarm.notify_one();
    }

    /// Gives it up; the first reason stays.
    pub(super) fn give_up(&self, why: impl Into<String>) {
        // Whoever comes later has found the same.
        let _ = self.gone.set(why.into());
    }

    /// Why it was given up.
    pub(super) fn gone(&self) -> Option<&str> {
        self.gone.get().map(String::as_str)
    }

    /// Ends when the server is gone.
    pub(super) async fn watch(&self, server: &impl Watched) {
        loop {
            let heard = self.heard.load(Ordering::Relaxed);
            tokio::select! {
                () = self.alarm.notified() => {}
                () = sleep(QUIET_LIMIT) => {
                    if self.heard.load(Ordering::Relaxed) != heard {
                        continue;
                    }
                }
            }
            if let Err(error) = self.ask(server).await {
                return self.give_up(chain(&error));
            }
        }
    }

    async fn ask(&self, server: &impl Watched) -> Result<(), RemoteError> {
        let mut found = Ok(());
        for pause in PAUSES {
            sleep(pause).await;
            if self.gone().is_some() {
                return found;
            }
            found = timeout(CHECK_LIMIT, server.check())
                .await
                .unwrap_or(Err(RemoteError::Late(CHECK_LIMIT)));
            match &found {
                Ok(()) => return Ok(()),
                Err(error) => debug!(error = chain(error), "a server does not say that it is there"),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU32};

    use super::*;

    /// It answers the second time that it is asked, and then not any more.
    #[derive(Default)]
    struct Fading(AtomicU32);

    impl Watched for Fading {
        async fn check(&self) -> Result<(), RemoteError> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 | 2 => Err(RemoteError::Unanswered),
                1 => Ok(()),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_given_up_when_it_is_silent_and_not_for_one_failure() {
        let (health, server) = (Arc::new(Health::default()), Arc::new(Fading::default()));
        let watching = tokio::spawn({
            let (health, server) = (Arc::clone(&health), Arc::clone(&server));
            async move { health.watch(&*server).await }
        });
        health.alarm();
        while server.0.load(Ordering::SeqCst) < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(health.gone().is_none(), "it has answered the second time");
        // Nothing is heard for half a minute, and then it does not answer any more.
        watching.await.unwrap();
        assert_eq!(server.0.load(Ordering::SeqCst), 5);
        assert_eq!(health.gone(), Some("it did not answer within 10 s"));
    }
}
