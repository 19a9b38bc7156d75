//! Waits for the word to stop.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Returns at the first Ctrl-C or SIGTERM. A second one ends the process at once, for whoever cannot wait for the drain.
pub(super) async fn stop_requested() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
    info!("stopping: finishing what has begun; once more to end at once");
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        warn!("ended without finishing");
        std::process::exit(130);
    });
    Ok(())
}
