//! One try at a call.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{host::HEARTBEAT, inbox::Mailbox};

/// How long a host may stay silent at all. It is the only guard on a broker that does not tell of lost connections.
const SILENCE_LIMIT: Duration = HEARTBEAT.saturating_mul(5);
/// How long a host may stay silent after some instance was lost, when it is not known which one works on the call. A live
/// host has sent its accept frame long before.
const SUSPECT_GRACE: Duration = Duration::from_millis(400);
/// How much longer is waited after a limit has passed once: when this process itself was held up, frames that came in time
/// have yet to be read.
const SECOND_LOOK_AT_SILENCE: Duration = HEARTBEAT.saturating_mul(2);
const SECOND_LOOK_AT_SUSPECT: Duration = Duration::from_millis(200);

/// One try at a call: its own number and mailbox, so that a late frame of an earlier one is never mistaken.
pub(super) struct Attempt {
    pub(super) call: u64,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) instance: Option<String>,
    /// The instance that was lost, or left, while it was unknown who works on the call.
    suspect: Option<Suspect>,
    /// When silence means that the host is lost.
    limit: Instant,
    /// Whether the limit has passed once already.
    second_look: bool,
    pub(super) expected_seq: u32,
    pub(super) uncredited_frames: u32,
    pub(super) uncredited_bytes: usize,
    /// The next chunk of the request's body to send, and up to which one the host gave credit.
    pub(super) next_chunk: u32,
    pub(super) chunk_credit: u32,
}

/// An instance that may have had a call nobody has told of.
struct Suspect {
    instance: Arc<str>,
    why: Why,
}

/// Why a call is given up at its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The host is gone, and may have begun.
    Lost,
    /// The host has left in order and had not begun.
    NotBegun,
}

impl Attempt {
    pub(super) fn new(call: u64, mailbox: Arc<Mailbox>) -> Self {
        Self {
            call,
            mailbox,
            instance: None,
            suspect: None,
            limit: Instant::now() + SILENCE_LIMIT,
            second_look: false,
            expected_seq: 0,
            uncredited_frames: 0,
            uncredited_bytes: 0,
            next_chunk: 0,
            chunk_credit: 0,
        }
    }

    /// When silence means that the host is lost.
    pub(super) fn limit(&self) -> Instant {
        self.limit
    }

    /// Notes a sign of life.
    pub(super) fn heard_from(&mut self, instance: &str) {
        self.limit = Instant::now() + SILENCE_LIMIT;
        self.suspect = None;
        self.second_look = false;
        if self.instance.as_deref() != Some(instance) {
            self.instance = Some(instance.to_owned());
        }
    }

    /// Notes that an instance was lost, or left, which may be the one that works on the call.
    pub(super) fn suspect(&mut self, instance: Arc<str>, why: Why) {
        let worse = |suspect: &Suspect| suspect.why == Why::NotBegun && why == Why::Lost;
        if self.suspect.as_ref().is_none_or(worse) {
            self.limit = Instant::now() + SUSPECT_GRACE;
            self.suspect = Some(Suspect { instance, why });
            self.second_look = false;
        }
    }

    /// The limit has passed: the instance that is to be given up, or `None` while it is worth a second look.
    pub(super) fn give_up(&mut self) -> Option<(String, Why)> {
        if !self.second_look {
            self.second_look = true;
            let longer = if self.suspect.is_some() {
                SECOND_LOOK_AT_SUSPECT
            } else {
                SECOND_LOOK_AT_SILENCE
            };
            self.limit = Instant::now() + longer;
            return None;
        }
        let why = self.suspect.as_ref().map_or(Why::Lost, |suspect| suspect.why);
        let suspect = self.suspect.as_ref().map(|suspect| suspect.instance.to_string());
        Some((
            self.instance
                .clone()
                .or(suspect)
                .unwrap_or_else(|| "unknown".to_owned()),
            why,
        ))
    }
}
