//! The stdio door: a desktop client runs it as a child process, one JSON-RPC message a line.

use std::time::Duration;

use bus_schema::envelope::MAX_BODY_BYTES;
use bus_schema::{Principal, RpcError, rpc};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    conversation::Conversation,
    front::{Endpoint, Front},
    lines::{Line, Lines},
};

/// The name of this door in envelopes and meters.
const DOOR: &str = "stdio";
/// How long a client that has closed its side, or is stopped, may take to take its answers.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// Serves one client of the front's tenant on a pair of byte streams until it closes its side, or until `stop`; what has begun is finished.
///
/// # Errors
/// What the system says when writing to the client fails.
pub async fn serve<R, W>(
    front: Front,
    endpoint: Endpoint,
    input: R,
    output: W,
    stop: CancellationToken,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let somebody = Principal::developer_of(front.directory().tenant());
    let (mut conversation, messages) = Conversation::begin(front, endpoint, somebody, DOOR);
    let writer = messages_writer(output, messages);
    let mut lines = Lines::new(input, MAX_BODY_BYTES);
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = stop.cancelled() => break,
        };
        let refused = match line {
            Ok(Some(Line::Whole(line))) if line.is_empty() => continue,
            Ok(Some(Line::Whole(line))) => {
                // Taking waits when the client does not read.
                tokio::select! {
                    () = conversation.take(line.into()) => continue,
                    () = stop.cancelled() => break,
                }
            }
            Ok(Some(Line::TooLong(_))) => {
                RpcError::invalid_request(format!("a line is longer than {MAX_BODY_BYTES} bytes"))
            }
            Ok(None) => break,
            Err(error) => {
                debug!(%error, "cannot read from the client any more");
                break;
            }
        };
        conversation
            .refuse(rpc::error_response(None, &refused).into())
            .await;
    }
    if timeout(FINISH_LIMIT, conversation.finish()).await.is_err() {
        debug!("the client did not take what it had asked for");
    }
    // The writer ends when the last sender is gone.
    drop(conversation);
    match timeout(FINISH_LIMIT, writer).await {
        Ok(Ok(written)) => written,
        Ok(Err(panic)) => Err(std::io::Error::other(panic)),
        Err(_) => Ok(()),
    }
}

fn messages_writer<W>(
    mut output: W,
    mut messages: tokio::sync::mpsc::Receiver<Bytes>,
) -> tokio::task::JoinHandle<std::io::Result<()>>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            output.write_all(&one_line(&message)).await?;
            output.flush().await?;
        }
        Ok(())
    })
}

/// A message as one line. JSON text may hold line ends between its tokens, where a blank means the same.
fn one_line(message: &Bytes) -> BytesMut {
    let mut line = BytesMut::with_capacity(message.len() + 1);
    line.extend(message.iter().map(|byte| {
        if matches!(byte, b'\n' | b'\r') {
            b' '
        } else {
            *byte
        }
    }));
    line.put_u8(b'\n');
    line
}
