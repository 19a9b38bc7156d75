//! The life of one lane: from its handshake until it ends, is no longer used, or is told to go.

use std::{convert::Infallible, future::pending, sync::Arc};

use tokio::{sync::oneshot, time::sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    connection::{Another, Connection, Opening},
    error::UpstreamError,
    lanes::Lanes,
    link::Link,
    subscriptions::Subscriptions,
};

/// Opens a lane and keeps it. `failed` hears of it when it cannot be opened.
pub(super) async fn run(
    lanes: Arc<Lanes>,
    number: u64,
    opening: Opening,
    end: CancellationToken,
    failed: oneshot::Sender<UpstreamError>,
) {
    let connected = tokio::select! {
        connected = lanes.connector.connect(opening) => connected,
        () = end.cancelled() => return lanes.gone(number),
    };
    match connected {
        Ok(connection) => {
            let subscriptions = match lanes.connector.another() {
                Another::Conversation => None,
                Another::Process => Some(
                    lanes
                        .hearing
                        .enter(number, &connection.link, &connection.session)
                        .await,
                ),
            };
            debug!(server.id = %lanes.server, "opened a connection for a caller");
            lanes.ready(number, &connection.link);
            drop(failed);
            keep(&lanes, number, connection, subscriptions, end).await;
        }
        Err(error) => {
            lanes.gone(number);
            if let Err(error) = failed.send(error) {
                warn!(%error, server.id = %lanes.server, "could not open a connection that nobody waits for any more");
            }
        }
    }
}

async fn keep(
    lanes: &Lanes,
    number: u64,
    connection: Connection,
    subscriptions: Option<Arc<Subscriptions>>,
    end: CancellationToken,
) {
    let Connection {
        link, mut carrier, ..
    } = connection;
    let in_order = tokio::select! {
        error = carrier.ended() => {
            warn!(%error, server.id = %lanes.server, "a connection for a caller has ended");
            false
        }
        never = hear(lanes, &link, subscriptions.as_deref()) => match never {},
        () = unused(lanes, number) => true,
        () = end.cancelled() => true,
    };
    lanes.hearing.leave(number);
    // Nobody can answer what it has asked.
    lanes.parks.forget(&link);
    if in_order {
        carrier.shut_down().await;
    }
    lanes.gone(number);
}

async fn hear(lanes: &Lanes, link: &Link, subscriptions: Option<&Subscriptions>) -> Infallible {
    match subscriptions {
        Some(subscriptions) => lanes.hearing.listen(link, subscriptions).await,
        None => pending().await,
    }
}

/// Waits until the lane has had no call for long, and lets it go.
async fn unused(lanes: &Lanes, number: u64) {
    loop {
        let changed = lanes.changed.notified();
        match lanes.idle_since(number).map(|since| since + lanes.limits.idle) {
            Some(until) => sleep_until(until).await,
            None => changed.await,
        }
        let is_over = lanes
            .idle_since(number)
            .is_some_and(|since| since.elapsed() >= lanes.limits.idle);
        if is_over && lanes.let_go(number) {
            return;
        }
    }
}
