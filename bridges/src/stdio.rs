//! The stdio door: a desktop client runs it as a child process, one JSON-RPC message a line.

use bus_schema::envelope::MAX_BODY_BYTES;
use bus_schema::{Principal, RpcError, rpc};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    sync::CancellationToken,
};
use tracing::debug;

use crate::{
    conversation::Conversation,
    front::{Endpoint, Front},
};

/// The name of this door in envelopes and meters.
const DOOR: &str = "stdio";

/// Serves one client on a pair of byte streams until it closes its side, or until `stop`; what has begun is finished.
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
    let (mut conversation, messages) = Conversation::begin(front, endpoint, Principal::developer(), DOOR);
    let writer = messages_writer(output, messages);
    let mut lines = FramedRead::new(input, LinesCodec::new_with_max_length(MAX_BODY_BYTES));
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = stop.cancelled() => None,
        };
        match line {
            Some(Ok(line)) if line.trim().is_empty() => {}
            Some(Ok(line)) => conversation.take(line.into()).await,
            Some(Err(LinesCodecError::MaxLineLengthExceeded)) => conversation.refuse(too_long()).await,
            Some(Err(LinesCodecError::Io(error))) if error.kind() == std::io::ErrorKind::InvalidData => {
                let error = RpcError::new(bus_schema::mcp::error::PARSE, "the line is not UTF-8");
                conversation
                    .refuse(rpc::error_response(None, &error).into())
                    .await;
            }
            Some(Err(error)) => {
                debug!(%error, "cannot read from the client any more");
                break;
            }
            None => break,
        }
    }
    conversation.finish().await;
    // The writer ends when the last sender is gone.
    drop(conversation);
    writer
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
}

fn too_long() -> Bytes {
    let error = RpcError::invalid_request(format!("a line is longer than {MAX_BODY_BYTES} bytes"));
    rpc::error_response(None, &error).into()
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
