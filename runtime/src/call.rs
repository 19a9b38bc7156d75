//! One call from this process to a server on the bus.
//!
//! A call hears frames: notifications in order, then the one answer. It ends with an error when nobody serves, when the
//! host is busy or lost, and at its deadline. Dropping a call that has not ended cancels it at the host.

mod attempt;
mod running;
mod way;
mod words;

use bus_schema::{codec::CodecError, envelope::MAX_BODY_BYTES};
use bytes::Bytes;

use crate::bus::BusError;

pub use running::Call;
pub use way::{To, Way};

/// Whether a call may be made again when its host is lost in the middle of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It reads, and does nothing else.
    Reads,
    /// It is idempotent: twice does what once does.
    Safe,
    /// The lost host may have done it already.
    Never,
}

impl Retry {
    /// Whether it may be made again.
    #[must_use]
    pub const fn may_repeat(self) -> bool {
        match self {
            Self::Reads | Self::Safe => true,
            Self::Never => false,
        }
    }
}

/// What a call hears.
#[derive(Debug)]
pub enum Answer {
    /// A JSON-RPC notification that belongs to the call.
    Part(Bytes),
    /// The JSON-RPC response; nothing comes after it.
    Final {
        /// The code, when it is an error.
        code: Option<i64>,
        /// The response.
        body: Bytes,
    },
}

/// Says why a call got no answer from its server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No replica of the server is on the bus.
    #[error("no replica of server `{server}` is on the bus")]
    NoResponders {
        /// Which server.
        server: String,
    },
    /// Every replica that was tried is busy.
    #[error(
        "server `{server}` is busy: every replica that was asked has all its slots taken; try again shortly"
    )]
    Busy {
        /// Which server.
        server: String,
    },
    /// The replica that worked on the call is gone.
    #[error(
        "replica `{instance}` of server `{server}` was lost during the call; it may or may not have taken effect"
    )]
    HostLost {
        /// Which server.
        server: String,
        /// Which replica.
        instance: String,
    },
    /// The call took longer than the caller would wait.
    #[error("server `{server}` did not answer within {timeout_ms} ms")]
    Deadline {
        /// Which server.
        server: String,
        /// How long the caller waited, in milliseconds.
        timeout_ms: u64,
    },
    /// A body above the limit.
    #[error(
        "the {what} of {bytes} bytes is larger than the {MAX_BODY_BYTES} bytes that one message may have"
    )]
    TooLarge {
        /// `request` or `answer`.
        what: &'static str,
        /// Its length, or how much had come when it was refused.
        bytes: usize,
    },
    /// The host broke the rules of the bus.
    #[error("server `{server}` answered with what is no frame of the bus")]
    BadFrame {
        /// Which server.
        server: String,
        /// What was wrong with it.
        #[source]
        source: Option<CodecError>,
    },
    /// The bus itself.
    #[error("the call could not be put on the bus")]
    Bus(#[from] BusError),
}
