//! Waits for the word to stop.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

/// The word to stop: Ctrl-C or SIGTERM, heard from the moment that this is made.
pub(super) struct Stop(watch::Receiver<u32>);

impl Stop {
    /// Begins to listen. A second signal ends the process at once, for whoever cannot wait for the drain.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let (heard_in, heard) = watch::channel(0);
        let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(hear(signals, heard_in));
        Ok(Self(heard))
    }

    /// Returns once the process is to stop.
    pub(super) async fn requested(&mut self) {
        // The task that hears signals lives as long as the process.
        let _ = self.0.wait_for(|count| *count > 0).await;
    }

    /// Runs something that is given up at the second signal.
    pub(super) async fn unless_hurried(mut self, finishing: impl Future<Output = ()>) {
        tokio::select! {
            () = finishing => {}
            _ = self.0.wait_for(|count| *count > 1) => warn!("ended without finishing"),
        }
    }
}

async fn hear((mut interrupt, mut terminate): (Signal, Signal), heard: watch::Sender<u32>) {
    loop {
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        heard.send_modify(|count| *count += 1);
        if *heard.borrow() == 1 {
            info!("stopping: finishing what has begun; once more to end at once");
        }
    }
}
