//! A server at a URL that does what a test writes down, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use bus_schema::{header, mcp::method};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::{remote, within};

/// Every message is a line of this many bytes at most.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// One request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The HTTP method.
    pub http: Method,
    /// The path, with its query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The message; null when there is none.
    pub body: Value,
    /// The connection that it came on.
    pub peer: Option<SocketAddr>,
}

impl Asked {
    /// The method of the message, or that of HTTP when there is no message.
    #[must_use]
    pub fn called(&self) -> &str {
        self.body["method"].as_str().unwrap_or(self.http.as_str())
    }

    /// A header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// An answer with a result, as JSON.
    #[must_use]
    pub fn result(&self, result: &Value) -> Response {
        message(StatusCode::OK, &self.result_message(result))
    }

    /// The message that answers with a result.
    #[must_use]
    pub fn result_message(&self, result: &Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": self.body["id"], "result": result })
    }

    /// An answer with an error, under a status.
    #[must_use]
    pub fn error(&self, status: u16, code: i64, data: &Value) -> Response {
        let error = json!({ "code": code, "message": "scripted", "data": data });
        let status = StatusCode::from_u16(status).expect("a status");
        message(
            status,
            &json!({ "jsonrpc": "2.0", "id": self.body["id"], "error": error }),
        )
    }

    /// What a plain modern server says: it has these tools, and each gives back its arguments.
    #[must_use]
    pub fn modern(&self, tools: &Value) -> Response {
        let complete = |mut result: Value| {
            result["resultType"] = json!("complete");
            result["ttlMs"] = json!(0);
            result["cacheScope"] = json!("private");
            self.result(&result)
        };
        match self.called() {
            method::DISCOVER => {
                complete(json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } }))
            }
            method::TOOLS_LIST => complete(json!({ "tools": tools })),
            method::TOOLS_CALL => {
                let text = self.body["params"]["arguments"].to_string();
                complete(json!({ "content": [{ "type": "text", "text": text }] }))
            }
            _ if self.http == Method::POST => self.error(404, -32601, &Value::Null),
            _ => status(405),
        }
    }

    /// What a plain legacy server with a session says. It offers no stream of its own.
    #[must_use]
    pub fn legacy(&self, session: &str, tools: &Value) -> Response {
        let known = self.header(header::SESSION_ID) == session;
        match self.called() {
            method::DISCOVER => self.error(400, -32000, &Value::Null),
            method::INITIALIZE => {
                let info = json!({ "name": "scripted", "version": "1" });
                let result = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": { "listChanged": true } }, "serverInfo": info });
                let mut answer = self.result(&result);
                let id = session.parse().expect("visible ASCII");
                answer.headers_mut().insert(header::SESSION_ID, id);
                answer
            }
            _ if !known => status(404),
            method::TOOLS_LIST => self.result(&json!({ "tools": tools })),
            method::TOOLS_CALL => {
                let text = self.body["params"]["arguments"].to_string();
                self.result(&json!({ "content": [{ "type": "text", "text": text }] }))
            }
            method::PING => self.result(&json!({})),
            "DELETE" => status(204),
            "GET" => status(405),
            called if called.starts_with("notifications/") => status(202),
            _ => self.error(200, -32601, &Value::Null),
        }
    }
}

/// An answer without a body.
///
/// # Panics
/// When there is no such status.
#[must_use]
pub fn status(status: u16) -> Response {
    StatusCode::from_u16(status).expect("a status").into_response()
}

/// An answer of one message.
#[must_use]
pub fn message(status: StatusCode, message: &Value) -> Response {
    typed(status, "application/json", message.to_string())
}

/// An answer of any type.
pub fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [("content-type", content_type)], body.into()).into_response()
}

/// An event with a message, written out.
#[must_use]
pub fn event(message: &Value) -> String {
    format!("data: {message}\n\n")
}

/// A stream of events that a test writes to while it is open.
#[derive(Clone)]
pub struct Events(mpsc::Sender<String>);

impl Events {
    /// A stream, and the answer that carries it.
    #[must_use]
    pub fn open() -> (Self, Response) {
        let (sender, receiver) = mpsc::channel::<String>(16);
        let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
            let chunk = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), receiver))
        });
        let answer = typed(StatusCode::OK, "text/event-stream", Body::from_stream(chunks));
        (Self(sender), answer)
    }

    /// Writes text as it is.
    ///
    /// # Panics
    /// When nobody reads it any more.
    pub async fn write(&self, text: impl Into<String>) {
        within("a reader", self.0.send(text.into()))
            .await
            .expect("somebody reads");
    }

    /// Writes a message.
    ///
    /// # Panics
    /// When nobody reads it any more.
    pub async fn send(&self, message: &Value) {
        self.write(event(message)).await;
    }

    /// Waits until the other side has gone.
    ///
    /// # Panics
    /// When it does not go.
    pub async fn dropped(&self) {
        within("the other side goes", self.0.closed()).await;
    }
}

type Script = dyn Fn(Asked) -> BoxFuture<'static, Response> + Send + Sync;

/// A running server.
pub struct Scripted {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
    count: watch::Receiver<usize>,
}

impl Scripted {
    /// Starts one that answers everything by this script.
    pub async fn start<F>(script: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let script: Arc<Script> = Arc::new(move |asked| Box::pin(script(asked)));
        let seen: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (count_in, count) = watch::channel(0);
        let count_in = Arc::new(count_in);
        let remembered = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| {
            let (script, seen, count) = (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&count_in));
            async move {
                let asked = read(request).await;
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(asked.clone());
                count.send_modify(|count| *count += 1);
                script(asked).await
            }
        });
        Self {
            addr: remote::serve(router).await,
            seen: remembered,
            count,
        }
    }

    /// The URL of the endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// Everything that it was asked so far, by method.
    #[must_use]
    pub fn asked(&self, called: &str) -> Vec<Asked> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|asked| asked.called() == called)
            .cloned()
            .collect()
    }

    /// Waits until it was asked something so often, and gives that.
    ///
    /// # Panics
    /// When it is not asked.
    pub async fn was_asked(&self, called: &str, times: usize) -> Vec<Asked> {
        let mut count = self.count.clone();
        within(&format!("{called} comes {times} times"), async {
            loop {
                let asked = self.asked(called);
                if asked.len() >= times {
                    return asked;
                }
                count.changed().await.expect("the server runs");
            }
        })
        .await
    }
}

async fn read(request: Request) -> Asked {
    let (head, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    Asked {
        http: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        peer: head
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0),
    }
}
