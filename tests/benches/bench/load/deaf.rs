//! Clients that make one call each and never read what comes.

use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::sleep,
};

/// As little as the system gives, so that soon nothing more arrives that nobody reads.
const RECEIVED_BYTES: u32 = 4096;
/// How long their calls may go on before anything is measured.
const SETTLE: Duration = Duration::from_secs(5);

/// So many clients that make the same call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deaf {
    /// How many there are.
    pub(crate) clients: usize,
    /// Where they call.
    pub(crate) address: String,
    /// The whole request.
    pub(crate) request: String,
}

/// Connects them all; they leave when what this gives is dropped.
pub(super) async fn connect(groups: &[Deaf]) -> anyhow::Result<Vec<TcpStream>> {
    let mut connected = Vec::new();
    for group in groups {
        let address = group.address.parse().context("the address of a bridge")?;
        for _ in 0..group.clients {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(RECEIVED_BYTES)?;
            let mut stream = socket.connect(address).await?;
            stream.write_all(group.request.as_bytes()).await?;
            connected.push(stream);
        }
    }
    if !connected.is_empty() {
        sleep(SETTLE).await;
    }
    Ok(connected)
}
