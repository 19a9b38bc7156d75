//! The body of a request that is too large for one message.

use bus_schema::{
    FrameKind, Request, RpcError,
    envelope::{CHUNK_BYTES, Control, MAX_BODY_BYTES},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{End, Running};
use crate::host::server::Outcome;

/// After how many chunks the host grants new credit.
const CHUNK_CREDIT_EVERY: u32 = 4;

impl Running {
    /// Collects a body that comes in chunks. `Some` when the call has ended over it.
    pub(super) async fn receive_body(
        &mut self,
        request: &mut Request,
        chunks: Option<mpsc::Receiver<Control>>,
        deadline: Instant,
    ) -> Option<End> {
        let mut chunks = chunks?;
        let length = usize::try_from(request.chunked_bytes).unwrap_or(usize::MAX);
        if length > MAX_BODY_BYTES {
            let error = RpcError::invalid_request(format!(
                "a request of {length} bytes is larger than {MAX_BODY_BYTES}"
            ));
            return Some(End::Answered(Outcome::error(None, &error)));
        }
        if self.frames.signal(FrameKind::SendBody, 0).await.is_err() {
            return Some(End::Cancelled);
        }
        let mut body = Vec::with_capacity(length);
        let mut expected = 0;
        while body.len() < length {
            let chunk = tokio::select! {
                () = self.work.cancel.cancelled() => return Some(End::Cancelled),
                () = sleep_until(deadline) => return Some(End::Cancelled),
                chunk = chunks.recv() => chunk?,
            };
            let fits = chunk.seq == expected
                && chunk.body.0.len() <= CHUNK_BYTES
                && body.len() + chunk.body.0.len() <= length;
            if !fits || chunk.body.0.is_empty() {
                let error = RpcError::internal("the request's body did not arrive whole; send it again");
                return Some(End::Answered(Outcome::error(None, &error)));
            }
            body.extend_from_slice(&chunk.body.0);
            expected += 1;
            if expected % CHUNK_CREDIT_EVERY == 0
                && self.frames.signal(FrameKind::Credit, expected).await.is_err()
            {
                return Some(End::Cancelled);
            }
        }
        request.body = body.into();
        None
    }
}
