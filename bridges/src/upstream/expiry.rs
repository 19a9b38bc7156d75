//! How what is held for a time waits for the next end, when more may come to be held at any moment.

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Waits until then, or until it is said that something was added. Without a time only the latter ends it.
pub(super) async fn until_or_notified(at: Option<Instant>, added: &Notify) {
    let added = added.notified();
    match at {
        Some(at) => {
            tokio::select! {
                () = sleep_until(at) => {}
                () = added => {}
            }
        }
        None => added.await,
    }
}
