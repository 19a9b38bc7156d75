//! Servers that fail at the calls that are made of them, each in its way.

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::Response,
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    task::JoinHandle,
    time::{Duration, interval},
};

use crate::scripted::{Asked, event, status, typed};

/// The list of a server with one tool.
#[must_use]
pub fn one_tool() -> Value {
    json!([{ "name": "work", "inputSchema": { "type": "object" } }])
}

/// How a server at a URL fails at the calls that are made of it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It never answers.
    Hangs,
    /// It answers half.
    Halves,
    /// It answers byte by byte.
    Dribbles,
    /// It answers something else.
    Babbles,
    /// It is broken.
    Fails,
    /// It notifies without end.
    Floods,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Hangs,
        Self::Halves,
        Self::Dribbles,
        Self::Babbles,
        Self::Fails,
        Self::Floods,
    ];

    /// Answers a call in its way.
    pub async fn answer(self, asked: &Asked) -> Response {
        let whole = asked
            .result_message(&json!({ "resultType": "complete", "content": [] }))
            .to_string();
        match self {
            Self::Hangs => std::future::pending().await,
            Self::Halves => typed(
                StatusCode::OK,
                "text/event-stream",
                format!("data: {}", &whole[..20]),
            ),
            Self::Dribbles => {
                let bytes = stream::unfold(
                    (
                        interval(Duration::from_millis(200)),
                        whole.into_bytes().into_iter(),
                    ),
                    |(mut pace, mut rest)| async move {
                        pace.tick().await;
                        let byte = rest.next()?;
                        Some((
                            Ok::<_, std::convert::Infallible>(Bytes::from(vec![byte])),
                            (pace, rest),
                        ))
                    },
                );
                typed(StatusCode::OK, "application/json", Body::from_stream(bytes))
            }
            Self::Babbles => typed(StatusCode::OK, "text/html", "<html></html>"),
            Self::Fails => status(500),
            Self::Floods => {
                let told = event(&json!({
                    "jsonrpc": "2.0", "method": "notifications/message",
                    "params": { "level": "info", "data": "x".repeat(1_000) }
                }));
                let told = stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from(told)));
                typed(StatusCode::OK, "text/event-stream", Body::from_stream(told))
            }
        }
    }
}

/// Serves one connection after the other with what is no TLS.
///
/// # Panics
/// When no port is free.
pub async fn garbage() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever has gone already needs none.
            let _ = stream.write_all(&[0x5a; 512]).await;
        }
    });
    (port, serving)
}
