//! Writes the frames of one call, in order and no faster than its caller reads.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bus_schema::{
    Body, ContentType, Frame, FrameKind, Token,
    envelope::{CHUNK_BYTES, INLINE_BYTES, WINDOW},
    subject::Subject,
};
use bytes::Bytes;
use tokio::sync::Notify;

use super::{WINDOW_BYTES, run::Shared, work::CallKey};
use crate::bus::BusError;

/// How far the caller has read.
#[derive(Default)]
pub(super) struct Credit {
    next_expected: AtomicU32,
    granted: Notify,
}

impl Credit {
    pub(super) fn grant(&self, next_expected: u32) {
        self.next_expected.fetch_max(next_expected, Ordering::AcqRel);
        self.granted.notify_one();
    }
}

/// The signals of one call: frames that carry no part of the answer.
pub(super) struct Pulse {
    shared: Arc<Shared>,
    key: CallKey,
    reply: String,
    codec: ContentType,
}

/// The frames of one call.
pub(super) struct Frames {
    pulse: Arc<Pulse>,
    seq: u32,
    /// The lengths of the frames that have no credit yet, oldest first.
    unread: VecDeque<usize>,
    unread_bytes: usize,
    first_unread: u32,
}

impl Pulse {
    /// Sends a frame that carries no part of the answer. It carries a reply subject, so that the broker tells when the
    /// caller's inbox is gone.
    pub(super) async fn signal(&self, kind: FrameKind, seq: u32) -> Result<(), BusError> {
        let frame = Frame {
            kind,
            instance: self.shared.bus.instance().to_owned(),
            seq,
            code: None,
            more: false,
            body: Body::default(),
        };
        let payload = self.encode(&frame);
        self.shared
            .bus
            .publish_with_reply(self.reply.clone(), self.gone(), payload)
            .await
    }

    /// Where the broker's "no responders" for a heartbeat goes: to this host, about this call.
    fn gone(&self) -> String {
        let gone = Subject::Gone {
            tenant: Token::encode(&self.shared.options.tenant),
            server: Token::encode(self.shared.options.id.as_str()),
            instance: self.shared.bus.instance_token().clone(),
            caller: Token::encode(&self.key.caller),
            call: self.key.call,
        };
        gone.to_string()
    }

    fn encode(&self, frame: &Frame) -> Vec<u8> {
        self.codec
            .encode(frame)
            .expect("a frame has no values that cannot be encoded")
    }
}

impl Frames {
    pub(super) fn new(shared: Arc<Shared>, key: CallKey, reply: String, codec: ContentType) -> Self {
        Self {
            pulse: Arc::new(Pulse {
                shared,
                key,
                reply,
                codec,
            }),
            seq: 0,
            unread: VecDeque::new(),
            unread_bytes: 0,
            first_unread: 0,
        }
    }

    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    pub(super) fn bytes_sent(&self) -> bool {
        self.seq > 0
    }

    pub(super) async fn signal(&self, kind: FrameKind, seq: u32) -> Result<(), BusError> {
        self.pulse.signal(kind, seq).await
    }

    /// Sends a part or the answer, in pieces if it is large; waits for credit when the window is full.
    pub(super) async fn send(
        &mut self,
        credit: &Credit,
        kind: FrameKind,
        code: Option<i64>,
        body: Bytes,
    ) -> Result<(), BusError> {
        if body.len() <= INLINE_BYTES {
            return self
                .send_piece(
                    credit,
                    Piece {
                        kind,
                        code,
                        more: false,
                        body,
                    },
                )
                .await;
        }
        let mut start = 0;
        while start < body.len() {
            let end = body.len().min(start + CHUNK_BYTES);
            let piece = Piece {
                kind,
                code,
                more: end < body.len(),
                body: body.slice(start..end),
            };
            self.send_piece(credit, piece).await?;
            start = end;
        }
        Ok(())
    }

    async fn send_piece(&mut self, credit: &Credit, piece: Piece) -> Result<(), BusError> {
        loop {
            self.take_credit(credit);
            let full =
                self.unread.len() >= WINDOW as usize || self.unread_bytes + piece.body.len() > WINDOW_BYTES;
            if !full || self.unread.is_empty() {
                break;
            }
            credit.granted.notified().await;
        }
        self.unread.push_back(piece.body.len());
        self.unread_bytes += piece.body.len();
        let frame = Frame {
            kind: piece.kind,
            instance: self.pulse.shared.bus.instance().to_owned(),
            seq: self.seq,
            code: piece.code,
            more: piece.more,
            body: Body(piece.body),
        };
        self.seq += 1;
        let payload = self.pulse.encode(&frame);
        self.pulse
            .shared
            .bus
            .publish(self.pulse.reply.clone(), payload)
            .await
    }

    fn take_credit(&mut self, credit: &Credit) {
        let next_expected = credit.next_expected.load(Ordering::Acquire);
        while self.first_unread < next_expected {
            let Some(length) = self.unread.pop_front() else {
                break;
            };
            self.unread_bytes -= length;
            self.first_unread += 1;
        }
    }
}

struct Piece {
    kind: FrameKind,
    code: Option<i64>,
    more: bool,
    body: Bytes,
}
