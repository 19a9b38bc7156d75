//! What goes wrong between the platform and a remote server.
//!
//! The text of each is for the operator, in logs and in the state of the server. Callers hear [`RemoteError::for_caller`], which
//! names no address of the inside.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use axum::http::StatusCode;
use bus_schema::{RpcError, ServerId};
use runtime::Verdict;

use super::guard::Kind;
use crate::secrets::SecretError;

/// Says why a remote server cannot be used, or why one message to it was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The URL is none that a server can be reached at.
    #[error("`{url}` cannot be used as the URL of a server: {why}")]
    BadUrl {
        /// As it was written.
        url: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The URL and the transport do not go together.
    #[error("transport `{transport}` does not go with {other}")]
    BadTransport {
        /// The transport that was asked for.
        transport: &'static str,
        /// What it does not go with, and what would be right.
        other: &'static str,
    },
    /// A header of the configuration cannot be sent.
    #[error("header `{name}` cannot be sent: {why}")]
    BadHeader {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A secret that is shown to it cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There is something else than can be shown.
    #[error("{0} holds nothing that a header can carry: one line of visible ASCII is expected")]
    BadSecret(String),
    /// A variable that its declaration names is not there.
    #[error("the environment of this process has no variable {0}, which its declaration names")]
    NoVariable(String),
    /// A secret that its declaration names is not configured in this process.
    #[error(
        "this process has no secret `{0}`, which its declaration names; it is configured under [secrets], or is a file in its folder"
    )]
    NoSecret(String),
    /// A secret that its declaration names may not be shown there.
    #[error("the secret `{name}` may not be sent to `{host}`; its line under [secrets] says where it may")]
    ElsewhereSecret {
        /// The secret's name.
        name: String,
        /// Where it would be sent.
        host: String,
    },
    /// The issuer of tokens for it gives none.
    #[error("cannot get a token for it from its issuer: {0}")]
    NoToken(String),
    /// The user in whose name it is asked has no credential for it, or none that counts.
    #[error("its user has no credential for it that counts")]
    NotConnected,
    /// The certificates that a server is to be checked against cannot be had.
    #[error("cannot use the certificates in {}: {why}", path.display())]
    BadCa {
        /// Where they should be.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    NoTls(String),
    /// The name has no address.
    #[error("the name `{host}` cannot be resolved")]
    Resolve {
        /// Which name.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The name leads where nobody may go.
    #[error("`{host}` is not connected to, as {address} is {kind}")]
    Forbidden {
        /// Which name.
        host: String,
        /// Where it leads.
        address: IpAddr,
        /// What that is.
        kind: ForbiddenKind,
    },
    /// Nobody answers there.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// Which host.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not who it should be, or speaks no TLS.
    #[error("cannot agree on TLS with `{host}`")]
    Tls {
        /// Which host.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection was lost ({0})")]
    Lost(String),
    /// It took too long.
    #[error("it did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It does not take the platform's credentials.
    #[error("it refuses this platform's credentials (HTTP {0}); check the secrets that are shown to it")]
    Denied(StatusCode),
    /// It is somewhere else.
    #[error(
        "it redirects to `{0}`, and redirects are not followed; write the URL that is meant into the configuration"
    )]
    Redirected(String),
    /// It answered with a status, and nothing that is a message.
    #[error("it answered HTTP {status}{}", shown(.body))]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of what came with it.
        body: String,
    },
    /// It answered with something else than messages.
    #[error("it answered with content type `{0}`, where application/json or text/event-stream is expected")]
    ContentType(String),
    /// What it answered is no message, or answers something else.
    #[error("its answer cannot be used: {0}")]
    Unusable(String),
    /// It ended its answer before the end.
    #[error("it ended the stream of its answer before the answer")]
    Unanswered,
    /// It sent more than one message may have.
    #[error("it sent a message of more than {0} bytes")]
    TooLong(u64),
    /// Too much is being read at once.
    #[error("too many large answers are being read at once; try again")]
    TooMuch,
    /// The session is gone, and what was asked must not be asked twice.
    #[error("it has ended the session; the call was not made again, as it may change something")]
    SessionEnded,
    /// What it is, is not what it was.
    #[error("it is not what it was when it was connected to: {0}")]
    Changed(&'static str),
    /// It offers no stream of the first transport either.
    #[error("it speaks neither Streamable HTTP ({http}) nor HTTP+SSE ({sse})")]
    NoTransport {
        /// How it answered the one.
        http: String,
        /// How it answered the other.
        sse: String,
    },
    /// It was there, and is so no more.
    #[error("it is gone: {0}")]
    Gone(String),
}

/// What an address that may not be connected to is for.
#[derive(Clone, Copy, Debug)]
pub struct ForbiddenKind(pub(super) Kind);

impl std::fmt::Display for ForbiddenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn shown(body: &str) -> String {
    if body.is_empty() {
        String::new()
    } else {
        format!(": {body}")
    }
}

impl RemoteError {
    /// The error for a caller of this server.
    pub(super) fn for_caller(&self, server: &ServerId) -> RpcError {
        let why = match self {
            Self::Resolve { .. } | Self::Forbidden { .. } | Self::Connect { .. } | Self::Tls { .. } => {
                "cannot be reached; the call was not begun".to_owned()
            }
            Self::Lost(_) => {
                "was lost before it answered; whether it has done what was asked is not known".to_owned()
            }
            Self::Denied(status) => format!("refuses this platform's credentials (HTTP {})", status.as_u16()),
            Self::Redirected(_) => "redirects elsewhere, which is not followed".to_owned(),
            Self::Status { status, .. } => format!("answered HTTP {} and no message", status.as_u16()),
            Self::Secret(_) | Self::BadSecret(_) => {
                "cannot be asked, as this platform's credentials for it are missing; the call was not begun".to_owned()
            }
            Self::NotConnected => {
                "does not take your credential any more; the call was not begun, and the next one asks you to connect again".to_owned()
            }
            Self::NoToken(_) => {
                "cannot be asked, as this platform gets no token for it from its issuer; the call was not begun".to_owned()
            }
            other => {
                let text = other.to_string();
                format!("failed: {text}")
            }
        };
        RpcError::internal(format!("server `{server}` {why}"))
    }

    /// Whether it may be gone, so that it is worth to look whether it still is there.
    pub(super) fn is_alarming(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status.as_u16(), 502..=504),
            Self::Resolve { .. }
            | Self::Forbidden { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Lost(_)
            | Self::Late(_)
            | Self::Denied(_)
            | Self::Redirected(_)
            | Self::Changed(_) => true,
            _ => false,
        }
    }

    /// What it says of the server that a call ended so.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            // What was asked for is too much, or nobody could have known better.
            Self::TooLong(_) | Self::SessionEnded => Verdict::Answered,
            // It is about one user, and not about the server.
            Self::NotConnected => Verdict::Unasked,
            Self::TooMuch => Verdict::Unasked,
            // A status of that kind is about the one request.
            Self::Status { status, .. } if status.is_client_error() => Verdict::Answered,
            _ => Verdict::Failed,
        }
    }

    /// Whether the same may be asked again and go well.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
            Self::Resolve { .. } | Self::Connect { .. } | Self::Lost(_) | Self::Late(_) => true,
            _ => false,
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let next = source.to_string();
        // Some errors repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = source.source();
    }
    text
}
