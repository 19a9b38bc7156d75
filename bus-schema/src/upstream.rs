//! What an operator may say of a server that is not ours: how it is spoken with.

use serde::{Deserialize, Serialize};

/// Whether the era of an upstream server is known beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EraKnob {
    /// It is found out: a modern question first, and a legacy handshake when that is not understood.
    #[default]
    Auto,
    /// It begins with `initialize`.
    Legacy,
    /// It takes metadata with every request.
    Modern,
}

/// Whether the transport of a remote server is known beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKnob {
    /// WebSocket for `ws` and `wss` URLs; for others Streamable HTTP, and HTTP+SSE when that is not understood.
    #[default]
    Auto,
    /// Streamable HTTP.
    Http,
    /// HTTP+SSE, the transport of 2024-11-05.
    Sse,
    /// WebSocket.
    Ws,
}
