//! What goes wrong with an upstream server itself, as against with one call to it.

use std::io;

use bus_schema::RpcError;

/// Says why an upstream server is not, or no longer, on the bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// There is nothing to run.
    #[error("its command line is empty; name the program to run")]
    NoCommand,
    /// The program does not run.
    #[error("cannot start `{program}`")]
    Spawn {
        /// What was to run.
        program: String,
        /// Why it does not.
        #[source]
        source: io::Error,
    },
    /// The process is gone.
    #[error("its process ended ({0})")]
    Ended(String),
    /// What it writes makes no sense any more.
    #[error("it speaks no MCP on its stdout: {0}")]
    NoMcp(&'static str),
    /// It said nothing that a handshake could be made of.
    #[error(
        "it did not complete the MCP handshake within {secs} s, and wrote {garbage} lines that are no JSON-RPC; \
         is it an MCP server that speaks on stdout?"
    )]
    Silent {
        /// How long it had.
        secs: u64,
        /// What it wrote instead.
        garbage: u64,
    },
    /// It refused the handshake.
    #[error("it answered `{method}` with an error")]
    Refused {
        /// What it was asked.
        method: &'static str,
        /// What it answered.
        #[source]
        source: RpcError,
    },
    /// It answered something that no handshake can be made of.
    #[error("its answer to `{method}` cannot be used: {why}")]
    Unusable {
        /// What it was asked.
        method: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
    /// It settled on a version that has no handshake, or that nobody here knows.
    #[error(
        "it answered `initialize` with protocol version `{0}`, which is not spoken here with a handshake"
    )]
    UnknownVersion(String),
    /// It speaks per-request metadata in no version known here.
    #[error("it speaks no modern protocol version that is known here (it names {0})")]
    NotModern(String),
    /// It does not take what is written to it.
    #[error("it does not read its input")]
    Unread,
    /// What it is to be started with is not to be had.
    #[error("it cannot be started with the variable `{name}`")]
    NoVariable {
        /// Which variable.
        name: String,
        /// Why not.
        #[source]
        source: crate::secrets::SecretError,
    },
    /// It was started with secrets that are others by now.
    #[error("its secrets have changed")]
    Outdated,
    /// It is at a URL, and cannot be used there.
    #[error(transparent)]
    Remote(#[from] super::remote::RemoteError),
    /// It is well, and the bus does not take it.
    #[error("it could not be put on the bus")]
    Host(#[from] runtime::host::HostError),
}
