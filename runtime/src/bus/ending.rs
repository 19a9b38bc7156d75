//! The end of a connection: what waits is sent out first.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};

use super::Bus;

/// How long the end of the connection is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

impl Bus {
    /// Sends out what is still buffered and ends the connection.
    pub async fn close(&self) {
        self.0.audit.finish().await;
        self.0.closed.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let end = async {
            self.0.client.flush().await.map_err(|error| error.to_string())?;
            self.0.client.drain().await.map_err(|error| error.to_string())
        };
        match timeout(CLOSE_LIMIT, end).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the bus connection was closed already"),
            Err(_) => warn!("the bus connection was down at the end; what it still held is lost"),
        }
    }
}
