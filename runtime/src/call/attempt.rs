//! One try at a call.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{host::HEARTBEAT, inbox::Mailbox};

/// How long a host may stay silent at all. It is the only guard on a broker that does not tell of lost connections.
const SILENCE_LIMIT: Duration = HEARTBEAT.saturating_mul(5);
/// One try at a call: its own number and mailbox, so that a late frame of an earlier one is never mistaken.
pub(super) struct Attempt {
    pub(super) call: u64,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) instance: Option<String>,
    pub(super) heard_at: Instant,
    /// The instance that was lost while it was unknown who works on the call, and until when that may still be told.
    pub(super) suspect: Option<(Arc<str>, Instant)>,
    pub(super) expected_seq: u32,
    pub(super) uncredited_frames: u32,
    pub(super) uncredited_bytes: usize,
    /// The next chunk of the request's body to send, and up to which one the host gave credit.
    pub(super) next_chunk: u32,
    pub(super) chunk_credit: u32,
}

impl Attempt {
    pub(super) fn new(call: u64, mailbox: Arc<Mailbox>) -> Self {
        Self {
            call,
            mailbox,
            instance: None,
            heard_at: Instant::now(),
            suspect: None,
            expected_seq: 0,
            uncredited_frames: 0,
            uncredited_bytes: 0,
            next_chunk: 0,
            chunk_credit: 0,
        }
    }

    /// When silence means that the host is lost.
    pub(super) fn next_limit(&self) -> Instant {
        let silence = self.heard_at + SILENCE_LIMIT;
        self.suspect
            .as_ref()
            .map_or(silence, |(_, until)| silence.min(*until))
    }
}
